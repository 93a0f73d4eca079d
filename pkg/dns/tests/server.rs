//! The server over real sockets, with a host's resolver beside it, in namespaces of the test's own. Needs root.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::RawQuery, routing::get};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use mk8s_client::Informers;
use mk8s_dns::{Config, run};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let work = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        fs::write("/run/mk8s-test-resolv.conf", "nameserver 127.0.0.1\n").unwrap();
        mount(
            Some("/run/mk8s-test-resolv.conf"),
            "/etc/resolv.conf",
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
        assert!(
            Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap()
                .success()
        );
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    };
    std::thread::spawn(work).join().unwrap();
}

/// An API server with these objects that never change.
fn api() -> Router {
    let list = |kind: &'static str, version: &'static str, items: serde_json::Value| {
        get(move |RawQuery(query): RawQuery| async move {
            if query.unwrap_or_default().contains("watch=true") {
                return std::future::pending().await;
            }
            json!({"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "5"}, "items": items})
                .to_string()
        })
    };
    let many: Vec<_> = (1..=200)
        .map(|n| json!({"addresses": [format!("10.244.7.{n}")]}))
        .collect();
    let services = json!([
        {"metadata": {"name": "web", "namespace": "app", "resourceVersion": "1"},
         "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}},
        {"metadata": {"name": "many", "namespace": "app", "resourceVersion": "2"}, "spec": {"clusterIP": "None"}},
        {"metadata": {"name": "out", "namespace": "app", "resourceVersion": "3"},
         "spec": {"type": "ExternalName", "externalName": "far.example"}},
    ]);
    let slices = json!([
        {"metadata": {"name": "many-1", "namespace": "app", "resourceVersion": "4",
                      "labels": {"kubernetes.io/service-name": "many"}},
         "addressType": "IPv4", "endpoints": many, "ports": []},
    ]);
    Router::new()
        .route("/api/v1/services", list("ServiceList", "v1", services))
        .route(
            "/apis/discovery.k8s.io/v1/endpointslices",
            list("EndpointSliceList", "discovery.k8s.io/v1", slices),
        )
}

/// The host's resolver: knows far.example, counts, and is silent about slow.example.
fn resolver() -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1000];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            // The end of a loop comes back as a response.
            if buffer[2] & 0x80 != 0 {
                continue;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let name = query.queries[0].name().clone();
            match name.to_ascii().as_str() {
                "far.example." => {
                    let mut answer = query.clone().into_response();
                    answer.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, 9].into()))));
                    socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
                }
                // Asks the server that asked it.
                "loop.example." => {
                    socket.send_to(&buffer[..length], (OWN, 53)).unwrap();
                }
                _ => {}
            }
        }
    });
    asked
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query.to_vec().unwrap()
}

fn udp(name: &str, kind: RecordType) -> Message {
    udp_by(&UdpSocket::bind("0.0.0.0:0").unwrap(), name, kind)
}

fn udp_by(socket: &UdpSocket, name: &str, kind: RecordType) -> Message {
    socket.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    socket.connect((OWN, 53)).unwrap();
    socket.send(&query(name, kind)).unwrap();
    let mut buffer = [0; 2000];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

/// A socket that is to be connected.
fn unconnected() -> OwnedFd {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn connected(socket: OwnedFd) -> TcpStream {
    connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((OWN, 53)))).unwrap();
    TcpStream::from(socket)
}

fn tcp(stream: &mut TcpStream, name: &str) -> Message {
    let query = query(name, RecordType::A);
    stream
        .write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat())
        .unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).unwrap();
    Message::from_vec(&bytes).unwrap()
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// No connection is accepted then, and datagrams are answered all the same.
async fn without_descriptors(name: &'static str) {
    let (client, waiting) = (UdpSocket::bind("0.0.0.0:0").unwrap(), unconnected());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 1, hard).unwrap();
    let mut stream = aside(move || connected(waiting)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let answer = aside(move || udp_by(&client, name, RecordType::A)).await;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(aside(move || tcp(&mut stream, name)).await.answers.len(), 1);
}

#[test]
fn cluster_and_host_names() {
    isolated(async || {
        let asked = resolver();
        let config = Config {
            domain: "cluster.local".into(),
            address: OWN,
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        };
        let token = CancellationToken::new();
        let owner = mk8s_supervisor::Supervisor::new(token.clone());
        let informers = Informers::new(mk8s_client::in_process(api(), "dns"), &owner);
        let server = tokio::spawn(run(config, informers, token.clone()));
        let web = "web.app.svc.cluster.local.";
        // The address comes after the server.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(
            Command::new("ip")
                .args(["addr", "add", "10.96.0.10/32", "dev", "lo"])
                .status()
                .unwrap()
                .success()
        );
        while aside(|| TcpStream::connect((OWN, 53))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The first answer is right already, though the first list may be still under way.
        let response = aside(move || udp(web, RecordType::A)).await;
        assert_eq!(response.answers[0].data, RData::A(A([10, 96, 0, 7].into())));

        // More than fits in a datagram: marked, and whole over TCP.
        let many = "many.app.svc.cluster.local.";
        let response = aside(move || udp(many, RecordType::A)).await;
        assert!(
            response.metadata.truncation && response.answers.len() > 10,
            "{}",
            response.answers.len()
        );
        aside(move || {
            let mut stream = TcpStream::connect((OWN, 53)).unwrap();
            assert_eq!(tcp(&mut stream, many).answers.len(), 200);
            assert_eq!(
                tcp(&mut stream, web).answers.len(),
                1,
                "a second query on one connection"
            );
        })
        .await;

        // The host's names, and an alias to one.
        assert_eq!(aside(|| udp("far.example.", RecordType::A)).await.answers.len(), 1);
        let alias = aside(|| udp("out.app.svc.cluster.local.", RecordType::A)).await;
        let kinds: Vec<_> = alias.answers.iter().map(Record::record_type).collect();
        assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);

        // A resolver that asks back: one query to it per try, and an end.
        let before = asked.load(Ordering::SeqCst);
        let looped = aside(|| udp("loop.example.", RecordType::A)).await;
        assert_eq!(looped.metadata.response_code, ResponseCode::ServFail);
        assert!(asked.load(Ordering::SeqCst) - before <= 2);

        without_descriptors(web).await;

        // Nothing else of the node's port 53 is taken.
        assert!(TcpListener::bind("127.0.0.1:53").is_ok());
        token.cancel();
        server.await.unwrap().unwrap();
    });
}
