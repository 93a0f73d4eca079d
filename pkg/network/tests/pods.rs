//! The network against the real kernel, in a network and mount namespace of the test's own. Needs root.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use mk8s_network::{Config, Error, Mode, Network, Peer, names, netns, teardown};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs the test where nothing of the machine's network and of /run is seen.
fn isolated<F: Future<Output = ()> + Send>(test: impl FnOnce() -> F + Send + 'static) {
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
        sh(
            "ip link set lo up; ip link add eth0 type veth peer name far; ip addr add 10.0.0.1/24 dev eth0;
            ip link set eth0 up; ip link set far up",
        );
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

fn sysctl(name: &str) -> String {
    sh(&format!("cat /proc/sys/net/ipv4/{name}")).trim().to_owned()
}

fn config(dir: &Path) -> Config {
    Config {
        mode: Mode::Vxlan,
        node_ip: [10, 0, 0, 1].into(),
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: Some("10.96.0.0/16".parse().unwrap()),
        dns: Some([10, 96, 0, 10].into()),
        mtu: None,
        state_dir: dir.to_owned(),
    }
}

/// Answers each connection in the pod with the caller's address.
fn serve(netns: &Path, ip: Ipv4Addr) {
    let listener = netns::enter(netns, move || TcpListener::bind((ip, 80)).unwrap()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = stream.write_all(from.ip().to_string().as_bytes());
        }
    });
}

fn ask(to: Ipv4Addr) -> String {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, 80)), Duration::from_secs(2)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn pods_reach_each_other_and_nothing_stays() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        assert_eq!(network.mtu(), 1450);
        let start = Instant::now();
        let a = network.attach("pod-a").await.unwrap();
        println!("first attach: {:?}", start.elapsed());
        let start = Instant::now();
        let b = network.attach("pod-b").await.unwrap();
        println!("attach: {:?}", start.elapsed());
        serve(&b.netns, b.ip);
        let to = b.ip;
        assert_eq!(
            netns::enter(&a.netns, move || ask(to)).unwrap(),
            a.ip.to_string(),
            "pod to pod"
        );
        assert_eq!(ask(b.ip), network.gateway().to_string(), "node to pod");

        // After a restart the pods are still there.
        drop(network);
        let network = Network::open(config(dir.path())).await.unwrap();
        let kept = network.adopt(&["pod-b".into(), "pod-gone".into()]).await.unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["pod-b"]);
        assert_eq!(kept["pod-b"], b);
        assert!(!netns::exists("pod-a") && !sh("ip -br link").contains(&names::veth("pod-a")));
        assert_eq!(ask(b.ip), network.gateway().to_string());
        assert_eq!(
            network.attach("pod-c").await.unwrap().ip,
            Ipv4Addr::from([10, 244, 0, 4])
        );
        // A new sandbox of the same pod.
        let again = network.attach("pod-c").await.unwrap();
        assert_eq!(again.ip, Ipv4Addr::from([10, 244, 0, 5]));
        network.detach("pod-c").await.unwrap();
        network.detach("pod-c").await.unwrap();
        assert_eq!(sh("ip neigh show dev mk8s0 nud permanent").lines().count(), 1);

        assert_eq!(teardown().await.unwrap(), Vec::<String>::new());
        teardown().await.unwrap();
        assert_eq!(sh("nft list ruleset"), "");
        let links = sh("ip -br link");
        assert!(!links.contains("mk8s"), "{links}");
        assert!(!Path::new("/run/netns").exists());
        assert_eq!(sysctl("conf/eth0/route_localnet"), "0");
        assert_eq!(sysctl("ip_forward"), "0");
    });
}

