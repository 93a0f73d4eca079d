//! What durable writes cost, without a server around them: `rate [DIR] [COUNT] [BYTES]`. CPU of the whole process, rate, and bytes written to the disk per put, with 64 writers and with one.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mk8s_store::{Change, Commit, Expect, Follower, Op, SPARE, SledStore, Store, Txn};
use mk8s_supervisor::job;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Ignore;

impl Follower for Ignore {
    fn committed(&mut self, _: Vec<Commit>) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "/tmp/mk8s-rate".into());
    let count = args.next().map_or(Ok(50_000), |text| text.parse())?;
    let bytes = args.next().map_or(Ok(2700), |text| text.parse())?;
    let store = Arc::new(SledStore::open(Path::new(&dir))?);
    store.follow(store.current_revision(), Box::new(Ignore))?;
    for (writers, count) in [(64, count), (1, count / 10)] {
        measure(&store, writers, count, bytes).await;
    }
    store.close();
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

async fn measure(store: &Arc<SledStore>, writers: usize, count: u64, bytes: usize) {
    let next = Arc::new(AtomicU64::new(0));
    let (began, cpu_then, written_then) = (Instant::now(), cpu(), written());
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            job::spawn("writer", async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let mut value = Vec::with_capacity(bytes + SPARE);
                    value.resize(bytes, b'v');
                    let scattered = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let op = Op {
                        key: format!("/registry/core/pods/default/{scattered:016x}").into(),
                        expect: Expect::Any,
                        change: Change::Put {
                            value,
                            revision_at: bytes / 2,
                            attachment: None,
                        },
                    };
                    if let Err(error) = store.txn(Txn::one(op)).await {
                        eprintln!("{error}");
                        return;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    let (took, per) = (began.elapsed(), |total: u64| total as f64 / count as f64);
    println!(
        "{writers:>2} writers: {:>6.0} puts/s, {:>5.1} us CPU per put, {:>6.0} bytes written per put",
        count as f64 / took.as_secs_f64(),
        per((cpu() - cpu_then).as_micros() as u64),
        per(written() - written_then),
    );
}

fn cpu() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs())
    };
    time(usage.user_time()) + time(usage.system_time())
}

fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}
