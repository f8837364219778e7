//! Bytes from images and servers that mean harm: every decoder ends, and never panics.

use std::io::{self, Cursor, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use virtual_disk::format::vhd::VhdFooter;
use virtual_disk::format::{detect, qcow2, vhdx, vmdk};
use virtual_disk::nbd::wire::{self, *};
use virtual_disk::nbd::{NbdError, NbdOptions, Session, list_exports};

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

fn greeting() -> Vec<u8> {
    [
        &NBD_MAGIC.to_be_bytes()[..],
        &OPTION_MAGIC.to_be_bytes(),
        &[0, 3],
    ]
    .concat()
}

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    for field in [option, kind, data.len() as u32] {
        out.extend(field.to_be_bytes());
    }
    out.extend_from_slice(data);
    out
}

/// The server's side of a handshake: base:allocation is context 7, the export 1 MiB, block sizes as given.
fn handshake(blocks: [u32; 3]) -> Vec<u8> {
    let context = [&7_u32.to_be_bytes()[..], b"base:allocation"].concat();
    let export = [&[0, 0][..], &(1_u64 << 20).to_be_bytes(), &[0, 1]].concat();
    let mut sizes = vec![0, 3];
    sizes.extend(blocks.iter().flat_map(|b| b.to_be_bytes()));
    [
        greeting(),
        option_reply(OPT_STRUCTURED_REPLY, REP_ACK, &[]),
        option_reply(OPT_SET_META_CONTEXT, REP_META_CONTEXT, &context),
        option_reply(OPT_SET_META_CONTEXT, REP_ACK, &[]),
        option_reply(OPT_GO, REP_INFO, &export),
        option_reply(OPT_GO, REP_INFO, &sizes),
        option_reply(OPT_GO, REP_ACK, &[]),
    ]
    .concat()
}

fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut out = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn data_chunk(flags: u16, offset: u64, data: &[u8]) -> Vec<u8> {
    chunk(
        flags,
        CHUNK_OFFSET_DATA,
        1,
        &[&offset.to_be_bytes()[..], data].concat(),
    )
}