/// No pod speaks for the world outside or for another node, nobody outside for a pod, and nobody is told of a shorter way.
#[test]
fn sources_are_what_they_say() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        let (a, b) = (network.attach("a").await.unwrap(), network.attach("b").await.unwrap());
        // Received by the node itself, whatever the answer would be.
        let heard = |netns: &Path, from: Ipv4Addr, to: Ipv4Addr| {
            // A program that another test starts holds a copy of the socket before, until it runs.
            let bind = || UdpSocket::bind((to, 7)).ok();
            let mut tries = (0..100).map(|_| {
                bind().or_else(|| {
                    std::thread::sleep(Duration::from_millis(10));
                    None
                })
            });
            let socket = tries.find_map(|socket| socket).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            sh(&format!(
                "nsenter --net={} ip addr add {from}/32 dev lo || true",
                netns.display()
            ));
            netns::enter(netns, move || {
                UdpSocket::bind((from, 0)).unwrap().send_to(b"x", (to, 7)).unwrap()
            })
            .unwrap();
            socket.recv(&mut [0; 8]).is_ok()
        };
        let gateway = network.gateway();
        assert!(heard(&a.netns, a.ip, gateway), "a pod's own address");
        assert!(!heard(&a.netns, b.ip, gateway), "another pod of this node");
        assert!(!heard(&a.netns, [10, 244, 7, 7].into(), gateway), "another node's pod");
        assert!(!heard(&a.netns, [10, 0, 0, 9].into(), gateway), "a host outside");
        // Outside is the other end of the cable.
        sh("ip netns add outside; ip link set far netns outside
            ip netns exec outside sh -ec 'ip link set lo up; ip link set far up; ip addr add 10.0.0.2/24 dev far'
            sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0");
        let outside = Path::new("/run/netns/outside");
        let node = Ipv4Addr::from([10, 0, 0, 1]);
        assert!(heard(outside, [10, 0, 0, 2].into(), node), "a host outside as itself");
        assert!(!heard(outside, [10, 244, 0, 77].into(), node), "a pod of this node");

        let (to, redirects) = (b.ip, "awk '/^Icmp: [0-9]/ {print $9}' /proc/self/net/snmp");
        sh(&format!(
            "nsenter --net={} busybox ping -q -c 3 {to}",
            a.netns.display()
        ));
        assert_eq!(
            sh(&format!("nsenter --net={} {redirects}", a.netns.display())).trim(),
            "0"
        );
    });
}

/// One that takes its neighbour's hardware address gets none of its packets, after a start of mk8s neither.
#[test]
fn no_pod_takes_its_neighbours_packets() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        let (eve, victim) = (
            network.attach("eve").await.unwrap(),
            network.attach("victim").await.unwrap(),
        );
        serve(&victim.netns, victim.ip);
        let gateway = network.gateway();
        let mac = names::pod_mac(victim.ip).map(|byte| format!("{byte:02x}")).join(":");
        // It goes on meanwhile: the victim itself speaks now and then.
        let steal = || {
            sh(&format!(
                "nsenter --net={} sh -ec 'ip link set eth0 address {mac}
                 timeout 3 busybox ping -q -i 0.05 {gateway} >/dev/null 2>&1 &'",
                eve.netns.display(),
            ));
            std::thread::sleep(Duration::from_millis(300));
        };
        steal();
        assert_eq!(ask(victim.ip), gateway.to_string());
        // As an earlier mk8s left it.
        sh(&format!(
            "bridge link set dev {0} learning on; bridge link set dev {0} locked off",
            names::veth("eve")
        ));
        let kept = network.adopt(&["eve".to_owned(), "victim".to_owned()]).await.unwrap();
        assert_eq!(kept.len(), 2);
        steal();
        assert_eq!(ask(victim.ip), gateway.to_string());
    });
}

#[test]
fn remains_that_cannot_be_removed_keep_no_others() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        network.attach("b").await.unwrap();
        sh("mkdir -p /run/netns/mk8s-a/in-the-way");
        network.adopt(&[]).await.unwrap_err();
        assert!(!netns::exists("b") && !sh("ip -br link").contains(&names::veth("b")));
    });
}

/// Who sends a router advertisement in the name of a router is believed by nobody.
#[test]
fn no_pod_makes_itself_a_router() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        let pod = network.attach("pod").await.unwrap();
        let value = |of: &str| sh(&format!("cat /proc/sys/net/ipv6/conf/{of}")).trim().to_owned();
        assert_eq!(value("mk8s0/disable_ipv6"), "1");
        assert_eq!(value("mk8s-vxlan/disable_ipv6"), "1");
        assert_eq!(sh("ip -6 addr show dev mk8s0"), "");
        let inside = "eth0/accept_ra".to_owned();
        let refused = netns::enter(&pod.netns, move || {
            std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{inside}")).unwrap()
        });
        assert_eq!(refused.unwrap().trim(), "0");
        assert_eq!(value("eth0/disable_ipv6"), "0", "the node's own link is the host's");
    });
}

