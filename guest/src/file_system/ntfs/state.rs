//! Whether Windows left an NTFS volume in order: the dirty flag, the journal, hibernation.

use super::super::tree::Tree;
use super::{Ntfs, record};
use crate::GuestError;
use crate::storage::bytes::Bytes;

const LOG_FILE: u64 = 2;
const VOLUME: u64 = 3;
/// The journal's two restart pages have 4 KiB each on all machines that Windows runs on.
const RESTART_PAGE: usize = 4096;

pub(super) fn notes(ntfs: &Ntfs) -> Vec<String> {
    let mut notes = Vec::new();
    match is_dirty(ntfs) {
        Ok(true) => {
            notes.push("it is marked dirty: Windows runs chkdsk at its next start".to_owned());
        }
        Ok(false) => {}
        Err(error) => notes.push(error.to_string()),
    }
    match is_log_clean(ntfs) {
        Ok(true) => {}
        Ok(false) => notes.push(
            "it was not unmounted: its journal may hold changes, which its next mount writes and which are not read here"
                .to_owned(),
        ),
        Err(error) => notes.push(error.to_string()),
    }
    match is_hibernated(ntfs) {
        Ok(true) => notes.push(
            "Windows is hibernated on it, or was shut down with fast startup: it resumes what it ran, on hardware that is \
             another one"
                .to_owned(),
        ),
        Ok(false) => {}
        Err(error) => notes.push(error.to_string()),
    }
    notes
}

fn is_dirty(ntfs: &Ntfs) -> Result<bool, GuestError> {
    let information = ntfs
        .stream(VOLUME, record::VOLUME_INFORMATION, b"")?
        .and_then(|stream| stream.resident);
    let flags = information.and_then(|bytes| bytes.le16(10)).unwrap_or(0);
    Ok(flags & 1 != 0)
}

/// As ntfs-3g judges it (libntfs-3g/logfile.c, ntfs_is_logfile_clean). A journal without restart pages is an empty one.
fn is_log_clean(ntfs: &Ntfs) -> Result<bool, GuestError> {
    let Some(stream) = ntfs.stream(LOG_FILE, record::DATA, b"")? else {
        return Ok(true);
    };
    let length = stream.size.min(2 * RESTART_PAGE as u64) as usize;
    let mut pages = ntfs.stream_bytes(LOG_FILE, &stream, length)?;
    let newest = pages
        .chunks_exact_mut(RESTART_PAGE)
        .filter_map(restart_area)
        .max_by_key(|(sequence, _)| *sequence);
    Ok(newest.is_none_or(|(_, is_clean)| is_clean))
}

/// The page's last sequence number, and whether it says clean: no client, or the flag "volume is clean".
fn restart_area(page: &mut [u8]) -> Option<(u64, bool)> {
    (page.has(0, b"RSTR") && record::restore_sectors(page)).then_some(())?;
    let area = page.get(usize::from(page.le16(24)?)..)?;
    let is_clean = area.le16(12)? == 0xffff || area.le16(14)? & 2 != 0;
    Some((area.le64(0)?, is_clean))
}

/// The file's first bytes: "hibr" hibernated, "RSTR" while resuming, "HORM" resumed again and again; "wake" when awake again.
fn is_hibernated(ntfs: &Ntfs) -> Result<bool, GuestError> {
    let root = ntfs.root();
    let Some(file) = ntfs
        .children(&root)?
        .into_iter()
        .find(|child| child.name.eq_ignore_ascii_case("hiberfil.sys"))
    else {
        return Ok(false);
    };
    if ntfs.size(&file.node)? < 4 {
        return Ok(false);
    }
    let mut magic = [0u8; 4];
    ntfs.content_at(&file.node, 0, &mut magic)?;
    magic.make_ascii_uppercase();
    Ok(matches!(&magic, b"HIBR" | b"RSTR" | b"HORM"))
}
