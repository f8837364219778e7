//! A guest of one sector, which reads its whole disk and says what it read: `reader.S`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Run;

/// What it reads at once, and says a checksum of.
const PIECE: usize = 32 << 10;

/// Makes the disk, whose size is a multiple of 32 KiB, boot by BIOS as the reader: its first sector is replaced.
pub fn make_reader(disk: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reader.S");
    let sectors = fs::metadata(disk).expect("the disk").len() / 512;
    let object = folder.path().join("reader.o");
    let mut assembler = Command::new("as");
    assembler.args(["--32", "--defsym", &format!("SECTORS={sectors}"), "-o"]);
    Run::of(assembler.arg(&object).arg(source)).ok();
    let made = folder.path().join("reader");
    let mut linker = Command::new("ld");
    linker.args([
        "-m",
        "elf_i386",
        "-Ttext",
        "0x7c00",
        "--oformat",
        "binary",
        "-o",
    ]);
    Run::of(linker.arg(&made).arg(&object)).ok();
    let sector = fs::read(made).expect("the sector");
    assert_eq!(sector.len(), 512);
    let mut whole = fs::read(disk).expect("the disk");
    whole[..512].copy_from_slice(&sector);
    fs::write(disk, whole).expect("written");
}

/// What the reader says of a disk, piece by piece.
pub fn reader_says(disk: &Path) -> Vec<String> {
    let bytes = fs::read(disk).expect("the disk");
    let checksum = |piece: &[u8]| {
        let words = piece.as_chunks::<4>().0;
        let sum = words.iter().fold(0u32, |sum, word| {
            sum.rotate_left(1).wrapping_add(u32::from_le_bytes(*word))
        });
        format!("{sum:08x}")
    };
    bytes.chunks(PIECE).map(checksum).collect()
}