#[test]
fn vxlan_packets_come_from_the_nodes_alone() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        let nodes = || sh("nft list set ip mk8s-network nodes");
        assert!(!nodes().contains("elements"), "{}", nodes());
        let peer = |n: u8| Peer {
            node_ip: [10, 0, 0, n].into(),
            pod_cidr: format!("10.244.{n}.0/24").parse().unwrap(),
        };
        network.peers(BTreeSet::from([peer(2), peer(3)])).await.unwrap();
        assert!(nodes().contains("elements = { 10.0.0.2, 10.0.0.3 }"), "{}", nodes());
        network.peers(BTreeSet::from([peer(3)])).await.unwrap();
        assert!(nodes().contains("elements = { 10.0.0.3 }"), "{}", nodes());
        // A new process has not been told yet.
        drop(network);
        let network = Network::open(config(dir.path())).await.unwrap();
        assert!(nodes().contains("elements = { 10.0.0.3 }"), "{}", nodes());

        // A packet that would reach the bridge, by VXLAN from a node and from a stranger.
        sh("ip netns add outside; ip link set far netns outside
            ip netns exec outside sh -ec 'ip link set lo up; ip link set far up; ip addr add 10.0.0.3/24 dev far; ip addr add 10.0.0.9/24 dev far'");
        for (from, arrives) in [("10.0.0.3", true), ("10.0.0.9", false)] {
            let before: u64 = sh("ip -s link show dev mk8s-vxlan | awk '/RX:/ {getline; print $2}'")
                .trim()
                .parse()
                .unwrap();
            sh(&format!(
                "ip netns exec outside sh -ec 'ip link add v type vxlan id 1 dev far local {from} remote 10.0.0.1 dstport 8472 nolearning
                 ip link set v up; ip addr add 10.244.3.0/24 dev v; ip neigh add 10.244.3.77 lladdr 0e:6d:0a:00:00:01 dev v
                 busybox ping -q -c 2 -W 1 10.244.3.77 || true; ip link del v'"
            ));
            let after: u64 = sh("ip -s link show dev mk8s-vxlan | awk '/RX:/ {getline; print $2}'")
                .trim()
                .parse()
                .unwrap();
            assert_eq!(after > before, arrives, "{from}: {before} {after}");
        }
        network.peers(BTreeSet::new()).await.unwrap();
        assert!(!nodes().contains("elements"), "{}", nodes());
    });
}

/// Whatever became of the ways to them, and of the table.
#[test]
fn packets_of_nodes_are_taken_while_no_way_to_them_can_be_made() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let peer = |n: u8| Peer {
            node_ip: [10, 0, 0, n].into(),
            pod_cidr: format!("10.244.{n}.0/24").parse().unwrap(),
        };
        let flushed = async |network: &Network, taken: &str| {
            let flushed = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                sh("nft delete table ip mk8s-network");
                let start = Instant::now();
                while !sh("nft list ruleset").contains(taken) {
                    assert!(start.elapsed() < Duration::from_secs(3), "{}", sh("nft list ruleset"));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                () = flushed => {}
                ended = network.guard() => panic!("{ended:?}"),
            }
        };
        let network = Network::open(config(dir.path())).await.unwrap();
        network.peers(BTreeSet::from([peer(2)])).await.unwrap();
        // Nothing leads anywhere while the device is down.
        sh("ip link set mk8s-vxlan down");
        let both = BTreeSet::from([peer(2), peer(3)]);
        network.peers(both.clone()).await.unwrap_err();
        let taken = "elements = { 10.0.0.2, 10.0.0.3 }";
        assert!(sh("nft list set ip mk8s-network nodes").contains(taken));
        flushed(&network, taken).await;
        sh("ip link set mk8s-vxlan up");
        network.peers(both).await.unwrap();
        assert!(sh("ip route").contains("10.244.3.0/24 via 10.244.3.0 dev mk8s-vxlan"));
        // A new process that has not been told of any yet.
        let network = Network::open(config(dir.path())).await.unwrap();
        flushed(&network, taken).await;
        teardown().await.unwrap();
    });
}

