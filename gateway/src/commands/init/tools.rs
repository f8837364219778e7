//! What a new vault carries besides data, so that a restore needs nothing but the kit: the format
//! document, the restore program, their sums.

use std::{fs, io, path::PathBuf};

use bytes::Bytes;
use console::{Failure, Finding, OrFailure};
use ring::digest::{SHA256, digest};
use vault_format::names;
use vault_store::setup::Tool;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const RESTORE: &str = "sparesite-restore";

pub struct Tools {
    pub files: Vec<Tool>,
    /// That the program is not among them.
    pub finding: Option<Finding>,
}

impl Tools {
    /// The program is the one beside this one: it has the same version.
    pub fn collect() -> Result<Self, Failure> {
        let beside = beside_this_program()
            .or_failure(|| Failure::failed("cannot tell where this program lies"))?;
        let program = match fs::read(&beside) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let what = format!("cannot read {}", beside.display());
                return Err(Failure::failed(what).because(error));
            }
        };
        let finding = program.is_none().then(|| {
            let why = format!("{} does not exist", beside.display());
            no_program(why)
        });
        Ok(Tools {
            files: files(program),
            finding,
        })
    }
}

fn beside_this_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(RESTORE))
}

fn program_name() -> String {
    let (arch, system) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("{RESTORE}-{arch}-{system}")
}

/// Whether the object is a restore program, of whatever version and system.
pub fn is_program(object: &str) -> bool {
    let file = object.rsplit('/').next().unwrap_or_default();
    object.starts_with(names::TOOLS) && file.starts_with(RESTORE)
}

fn files(program: Option<Vec<u8>>) -> Vec<Tool> {
    let document = Bytes::from_static(vault_format::DOCUMENT.as_bytes());
    let mut named = vec![("vault-format.md".to_owned(), document)];
    named.extend(program.map(|bytes| (program_name(), bytes.into())));
    let sums: String = named
        .iter()
        .map(|(name, bytes)| format!("{}  {name}\n", sha256(bytes)))
        .collect();
    named.push(("SHA256SUMS".into(), sums.into()));
    let tool = |(name, bytes)| Tool {
        name: format!("{VERSION}/{name}"),
        bytes,
    };
    named.into_iter().map(tool).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    sum.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// What to do about a vault without the program.
pub fn no_program(why: String) -> Finding {
    Finding::new(
        format!("the vault carries no {RESTORE}"),
        "the vault's tools",
        why,
        format!("keep a copy of {RESTORE} {VERSION} with the recovery kit"),
    )
}

/// The vault is made, and its tools did not get there.
pub fn not_stored(why: String) -> Finding {
    no_program(format!("they could not be stored: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_in_the_form_that_sha256sum_checks() {
        let files = files(Some(b"abc".to_vec()));
        let names: Vec<_> = files.iter().map(|tool| tool.name.as_str()).collect();
        let (arch, system) = (std::env::consts::ARCH, std::env::consts::OS);
        let program = format!("sparesite-restore-{arch}-{system}");
        assert_eq!(
            names,
            [
                format!("{VERSION}/vault-format.md"),
                format!("{VERSION}/{program}"),
                format!("{VERSION}/SHA256SUMS"),
            ]
        );
        let sums = String::from_utf8(files[2].bytes.to_vec()).expect("text");
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sums.lines().nth(1), Some(&*format!("{abc}  {program}")));
        assert_eq!(sums.lines().count(), 2);
    }

    #[test]
    fn without_the_program_the_document_goes_alone() {
        assert_eq!(files(None).len(), 2);
    }
}
