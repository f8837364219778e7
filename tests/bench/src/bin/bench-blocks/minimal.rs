//! The least that a client has to do: hash a block, send it, read the answer; a thread for each connection.

use std::io::{BufReader, Write};
use std::net::TcpStream;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};

use crate::Made;
use crate::http::{Head, read_body};

pub fn send(port: u16, made: &Made, connections: u64) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| scope.spawn(move || share(port, made, number, connections)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn share(port: u16, made: &Made, number: u64, connections: u64) -> anyhow::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut from = BufReader::new(&stream);
    let mut answer = Vec::new();
    for index in (number..made.count).step_by(connections as usize) {
        let block = made.block(index);
        let sum = BASE64_STANDARD.encode(digest(&SHA256, block));
        let head = format!(
            "PUT /snapshots/snap-1/blocks/{index} HTTP/1.1\r\nhost: localhost\r\nx-amz-data-length: {0}\r\n\
             x-amz-checksum: {sum}\r\nx-amz-checksum-algorithm: SHA256\r\ncontent-length: {0}\r\n\r\n",
            block.len()
        );
        (&mut &stream).write_all(head.as_bytes())?;
        (&mut &stream).write_all(block)?;
        let head = Head::read(&mut from)?.context("the sink closed the connection")?;
        ensure!(
            head.start.contains(" 201 "),
            "the sink answers {:?}",
            head.start
        );
        read_body(&mut from, &mut answer, head.length()?)?;
    }
    Ok(())
}