/// What mk8s did not make or set is as it was found, and so is what others need.
#[test]
fn teardown_leaves_what_is_not_ours() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        sh("ip link add other type veth peer name far2; sysctl -qw net.ipv4.conf.other.route_localnet=1");
        sh("mkdir /run/netns; mount -t tmpfs theirs /run/netns");
        for (before, stays) in [("0", false), ("1", false), ("0", true)] {
            sh(&format!("sysctl -qw net.ipv4.ip_forward={before}"));
            let network = Network::open(config(dir.path())).await.unwrap();
            network.attach("pod").await.unwrap();
            drop(Network::open(config(dir.path())).await.unwrap());
            assert_eq!(sysctl("ip_forward"), "1");
            if stays {
                sh("ip link add docker0 type bridge");
            }
            let said = teardown().await.unwrap();
            let expected = if stays { "1" } else { before };
            assert_eq!(
                (sysctl("ip_forward").as_str(), said.len()),
                (expected, usize::from(stays)),
                "{said:?}"
            );
        }
        assert_eq!(sysctl("conf/other/route_localnet"), "1");
        assert!(sh("cat /proc/self/mounts").contains("theirs /run/netns"));
        assert_eq!(sh("ls -A /run/mk8s"), "");
        // Somebody's namespace in a directory that mk8s mounted keeps that.
        sh("umount /run/netns; rmdir /run/netns");
        let network = Network::open(config(dir.path())).await.unwrap();
        network.attach("pod").await.unwrap();
        sh("ip netns add theirs");
        teardown().await.unwrap();
        assert_eq!(sh("ls /run/netns"), "theirs\n");
    });
}

#[test]
fn many_pods_at_once() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        for n in 0..8 {
            let start = Instant::now();
            network.attach(&format!("single-{n}")).await.unwrap();
            println!("attach: {:?}", start.elapsed());
        }
        let start = Instant::now();
        let names: Vec<String> = (0..40).map(|n| format!("pod-{n}")).collect();
        let all = futures::future::join_all(names.iter().map(|name| network.attach(name))).await;
        let ips: BTreeSet<_> = all.into_iter().map(|pod| pod.unwrap().ip).collect();
        assert_eq!(ips.len(), 40);
        println!("40 at once: {:?}", start.elapsed());
        let start = Instant::now();
        for name in &names {
            network.detach(name).await.unwrap();
        }
        println!("40 detached: {:?}", start.elapsed());
        teardown().await.unwrap();
    });
}

#[test]
fn the_hosts_own_routes_stay() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        for foreign in ["128.0.0.0/1", "10.0.0.0/24"] {
            let range = foreign.parse().unwrap();
            let config = Config {
                pod_cidr: range,
                ..config(dir.path())
            };
            let refused = Network::open(config).await.err();
            assert!(
                matches!(refused, Some(Error::ForeignRange { range: found, .. }) if found == range),
                "{foreign}: {refused:?}"
            );
        }
        let before = "10.244.5.0/24 via 10.0.0.5 dev eth0";
        sh("ip route add 10.244.5.0/24 via 10.0.0.5; ip route add default via 10.0.0.254");
        for mode in [Mode::Vxlan, Mode::Routes] {
            let network = Network::open(Config {
                mode,
                ..config(dir.path())
            })
            .await
            .unwrap();
            let own = sh("ip route");
            let peer = |n: u8, range: &str| Peer {
                node_ip: [10, 0, 0, n].into(),
                pod_cidr: range.parse().unwrap(),
            };
            let stolen = ["0.0.0.0/0", "128.0.0.0/1", "10.0.0.0/24", "10.0.0.0/8"];
            let peers = stolen.into_iter().zip(10..).map(|(range, n)| peer(n, range));
            let taken = network.peers(peers.chain([peer(2, "10.244.2.0/24")]).collect()).await;
            taken.unwrap();
            let made: Vec<String> = sh("ip route")
                .lines()
                .filter(|line| !own.contains(line))
                .map(str::to_owned)
                .collect();
            assert!(
                matches!(&made[..], [one] if one.starts_with("10.244.2.0/24 ")),
                "{made:?}"
            );
            // Within the cluster's range, but somebody's here: told, and left as it is.
            let peers = BTreeSet::from([peer(2, "10.244.2.0/24"), peer(5, "10.244.5.0/24")]);
            network.peers(peers).await.unwrap_err();
            assert!(sh("ip route").contains(before), "{}", sh("ip route"));
            network.peers(BTreeSet::new()).await.unwrap();
            assert_eq!(sh("ip route"), own);
        }
    });
}

