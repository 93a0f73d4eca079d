//! Services against the real kernel: two pods and a far host, in network and mount namespaces of the test's own. Needs
//! root.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use mk8s_network::{Config, Mode, Network, PodAddress, netns, nft};
use mk8s_proxy::{ChangeTracker, Entries, Hosts, Kernel, Node, Owner, Reserved, host_ports};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 5);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

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
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        // A host beside the node, which knows pods and Services by no route.
        sh("mkdir -p /run/netns; ip netns add far; ip link set lo up
            ip link add eth0 type veth peer name eth0 netns far
            ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up
            ip -n far addr add 10.0.0.9/24 dev eth0; ip -n far link set eth0 up
            ip -n far route add 10.96.0.0/16 via 10.0.0.1");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    };
    std::thread::spawn(work).join().unwrap();
}

#[track_caller]
fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn node() -> Node {
    Node {
        name: "n1".into(),
        zone: None,
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        shared: Vec::new(),
        dns: Some([10, 96, 0, 10].into()),
        api: BTreeSet::new(),
        api_port: Some(6443),
        kubelet_port: 10250,
        node_ports: 30_000..=32_767,
    }
}

async fn network(dir: &Path) -> Network {
    let node = node();
    let config = Config {
        mode: Mode::Vxlan,
        node_ip: NODE,
        pod_cidr: node.pod_cidr,
        cluster_cidr: node.cluster_cidr,
        service_cidr: Some(node.service_cidrs[0]),
        dns: node.dns,
        mtu: None,
        state_dir: dir.to_owned(),
    };
    Network::open(config).await.unwrap()
}

/// Answers "WHO CALLER" on 8080, over TCP and UDP.
fn serve(who: &'static str, pod: &PodAddress) {
    let ip = pod.ip;
    let (tcp, udp) = netns::enter(&pod.netns, move || {
        (
            TcpListener::bind((ip, 8080)).unwrap(),
            UdpSocket::bind((ip, 8080)).unwrap(),
        )
    })
    .unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = tcp.accept() {
            let _ = stream.write_all(format!("{who} {}", from.ip()).as_bytes());
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, from)) = udp.recv_from(&mut [0; 9]) {
            let _ = udp.send_to(who.as_bytes(), from);
        }
    });
}

/// What the server says to a caller in the namespace (the node itself without one).
fn ask(from: Option<&Path>, ip: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    let call = move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((ip, port)), Duration::from_millis(700))
            .map_err(|error| error.kind())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|error| error.kind())?;
        Ok(text)
    };
    match from {
        Some(path) => netns::enter(path, call).unwrap(),
        None => call(),
    }
}

fn web(spec: serde_json::Value) -> Service {
    let mut object = json!({"metadata": {"name": "web", "namespace": "app"}, "spec": {
        "clusterIP": VIP.to_string(), "type": "NodePort", "externalIPs": ["10.0.0.77"],
        "ports": [{"name": "t", "port": 80, "nodePort": 30080}, {"name": "u", "port": 80, "protocol": "UDP"}]}});
    object["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn slice(endpoints: &[(&PodAddress, &str)]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(pod, node)| json!({"addresses": [pod.ip.to_string()], "nodeName": node}))
        .collect();
    serde_json::from_value(
        json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "t", "port": 8080, "protocol": "TCP"}, {"name": "u", "port": 8080, "protocol": "UDP"}]}),
    )
    .unwrap()
}

struct Table(ChangeTracker, Kernel);

impl Table {
    async fn new() -> Self {
        let mut tracker = ChangeTracker::default();
        nft::apply(&tracker.take_all(&node()).text).await.unwrap();
        Self(tracker, Kernel::default())
    }

    async fn set(&mut self, owner: &str, service: &Service, slice: &EndpointSlice) {
        let entries = mk8s_proxy::service(&node(), service, [slice].into_iter()).entries;
        self.want(Owner::Service(owner.into()), entries).await;
    }

    async fn want(&mut self, owner: Owner, entries: Entries) {
        self.0.set(owner, entries);
        let changes = self.0.take(&node());
        let text = changes.text.clone();
        self.1
            .apply(changes)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        self.1.settled().await;
    }
}

#[test]
fn a_service_is_reached_from_everywhere() {
    reached(0);
}

/// Some hosts hand what crosses a bridge to the rules of routed packets as well.
#[test]
fn a_service_is_reached_with_bridge_netfilter() {
    reached(1);
}

