//! `bench-blocks`: blocks of 512 KiB into a sink that speaks EBS direct: by a minimal client, and by the stream of a failover.

mod http;
mod minimal;
mod sink;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bench::seed::Random;
use bytes::Bytes;
use clap::{Parser, Subcommand};
use recovery_cloud::aws::{Aws, SnapshotRequest};
use recovery_cloud::{BLOCK_BYTES, Blocks};
use serde_json::json;

#[derive(Parser)]
#[command(
    version,
    about = "How fast blocks go into a snapshot: a sink that checks SHA-256, and two clients"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take blocks on a port of loopback, check each one's SHA-256, throw it away; print the port, then serve until killed
    Sink,
    /// Send blocks over a few connections, each signed by nobody and hashed once
    Minimal {
        port: u16,
        blocks: u64,
        #[arg(long, default_value_t = 8)]
        connections: u64,
    },
    /// Send the same blocks as a failover does; the environment leads to the sink
    Stream { blocks: u64 },
}

/// Different blocks, so that nothing is in a cache by chance: 64 MiB.
const DIFFERENT: u64 = 128;

/// Blocks of random bytes, again and again.
struct Made {
    count: u64,
    blocks: Vec<Bytes>,
}

impl Made {
    fn new(count: u64) -> Self {
        let mut random = Random::new(1);
        let mut block = || {
            let mut bytes = vec![0; BLOCK_BYTES as usize];
            random.fill(&mut bytes);
            Bytes::from(bytes)
        };
        let blocks = (0..DIFFERENT).map(|_| block()).collect();
        Made { count, blocks }
    }

    fn block(&self, number: u64) -> &Bytes {
        &self.blocks[(number % DIFFERENT) as usize]
    }
}

#[async_trait]
impl Blocks for Made {
    fn size_bytes(&self) -> u64 {
        self.count * BLOCK_BYTES
    }

    async fn read(&self, blocks: std::ops::Range<u64>) -> Result<Vec<Option<Bytes>>, String> {
        Ok(blocks
            .map(|number| Some(self.block(number).clone()))
            .collect())
    }
}

fn main() -> anyhow::Result<()> {
    let (name, blocks, started) = match Arguments::parse().command {
        Command::Sink => return sink::serve(),
        Command::Minimal {
            port,
            blocks,
            connections,
        } => {
            let made = Made::new(blocks);
            let started = Instant::now();
            minimal::send(port, &made, connections)?;
            ("minimal", blocks, started)
        }
        Command::Stream { blocks } => {
            let made = Arc::new(Made::new(blocks));
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            let started = Instant::now();
            runtime.block_on(stream(made))?;
            ("stream", blocks, started)
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let bytes = blocks * BLOCK_BYTES;
    println!(
        "{}",
        json!({"name": name, "seconds": seconds, "bytes": bytes})
    );
    Ok(())
}

async fn stream(made: Arc<Made>) -> anyhow::Result<()> {
    // Faster than any account may: what is measured is the program.
    let aws = Aws::open_unpaced("us-east-1").await?;
    let request = SnapshotRequest {
        token: "bench".into(),
        size_bytes: made.size_bytes(),
        description: "bench".into(),
        tags: Vec::new(),
        volume_key: None,
    };
    let mark = aws.start_snapshot(&request).await?;
    let (marks, _seen) = tokio::sync::watch::channel(mark);
    aws.fill_snapshot(made, &marks, |_| {}).await?;
    let mark = marks.borrow().clone();
    anyhow::ensure!(
        aws.complete_snapshot(&mark).await?,
        "the sink took no checksum over all"
    );
    Ok(())
}