#[test]
fn the_host_has_a_way_to_every_range_of_services() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let ranges = |all: &[&str]| all.iter().map(|range| range.parse().unwrap()).collect::<BTreeSet<_>>();
        let to = |range: &str| sh("ip route").contains(&format!("{range} dev mk8s0 proto 109"));
        let own = "10.96.0.0/16";
        let network = Network::open(config(dir.path())).await.unwrap();
        // As a manager of networks makes it, and a network in which no node is.
        sh("ip route add 10.97.0.0/16 via 10.0.0.254 metric 100; ip route add 10.50.0.0/16 via 10.0.0.254 metric 100");
        // Ranges that are led to by no one link.
        sh(
            "ip route add blackhole 10.95.0.0/16; ip route add 10.51.0.0/16 nexthop via 10.0.0.254 nexthop via 10.0.0.253",
        );
        // What is more specific than this one is reached.
        sh("ip route add blackhole 10.0.0.0/8");
        let others = [
            "10.97.0.0/16",
            "10.50.128.0/17",
            "10.0.0.128/25",
            "10.95.0.0/16",
            "10.51.0.0/16",
        ];
        let all = [&[own, "10.98.0.0/16"][..], &others].concat();
        assert_eq!(*network.occupied().borrow(), None, "nobody has looked");
        network.services(ranges(&all)).await.unwrap();
        let occupied = [
            ("10.97.0.0/16", "10.97.0.0/16"),
            ("10.50.128.0/17", "10.50.0.0/16"),
            ("10.0.0.128/25", "10.0.0.0/24"),
            ("10.95.0.0/16", "10.95.0.0/16"),
            ("10.51.0.0/16", "10.51.0.0/16"),
        ];
        let occupied = occupied.map(|(range, to)| (range.parse().unwrap(), to.parse().unwrap()));
        assert_eq!(*network.occupied().borrow(), Some(occupied.into()));
        assert!(to(own) && to("10.98.0.0/16"), "{}", sh("ip route"));
        let routes = sh("ip route");
        for own in [
            "10.97.0.0/16 via 10.0.0.254",
            "blackhole 10.95.0.0/16",
            "nexthop via 10.0.0.253",
        ] {
            assert!(routes.contains(own), "{routes}");
        }
        for another in others {
            assert!(!to(another), "{routes}");
        }
        // A new process leaves the last one's until it is told.
        let network = Network::open(config(dir.path())).await.unwrap();
        assert!(to("10.98.0.0/16"), "{}", sh("ip route"));
        network.services(ranges(&["10.99.0.0/16"])).await.unwrap();
        assert!(
            to(own) && to("10.99.0.0/16") && !to("10.98.0.0/16"),
            "{}",
            sh("ip route")
        );
        assert!(
            sh("ip route").contains("10.97.0.0/16 via 10.0.0.254"),
            "{}",
            sh("ip route")
        );
    });
}

#[test]
fn a_way_to_services_that_is_taken_away_comes_back() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        let to = |range: &str| sh("ip route").contains(&format!("{range} dev mk8s0 proto 109"));
        network
            .services(BTreeSet::from(["10.99.0.0/16".parse().unwrap()]))
            .await
            .unwrap();
        let again = async {
            loop {
                sh("ip route del 10.99.0.0/16 2>/dev/null || true");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                if to("10.99.0.0/16") {
                    return;
                }
            }
        };
        tokio::select! {
            ended = network.guard() => panic!("{ended:?}"),
            () = again => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => panic!("{}", sh("ip route")),
        }
        network.services(BTreeSet::new()).await.unwrap();
        assert!(to("10.96.0.0/16") && !to("10.99.0.0/16"), "{}", sh("ip route"));
    });
}

