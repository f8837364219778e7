//! What `assemble` did: a table for people, or JSON.

use anyhow::Result;
use console::{Finding, show, table::Table};
use serde::Serialize;
use vault_format::manifest::Facts;
use vault_store::objects::Usage;
use virtual_disk::Format;
use virtual_disk::format::vhd::azure_size;

use super::build::{Built, How};
use crate::fetched::FetchedJson;
use crate::point_view;

pub struct Report<'a> {
    pub facts: &'a Facts,
    pub built: Vec<Built>,
    pub fetched: Usage,
}

#[derive(Serialize)]
struct Document<'a> {
    vm: &'a str,
    sequence: u64,
    id: String,
    captured_at: &'a str,
    disks: Vec<DiskJson<'a>>,
    fetched: FetchedJson,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct DiskJson<'a> {
    name: &'a str,
    path: String,
    format: &'static str,
    /// Of the disk; the file of a VHD is larger.
    size_bytes: u64,
    how: How,
    chunks: u64,
    chunks_fetched: u64,
    chunks_kept: u64,
    bytes_written: u64,
    zeroed_bytes: u64,
}

impl Report<'_> {
    pub fn print(&self, json: bool, findings: &[Finding]) -> Result<()> {
        if json {
            return console::print_json(&self.document(findings));
        }
        self.table().print()?;
        console::print(&self.summary())?;
        console::print_findings(findings)
    }

    fn document<'a>(&'a self, findings: &'a [Finding]) -> Document<'a> {
        let disk = |built: &'a Built| DiskJson {
            name: &built.disk,
            path: built.path.display().to_string(),
            format: built.format.name(),
            size_bytes: built.size_bytes,
            how: built.how,
            chunks: built.chunks,
            chunks_fetched: built.chunks_fetched,
            chunks_kept: built.chunks_kept,
            bytes_written: built.bytes_written,
            zeroed_bytes: built.zeroed_bytes,
        };
        Document {
            vm: &self.facts.vm,
            sequence: self.facts.point.sequence,
            id: self.facts.point.to_string(),
            captured_at: &self.facts.captured_at,
            disks: self.built.iter().map(disk).collect(),
            fetched: FetchedJson::of(self.fetched),
            findings,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["DISK", "FILE", "FORMAT", "SIZE", "WRITTEN"]).right([3, 4]);
        for built in &self.built {
            table.row([
                built.disk.clone(),
                built.path.display().to_string(),
                built.format.to_string(),
                show::size(built.size_bytes),
                show::size(built.bytes_written),
            ]);
        }
        table
    }

    fn summary(&self) -> String {
        let Usage { bytes_received, .. } = self.fetched;
        let mut text = format!(
            "{} as captured {}, {} consistent. Fetched {} in {} requests.\n",
            point_view::name(self.facts),
            point_view::captured(self.facts),
            self.facts.consistency,
            show::size_decimal(bytes_received),
            self.fetched.requests(),
        );
        for built in &self.built {
            let path = built.path.display();
            match built.how {
                How::Empty => {
                    text += &format!(
                        "{path} is empty: disk {} is excluded from protection.\n",
                        built.disk
                    )
                }
                How::Updated => {
                    let (kept, chunks) = (built.chunks_kept, built.chunks);
                    text += &format!(
                        "{path}: {kept} of {chunks} chunks were there already and were not fetched.\n"
                    );
                }
                How::New => {}
            }
            let rounded = azure_size(built.size_bytes);
            if built.format == Format::Vhd && rounded != built.size_bytes {
                let (from, to) = (built.size_bytes, rounded);
                text += &format!(
                    "{path}: its disk is rounded up from {from} to {to} bytes, as Azure takes it.\n"
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point_view::tests::point;

    fn report(facts: &Facts, how: How, format: Format) -> Report<'_> {
        let built = Built {
            disk: "sda".into(),
            path: "out/sda".into(),
            format,
            size_bytes: (30 << 20) + 512,
            how,
            chunks: 100,
            chunks_fetched: 10,
            chunks_kept: 90,
            bytes_written: 1 << 20,
            zeroed_bytes: 0,
        };
        let fetched = Usage {
            get: 12,
            bytes_received: 3_000_000,
            ..Usage::default()
        };
        Report {
            facts,
            built: vec![built],
            fetched,
        }
    }

    #[test]
    fn the_summary_tells_what_was_kept_rounded_and_left_empty() {
        let point = point("dc01", 1, 7, &[]);
        let facts = &point.manifest.facts;
        let text = report(facts, How::Updated, Format::Raw).summary();
        assert!(text.contains("Fetched 3 MB in 12 requests"), "{text}");
        assert!(
            text.contains("90 of 100 chunks were there already"),
            "{text}"
        );
        let text = report(facts, How::New, Format::Vhd).summary();
        assert!(text.contains("from 31457792 to 32505856 bytes"), "{text}");
        let text = report(facts, How::Empty, Format::Raw).summary();
        assert!(text.contains("disk sda is excluded"), "{text}");
    }

    #[test]
    fn the_document_has_all_figures() {
        let point = point("dc01", 1, 7, &[]);
        let report = report(&point.manifest.facts, How::Updated, Format::Qcow2);
        let json = serde_json::to_value(report.document(&[])).unwrap();
        assert_eq!(json["sequence"], 7);
        assert_eq!(json["disks"][0]["how"], "updated");
        assert_eq!(json["disks"][0]["chunks_kept"], 90);
        assert_eq!(json["fetched"]["requests"], 12);
        assert_eq!(json["findings"], serde_json::json!([]));
    }
}
