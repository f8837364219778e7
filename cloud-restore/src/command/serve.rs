//! `serve`: the disks of a recovery point over NBD, straight from the vault.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OutputArgs, show};
use serde::Serialize;
use virtual_disk::nbd::NbdAddress;
use virtual_disk::nbd::server::{Export, NamedExport, NbdListener, NbdServer, TlsServer};

use super::chosen_disks::choose;
use crate::access::AccessArgs;
use crate::interrupt;
use crate::point_view;
use crate::served::{CacheArgs, Opened, Writes, flush_all, open_disks, unanswered};
use crate::vm_point::{VmPoint, vm_name};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore serve dc01 --listen /run/dc01.sock
  nbdcopy 'nbd+unix:///sda?socket=/run/dc01.sock' dc01.raw
  sparesite-restore serve dc01@17 --listen 127.0.0.1:10809 --read-only
  sparesite-restore serve db --listen 0.0.0.0:10809 --tls /etc/sparesite/nbd --overlay /srv/db

Each disk is an export of its name; the first one answers to the empty name too. Chunks are fetched \
when they are read, checked, and kept in a cache; the vault is never written. What clients write is \
thrown away at the end, or kept with --overlay, so that it is there when the same recovery point is \
served again. It runs until it is interrupted.")]
pub struct ServeArgs {
    /// The VM, and its recovery point: latest, a sequence number, or a time (the newest point at or
    /// before it)
    #[arg(value_name = "VM[@POINT]")]
    point: VmPoint,
    /// A socket's path, or ADDRESS:PORT; what others can reach needs --tls
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10809")]
    listen: String,
    /// Only this disk; may be given several times
    #[arg(long = "disk", value_name = "NAME", value_parser = vm_name)]
    disks: Vec<String>,
    /// Refuse writes
    #[arg(long, conflicts_with = "overlay")]
    read_only: bool,
    /// Keep what is written, in a file for each disk in this folder. They are not encrypted
    #[arg(long, value_name = "FOLDER")]
    overlay: Option<PathBuf>,
    /// The folder of server-cert.pem and server-key.pem; with ca-cert.pem in it, clients must have a
    /// certificate of that authority
    #[arg(long, value_name = "FOLDER")]
    tls: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Serialize)]
struct ServingJson<'a> {
    vm: &'a str,
    sequence: u64,
    listen: &'a str,
    exports: Vec<ExportJson<'a>>,
}

#[derive(Serialize)]
struct ExportJson<'a> {
    name: &'a str,
    uri: String,
    size_bytes: u64,
    read_only: bool,
}

pub async fn run(args: ServeArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let address = address(&args.listen)?;
    if args.tls.is_none() && is_reachable(&address) {
        let failure = format!(
            "{} can be reached by others, and NBD alone asks nobody who they are",
            args.listen
        );
        return Err(Failure::usage(failure)
            .remedy("give --tls FOLDER, or listen on 127.0.0.1 or on a socket's path")
            .into());
    }
    if let Some(folder) = args.tls.as_deref().filter(|_| is_reachable(&address))
        && folder.join("ca-cert.pem").symlink_metadata().is_err()
    {
        let failure = format!(
            "{} has no ca-cert.pem: whoever reaches {} could read the disks",
            folder.display(),
            args.listen
        );
        return Err(Failure::usage(failure)
            .remedy("put the authority there whose clients may come in, or listen on 127.0.0.1")
            .into());
    }
    let tls = args.tls.as_deref().map(TlsServer::new).transpose();
    let tls = tls.map_err(|e| Failure::usage(e.to_string()))?;
    let open = access.open().await?;
    let point = open.find_point(&args.point).await?;
    let facts = &point.manifest.facts;
    let disks = choose(&point.manifest, &args.disks)?;
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    let writes = match (&args.overlay, args.read_only) {
        (Some(folder), _) => Writes::Kept(folder.clone()),
        (None, true) => Writes::Refused,
        (None, false) => Writes::ThrownAway,
    };
    let opened = open_disks(&open.vault, &point, &names, &args.cache, &writes).await?;
    let export = |opened: &Opened| NamedExport {
        name: opened.name.clone(),
        description: format!(
            "{} {}, {}",
            point_view::name(facts),
            opened.name,
            facts.captured_at
        ),
        export: opened.disk.clone(),
    };
    let with_tls = tls.is_some();
    let server = NbdServer::new(opened.iter().map(export).collect(), tls);
    let listener = NbdListener::bind(&address)
        .await
        .map_err(|e| Failure::failed(e.to_string()).remedy("choose another --listen"))?;
    let listen = listener.address();
    let exports = opened.iter().map(|opened| ExportJson {
        name: &opened.name,
        uri: uri(&address, &listen, &opened.name, with_tls),
        size_bytes: opened.disk.size_bytes(),
        read_only: opened.disk.is_read_only(),
    });
    let serving = ServingJson {
        vm: &facts.vm,
        sequence: facts.point.sequence,
        listen: &listen,
        exports: exports.collect(),
    };
    match output.json {
        true => console::print_json(&serving)?,
        false => print(&serving)?,
    }
    let by = tokio::select! {
        () = server.serve(&listener) => None,
        name = interrupt::came() => Some(name),
    };
    drop(listener);
    flush_all(&opened).await?;
    for opened in &opened {
        let usage = opened.disk.usage();
        tracing::info!(
            disk = opened.name,
            read = show::size(usage.read_bytes),
            written = show::size(usage.written_bytes),
            chunks = usage.chunks_fetched,
            "ended by {}; fetched {} so far",
            by.unwrap_or("itself"),
            show::size(open.meter.snapshot().bytes_received),
        );
    }
    let mut findings = open.findings();
    findings.extend(unanswered(&opened));
    // The one document of --json was printed when it began.
    match output.json {
        true => findings
            .iter()
            .for_each(|f| tracing::warn!("{}: {}: {}", f.on, f.what, f.why)),
        false => console::print_findings(&findings)?,
    }
    Ok(Exit::of(&findings))
}