#[expect(clippy::too_many_lines, reason = "one story, each step on what the last one left")]
fn reached(bridge_netfilter: u8) {
    isolated(async move || {
        sh(&format!(
            "f=/proc/sys/net/bridge/bridge-nf-call-iptables; if [ -e $f ]; then echo {bridge_netfilter} > $f; fi"
        ));
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        let (a, b) = (network.attach("a").await.unwrap(), network.attach("b").await.unwrap());
        serve("a", &a);
        serve("b", &b);
        let far = Path::new("/run/netns/far");
        let mut table = Table::new().await;
        let refused = Err(ErrorKind::ConnectionRefused);

        // Unknown addresses and Services without endpoints are refused, not dropped.
        assert_eq!(ask(Some(&a.netns), VIP, 80), refused);
        assert_eq!(ask(None, VIP, 80), refused);
        table.set("app/web", &web(json!({})), &slice(&[])).await;
        for (from, ip, port) in [
            (None, VIP, 80),
            (Some(a.netns.as_path()), VIP, 80),
            (Some(far), VIP, 80),
            (None, NODE, 30080),
            (None, LOCALHOST, 30080),
            (Some(far), NODE, 30080),
            (Some(far), [10, 0, 0, 77].into(), 80),
        ] {
            if ip == Ipv4Addr::from([10, 0, 0, 77]) {
                sh("ip -n far route replace 10.0.0.77 via 10.0.0.1");
            }
            assert_eq!(ask(from, ip, port), refused, "{from:?} {ip}:{port}");
        }

        table.set("app/web", &web(json!({})), &slice(&[(&b, "n1")])).await;
        let gateway = network.gateway();
        for (from, ip, port, answer) in [
            (Some(a.netns.as_path()), VIP, 80, format!("b {}", a.ip)),
            (Some(b.netns.as_path()), VIP, 80, format!("b {gateway}")), // to itself
            (None, VIP, 80, format!("b {gateway}")),
            (Some(far), VIP, 80, format!("b {gateway}")),
            (None, NODE, 30080, format!("b {gateway}")),
            (None, LOCALHOST, 30080, format!("b {gateway}")),
            (Some(a.netns.as_path()), NODE, 30080, format!("b {gateway}")),
            (Some(far), NODE, 30080, format!("b {gateway}")),
            (Some(far), [10, 0, 0, 77].into(), 80, format!("b {gateway}")),
            (
                Some(a.netns.as_path()),
                [10, 0, 0, 77].into(),
                80,
                format!("b {gateway}"),
            ),
        ] {
            assert_eq!(ask(from, ip, port), Ok(answer), "{from:?} {ip}:{port}");
        }
        assert_eq!(ask(None, VIP, 81), refused, "a port that the Service has not");

        // Both endpoints, then the other one alone.
        table
            .set("app/web", &web(json!({})), &slice(&[(&a, "n1"), (&b, "n1")]))
            .await;
        let answers: BTreeSet<String> = (0..40).map(|_| ask(None, VIP, 80).unwrap()[..1].to_owned()).collect();
        assert_eq!(answers.len(), 2, "{answers:?}");
        table.set("app/web", &web(json!({})), &slice(&[(&a, "n1")])).await;
        assert!((0..10).all(|_| ask(None, VIP, 80).unwrap().starts_with("a ")));

        // An endpoint on the node's own network, as the API server is.
        let own = PodAddress {
            ip: NODE,
            netns: "/proc/thread-self/ns/net".into(),
        };
        serve("n", &own);
        table.set("app/web", &web(json!({})), &slice(&[(&own, "n1")])).await;
        for (from, ip, port) in [
            (None, VIP, 80),
            (None, LOCALHOST, 30080),
            (Some(a.netns.as_path()), VIP, 80),
            (Some(far), NODE, 30080),
        ] {
            let answer = ask(from, ip, port);
            assert!(
                answer.as_ref().is_ok_and(|text| text.starts_with("n ")),
                "{from:?} {ip}:{port} {answer:?}"
            );
        }

        // No rule of 127.0.0.0/8 opens the node to its neighbours: what listens at localhost is not reached from there, by
        // whatever way its packets come. Without mk8s's rule it is.
        let secret = TcpListener::bind((LOCALHOST, 7777)).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = secret.accept() {
                let _ = stream.write_all(b"secret");
            }
        });
        sh("ip netns exec far sh -ec 'ip addr del 127.0.0.1/8 dev lo || true; sysctl -qw net.ipv4.conf.all.route_localnet=1
            ip route add 127.0.0.1/32 via 10.0.0.1'");
        assert!(ask(Some(far), LOCALHOST, 7777).is_err());
        sh("nft flush chain ip mk8s-network input");
        assert_eq!(
            ask(Some(far), LOCALHOST, 7777),
            Ok("secret".into()),
            "the test's own way there"
        );
    });
}