fn hole_chunk(flags: u16, offset: u64, length: u32) -> Vec<u8> {
    let data = [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
    chunk(flags, CHUNK_OFFSET_HOLE, 1, &data)
}

fn status_chunk(context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let mut data = context.to_be_bytes().to_vec();
    for (length, flags) in extents {
        data.extend(length.to_be_bytes());
        data.extend(flags.to_be_bytes());
    }
    chunk(CHUNK_DONE, CHUNK_BLOCK_STATUS, 1, &data)
}

fn session(replies: &[Vec<u8>]) -> Session<Script> {
    let hands = handshake([1, 4096, 65536]);
    let stream = script(&[&hands, &replies.concat()]);
    Session::start(stream, &NbdOptions::default()).unwrap()
}

/// Reads 8 bytes at offset 100 from a server that answers this.
fn read(replies: &[Vec<u8>]) -> Result<[u8; 8], NbdError> {
    let mut buf = [0xee; 8];
    session(replies).read(100, &mut buf)?;
    Ok(buf)
}

#[test]
fn requests_are_the_bytes_of_the_protocol() {
    let request = Request {
        flags: 2,
        command: CMD_WRITE_ZEROES,
        cookie: 3,
        offset: 4,
        length: 5,
    };
    assert_eq!(
        encode_request(&request),
        [
            0x25, 0x60, 0x95, 0x13, 0, 2, 0, 6, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0,
            0, 0, 5
        ]
    );
    assert_eq!(encode_option(7, b"xy"), *b"IHAVEOPT\0\0\0\x07\0\0\0\x02xy");
    assert_eq!(encode_go("a"), *b"\0\0\0\x01a\0\x01\0\x03");
    assert_eq!(
        encode_meta_contexts("a", &["b:c".into()]),
        *b"\0\0\0\x01a\0\0\0\x01\0\0\0\x03b:c"
    );
}

#[test]
fn pieces_in_any_order_make_a_read() {
    let whole = [
        hole_chunk(0, 104, 4),
        data_chunk(0, 100, b"ab"),
        data_chunk(1, 102, b"cd"),
    ];
    assert_eq!(read(&whole).unwrap(), *b"abcd\0\0\0\0");
    let ended = [
        data_chunk(0, 100, b"abcdefgh"),
        chunk(1, CHUNK_NONE, 1, &[]),
    ];
    assert_eq!(read(&ended).unwrap(), *b"abcdefgh");
}

#[test]
fn a_read_with_gaps_overlaps_or_strangers_is_refused() {
    let bad: [Vec<Vec<u8>>; 10] = [
        vec![data_chunk(1, 100, b"abcdefg")],
        vec![data_chunk(0, 100, b"abcdef"), data_chunk(1, 104, b"efgh")],
        vec![data_chunk(1, 99, b"abcdefgh")],
        vec![data_chunk(1, 101, b"abcdefgh")],
        vec![hole_chunk(1, u64::MAX, 8)],
        vec![hole_chunk(1, 100, 0)],
        vec![chunk(1, CHUNK_NONE, 1, &[])],
        vec![chunk(1, CHUNK_NONE, 2, &[])],
        vec![chunk(1, 77, 1, b"12345678")],
        vec![chunk(1, CHUNK_ERROR, 1, &[0; 6])],
    ];
    for replies in bad {
        let result = read(&replies);
        assert!(matches!(result, Err(NbdError::Protocol(_))), "{result:?}");
    }
    assert!(matches!(
        read(&[data_chunk(0, 100, b"abcdefgh")]),
        Err(NbdError::Closed { .. })
    ));
}

#[test]
fn a_failed_read_leaves_the_connection_usable() {
    let error = [&5_u32.to_be_bytes()[..], &3_u16.to_be_bytes(), b"bad"].concat();
    let mut next = data_chunk(1, 100, b"abcdefgh");
    next[15] = 2;
    let mut session = session(&[chunk(1, CHUNK_ERROR, 1, &error), next]);
    let mut buf = [0; 8];
    let failed = session.read(100, &mut buf).unwrap_err();
    assert!(
        failed.to_string().contains("input/output error (bad)"),
        "{failed}"
    );
    assert!(failed.connection_survives());
    session.read(100, &mut buf).unwrap();
    assert_eq!(buf, *b"abcdefgh");
}

#[test]
fn a_map_stays_within_the_disk() {
    let status = |replies: &[Vec<u8>]| session(replies).block_status(0, 8192);
    let maps = status(&[status_chunk(7, &[(4096, 0), (u32::MAX, 3)])]).unwrap();
    let lengths: Vec<u64> = maps[0].extents.iter().map(|extent| extent.length).collect();
    assert_eq!(lengths, [4096, (1 << 20) - 4096]);
    for bad in [
        status_chunk(8, &[(4096, 0)]),
        status_chunk(7, &[]),
        status_chunk(7, &[(0, 0)]),
        status_chunk(7, &[(8192, 0), (4096, 0)]),
        chunk(CHUNK_DONE, CHUNK_NONE, 1, &[]),
    ] {
        assert!(matches!(status(&[bad]), Err(NbdError::Protocol(_))));
    }
}

#[test]
fn impossible_block_sizes_are_refused() {
    for blocks in [
        [0, 4096, 65536],
        [3, 4096, 65536],
        [512, 1, 65536],
        [512, 4096, 0],
        [1 << 20, 1 << 20, 1 << 20],
    ] {
        let result = Session::start(script(&[&handshake(blocks)]), &NbdOptions::default());
        assert!(matches!(result, Err(NbdError::Protocol(_))), "{blocks:?}");
    }
    let mut aligned = Session::start(
        script(&[&handshake([512, 4096, 65536])]),
        &NbdOptions::default(),
    )
    .unwrap();
    assert!(matches!(
        aligned.read(100, &mut [0; 8]),
        Err(NbdError::Unaligned { .. })
    ));
}

#[test]
fn an_endless_or_huge_answer_is_cut_off() {
    let endless = option_reply(OPT_LIST, REP_SERVER, &[0, 0, 0, 1, b'a']).repeat(20_000);
    let error = list_exports(script(&[&greeting(), &endless])).unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
    let mut huge = option_reply(OPT_LIST, REP_SERVER, &[]);
    huge[16..20].fill(0xff);
    assert!(list_exports(script(&[&greeting(), &huge])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_after_the_greeting(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Session::start(script(&[&greeting(), &bytes]), &NbdOptions::default());
        let _ = list_exports(script(&[&greeting(), &bytes]));
        let _ = Session::start(script(&[&bytes]), &NbdOptions::default());
    }

    #[test]
    fn a_handshake_with_bytes_changed(at in 0_usize..200, value: u8, cut in 0_usize..220) {
        let mut bytes = handshake([1, 4096, 65536]);
        let length = bytes.len();
        bytes[at % length] = value;
        bytes.truncate(cut);
        let _ = Session::start(script(&[&bytes]), &NbdOptions::default());
    }

    #[test]
    fn any_chunks(chunks in vec((0_u16..2, 0_u16..8, 0_u64..3, vec(any::<u8>(), 0..40), any::<bool>()), 0..6)) {
        let replies: Vec<Vec<u8>> = chunks
            .iter()
            .map(|(flags, kind, cookie, data, error)| {
                chunk(*flags, if *error { kind | CHUNK_ERROR_BIT } else { *kind }, *cookie, data)
            })
            .collect();
        let _ = read(&replies);
        let _ = session(&replies).block_status(0, 1 << 20);
        let _ = session(&replies).flush();
    }

    #[test]
    fn any_reply_bytes(bytes in vec(any::<u8>(), 0..100)) {
        let _ = read(std::slice::from_ref(&bytes));
        let _ = wire::decode_info(&bytes);
        let _ = wire::decode_server(&bytes);
        let _ = wire::decode_meta_context(&bytes);
        let _ = wire::decode_error_chunk(&bytes);
        let _ = wire::decode_block_status(&bytes);
    }

    #[test]
    fn any_image_bytes(bytes in vec(any::<u8>(), 0..700), magic in 0_usize..6) {
        let magics: [&[u8]; 6] = [b"QFI\xfb\0\0\0\x03", b"KDMV", b"COWD", b"# Disk DescriptorFile\n", b"conectix", b"RW 1 FLAT \""];
        let bytes = [magics[magic], &bytes].concat();
        let _ = detect(&bytes, &bytes);
        let _ = qcow2::parse(&bytes);
        let _ = vmdk::parse(&bytes);
        let _ = vmdk::parse_extent(&bytes);
        let _ = VhdFooter::decode(&bytes);
    }

    #[test]
    fn any_qcow2_header_numbers(backing in any::<u64>(), length in any::<u32>(), features in 0_u64..8, header in any::<u32>(), extension in any::<u32>()) {
        let mut bytes = vec![0; 4096];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[8..16].copy_from_slice(&backing.to_be_bytes());
        bytes[16..20].copy_from_slice(&length.to_be_bytes());
        bytes[72..80].copy_from_slice(&features.to_be_bytes());
        bytes[100..104].copy_from_slice(&header.to_be_bytes());
        bytes[104..108].copy_from_slice(&0xe279_2aca_u32.to_be_bytes());
        bytes[108..112].copy_from_slice(&extension.to_be_bytes());
        let _ = qcow2::parse(&bytes);
    }

    #[test]
    fn any_vhdx_tables(tables in vec(vec(any::<u8>(), 0..200), 6), signed in any::<bool>()) {
        let mut tables = tables.into_iter();
        let result = vhdx::has_parent(|_, length| {
            let mut table = tables.next().unwrap_or_default();
            if signed && table.len() > 20 {
                let magic: &[u8] = if table[12] & 1 == 0 { b"regi" } else { b"metadata" };
                table[..magic.len()].copy_from_slice(magic);
            }
            table.truncate(length);
            Ok::<_, ()>(table)
        });
        prop_assert!(result.is_ok());
    }
}
