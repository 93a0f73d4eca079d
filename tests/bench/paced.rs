//! How long single calls take where there is room for them: they are sent at half of the rate that the server reaches with
//! the same clients, whether or not the ones before were answered. What a call waits for a free client counts as its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Measured,
    client::{JSON, Request, Server},
    objects::What,
    scenario,
};

const CLIENTS: usize = 64;
/// Requests that show the rate which is reached.
const PROBES: usize = 6_000;
const LASTS: Duration = Duration::from_secs(8);

/// Three reads for each write, of objects of one kind.
fn request(path: &Arc<str>, body: &Bytes, known: &Arc<str>, number: usize) -> Request {
    match number % 4 {
        0 => Request::create(path, body),
        _ => Request::get(known, JSON),
    }
}

/// With `beside_lists` another client lists all pods of the cluster meanwhile, one list after the other.
pub async fn run(server: &Server, pids: &[u32], beside_lists: bool) -> Measured {
    let path: Arc<str> = What::ConfigMap.path().into();
    let body = Bytes::from(What::ConfigMap.body().to_string());
    let known: Arc<str> = scenario::make(server, What::ConfigMap, 1).await[0].as_str().into();
    let request = move |number: usize| request(&path, &body, &known, number);
    let each = move |_: usize, number: usize| request(number);
    let reached = scenario::requests(server, pids, CLIENTS, PROBES, each.clone()).await;
    let rate = PROBES as f64 / reached.elapsed.as_secs_f64() / 2.0;
    let count = (LASTS.as_secs_f64() * rate) as usize;
    let lister = Lister::begin(server, beside_lists);
    let measured = scenario::requests_at(server, pids, CLIENTS, count, Some(rate), each).await;
    lister.end();
    measured
}

/// Who lists everything, until he is told to end: on a thread of his own, since he is another process than those whose calls
/// are timed, and what he reads must not hold up these before they have left.
struct Lister {
    thread: Option<std::thread::JoinHandle<usize>>,
    over: Arc<AtomicBool>,
}

impl Lister {
    fn begin(server: &Server, wanted: bool) -> Self {
        let over: Arc<AtomicBool> = Arc::default();
        let (ended, server) = (over.clone(), server.clone());
        let lists = async move {
            let mut connection = server.connect().await.unwrap();
            let all = Request::get(&"/api/v1/pods".into(), JSON);
            let mut lists = 0;
            while !ended.load(Ordering::Relaxed) {
                let status = connection.drain(&all).await.unwrap();
                assert!(status.is_success(), "a list: {status}");
                lists += 1;
            }
            lists
        };
        let alone = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(lists)
        };
        Self {
            thread: wanted.then(|| std::thread::spawn(alone)),
            over,
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            let lists = thread.join().unwrap();
            assert!(lists > 0, "nothing was listed");
        }
    }
}