#[test]
fn affinity_holds_while_the_endpoint_does() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        let (a, b) = (network.attach("a").await.unwrap(), network.attach("b").await.unwrap());
        serve("a", &a);
        serve("b", &b);
        let mut table = Table::new().await;
        let sticky = web(json!({"sessionAffinity": "ClientIP",
                                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}}}));
        let who = |text: String| text[..1].to_owned();
        for (ip, port) in [(VIP, 80), (NODE, 30080), (LOCALHOST, 30080)] {
            table.set("app/web", &sticky, &slice(&[(&a, "n1"), (&b, "n1")])).await;
            let first = who(ask(None, ip, port).unwrap());
            assert!((0..20).all(|_| who(ask(None, ip, port).unwrap()) == first), "{ip}");
            // The other one takes over, and keeps the client when the first is back.
            let (left, other) = if first == "a" { (&b, "b") } else { (&a, "a") };
            table.set("app/web", &sticky, &slice(&[(left, "n1")])).await;
            assert_eq!(who(ask(None, ip, port).unwrap()), other, "{ip}");
            table.set("app/web", &sticky, &slice(&[(&a, "n1"), (&b, "n1")])).await;
            assert!((0..20).all(|_| who(ask(None, ip, port).unwrap()) == other), "{ip}");
        }
        let listed = sh("nft list map ip mk8s ip-affinity");
        assert!(listed.contains("timeout 2s"), "{listed}");
        // Other clients may go elsewhere, and after the timeout so may this one.
        let mut seen = BTreeSet::new();
        for _ in 0..12 {
            seen.insert(who(ask(None, VIP, 80).unwrap()));
            sh("nft flush map ip mk8s ip-affinity");
        }
        assert_eq!(seen.len(), 2);
    });
}

#[test]
fn chains_that_nothing_leads_to_go() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        let a = network.attach("a").await.unwrap();
        serve("a", &a);
        let mut table = Table::new().await;
        let chains = || sh("nft list chains ip").matches("-sticky-").count();
        let mut most = 0;
        for seconds in 1..=150 {
            let sticky = web(json!({"sessionAffinity": "ClientIP",
                                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}));
            table.set("app/web", &sticky, &slice(&[(&a, "n1")])).await;
            most = most.max(chains());
        }
        // Six for each number of seconds.
        assert!((400..600).contains(&most), "{most}");
        assert!(chains() < most, "the kernel has deleted some");
        assert!(ask(None, VIP, 80).unwrap().starts_with('a'));
    });
}

#[test]
fn policies_local() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        let (a, b) = (network.attach("a").await.unwrap(), network.attach("b").await.unwrap());
        serve("a", &a);
        serve("b", &b);
        let far = Path::new("/run/netns/far");
        let mut table = Table::new().await;
        let external = web(json!({"externalTrafficPolicy": "Local"}));
        // Pod b counts as another node's.
        table.set("app/web", &external, &slice(&[(&a, "n1"), (&b, "n2")])).await;
        let answers: BTreeSet<String> = (0..20).map(|_| ask(Some(far), NODE, 30080).unwrap()).collect();
        assert_eq!(
            answers,
            BTreeSet::from(["a 10.0.0.9".to_owned()]),
            "the caller's own address arrives"
        );
        let near: BTreeSet<String> = (0..30)
            .map(|_| ask(None, LOCALHOST, 30080).unwrap()[..1].to_owned())
            .collect();
        assert_eq!(near.len(), 2, "the node itself reaches all");
        table.set("app/web", &external, &slice(&[(&b, "n2")])).await;
        assert_eq!(
            ask(Some(far), NODE, 30080),
            Err(ErrorKind::TimedOut),
            "dropped where there is none"
        );
        assert!(ask(None, NODE, 30080).unwrap().starts_with('b'));
        assert_eq!(ask(Some(&a.netns), NODE, 30080), Ok(format!("b {}", a.ip)));

        let internal = web(json!({"internalTrafficPolicy": "Local"}));
        table.set("app/web", &internal, &slice(&[(&a, "n1"), (&b, "n2")])).await;
        assert!((0..10).all(|_| ask(Some(&b.netns), VIP, 80).unwrap().starts_with('a')));
    });
}