fn another_node() -> Peer {
    Peer {
        node_ip: [10, 0, 0, 2].into(),
        pod_cidr: "10.244.2.0/24".parse().unwrap(),
    }
}

#[test]
fn a_way_whose_loss_was_not_heard_comes_back() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        network.peers(BTreeSet::from([another_node()])).await.unwrap();
        let learned = dir.path().join("learned");
        let each = (0..5000).map(|n| format!("route add 10.40.{}.{}/32 via 10.0.0.254\n", n / 250, n % 250));
        std::fs::write(&learned, each.collect::<String>()).unwrap();
        let comes_back = async {
            // Once it listens.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            // On the one thread there is: nobody takes from the socket meanwhile, and the last message finds it full.
            sh(&format!("ip -batch {}; ip route del 10.244.2.0/24", learned.display()));
            while !sh("ip route show 10.244.2.0/24").contains("10.244.2.0/24") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = network.guard() => panic!("{ended:?}"),
            () = comes_back => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(10)) => panic!("never"),
        }
    });
}

/// What this thread has had of the processor: a test's network runs on it, but for the kernel's part that is other programs'.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn routes_by_the_thousand_cost_few_looks() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        network.peers(BTreeSet::from([another_node()])).await.unwrap();
        let range = "10.98.0.0/16".parse().unwrap();
        network.services(BTreeSet::from([range])).await.unwrap();
        // Nobody looks for the sake of what is elsewhere; within a range, once a second.
        for (at, most) in [("10.40", 300), ("10.98", 600)] {
            let learned = dir.path().join("learned");
            let each = (0..1000).map(|n| format!("route add {at}.{}.{}/32 via 10.0.0.254\n", n / 250, n % 250));
            std::fs::write(&learned, each.collect::<String>()).unwrap();
            let learns = async {
                // Once it listens.
                tokio::time::sleep(Duration::from_millis(500)).await;
                // All at once, and then one after the other. Of an entry that goes nobody hears: who looks finds it.
                let entry = "0e:6d:0a:00:00:02 dev mk8s-vxlan dst 10.0.0.2";
                let script = format!(
                    "ip -batch {}; sleep 1.5; bridge fdb del {entry} self
                    for n in $(seq 100); do ip route add {at}.200.$n/32 via 10.0.0.254; sleep 0.03; done",
                    learned.display()
                );
                let before = busy();
                let mut learns = Command::new("sh").args(["-ec", &script]).spawn().unwrap();
                while learns.try_wait().unwrap().is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                let cost = busy() - before;
                assert!(cost < Duration::from_millis(most), "{at}: {cost:?}");
                let found = sh("bridge fdb show dev mk8s-vxlan").contains("0e:6d:0a:00:00:02 dst 10.0.0.2");
                assert_eq!(found, at == "10.98", "{at}: whether somebody looked");
                sh("ip route del 10.244.2.0/24");
                let lost = Instant::now();
                while !sh("ip route show 10.244.2.0/24").contains("10.244.2.0/24") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                assert!(lost.elapsed() < Duration::from_secs(2), "{at}: {:?}", lost.elapsed());
                println!("{at}: {cost:?}, a lost way is back after {:?}", lost.elapsed());
            };
            tokio::select! {
                ended = network.guard() => panic!("{ended:?}"),
                () = learns => {}
                () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{at}: never"),
            }
        }
        assert!(!sh("ip route").contains("10.98.0.0/16 dev mk8s0"));
    });
}

#[test]
fn a_way_that_cannot_be_made_keeps_no_other_from_coming_back() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        network.peers(BTreeSet::from([another_node()])).await.unwrap();
        network
            .services(BTreeSet::from(["10.98.0.0/16".parse().unwrap()]))
            .await
            .unwrap();
        // No way to Services can be made now.
        sh("ip link set mk8s0 down; ip route del 10.244.2.0/24");
        let back = async {
            while !sh("ip route").contains("10.244.2.0/24 ") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = network.guard() => panic!("{ended:?}"),
            () = back => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => panic!("{}", sh("ip route")),
        }
        assert!(!sh("ip route").contains("10.98.0.0/16"), "{}", sh("ip route"));
    });
}

