//! Pods on two hosts reach each other: two network and mount namespaces with a cable between them. Needs root.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::mpsc,
    time::Duration,
};

use mk8s_network::{Config, Mode, Network, Peer, PodAddress, netns};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

type Job = Box<dyn FnOnce(&tokio::runtime::Runtime, &mut Option<Network>) + Send>;

/// A host: a thread in namespaces of its own that does what it is sent.
struct Host {
    number: u8,
    jobs: mpsc::Sender<Job>,
    tid: i32,
}

impl Host {
    fn new(number: u8) -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            mount(
                None::<&str>,
                "/",
                None::<&str>,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                None::<&str>,
            )
            .unwrap();
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            tell.send(gettid().as_raw()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let mut network = None;
            while let Ok(job) = todo.recv() {
                job(&runtime, &mut network);
            }
        });
        Self {
            number,
            jobs,
            tid: told.recv().unwrap(),
        }
    }

    fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&tokio::runtime::Runtime, &mut Option<Network>) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = mpsc::channel();
        let job = move |runtime: &_, network: &mut _| drop(tell.send(work(runtime, network)));
        self.jobs.send(Box::new(job)).unwrap();
        told.recv().unwrap()
    }

    fn sh(&self, script: String) -> String {
        self.on(move |_, _| {
            let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
            assert!(
                output.status.success(),
                "{script}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn peer(&self) -> Peer {
        Peer {
            node_ip: [10, 0, 0, self.number].into(),
            pod_cidr: format!("10.244.{}.0/24", self.number).parse().unwrap(),
        }
    }

    fn open(&self, mode: Mode, dir: &Path) {
        let Peer { node_ip, pod_cidr } = self.peer();
        let config = Config {
            mode,
            node_ip,
            pod_cidr,
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: Some("10.96.0.0/16".parse().unwrap()),
            dns: None,
            mtu: None,
            state_dir: dir.join(self.number.to_string()),
        };
        self.on(move |runtime, network| *network = Some(runtime.block_on(Network::open(config)).unwrap()));
    }

    fn peers(&self, peers: BTreeSet<Peer>) {
        self.on(move |runtime, network| runtime.block_on(network.as_ref().unwrap().peers(peers)).unwrap());
    }

    fn pod(&self, uid: &'static str) -> PodAddress {
        self.on(move |runtime, network| {
            let pod = runtime.block_on(network.as_ref().unwrap().attach(uid)).unwrap();
            let ip = pod.ip;
            let listener = netns::enter(&pod.netns, move || TcpListener::bind((ip, 80)).unwrap()).unwrap();
            std::thread::spawn(move || {
                while let Ok((mut stream, from)) = listener.accept() {
                    // Enough to need full packets.
                    let _ = stream.write_all(&[&from.ip().to_string().into_bytes()[..], &[b'.'; 300_000]].concat());
                }
            });
            pod
        })
    }

    /// Who the pod at `to` says is calling.
    fn ask(&self, from: Option<&PodAddress>, to: Ipv4Addr) -> Option<String> {
        let from = from.map(|pod| pod.netns.clone());
        let call = move || {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, 80)), Duration::from_secs(3)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text.trim_end_matches('.').to_owned())
        };
        self.on(move |_, _| match from {
            Some(path) => netns::enter(&path, call).unwrap(),
            None => call(),
        })
    }
}

fn two_hosts() -> [Host; 2] {
    let hosts = [Host::new(1), Host::new(2)];
    hosts[0].sh(format!(
        "ip link add eth0 type veth peer name eth0 netns {}",
        hosts[1].tid
    ));
    for host in &hosts {
        host.sh(format!(
            "ip link set lo up; ip addr add 10.0.0.{}/24 dev eth0; ip link set eth0 up
             iptables -P FORWARD DROP; sysctl -qw net.ipv4.conf.all.rp_filter=1",
            host.number
        ));
    }
    hosts
}

fn reach(mode: Mode) {
    let dir = tempfile::tempdir().unwrap();
    let hosts = two_hosts();
    for host in &hosts {
        host.open(mode, dir.path());
        host.peers(hosts.iter().map(Host::peer).collect());
    }
    let (a, b) = (hosts[0].pod("a"), hosts[1].pod("b"));
    assert_eq!(hosts[0].ask(Some(&a), b.ip), Some(a.ip.to_string()));
    assert_eq!(hosts[1].ask(Some(&b), a.ip), Some(b.ip.to_string()));
    let node = if mode == Mode::Vxlan { "10.244.1.0" } else { "10.0.0.1" };
    assert_eq!(hosts[0].ask(None, b.ip), Some(node.to_owned()), "from the node itself");
    // A pod to the other node's own network: as its node.
    let to = hosts[1].on(|_, _| TcpListener::bind("0.0.0.0:80").unwrap());
    let who = std::thread::spawn(move || to.accept().unwrap().1.ip().to_string());
    assert!(hosts[0].ask(Some(&a), [10, 0, 0, 2].into()).is_some());
    assert_eq!(who.join().unwrap(), "10.0.0.1");
    // The other node leaves.
    hosts[0].peers(BTreeSet::new());
    assert_eq!(hosts[0].ask(Some(&a), b.ip), None);
}

#[test]
fn by_vxlan() {
    reach(Mode::Vxlan);
}

#[test]
fn by_plain_routes() {
    reach(Mode::Routes);
}