#[test]
fn host_ports_and_udp() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        let (a, b) = (network.attach("a").await.unwrap(), network.attach("b").await.unwrap());
        serve("a", &a);
        serve("b", &b);
        let far = Path::new("/run/netns/far");
        let mut table = Table::new().await;
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"podIP": a.ip.to_string()},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 8080, "hostPort": 8080},
                     {"containerPort": 8080, "hostPort": 8081, "hostIP": "127.0.0.1"},
                     {"containerPort": 8080, "hostPort": 8082, "hostIP": "10.0.0.9"},
                     {"containerPort": 8080, "hostPort": 8083, "hostIP": "10.0.0.1"}]}]}}))
        .unwrap();
        table.0.set(Owner::Pod("app/a".into()), host_ports(&node(), &pod));
        nft::apply(&table.0.take(&node()).text).await.unwrap();
        assert_eq!(ask(Some(far), NODE, 8080), Ok("a 10.0.0.9".into()));
        assert!(ask(None, LOCALHOST, 8080).unwrap().starts_with('a'));
        assert!(ask(None, NODE, 8080).unwrap().starts_with('a'));
        assert!(ask(Some(&a.netns), NODE, 8080).unwrap().starts_with('a'), "to itself");
        assert!(ask(None, LOCALHOST, 8081).unwrap().starts_with('a'));
        assert!(ask(Some(far), NODE, 8081).is_err());
        // An address of this node alone; what is another host's stays its own.
        assert_eq!(ask(Some(far), NODE, 8083), Ok("a 10.0.0.9".into()));
        let others = netns::enter(far, || TcpListener::bind("10.0.0.9:8082").unwrap()).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = others.accept() {
                let _ = stream.write_all(b"far");
            }
        });
        assert_eq!(ask(None, [10, 0, 0, 9].into(), 8082), Ok("far".into()));

        // A UDP client with one socket follows the endpoints.
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        client.connect((VIP, 80)).unwrap();
        let say = || {
            client.send(b"?").map_err(|error| error.kind())?;
            let mut answer = [0; 9];
            client
                .recv(&mut answer)
                .map(|n| String::from_utf8_lossy(&answer[..n]).into_owned())
                .map_err(|e| e.kind())
        };
        assert_eq!(
            say(),
            Err(ErrorKind::PermissionDenied),
            "what a refusal on the way out is to its sender"
        );
        // The refusal itself arrives too, with the next call.
        assert_eq!(say(), Err(ErrorKind::ConnectionRefused));
        table.set("app/web", &web(json!({})), &slice(&[(&a, "n1")])).await;
        assert_eq!(say(), Ok("a".into()));
        table.set("app/web", &web(json!({})), &slice(&[(&b, "n1")])).await;
        assert_eq!(say(), Ok("b".into()));

        // The endpoints change while mk8s is not running: the next process makes a new table, and the client follows.
        let mut next = ChangeTracker::default();
        let service = mk8s_proxy::service(&node(), &web(json!({})), [&slice(&[(&a, "n1")])].into_iter()).entries;
        next.set(Owner::Service("app/web".into()), service);
        let kernel = &mut table.1;
        kernel.apply(next.take_all(&node())).await.unwrap();
        kernel.settled().await;
        assert_eq!(say(), Ok("a".into()));
    });
}

/// Says so to all who come to these ports.
fn listen(netns: Option<&Path>, word: &'static str, ports: &[u16]) {
    for &port in ports {
        let bind = move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let listener = match netns {
            Some(path) => netns::enter(path, bind).unwrap(),
            None => bind(),
        };
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(word.as_bytes());
            }
        });
    }
}