#[test]
fn ways_to_services_give_way_to_those_that_the_host_gets() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let to = |range: &str| sh("ip route").contains(&format!("{range} dev mk8s0 proto 109"));
        let network = Network::open(config(dir.path())).await.unwrap();
        let range = "10.98.0.0/16".parse().unwrap();
        network.services(BTreeSet::from([range])).await.unwrap();
        let mut occupied = network.occupied();
        let follows = async {
            let theirs = BTreeMap::from([(range, "10.98.4.0/24".parse().unwrap())]);
            for (change, ours, expected) in [("add", false, theirs), ("del", true, BTreeMap::new())] {
                sh(&format!("ip route {change} 10.98.4.0/24 via 10.0.0.254 metric 100"));
                occupied.wait_for(|now| now.as_ref() == Some(&expected)).await.unwrap();
                assert_eq!(to("10.98.0.0/16"), ours);
                if !ours {
                    // A lower one is no news.
                    sh("ip route add 10.98.3.0/24 via 10.0.0.254");
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    assert!(!occupied.has_changed().unwrap());
                    sh("ip route del 10.98.3.0/24");
                }
            }
        };
        tokio::select! {
            ended = network.guard() => panic!("{ended:?}"),
            () = follows => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => panic!("{}", sh("ip route")),
        }
    });
}

#[test]
fn peers_are_what_was_last_said() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let peer = |n: u8| Peer {
            node_ip: [10, 0, 0, n].into(),
            pod_cidr: format!("10.244.{n}.0/24").parse().unwrap(),
        };
        let network = Network::open(config(dir.path())).await.unwrap();
        network.peers(BTreeSet::from([peer(2), peer(3)])).await.unwrap();
        let route = "10.244.2.0/24 via 10.244.2.0 dev mk8s-vxlan proto 109 onlink";
        assert!(sh("ip route").contains(route), "{}", sh("ip route"));
        assert!(sh("bridge fdb show dev mk8s-vxlan").contains("0e:6d:0a:00:00:02 dst 10.0.0.2 self permanent"));

        // A new process finds what the last one made, and a range that moved to another node.
        let network = Network::open(config(dir.path())).await.unwrap();
        let moved = Peer {
            node_ip: [10, 0, 0, 9].into(),
            ..peer(2)
        };
        network.peers(BTreeSet::from([moved])).await.unwrap();
        assert!(sh("ip route").contains(route) && !sh("ip route").contains("10.244.3.0"));
        let fdb = sh("bridge fdb show dev mk8s-vxlan");
        assert!(
            fdb.contains("dst 10.0.0.9") && !fdb.contains("dst 10.0.0.2") && !fdb.contains("dst 10.0.0.3"),
            "{fdb}"
        );
        assert!(sh("ip neigh show dev mk8s-vxlan").contains("10.244.2.0 lladdr 0e:6d:0a:00:00:09"));

        // The other mode.
        let network = Network::open(Config {
            mode: Mode::Routes,
            ..config(dir.path())
        })
        .await
        .unwrap();
        network.peers(BTreeSet::from([peer(2)])).await.unwrap();
        assert!(
            sh("ip route").contains("10.244.2.0/24 via 10.0.0.2 dev eth0 proto 109"),
            "{}",
            sh("ip route")
        );
        assert!(!sh("ip -br link").contains("mk8s-vxlan"));
        assert_eq!(network.mtu(), 1500);
        // Somebody takes the routes away.
        let again = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for loss in [
                "ip route del 10.244.2.0/24",
                "ip link set eth0 down; sleep 0.1; ip link set eth0 up",
            ] {
                sh(loss);
                let start = Instant::now();
                while !sh("ip route").contains("10.244.2.0/24 via 10.0.0.2") {
                    assert!(start.elapsed() < Duration::from_secs(3), "{loss}: {}", sh("ip route"));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        tokio::select! {
            () = again => {}
            ended = network.guard() => panic!("{ended:?}"),
        }
        teardown().await.unwrap();
        assert!(!sh("ip route").contains("109"));
    });
}

