//! qemu-img, the judge of image formats that we did not write.

use std::path::Path;
use std::process::Command;

use crate::Run;

fn qemu_img(words: &[&str], paths: &[&Path]) -> Run {
    Run::of(Command::new("qemu-img").args(words).args(paths))
}

/// Makes an image from a raw disk.
pub fn convert(raw: &Path, image: &Path, format: &str, options: &str) {
    let mut words = vec!["convert", "-q", "-f", "raw", "-O", format];
    if !options.is_empty() {
        words.extend(["-o", options]);
    }
    qemu_img(&words, &[raw, image]).ok();
}

/// The same content as the raw disk; a longer image is zero beyond it.
#[track_caller]
pub fn assert_same_image(raw: &Path, image: &Path, format: &str) {
    qemu_img(&["compare", "-f", "raw", "-F", format], &[raw, image]).ok();
}

/// The image is sound within, where its format has such a check.
#[track_caller]
pub fn check(image: &Path, format: &str) {
    qemu_img(&["check", "-q", "-f", format], &[image]).ok();
}

/// The size of the disk in the image, as qemu takes it.
#[track_caller]
pub fn virtual_size(image: &Path, format: &str) -> u64 {
    let run = qemu_img(&["info", "--output=json", "-f", format], &[image]).ok();
    run.json()["virtual-size"].as_u64().expect("a size")
}