/// An account that may write Services and pods in one namespace alone takes nothing that the cluster itself needs.
#[test]
#[expect(clippy::too_many_lines, reason = "one story, each step on what the last one left")]
fn nobody_takes_over_the_api_server_or_a_node() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        let eve = network.attach("eve").await.unwrap();
        serve("eve", &eve);
        let far = Path::new("/run/netns/far");
        sh("ip addr add 10.0.0.2/24 dev eth0");
        let (second, other): (Ipv4Addr, Ipv4Addr) = ([10, 0, 0, 2].into(), [10, 0, 0, 9].into());
        listen(None, "api", &[6443]);
        listen(None, "kubelet", &[10250]);
        listen(None, "health", &[30999]);
        listen(Some(far), "other", &[10250]);
        let pod = Some(eve.netns.as_path());
        let all = [
            (Some(far), NODE, 6443, "api"),
            (None, NODE, 6443, "api"),
            (pod, NODE, 6443, "api"),
            (Some(far), second, 6443, "api"),
            (None, LOCALHOST, 6443, "api"),
            (Some(far), NODE, 10250, "kubelet"),
            (None, NODE, 10250, "kubelet"),
            (None, other, 10250, "other"),
            (pod, other, 10250, "other"),
        ];
        let reach = |step: &str| {
            for (from, ip, port, answer) in all {
                assert_eq!(ask(from, ip, port), Ok(answer.into()), "{step}: {from:?} {ip}:{port}");
            }
        };
        let mut table = Table::new().await;
        reach("before");

        let evil = |more: serde_json::Value| {
            let mut spec = json!({"type": "ClusterIP", "externalIPs": ["10.0.0.1", "10.0.0.2", "10.0.0.9"],
                "ports": [{"name": "t", "port": 6443}, {"name": "t", "port": 10250}]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            web(spec)
        };
        let (some, none) = (slice(&[(&eve, "n1")]), slice(&[]));
        table.set("app/evil", &evil(json!({})), &some).await;
        for (from, ip, port, _) in all.iter().filter(|(_, ip, ..)| *ip != LOCALHOST) {
            let answer = ask(*from, *ip, *port);
            assert!(
                answer.is_ok_and(|text| text.starts_with("eve")),
                "what is not reserved is hers: {ip}:{port}"
            );
        }

        let nodes = [("n1", "10.0.0.1"), ("n2", "10.0.0.9")].map(|(name, ip)| {
            let status = json!({"addresses": [{"type": "InternalIP", "address": ip}]});
            serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
        });
        let reserved = Reserved::of(&node(), nodes.iter(), std::iter::empty());
        table.want(Owner::Cluster, reserved.entries()).await;
        reach("a Service with external addresses");
        table.set("app/evil", &evil(json!({})), &none).await;
        reach("one without endpoints");
        let mut balanced = evil(json!({"type": "LoadBalancer", "externalIPs": [],
            "loadBalancerSourceRanges": ["192.0.2.0/24"]}));
        let ingress = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.9"}]);
        balanced.status = serde_json::from_value(json!({"loadBalancer": {"ingress": ingress}})).unwrap();
        table.set("app/evil", &balanced, &some).await;
        reach("a load balancer's addresses");
        table.want(Owner::Service("app/evil".into()), Entries::new()).await;
        let hostile: Pod = serde_json::from_value(
            json!({"metadata": {"name": "eve"}, "status": {"podIP": eve.ip.to_string()},
            "spec": {"containers": [{"name": "c", "ports": [
                {"containerPort": 8080, "hostPort": 6443}, {"containerPort": 8080, "hostPort": 10250},
                {"containerPort": 8080, "hostPort": 6443, "hostIP": "10.0.0.2"}]}]}}),
        )
        .unwrap();
        table
            .want(Owner::Pod("app/eve".into()), host_ports(&node(), &hostile))
            .await;
        reach("host ports");

        // Another's node port, with endpoints and without, and the port that a load balancer asks for its health.
        let victim = network.attach("victim").await.unwrap();
        serve("victim", &victim);
        let own = slice(&[(&victim, "n1")]);
        let local = web(
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999,
            "externalIPs": []}),
        );
        table.set("own/web", &local, &own).await;
        let thief = evil(json!({"clusterIP": "10.96.0.66",
            "ports": [{"name": "t", "port": 30080}, {"name": "t", "port": 30999}, {"name": "t", "port": 30081}]}));
        table.set("app/evil", &thief, &some).await;
        for from in [Some(far), pod, None] {
            assert!(ask(from, NODE, 30080).unwrap().starts_with("victim"), "{from:?}");
            assert_eq!(ask(from, NODE, 30999), Ok("health".into()), "{from:?}");
        }
        assert!(
            ask(Some(far), NODE, 30081).unwrap().starts_with("eve"),
            "nobody's node port"
        );
        table.set("own/web", &local, &none).await;
        assert_eq!(ask(Some(far), NODE, 30080), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one measurement: each figure is taken on what the last one left"
)]
fn ten_thousand_services() {
    isolated(async || {
        let mut tracker = ChangeTracker::default();
        let pod = |ip: Ipv4Addr| PodAddress { ip, netns: "/".into() };
        // What a first packet costs, with one Service and with 10 000.
        let own = pod(NODE);
        let listener = TcpListener::bind((NODE, 8080)).unwrap();
        std::thread::spawn(move || while listener.accept().is_ok() {});
        let first_packets = || {
            let start = Instant::now();
            for _ in 0..2000 {
                drop(TcpStream::connect((VIP, 80)).unwrap());
            }
            start.elapsed() / 2000
        };
        sh(
            "ip link add mk8s0 type bridge; ip link set mk8s0 up; ip addr add 10.244.0.1/24 dev mk8s0
            ip route add 10.96.0.0/16 dev mk8s0",
        );
        let first = mk8s_proxy::service(&node(), &web(json!({})), [&slice(&[(&own, "n1")])].into_iter()).entries;
        tracker.set(Owner::Service("app/first".into()), first);
        nft::apply(&tracker.take_all(&node()).text).await.unwrap();
        let few = first_packets();
        for n in 0..10_000_u16 {
            let [high, low] = n.to_be_bytes();
            let mut object = json!({"metadata": {"name": n.to_string()}, "spec": {
                "clusterIP": Ipv4Addr::new(10, 96, 1 + high, low).to_string(), "ports": [{"name": "t", "port": 80}]}});
            object["metadata"]["namespace"] = "app".into();
            let service: Service = serde_json::from_value(object).unwrap();
            let (a, b) = (pod([10, 244, high, low].into()), pod([10, 244, 100 + high, low].into()));
            let entries =
                mk8s_proxy::service(&node(), &service, [&slice(&[(&a, "n1"), (&b, "n2")])].into_iter()).entries;
            tracker.set(Owner::Service(n.to_string().into()), entries);
        }
        let start = Instant::now();
        let changes = tracker.take_all(&node());
        println!("rendered {} KB in {:?}", changes.text.len() / 1024, start.elapsed());
        let start = Instant::now();
        nft::apply(&changes.text).await.unwrap();
        println!("loaded in {:?}", start.elapsed());
        let many = first_packets();
        println!("a connection: {few:?} with one Service, {many:?} with 10 000");
        let mut kernel = Kernel::default();
        let mut service = web(json!({}));
        service.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.6".into());
        for n in 0..5_u8 {
            let start = Instant::now();
            let entries = mk8s_proxy::service(
                &node(),
                &service,
                [&slice(&[(&pod([10, 244, 0, n].into()), "n1")])].into_iter(),
            )
            .entries;
            tracker.set(Owner::Service("app/web".into()), entries);
            let mut changes = tracker.take(&node());
            let computed = start.elapsed();
            assert!(n == 0 || changes.elements.is_some(), "only the first one needs a chain");
            changes.stale.clear();
            kernel.apply(changes).await.unwrap();
            println!(
                "one change: computed in {computed:?}, applied after {:?}",
                start.elapsed()
            );
        }
    });
}