#[test]
fn another_firewall_lets_pods_through() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        sh("iptables -P FORWARD DROP; iptables -P INPUT DROP");
        sh("nft 'table inet fw { chain forward { type filter hook forward priority 10; policy drop; }; }'");
        let network = Network::open(config(dir.path())).await.unwrap();
        network.recheck_firewall().await.unwrap();
        let (a, b) = (network.attach("a").await.unwrap(), network.attach("b").await.unwrap());
        serve(&b.netns, b.ip);
        let to = b.ip;
        assert_eq!(netns::enter(&a.netns, move || ask(to)).unwrap(), a.ip.to_string());
        let listed = sh("iptables -S; nft list table inet fw");
        assert_eq!(listed.matches("-A FORWARD -j MK8S-FORWARD").count(), 1, "{listed}");
        assert_eq!(listed.matches("comment \"mk8s\"").count(), 3, "{listed}");
        // Somebody restarts the firewall.
        sh("iptables -F FORWARD");
        network.recheck_firewall().await.unwrap();
        assert!(sh("iptables -S").contains("-A FORWARD -j MK8S-FORWARD"));
        // The guard sees it by itself, and the loss of mk8s's own table too.
        let guarded = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sh("nft flush ruleset; iptables -P FORWARD DROP");
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let listed = sh("iptables -S; nft list tables");
                if listed.contains("-A FORWARD -j MK8S-FORWARD") && listed.contains("table ip mk8s-network") {
                    return;
                }
            }
            panic!("not made again: {}", sh("iptables -S; nft list tables"));
        };
        // As its owner does: a firewall that changes while it is being read is an error, and read again.
        let guard = async {
            loop {
                let ended = network.guard().await;
                eprintln!("guard: {ended:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = guarded => {}
            () = guard => {}
        }
        sh("nft 'table inet fw { chain forward { type filter hook forward priority 10; policy drop; }; }'");
        network.recheck_firewall().await.unwrap();
        teardown().await.unwrap();
        let listed = sh("iptables -S; nft list table inet fw");
        assert!(!listed.to_lowercase().contains("mk8s"), "{listed}");
    });
}

/// What the kernel takes away with a link it does not tell of.
#[test]
fn ways_follow_links_that_come_and_go() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(config(dir.path())).await.unwrap();
        let range = "10.98.0.0/16".parse().unwrap();
        network.services(BTreeSet::from([range])).await.unwrap();
        let mut occupied = network.occupied();
        let follows = async {
            // Once it listens.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let theirs = BTreeMap::from([(range, "10.98.4.0/24".parse().unwrap())]);
            for ends in ["del d0", "set d0 down"] {
                sh("ip link add d0 type bridge; ip addr add 10.98.4.1/24 dev d0; ip link set d0 up");
                occupied.wait_for(|now| now.as_ref() == Some(&theirs)).await.unwrap();
                sh(&format!("ip link {ends}"));
                let none = |now: &Option<_>| now.as_ref().is_some_and(BTreeMap::is_empty);
                occupied.wait_for(none).await.unwrap();
            }
            sh("ip link set mk8s0 down");
            assert!(!sh("ip route").contains("dev mk8s0"));
            sh("ip link set mk8s0 up");
            let back = |routes: String| ["10.96.0.0/16", "10.98.0.0/16"].iter().all(|to| routes.contains(to));
            while !back(sh("ip route")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = network.guard() => panic!("{ended:?}"),
            () = follows => {}
            () = tokio::time::sleep(Duration::from_secs(15)) => panic!("{}", sh("ip route")),
        }
    });
}

#[test]
fn foreign_routes_are_named() {
    isolated(async || {
        let dir = tempfile::tempdir().unwrap();
        Network::open(config(dir.path())).await.unwrap();
        sh("ip route add 10.244.128.0/20 via 10.0.0.7; ip route add unreachable 10.96.7.0/24");
        // Nobody is behind it.
        sh("ip route add blackhole 10.0.0.0/8");
        let ranges = ["10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap()];
        let found = mk8s_network::overlapping_routes(&ranges).await.unwrap();
        let named = ("10.244.128.0/20".parse().unwrap(), Some("eth0".to_owned()));
        assert_eq!(found, [("10.96.7.0/24".parse().unwrap(), None), named]);
    });
}
