//! Opening a disk image for reading, whatever its format.
//!
//! Two rules guard the host against images. First, content alone does not make a
//! plain disk an image: a guest that writes a qcow2 header naming `/etc/shadow` as
//! backing file into its own raw disk would get that file read into its recovery
//! points. So content and name must agree (block devices have no such name), or
//! the format must be given. Second, files that an image refers to are found by us,
//! not by qemu: they must be plain paths to regular files in the image's own
//! directory or below, unless [`References::Anywhere`] is given, and qemu is told
//! the whole tree explicitly, so that it follows nothing on its own.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::DiskError;
use crate::format::vhd::{FOOTER_BYTES, VhdFooter, VhdKind};
use crate::format::{self, Format, qcow2, vhdx, vmdk};
use crate::qemu_nbd;
use crate::raw::{RawDisk, open_file, size_of};
use crate::reader::DiskReader;
use crate::whole::check_whole;

/// Which files an image may refer to (backing files, extents, external data).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum References {
    /// Regular files in the image's own directory or below it.
    #[default]
    SameDirectory,
    /// Any file or block device. For images whose origin is trusted.
    Anywhere,
}

#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// `None`: found out, see the module's first rule.
    pub format: Option<Format>,
    pub references: References,
    /// How many threads may read at once without waiting for each other.
    pub connections: usize,
    /// A persistent dirty bitmap of a qcow2 image, offered as the context
    /// `qemu:dirty-bitmap:NAME`; see [`crate::NbdDisk::context_map`].
    pub bitmap: Option<String>,
    /// Also where a VM has the image open and writes to it: what is read then is of no one instant.
    pub while_in_use: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            format: None,
            references: References::SameDirectory,
            connections: std::thread::available_parallelism().map_or(4, |n| n.get().clamp(2, 16)),
            bitmap: None,
            while_in_use: false,
        }
    }
}

/// Longer backing chains are a loop, or nobody's work.
const MAX_CHAIN: usize = 64;

/// How an image is read, once it has been looked at.
pub(crate) enum Access {
    /// In place: the first so many bytes are the disk, all when `None`.
    InPlace {
        file: File,
        limit_bytes: Option<u64>,
    },
    /// Through qemu-nbd, by this description of the image and all it refers to.
    Qemu { description: Value },
}

pub(crate) struct Inspected {
    /// Absolute, symbolic links resolved.
    pub path: PathBuf,
    pub format: Format,
    pub access: Access,
}

/// Opens a disk for reading. It must not change while it is read: see [`crate::in_use`].
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn DiskReader>, DiskError> {
    let inspected = inspect(path, options)?;
    match inspected.access {
        Access::InPlace { file, limit_bytes } => {
            let reader = RawDisk::new(&inspected.path, file, limit_bytes)?;
            Ok(Box::new(reader))
        }
        Access::Qemu { mut description } => {
            if options.while_in_use {
                description["force-share"] = json!(true);
            }
            let disk = qemu_nbd::serve(&qemu_nbd::Export {
                image: &inspected.path,
                description: &format!("json:{description}"),
                format: inspected.format.qemu_name(),
                read_only: true,
                connections: options.connections,
                bitmap: options.bitmap.as_deref(),
            })?;
            Ok(Box::new(disk))
        }
    }
}

pub(crate) fn inspect(path: &Path, options: &OpenOptions) -> Result<Inspected, DiskError> {
    let path = path
        .canonicalize()
        .map_err(|e| DiskError::io("open", path, e))?;
    let file = open_file(&path, false)?;
    let format = determine(&path, &file, options.format)?;
    let access = match format {
        Format::Raw => Access::InPlace {
            file,
            limit_bytes: None,
        },
        Format::Vhd => {
            let footer = vhd_footer(&path, &file)?;
            match footer.kind {
                VhdKind::Fixed => Access::InPlace {
                    file,
                    limit_bytes: Some(footer.current_size_bytes),
                },
                VhdKind::Dynamic => Access::Qemu {
                    description: vhd_description(&path, &file)?,
                },
                VhdKind::Differencing => return Err(differencing(&path, format, "another VHD")),
            }
        }
        _ => {
            let description = describe(&path, &file, format, options.references, 0)?;
            // After the references: nothing is handed to qemu before they are found harmless.
            check_whole(&path, &file, format)?;
            Access::Qemu { description }
        }
    };
    Ok(Inspected {
        path,
        format,
        access,
    })
}

