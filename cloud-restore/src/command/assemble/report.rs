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
    pub dry_run: bool,
    pub built: Vec<Built>,
    pub fetched: Usage,
    pub definition: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    vm: &'a str,
    sequence: u64,
    id: String,
    captured_at: &'a str,
    /// Nothing was written.
    dry_run: bool,
    disks: Vec<DiskJson<'a>>,
    fetched: FetchedJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<&'a str>,
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
    /// Of the records that were fetched, compressed; requests have a little besides.
    record_bytes: u64,
    bytes_written: u64,
    zeroed_bytes: u64,
    /// Told before anything was written, where something was there to compare with, and in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_fetch: Option<SurveyJson>,
}

#[derive(Serialize)]
struct SurveyJson {
    chunks: u64,
    /// Compressed, as the index tells.
    bytes: u64,
    chunks_kept: u64,
    bytes_to_zero: u64,
}

/// What will be fetched, said before anything is written.
pub fn foretold(built: &[Built]) -> String {
    let mut text = String::new();
    for file in built {
        let Some(survey) = &file.survey else { continue };
        text += &format!(
            "{}: {} in {} chunks to fetch; {} of {} chunks are there already",
            file.path.display(),
            show::size_decimal(survey.bytes_to_fetch),
            survey.chunks_to_fetch,
            survey.chunks_kept,
            survey.chunks,
        );
        text += match file.how {
            How::Resumed => ", of an interrupted run.\n",
            _ => ".\n",
        };
    }
    text
}

impl Report<'_> {
    pub fn print(&self, json: bool, findings: &[Finding]) -> Result<()> {
        if json {
            return console::print_json(&self.document(findings));
        }
        if let Some(definition) = &self.definition {
            // It alone, so that it can be sent to a file.
            for finding in findings {
                tracing::warn!("{}: {}", finding.on, finding.what);
            }
            return console::print(definition);
        }
        match self.dry_run {
            true => console::print(&self.foretold())?,
            false => {
                self.table().print()?;
                console::print(&self.summary())?;
            }
        }
        console::print_findings(findings)
    }

    fn document<'a>(&'a self, findings: &'a [Finding]) -> Document<'a> {
        let disk = |built: &'a Built| DiskJson {
            name: &built.disk,
            path: built.path.display().to_string(),
            format: built.format.name(),
            size_bytes: built.size_bytes,
            how: built.how,
            chunks: built.report.chunks,
            chunks_fetched: built.report.chunks_fetched,
            chunks_kept: built.report.chunks_kept,
            record_bytes: built.report.record_bytes,
            bytes_written: built.report.bytes_written,
            zeroed_bytes: built.report.zeroed_bytes,
            to_fetch: built.survey.map(|survey| SurveyJson {
                chunks: survey.chunks_to_fetch,
                bytes: survey.bytes_to_fetch,
                chunks_kept: survey.chunks_kept,
                bytes_to_zero: survey.bytes_to_zero,
            }),
        };
        Document {
            vm: &self.facts.vm,
            sequence: self.facts.point.sequence,
            id: self.facts.point.to_string(),
            captured_at: &self.facts.captured_at,
            dry_run: self.dry_run,
            disks: self.built.iter().map(disk).collect(),
            fetched: FetchedJson::of(self.fetched),
            definition: self.definition.as_deref(),
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
                show::size(built.report.bytes_written),
            ]);
        }
        table
    }

    /// All of a dry run.
    fn foretold(&self) -> String {
        let surveys = self.built.iter().filter_map(|file| file.survey);
        let bytes = surveys.map(|survey| survey.bytes_to_fetch).sum();
        format!(
            "{}{}: {} to fetch in all; nothing was written.\n",
            foretold(&self.built),
            point_view::name(self.facts),
            show::size_decimal(bytes)
        )
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
                How::Updated | How::Resumed => {
                    let (kept, chunks) = (built.report.chunks_kept, built.report.chunks);
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
    use vault_store::read::{AssembleReport, Survey};

    fn report(facts: &Facts, how: How, format: Format) -> Report<'_> {
        let built = Built {
            disk: "sda".into(),
            path: "out/sda".into(),
            format,
            size_bytes: (30 << 20) + 512,
            how,
            survey: (how == How::Updated).then_some(Survey {
                chunks: 100,
                chunks_to_fetch: 10,
                chunks_kept: 90,
                bytes_to_fetch: 2_900_000,
                bytes_to_zero: 0,
            }),
            report: AssembleReport {
                chunks: 100,
                chunks_fetched: 10,
                chunks_kept: 90,
                record_bytes: 2_900_000,
                bytes_written: 1 << 20,
                zeroed_bytes: 0,
            },
        };
        let fetched = Usage {
            get: 12,
            bytes_received: 3_000_000,
            ..Usage::default()
        };
        Report {
            facts,
            dry_run: false,
            built: vec![built],
            fetched,
            definition: None,
        }
    }

    #[test]
    fn what_will_be_fetched_is_told_first() {
        let point = point("dc01", 1, 7, &[]);
        let report = report(&point.manifest.facts, How::Updated, Format::Raw);
        let text = report.foretold();
        assert!(
            text.starts_with(
                "out/sda: 2.9 MB in 10 chunks to fetch; 90 of 100 chunks are there already.\n"
            ),
            "{text}"
        );
        assert!(
            text.ends_with("2.9 MB to fetch in all; nothing was written.\n"),
            "{text}"
        );
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
        assert_eq!(json["disks"][0]["to_fetch"]["bytes"], 2_900_000);
        assert_eq!(json["dry_run"], false);
        assert_eq!(json.get("definition"), None);
        assert_eq!(json["fetched"]["requests"], 12);
        assert_eq!(json["findings"], serde_json::json!([]));
    }
}