/// An API server with a node, a second range, a Service that would have the API server's address too, the slices of both and no pods;
/// nothing of it changes. What it is told goes to `events`.
/// `ranges`: whether it has ServiceCIDRs.
fn api(endpoint: &PodAddress, events: mpsc::UnboundedSender<serde_json::Value>, ranges: bool) -> axum::Router {
    let list = |kind: &'static str, version: &'static str, items: Vec<serde_json::Value>| {
        axum::routing::get(
            move |axum::extract::RawQuery(query): axum::extract::RawQuery| async move {
                if query.unwrap_or_default().contains("watch=true") {
                    return std::future::pending().await;
                }
                json!({"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "5"}, "items": items})
                    .to_string()
            },
        )
    };
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999,
        "externalIPs": ["10.0.0.1"], "ports": [{"name": "t", "port": 80}, {"name": "t", "port": 6443}]});
    let own = json!({"metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}]});
    let told = axum::routing::post(move |event: String| async move {
        events.send(serde_json::from_str(&event).unwrap()).unwrap();
        event
    });
    let mut slice = serde_json::to_value(slice(&[(endpoint, "n1")])).unwrap();
    slice["metadata"]["namespace"] = "app".into();
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
    axum::Router::new()
        .route(
            "/api/v1/services",
            list("ServiceList", "v1", vec![serde_json::to_value(web(local)).unwrap()]),
        )
        .route("/api/v1/pods", list("PodList", "v1", Vec::new()))
        .route(
            "/api/v1/nodes",
            list("NodeList", "v1", vec![json!({"metadata": {"name": "n1"}})]),
        )
        .route(
            match ranges {
                true => "/apis/networking.k8s.io/v1/servicecidrs",
                false => "/apis/another/v1/servicecidrs",
            },
            list(
                "ServiceCIDRList",
                "networking.k8s.io/v1",
                vec![json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.98.0.0/16"]}})],
            ),
        )
        .route("/api/v1/namespaces/{namespace}/events", told)
        .route(
            "/apis/discovery.k8s.io/v1/endpointslices",
            list("EndpointSliceList", "discovery.k8s.io/v1", vec![slice, own]),
        )
}

async fn until(seconds: u64, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is known of the hosts, and who says where API servers are.
fn hosts(network: &Network) -> (watch::Sender<BTreeSet<SocketAddrV4>>, Hosts) {
    let (said, api) = watch::channel(BTreeSet::new());
    let occupied = network.occupied();
    (said, Hosts { occupied, api })
}

#[test]
fn runs_and_makes_again_what_somebody_flushed() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        // As the agent does for what its ServiceCIDRs say.
        let more = "10.98.0.0/16".parse().unwrap();
        network.services([more].into()).await.unwrap();
        let a = network.attach("a").await.unwrap();
        serve("a", &a);
        let token = tokio_util::sync::CancellationToken::new();
        let owner = mk8s_supervisor::Supervisor::new(token.clone());
        let (events, mut told) = mpsc::unbounded_channel();
        let client = mk8s_client::in_process(api(&a, events, true), "proxy");
        let events = mk8s_client::EventRecorder::new(client.clone(), "kube-proxy", "n1", &owner);
        let informers = mk8s_client::Informers::new(client, &owner);
        listen(None, "api", &[6443]);
        let (said, hosts) = hosts(&network);
        let running = tokio::spawn(mk8s_proxy::run(node(), informers, hosts, events, token.clone()));
        for _ in 0..2 {
            let start = Instant::now();
            until(5, "a Service", || ask(None, VIP, 80).is_ok()).await;
            println!("reached after {:?}", start.elapsed());
            let health = tokio::task::spawn_blocking(|| {
                netns::enter(Path::new("/run/netns/far"), || {
                    let mut stream = TcpStream::connect((NODE, 30999)).unwrap();
                    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    text
                })
            });
            let health = health.await.unwrap().unwrap();
            assert!(
                health.starts_with("HTTP/1.0 200") && health.contains("\"localEndpoints\":1"),
                "{health}"
            );
            assert_eq!(ask(None, NODE, 6443), Ok("api".into()));
            // What no Service has of the second range is refused, and nobody waits for an answer.
            let nobodys = Ipv4Addr::new(10, 98, 0, 7);
            assert_eq!(ask(None, nobodys, 80), Err(ErrorKind::ConnectionRefused));
            sh("nft flush ruleset");
        }
        let event = told.recv().await.unwrap();
        assert_eq!(
            (&event["involvedObject"]["name"], &event["reason"], &event["message"]),
            (
                &json!("web"),
                &json!("ExternalIPConflict"),
                &json!("port 6443/tcp of 10.0.0.1 is the API server's: the Service does not get what is sent there")
            )
        );
        assert!(told.try_recv().is_err(), "told once");
        // One is found where nobody was known to be.
        let another: SocketAddrV4 = "10.0.0.9:7443".parse().unwrap();
        said.send_replace([another].into());
        until(5, "it is reserved", || {
            sh("nft list ruleset").contains("10.0.0.9 . tcp . 7443")
        })
        .await;
        token.cancel();
        running.await.unwrap();
    });
}

#[test]
fn strangers_in_a_range_of_services_are_answered_where_the_host_has_a_way_to_them() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        network
            .services(["10.98.0.0/16".parse().unwrap()].into())
            .await
            .unwrap();
        let a = network.attach("a").await.unwrap();
        let token = tokio_util::sync::CancellationToken::new();
        let owner = mk8s_supervisor::Supervisor::new(token.clone());
        let (events, mut told) = mpsc::unbounded_channel();
        let client = mk8s_client::in_process(api(&a, events, true), "proxy");
        let events = mk8s_client::EventRecorder::new(client.clone(), "kube-proxy", "n1", &owner);
        let informers = mk8s_client::Informers::new(client, &owner);
        let (_said, hosts) = hosts(&network);
        let running = tokio::spawn(mk8s_proxy::run(node(), informers, hosts, events, token.clone()));
        let guard = network.clone();
        let guarded = tokio::spawn(async move { guard.guard().await });
        listen(Some(Path::new("/run/netns/far")), "stranger", &[80]);
        let stranger = Ipv4Addr::new(10, 98, 0, 7);
        sh("ip -n far addr add 10.98.0.7/32 dev eth0");
        // More than once, and sooner than a table is made for it: each is seen.
        for _ in 0..2 {
            for (change, answer) in [
                ("add", Ok("stranger".to_owned())),
                ("del", Err(ErrorKind::ConnectionRefused)),
            ] {
                sh(&format!("ip route {change} 10.98.0.0/24 via 10.0.0.9"));
                until(9, change, || ask(None, stranger, 80) == answer).await;
            }
        }
        let mut messages = Vec::new();
        while let Ok(event) = told.try_recv() {
            if event["reason"] == "ServiceCIDROverlap" {
                messages.push(event["message"].as_str().unwrap_or_default().to_owned());
            }
        }
        let text = "10.98.0.0/16 overlaps 10.98.0.0/24, where host n1 has a way of its own: what no Service has there is not \
                    refused on it, and mk8s makes no way of it to there";
        assert_eq!(messages.first().map(String::as_str), Some(text), "{messages:?}");
        guarded.abort();
        token.cancel();
        running.await.unwrap();
    });
}