fn read_up_to(path: &Path, file: &File, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        match file.read_at(&mut bytes[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(DiskError::Unreadable {
                    path: path.to_owned(),
                    offset: offset.saturating_add(done as u64),
                    source,
                });
            }
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// The first rule: see the module.
fn determine(path: &Path, file: &File, given: Option<Format>) -> Result<Format, DiskError> {
    if given == Some(Format::Raw) {
        return Ok(Format::Raw);
    }
    let size = size_of(path, file)?;
    let head = read_up_to(path, file, 0, format::HEAD_BYTES)?;
    let tail_at = size.saturating_sub(format::TAIL_BYTES as u64);
    let tail = read_up_to(path, file, tail_at, format::TAIL_BYTES)?;
    let found = format::detect(&head, &tail);
    let wrong = |wanted| DiskError::WrongFormat {
        path: path.to_owned(),
        wanted,
        found,
    };
    if let Some(given) = given {
        return if found == Some(given) {
            Ok(given)
        } else {
            Err(wrong(given))
        };
    }
    let is_device = file
        .metadata()
        .map_err(|e| DiskError::io("examine", path, e))?
        .file_type()
        .is_block_device();
    let named = if is_device {
        Some(Format::Raw)
    } else {
        Format::of_name(path)
    };
    match (found, named) {
        (None, None | Some(Format::Raw)) => Ok(Format::Raw),
        (None, Some(named)) => Err(wrong(named)),
        (Some(found), Some(named)) if found == named => Ok(found),
        (Some(_), Some(named)) if named != Format::Raw => Err(wrong(named)),
        (Some(found), _) => Err(DiskError::FormatNotInName {
            path: path.to_owned(),
            found,
        }),
    }
}

fn differencing(path: &Path, format: Format, parent: &str) -> DiskError {
    DiskError::Differencing {
        path: path.to_owned(),
        format,
        parent: parent.to_owned(),
    }
}

fn vhd_footer(path: &Path, file: &File) -> Result<VhdFooter, DiskError> {
    let size = size_of(path, file)?;
    let at = size.saturating_sub(FOOTER_BYTES as u64);
    let footer = VhdFooter::decode(&read_up_to(path, file, at, FOOTER_BYTES)?)
        .map_err(|reason| DiskError::damaged(path, reason))?;
    if footer.kind == VhdKind::Fixed && footer.current_size_bytes > at {
        return Err(DiskError::damaged(
            path,
            format!(
                "its footer promises {} bytes of disk, and only {at} are there",
                footer.current_size_bytes
            ),
        ));
    }
    Ok(footer)
}

/// qemu takes the size from the geometry of some creators' images, and would cut
/// the disk's end off: the footer's Current Size is what hypervisors use.
fn vhd_description(path: &Path, file: &File) -> Result<Value, DiskError> {
    let file = file_node(path, file)?;
    Ok(json!({"driver": "vpc", "force_size_calc": "current_size", "file": file}))
}

fn file_node(path: &Path, file: &File) -> Result<Value, DiskError> {
    let name = path.to_str().ok_or_else(|| {
        let reason = std::io::Error::other("its path is not UTF-8, which qemu-nbd needs");
        DiskError::io("open", path, reason)
    })?;
    let is_device = file
        .metadata()
        .map_err(|e| DiskError::io("examine", path, e))?
        .file_type()
        .is_block_device();
    let driver = if is_device { "host_device" } else { "file" };
    Ok(json!({"driver": driver, "filename": name}))
}

/// qemu's description of an image and of every file below it.
fn describe(
    path: &Path,
    file: &File,
    format: Format,
    references: References,
    depth: usize,
) -> Result<Value, DiskError> {
    if depth > MAX_CHAIN {
        return Err(DiskError::damaged(
            path,
            format!("its chain of backing files is longer than {MAX_CHAIN}, or a loop"),
        ));
    }
    let damaged = |reason| DiskError::damaged(path, reason);
    let mut node = json!({"driver": format.qemu_name(), "file": file_node(path, file)?});
    match format {
        Format::Raw | Format::Vdi => {}
        Format::Vhd => {
            if vhd_footer(path, file)?.kind == VhdKind::Differencing {
                return Err(differencing(path, format, "another VHD"));
            }
            return vhd_description(path, file);
        }
        Format::Vhdx => {
            let parent = vhdx::has_parent(|at, n| read_up_to(path, file, at, n))?;
            if parent.map_err(damaged)? {
                return Err(differencing(path, format, "another VHDX"));
            }
        }
        Format::Qcow2 => {
            let header =
                qcow2::parse(&read_up_to(path, file, 0, qcow2::HEADER_BYTES)?).map_err(damaged)?;
            check_qcow2(path, &header)?;
            if let Some(name) = &header.data_file {
                let (path, file) = follow(path, name, references)?;
                node["data-file"] = file_node(&path, &file)?;
            }
            let format = header.backing_format.as_deref();
            node["backing"] = match &header.backing_file {
                Some(name) => below(path, name, format, references, depth)?,
                None => Value::Null,
            };
        }
        Format::Vmdk => {
            let found = vmdk_references(path, file, references)?;
            node["backing"] = match &found.parent {
                Some(name) => below(path, name, Some("vmdk"), references, depth)?,
                None => Value::Null,
            };
        }
    }
    Ok(node)
}

fn check_qcow2(path: &Path, header: &qcow2::Qcow2Header) -> Result<(), DiskError> {
    if header.encrypted {
        return Err(DiskError::Encrypted {
            path: path.to_owned(),
            method: "qcow2 encryption".into(),
        });
    }
    if header.corrupt {
        return Err(DiskError::damaged(
            path,
            "QEMU has marked it as corrupt; repair a copy with `qemu-img check -r all`",
        ));
    }
    Ok(())
}

/// A backing file: its format is what the image says, else what content and name agree on.
fn below(
    image: &Path,
    name: &str,
    format: Option<&str>,
    references: References,
    depth: usize,
) -> Result<Value, DiskError> {
    let (path, file) = follow(image, name, references)?;
    let given = format
        .map(|name| {
            name.parse::<Format>()
                .map_err(|e| DiskError::damaged(image, format!("its backing format: {e}")))
        })
        .transpose()?;
    let format = determine(&path, &file, given)?;
    describe(&path, &file, format, references, depth + 1)
}

/// Reads what a VMDK refers to, and judges its extents.
fn vmdk_references(
    path: &Path,
    file: &File,
    references: References,
) -> Result<vmdk::VmdkReferences, DiskError> {
    let damaged = |path: &Path, reason| DiskError::damaged(path, reason);
    let bytes = read_up_to(path, file, 0, vmdk::MAX_DESCRIPTOR_BYTES)?;
    let found = vmdk::parse(&bytes).map_err(|reason| damaged(path, reason))?;
    for extent in &found.extents {
        let (path, file) = follow(path, &extent.name, references)?;
        if !extent.flat {
            // A sparse extent has a header of its own, which must not lead elsewhere.
            let head = read_up_to(&path, &file, 0, vmdk::SPARSE_HEAD_BYTES)?;
            if vmdk::is_descriptor(&head) {
                return Err(damaged(&path, "an extent is a descriptor in turn".into()));
            }
            vmdk::parse_extent(&head).map_err(|reason| damaged(&path, reason))?;
        }
    }
    Ok(found)
}

/// The second rule: see the module.
fn follow(image: &Path, name: &str, rule: References) -> Result<(PathBuf, File), DiskError> {
    let refuse = |reason: &str| DiskError::Reference {
        path: image.to_owned(),
        reference: name.to_owned(),
        reason: reason.to_owned(),
    };
    let scheme = name.split('/').next().unwrap_or_default();
    if scheme.contains(':') || name.is_empty() {
        return Err(refuse(
            "only plain file names are followed, no URLs and no qemu descriptions; \
             convert the image with `qemu-img convert` and use the result",
        ));
    }
    let directory = image.parent().unwrap_or(Path::new("/"));
    let path = directory.join(name).canonicalize().map_err(|e| {
        refuse(&format!(
            "{e}; put the file back, or correct the image with `qemu-img rebase -u`"
        ))
    })?;
    if rule == References::SameDirectory && !path.starts_with(directory) {
        return Err(refuse(
            "it lies outside of the image's own directory, and an image from elsewhere could name any file \
             of this host; allow references anywhere if you trust where the image comes from",
        ));
    }
    let file = open_file(&path, false)?;
    let is_file = file
        .metadata()
        .map_err(|e| DiskError::io("examine", &path, e))?
        .is_file();
    if rule == References::SameDirectory && !is_file {
        return Err(refuse("it is not a regular file"));
    }
    Ok((path, file))
}