fn print(serving: &ServingJson) -> Result<()> {
    console::print(&format!(
        "{}@{} is served on {} until Ctrl-C:",
        serving.vm, serving.sequence, serving.listen
    ))?;
    for export in &serving.exports {
        console::print(&format!(
            "  {}  {}",
            export.uri,
            show::size(export.size_bytes)
        ))?;
    }
    Ok(())
}

/// A path has a slash; anything else is `ADDRESS:PORT`.
fn address(text: &str) -> Result<NbdAddress, Failure> {
    if text.contains('/') {
        return Ok(NbdAddress::Unix(text.into()));
    }
    let wrong = |why: String| {
        Failure::usage(format!("--listen {text} is no address"))
            .because(why)
            .remedy("write 127.0.0.1:10809, [::1]:10809, or a socket's path such as /run/dc01.sock")
    };
    let found = text
        .to_socket_addrs()
        .map_err(|e| wrong(e.to_string()))?
        .next();
    let found = found.ok_or_else(|| wrong("it names no machine".into()))?;
    Ok(NbdAddress::Tcp(found.to_string()))
}

fn is_reachable(address: &NbdAddress) -> bool {
    match address {
        NbdAddress::Unix(_) => false,
        NbdAddress::Tcp(address) => {
            let address: Result<SocketAddr, _> = address.parse();
            !address.is_ok_and(|address| address.ip().is_loopback())
        }
    }
}

fn uri(address: &NbdAddress, listen: &str, export: &str, tls: bool) -> String {
    let scheme = if tls { "nbds" } else { "nbd" };
    match address {
        NbdAddress::Unix(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("{scheme}+unix:///{export}?socket={}", path.display())
        }
        NbdAddress::Tcp(_) => format!("{scheme}://{listen}/{export}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_reach_is_told_from_what_they_cannot() {
        for (listen, reachable) in [
            ("/run/x.sock", false),
            ("./x.sock", false),
            ("127.0.0.1:10809", false),
            ("[::1]:10809", false),
            ("0.0.0.0:10809", true),
            ("[::]:1", true),
        ] {
            assert_eq!(
                is_reachable(&address(listen).unwrap()),
                reachable,
                "{listen}"
            );
        }
        for wrong in ["", "10809", "x.sock", "127.0.0.1", "127.0.0.1:99999"] {
            assert_eq!(address(wrong).unwrap_err().exit(), Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_uri_says_where_an_export_is() {
        let unix = NbdAddress::Unix("/run/x".into());
        assert_eq!(
            uri(&unix, "/run/x", "sda", false),
            "nbd+unix:///sda?socket=/run/x"
        );
        let tcp = NbdAddress::Tcp("127.0.0.1:0".into());
        assert_eq!(
            uri(&tcp, "127.0.0.1:7", "sda", true),
            "nbds://127.0.0.1:7/sda"
        );
    }
}
