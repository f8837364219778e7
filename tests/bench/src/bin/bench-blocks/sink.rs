//! A server that takes blocks and checks them, as EBS direct does; a thread for each connection.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};

use crate::http::{Head, read_body};

pub fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = talk(&stream) {
                eprintln!("bench-blocks sink: {error:#}");
            }
        });
    }
    Ok(())
}

fn talk(stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut from = BufReader::with_capacity(1 << 16, stream);
    let mut body = Vec::new();
    while let Some(head) = Head::read(&mut from)? {
        read_body(&mut from, &mut body, head.length()?)?;
        let (status, answer) = match head.start.split(' ').next() {
            Some("PUT") => {
                let told = head
                    .header("x-amz-checksum")
                    .context("a block without a checksum")?;
                let sum = BASE64_STANDARD.encode(digest(&SHA256, &body));
                ensure!(told == sum, "a block with a wrong checksum");
                ("201 Created", String::from("{}"))
            }
            // StartSnapshot has a body, CompleteSnapshot has none.
            _ if body.is_empty() => ("202 Accepted", String::from(r#"{"Status":"pending"}"#)),
            _ => (
                "201 Created",
                String::from(r#"{"SnapshotId":"snap-1","BlockSize":524288,"Status":"pending"}"#),
            ),
        };
        let length = answer.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{answer}"
        );
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}
