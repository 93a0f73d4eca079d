//! The same mutated requests to two API servers, and how their answers differ, by class: upstream's is what counts.
//!
//!     diff --upstream KUBECONFIG --server KUBECONFIG [--seed N] [--count N] [--show N] [--only N] [--most PERCENT]
//!
//! With `--most PERCENT` it fails where more than that differ in status or reason and are not in known.tsv.
//!
//! `hack/diff-fuzz.sh` starts both servers. A request is made of the seed and its number, so that `--seed S --only N` sends
//! one of them again. Both servers hold the same objects when a request comes: most writes are dry runs, and after the
//! others the objects are made anew.

#![allow(clippy::unwrap_used, reason = "a comparison that cannot go on says where, and ends")]
#![allow(
    clippy::disallowed_methods,
    reason = "its connections are tasks that nobody else waits for"
)]

mod cases;
mod client;
mod mutate;
mod random;
mod report;
mod world;

use std::path::PathBuf;

use cases::Draft;
use clap::Parser;
use client::{Answer, Client, Failure};
use report::Report;
use world::World;

/// Of so many requests each known difference is met.
const COMMON: usize = 10_000;

#[derive(Parser)]
struct Args {
    /// The kubeconfig of an administrator of the server that is right.
    #[arg(long)]
    upstream: PathBuf,
    /// And of the one that is compared.
    #[arg(long)]
    server: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 12_000)]
    count: u64,
    /// How many examples of each class.
    #[arg(long, default_value_t = 1)]
    show: usize,
    /// This request of the seed alone, with both answers.
    #[arg(long)]
    only: Option<u64>,
    /// How many may differ in status or reason, in percent, beside those that are known.
    #[arg(long)]
    most: Option<f64>,
    /// Writes one agreeing request of each class of answers here, as lines of JSON, each of which stands by itself.
    #[arg(long)]
    record: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let mut clients = [Client::of(&args.upstream).await?, Client::of(&args.server).await?];
    let world = World::make(&mut clients).await?;
    let mut report = Report::new();
    let numbers = match args.only {
        Some(only) => only..only + 1,
        None => 0..args.count,
    };
    let wanted = numbers.clone().count();
    for number in numbers {
        let draft = cases::make(&world, args.seed, number);
        let case = draft.case();
        // What no client can send.
        if case.target.parse::<http::Uri>().is_err() {
            continue;
        }
        let answers = send(&mut clients, &world, &draft).await?;
        if args.only.is_some() {
            println!("{case:?}\n{:?}\n{:?}", answers[0], answers[1]);
        }
        report.add(number, &case, &answers, draft.changes());
    }
    let differ = report.print(args.show);
    if wanted >= COMMON {
        for pattern in report.not_met() {
            eprintln!("known.tsv: nothing was of {pattern}");
        }
    }
    if let Some(path) = &args.record {
        std::fs::write(path, record(&mut clients, &world, &report, args.seed).await?)?;
    }
    match args.most {
        Some(_) if report.sent() == 0 || report.sent() * 2 < wanted => {
            Err(format!("{} of {wanted} were sent: that compares nothing", report.sent()).into())
        }
        Some(most) if differ > most => Err(format!("{differ:.2} % differ, of {most} % at the most").into()),
        _ => Ok(()),
    }
}

/// Asks both, and makes anew what that has changed.
async fn send(clients: &mut [Client; 2], world: &World, draft: &Draft) -> Result<[Answer; 2], Failure> {
    let case = draft.case();
    let [upstream, own] = &mut *clients;
    let answers = [upstream.send(&case).await?, own.send(&case).await?];
    let changed = answers.iter().any(|answer| (200..300).contains(&answer.code));
    if changed
        && draft.changes()
        && let Some(plural) = cases::plural(&draft.path)
    {
        world.reset(clients, plural).await?;
    }
    Ok(answers)
}

/// The lines that stand for the classes of answers, each by itself: where all is as in the beginning both answer so again, and
/// nothing is changed by it. Whoever replays them defines no kinds.
async fn record(clients: &mut [Client; 2], world: &World, report: &Report, seed: u64) -> Result<String, Failure> {
    world.reset_all(clients).await?;
    let mut lines = String::new();
    for (number, before) in report.alike() {
        let draft = cases::make(world, seed, *number);
        if draft.path.contains(world::DEFINED) {
            continue;
        }
        let answers = send(clients, world, &draft).await?;
        let changed = draft.changes() && before.code < 400;
        if !changed && answers.iter().all(|answer| report::same(answer, before)) {
            lines += &format!("{}\n", report::recorded(&draft.case(), before));
        }
    }
    Ok(lines)
}
