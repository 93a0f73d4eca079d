//! What a stored object costs in memory, in the server alone: resident bytes per object, from one count to twice that.
//! `memory BODY.json PATH [COUNT]`, as `cost`.

mod router;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;

use router::{Failure, read, request};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Resident bytes, when the allocator has given back what it keeps for a while.
async fn resident() -> Result<usize, Failure> {
    tokio::time::sleep(Duration::from_secs(15)).await;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line.ok_or("VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let body = Bytes::from(std::fs::read(args.next().ok_or("a body is needed")?)?);
    let path = args.next().ok_or("a path is needed")?;
    let count: usize = args.next().map_or(Ok(8_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let (server, router) = router::open(dir.path()).await?;
    let mut before = 0;
    for half in 0..2 {
        let made = futures::stream::iter(0..count)
            .map(|_| read(&router, request("POST", &path, body.clone())))
            .buffer_unordered(32);
        let lengths: Vec<_> = made.collect().await;
        let now = resident().await?;
        if half == 1 {
            let length = lengths.into_iter().next().ok_or("none was made")??.len();
            println!("{} resident bytes per object of {length}", (now - before) / count);
        }
        before = now;
    }
    server.close().await;
    Ok(())
}