/// As that of an older version.
#[test]
fn an_api_server_without_ranges_of_services_keeps_no_service_waiting() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).await;
        let a = network.attach("a").await.unwrap();
        serve("a", &a);
        let token = tokio_util::sync::CancellationToken::new();
        let owner = mk8s_supervisor::Supervisor::new(token.clone());
        let (events, _told) = mpsc::unbounded_channel();
        let client = mk8s_client::in_process(api(&a, events, false), "proxy");
        let events = mk8s_client::EventRecorder::new(client.clone(), "kube-proxy", "n1", &owner);
        let informers = mk8s_client::Informers::new(client, &owner);
        let (_said, hosts) = hosts(&network);
        let running = tokio::spawn(mk8s_proxy::run(node(), informers, hosts, events, token.clone()));
        until(8, "a Service", || ask(None, VIP, 80).is_ok()).await;
        token.cancel();
        running.await.unwrap();
    });
}

#[test]
fn netlink_and_nft_say_the_same() {
    isolated(async || {
        let pod = |n: u8| PodAddress {
            ip: [10, 244, 0, n].into(),
            netns: "/".into(),
        };
        let variants = |n: u8| {
            let slice = slice(&[(&pod(n), "n1"), (&pod(n + 1), "n2")]);
            [
                ("a", json!({})),
                ("b", json!({"clusterIP": "10.96.0.6", "sessionAffinity": "ClientIP", "ports": [
                    {"name": "t", "port": 80, "nodePort": 30081}, {"name": "u", "port": 80, "protocol": "UDP"}]})),
                ("c", json!({"clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local", "externalIPs": [],
                             "ports": [{"name": "t", "port": 80, "nodePort": 30082}]})),
                ("d", json!({"clusterIP": "10.96.0.8", "internalTrafficPolicy": "Local", "ports": [{"name": "none", "port": 1}]})),
            ]
            .map(|(name, spec)| {
                let owner = Owner::Service(name.into());
                (owner, mk8s_proxy::service(&node(), &web(spec), [&slice].into_iter()).entries)
            })
        };
        let mut listings = Vec::new();
        for plain in [true, false] {
            let mut tracker = ChangeTracker::default();
            for (owner, entries) in variants(3) {
                tracker.set(owner, entries);
            }
            nft::apply(&tracker.take_all(&node()).text).await.unwrap();
            let mut kernel = Kernel::default();
            for n in [5, 7] {
                for (owner, entries) in variants(n) {
                    tracker.set(owner, entries);
                }
                let mut changes = tracker.take(&node());
                assert!(changes.elements.as_ref().is_some_and(|elements| elements.len() > 20));
                changes.stale.clear();
                if plain {
                    // Nothing is left for nft to try.
                    changes.text.clear();
                } else {
                    changes.elements = None;
                }
                kernel.apply(changes).await.unwrap();
            }
            let listed = sh("nft -s list table ip mk8s");
            let mut words: Vec<String> = listed
                .replace("elements = {", "")
                .split([',', '\n'])
                .map(|word| word.trim().to_owned())
                .collect();
            words.sort();
            listings.push(words);
        }
        assert!(listings[0].iter().any(|word| word.contains("10.244.0.7")));
        assert_eq!(listings[0], listings[1]);
    });
}
