//! Disk images and NBD servers.

use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use virtual_disk::Format;
use virtual_disk::format::vhd::{self as vhds, FOOTER_BYTES, VhdFooter};
use virtual_disk::format::{detect, qcow2 as qcow2s, vhdx as vhdxs, vmdk as vmdks};
use virtual_disk::nbd::wire;
use virtual_disk::nbd::{NbdError, NbdOptions, Session, list_exports};

use crate::seeds;

/// Where a VHD's footer has its checksum.
const VHD_CHECKSUM_AT: usize = 64;

pub fn image_format(bytes: &[u8]) {
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    let _ = (detect(head, tail), detect(bytes, bytes));
    let text = String::from_utf8_lossy(bytes);
    let _ = Format::of_name(Path::new(text.as_ref()));
    if let Ok(format) = text.parse::<Format>() {
        assert!(format.name() == text || format.qemu_name() == text);
    }
}

pub fn qcow2(bytes: &[u8]) {
    let _ = qcow2s::parse(bytes);
}

pub fn vmdk(bytes: &[u8]) {
    let _ = vmdks::is_descriptor(bytes);
    let _ = vmdks::parse_extent(bytes);
    if let Ok(references) = vmdks::parse(bytes) {
        let names = references.extents.iter().map(|extent| &extent.name);
        assert!(names.chain(&references.parent).all(|name| !name.is_empty()));
    }
}

/// As it is, and with the right checksum.
pub fn vhd(bytes: &[u8]) {
    let _ = VhdFooter::decode(bytes);
    let Some(footer) = bytes.first_chunk::<FOOTER_BYTES>() else {
        return;
    };
    let mut footer = *footer;
    let sum = vhds::checksum(&footer).to_be_bytes();
    footer[VHD_CHECKSUM_AT..VHD_CHECKSUM_AT + 4].copy_from_slice(&sum);
    if let Ok(read) = VhdFooter::decode(&footer) {
        assert_eq!(VhdFooter::decode(&read.encode()).as_ref(), Ok(&read));
        let _ = vhds::azure_size(read.current_size_bytes);
        let _ = vhds::Geometry::of_size(read.current_size_bytes);
    }
}

/// The bytes are pieces of a file at the places that VHDX has them; where none is, it has ended.
pub fn vhdx(bytes: &[u8]) {
    let read = |offset: u64, length: usize| {
        let begin = match offset {
            0x3_0000 | 0x4_0000 => 0,
            other => usize::try_from(other).unwrap_or(usize::MAX),
        };
        let rest = bytes.get(begin..).unwrap_or_default();
        Ok::<_, ()>(rest[..rest.len().min(length)].to_vec())
    };
    let _ = vhdxs::has_parent(read);
}

/// A server that says what it always says, whatever it is asked.
struct Script(Cursor<Vec<u8>>);

impl Read for Script {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Script {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn script(parts: &[&[u8]]) -> Script {
    Script(Cursor::new(parts.concat()))
}

/// The bytes are all that the server says; then what it says behind its greeting.
pub fn nbd_handshake(bytes: &[u8]) {
    for parts in [vec![bytes], vec![seeds::NBD_GREETING, bytes]] {
        let _ = list_exports(script(&parts));
        if let Ok(session) = Session::start(script(&parts), &NbdOptions::default()) {
            assert!(session.export().min_block_bytes.is_power_of_two());
            assert!(i64::try_from(session.export().size_bytes).is_ok());
        }
    }
}

/// The bytes are what a server says after a sound handshake.
pub fn nbd_replies(bytes: &[u8]) {
    let hands = seeds::nbd_handshake();
    let session = || {
        let stream = script(&[&hands, bytes]);
        Session::start(stream, &NbdOptions::default()).expect("the handshake is sound")
    };
    let _ = session().read(100, &mut [0; 8]);
    let _ = session().flush();
    let _ = session().trim(0, 4096);
    if let Ok(maps) = session().block_status(0, 1 << 20) {
        for map in maps {
            assert!(map.extents.iter().map(|extent| extent.length).sum::<u64>() <= 1 << 20);
        }
    }
}

/// Text of a configuration.
pub fn nbd_uri(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(uri) = virtual_disk::nbd::NbdUri::parse(text)
    {
        let _ = format!("{uri:?}");
    }
}

pub fn nbd_wire(bytes: &[u8]) {
    if let Some(greeting) = bytes.first_chunk() {
        let _ = wire::decode_greeting(greeting);
    }
    if let Some(reply) = bytes.first_chunk() {
        let _ = wire::decode_option_reply(reply);
    }
    let _ = wire::decode_info(bytes);
    let _ = wire::decode_server(bytes);
    let _ = wire::decode_meta_context(bytes);
    let _ = wire::decode_error_chunk(bytes);
    let _ = wire::decode_block_status(bytes);
    if let Some((magic, mut rest)) = bytes.split_first_chunk::<4>() {
        let _ = wire::decode_reply_header(*magic, |buf| {
            let short = |_| NbdError::Closed { during: "fuzz" };
            rest.read_exact(buf).map_err(short)
        });
    }
}
