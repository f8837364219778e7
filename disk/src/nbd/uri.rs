//! NBD URIs: `nbd://`, `nbds://`, `nbd+unix://` and `nbds+unix://`. Pure.
//!
//! Source: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>.

use std::path::PathBuf;

use super::connection::NbdAddress;

const PORT: &str = "10809";
/// The protocol's longest name of an export.
const LONGEST_EXPORT: usize = 4096;

/// Where an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdUri {
    pub address: NbdAddress,
    pub export: String,
    pub tls: Option<UriTls>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTls {
    /// The name that the server has to prove.
    pub server: String,
    /// The system's roots where there is none.
    pub certificates: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{uri:?} is no NBD URI: {why}; write nbd://MACHINE/EXPORT, nbds://MACHINE/EXPORT or nbd+unix:///EXPORT?socket=PATH"
)]
pub struct UriError {
    uri: String,
    why: String,
}

impl NbdUri {
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        parse(uri).map_err(|why| UriError {
            uri: uri.to_owned(),
            why,
        })
    }
}

#[derive(Default)]
struct Query {
    socket: Option<String>,
    certificates: Option<String>,
    hostname: Option<String>,
}

fn parse(uri: &str) -> Result<NbdUri, String> {
    let (scheme, rest) = uri.split_once("://").ok_or("its scheme is not known")?;
    let (tls, unix) = match scheme {
        "nbd" => (false, false),
        "nbds" => (true, false),
        "nbd+unix" => (false, true),
        "nbds+unix" => (true, true),
        _ => return Err("its scheme is not known".into()),
    };
    if uri.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("it holds white space".into());
    }
    if uri.contains('#') {
        return Err("it has a fragment".into());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query = read_query(query)?;
    let (machine, path) = rest.split_once('/').unwrap_or((rest, ""));
    let export = decoded(path)?;
    if export.len() > LONGEST_EXPORT {
        return Err("its export has too long a name".into());
    }
    let (address, host) = match (unix, machine.is_empty(), query.socket) {
        (true, true, Some(socket)) => (NbdAddress::Unix(socket.into()), "localhost".to_owned()),
        (true, true, None) => return Err("it names no socket".into()),
        (true, false, _) => return Err("it names a machine and a socket".into()),
        (false, _, Some(_)) => return Err("it names a socket, and its scheme is not +unix".into()),
        (false, true, None) => return Err("it names no machine".into()),
        (false, false, None) => at_machine(machine)?,
    };
    let tls = tls.then(|| UriTls {
        server: query.hostname.unwrap_or(host),
        certificates: query.certificates.map(PathBuf::from),
    });
    Ok(NbdUri {
        address,
        export,
        tls,
    })
}

/// The address to dial, and the bare name.
fn at_machine(machine: &str) -> Result<(NbdAddress, String), String> {
    if machine.contains('@') {
        return Err("it names a user, which needs a pre-shared key: not in this version".into());
    }
    let (host, port) = match machine.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("its address has no end")?;
            (host, port.strip_prefix(':').unwrap_or(PORT))
        }
        None => machine.split_once(':').unwrap_or((machine, PORT)),
    };
    let port = if port.is_empty() { PORT } else { port };
    let number: u16 = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    if host.is_empty() || number == 0 {
        return Err("it names no machine".into());
    }
    let dialled = match host.contains(':') {
        true => format!("[{host}]:{number}"),
        false => format!("{host}:{number}"),
    };
    Ok((NbdAddress::Tcp(dialled), host.to_owned()))
}

fn read_query(query: &str) -> Result<Query, String> {
    let mut read = Query::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value)?;
        let place = match key {
            "socket" => &mut read.socket,
            "tls-certificates" => &mut read.certificates,
            "tls-hostname" => &mut read.hostname,
            _ => return Err(format!("{key:?} is not known, or not in this version")),
        };
        if value.is_empty() {
            return Err(format!("{key} is empty"));
        }
        if place.replace(value).is_some() {
            return Err(format!("it has {key} twice"));
        }
    }
    Ok(read)
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.chars().all(|c| c.is_ascii_hexdigit()));
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(byte.ok_or("a % is not followed by two hexadecimal digits")?);
        rest = &rest[2..];
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    match text.contains('\0') {
        true => Err("it holds a NUL".into()),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(uri: &str) -> (String, String, Option<UriTls>) {
        let read = NbdUri::parse(uri).unwrap_or_else(|error| panic!("{error}"));
        (read.address.to_string(), read.export, read.tls)
    }

    #[test]
    fn every_form_is_read() {
        let tls = |server: &str, folder: Option<&str>| {
            Some(UriTls {
                server: server.into(),
                certificates: folder.map(PathBuf::from),
            })
        };
        for (uri, address, export, wants) in [
            ("nbd://backup.lan", "backup.lan:10809", "", None),
            (
                "nbd://10.0.0.1:10810/a%20b/c",
                "10.0.0.1:10810",
                "a b/c",
                None,
            ),
            (
                "nbds://[fe80::1]/a",
                "[fe80::1]:10809",
                "a",
                tls("fe80::1", None),
            ),
            (
                "nbds://h:1/?tls-certificates=/etc/pki",
                "h:1",
                "",
                tls("h", Some("/etc/pki")),
            ),
            (
                "nbds://h/a?tls-hostname=esx.lan",
                "h:10809",
                "a",
                tls("esx.lan", None),
            ),
            ("nbd+unix:///a?socket=/run/a%2fb", "/run/a/b", "a", None),
            ("nbds+unix:///?socket=/s", "/s", "", tls("localhost", None)),
        ] {
            assert_eq!(tcp(uri), (address.into(), export.into(), wants), "{uri}");
        }
    }

    #[test]
    fn what_is_no_uri_is_refused_and_nothing_panics() {
        for bad in [
            "",
            "nbd:",
            "nbd://",
            "nbd:///a",
            "http://a/b",
            "nbd://a:0/",
            "nbd://a:70000/",
            "nbd://[::1/",
            "nbd://a b/",
            "nbd://a/%",
            "nbd://a/%4",
            "nbd://a/%zz",
            "nbd://a/%+1",
            "nbd://a/%00",
            "nbd://a/%ff",
            "nbd+unix:///a",
            "nbd+unix://h/a?socket=/s",
            "nbd://a/?socket=/s",
            "nbds://a/?tls-psk-file=/k",
            "nbd://u@a/",
            "nbd://a/#f",
            "nbd+unix:///?socket=",
            "nbd+unix:///?socket=/a&socket=/b",
            "nbd://a/%é",
        ] {
            assert!(NbdUri::parse(bad).is_err(), "{bad}");
        }
        let good = "nbds+unix:///a%20b?socket=/run/x&tls-certificates=/p";
        for end in 0..good.len() {
            let _ = NbdUri::parse(&good[..end]);
        }
    }
}
