//! Where Services have their addresses besides the range that the cluster was made with, and who else is there: looked at when
//! ServiceCIDRs, nodes or the host's own routes have changed, and told of once by one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1 as api;
use mk8s_api::conditions::is_true;
use mk8s_client::{Informer, Partial, internal_addresses, service_ranges};
use mk8s_network::Occupied;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::{conflicts::Conflicts, model::Node};

/// The table is made anew for other ranges no more often than this: a node's addresses are its own to write, and one whose
/// addresses come and go would keep every other node at it.
const BETWEEN_TABLES: Duration = Duration::from_secs(5);

pub struct Ranges {
    /// That the cluster was made with.
    own: Vec<Ipv4Net>,
    objects: Informer<Partial>,
    nodes: Informer<api::Node>,
    /// None until the network has looked.
    occupied: watch::Receiver<Option<Occupied>>,
    /// Since they were looked at.
    have_changed: bool,
    not_before: Option<Instant>,
}

impl Ranges {
    pub fn new(
        node: &Node,
        objects: Informer<Partial>,
        nodes: Informer<api::Node>,
        occupied: watch::Receiver<Option<Occupied>>,
    ) -> Self {
        Self {
            own: node.service_cidrs.clone(),
            objects,
            nodes,
            occupied,
            have_changed: true,
            not_before: None,
        }
    }

    /// Nodes or ServiceCIDRs are others.
    pub fn note_change(&mut self) {
        self.have_changed = true;
    }

    /// When there is something to look at; never, where nothing changes.
    pub async fn due(&mut self) {
        loop {
            let at = self.not_before.unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(at), if self.have_changed => return,
                () = changed(&mut self.occupied) => self.have_changed = true,
            }
        }
    }

    /// Whether Services have their addresses elsewhere than before, or others are there: then what nobody takes over is another,
    /// and the table.
    pub fn look(&mut self, node: &mut Node, conflicts: &mut Conflicts) -> bool {
        let now = Instant::now();
        if !self.have_changed || self.not_before.is_some_and(|at| at > now) {
            return false;
        }
        self.have_changed = false;
        let (objects, nodes) = (self.objects.list(), self.nodes.list());
        let (of_objects, nodes) = (objects.iter().map(AsRef::as_ref), nodes.iter().map(AsRef::as_ref));
        let api = node.api.iter().map(|server| *server.ip()).collect();
        let mut all = service_ranges(of_objects, node.cluster_cidr, &api, nodes.clone());
        // Of what is so for every host the API server's tells; of an API server that only it knows by this address, each itself.
        let is_known = |server: &Ipv4Addr| {
            nodes
                .clone()
                .any(|node| internal_addresses(node).any(|address| address == *server))
        };
        let own: Vec<&Ipv4Addr> = api.iter().filter(|server| !is_known(server)).collect();
        let mut told = BTreeMap::new();
        for (range, beside) in &all {
            if let Some(beside) = beside
                && (node.api_port.is_some() || own.iter().any(|server| range.contains(*server)))
            {
                let so = "what no Service has there is not refused, and mk8s makes no way of hosts to it";
                told.insert(*range, format!("{beside}: {so}"));
            }
        }
        for (range, to) in self.occupied.borrow_and_update().iter().flatten() {
            if let Some(beside @ None) = all.get_mut(range) {
                let text = format!("overlaps {to}, where host {} has a way of its own", node.name);
                if speaks_for(&node.name, to, nodes.clone()) {
                    let so = "what no Service has there is not refused on it, and mk8s makes no way of it to there";
                    told.insert(*range, format!("{text}: {so}"));
                }
                *beside = Some(text);
            }
        }
        conflicts.tell_of_ranges(&self.own, &objects, &told);
        let moved = node.has_services_in(&self.own, &all);
        if moved {
            self.not_before = Some(now + BETWEEN_TABLES);
        }
        moved
    }
}

/// Whether a node tells of the network that one of its host's routes leads to: of one that it is in itself, with others, the first
/// of them by name does that is there to tell.
fn speaks_for<'a>(own: &str, to: &Ipv4Net, nodes: impl Iterator<Item = &'a api::Node>) -> bool {
    let is_ready = |node: &api::Node| {
        is_true(
            node.status.as_ref().and_then(|status| status.conditions.as_ref()),
            "Ready",
        )
    };
    let inside = nodes.filter(|node| internal_addresses(node).any(|address| to.contains(&address)));
    let inside = inside.map(|node| (node.metadata.name.as_deref().unwrap_or_default(), is_ready(node)));
    let inside: BTreeSet<&str> = inside
        .filter_map(|(name, ready)| (ready || name == own).then_some(name))
        .collect();
    !inside.contains(own) || inside.first() == Some(&own)
}

/// Never, once nobody is there to change it.
pub async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;
    use std::sync::Arc;

    use axum::routing::post;
    use futures::StreamExt;
    use mk8s_api::stored::Stored;
    use mk8s_client::feed::Changes;
    use mk8s_client::{Change, EventRecorder, Feed, Informers, Selection, in_process};
    use mk8s_supervisor::Supervisor;
    use serde_json::{Value as Json, json};
    use tokio::sync::{Mutex, mpsc};
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::*;

    struct Text {
        name: String,
        revision: u64,
        json: Vec<u8>,
    }

    impl Stored for Text {
        fn namespace(&self) -> &str {
            ""
        }

        fn name(&self) -> &str {
            &self.name
        }

        fn revision(&self) -> u64 {
            self.revision
        }

        fn json(&self) -> &[u8] {
            &self.json
        }
    }

    type Told = Arc<Mutex<mpsc::UnboundedReceiver<Change>>>;

    /// Tells of each kind what the test says.
    struct Script(HashMap<&'static str, Told>);

    impl Feed for Script {
        fn open(&self, selection: &Selection, _: Option<u64>) -> Changes {
            let told = self.0[selection.plural.as_str()].clone();
            let told = futures::stream::unfold(told, |told| async {
                let change = told.lock().await.recv().await?;
                Some((Ok(change), told))
            });
            told.boxed()
        }
    }

    struct Bench {
        node: Node,
        ranges: Ranges,
        conflicts: Conflicts,
        revision: u64,
        tell: HashMap<&'static str, mpsc::UnboundedSender<Change>>,
        occupied: watch::Sender<Option<Occupied>>,
        events: mpsc::UnboundedReceiver<Json>,
        _ends: DropGuard,
    }

    impl Bench {
        async fn new(node: Node) -> Self {
            let (mut tell, mut told) = (HashMap::new(), HashMap::new());
            for plural in ["nodes", "servicecidrs"] {
                let (sender, receiver) = mpsc::unbounded_channel();
                sender.send(Change::UpTo(1)).unwrap();
                tell.insert(plural, sender);
                told.insert(plural, Arc::new(Mutex::new(receiver)));
            }
            let token = CancellationToken::new();
            let owner = Supervisor::new(token.clone());
            let (posted, events) = mpsc::unbounded_channel();
            let events_of = "/api/v1/namespaces/{namespace}/events";
            let router = axum::Router::new().route(
                events_of,
                post(move |event: String| async move {
                    posted.send(serde_json::from_str(&event).unwrap()).unwrap();
                    event
                }),
            );
            let recorder = EventRecorder::new(in_process(router, "proxy"), "kube-proxy", &node.name, &owner);
            let informers = Informers::fed(Arc::new(Script(told)), &owner);
            let (occupied, receiver) = watch::channel(None);
            let (objects, nodes) = (Partial::service_cidrs(&informers), informers.of::<api::Node>());
            tokio::join!(objects.wait_synced(), nodes.wait_synced());
            Self {
                ranges: Ranges::new(&node, objects, nodes, receiver),
                node,
                conflicts: Conflicts::new(recorder),
                revision: 1,
                tell,
                occupied,
                events,
                _ends: token.drop_guard(),
            }
        }

        /// None: it is gone.
        async fn set(&mut self, plural: &'static str, name: &str, rest: Option<Json>) {
            self.revision += 1;
            let mut object = rest.clone().unwrap_or_else(|| json!({}));
            object["metadata"] = json!({"name": name, "uid": name, "resourceVersion": self.revision.to_string()});
            let object = Arc::new(Text {
                name: name.to_owned(),
                revision: self.revision,
                json: object.to_string().into_bytes(),
            });
            let change = match rest {
                Some(_) => Change::Applied(object),
                None => Change::Deleted {
                    object,
                    revision: self.revision,
                },
            };
            self.tell[plural].send(change).unwrap();
            // Until it has arrived.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.ranges.note_change();
        }

        async fn range(&mut self, name: &str, cidr: &str) {
            self.set("servicecidrs", name, Some(json!({"spec": {"cidrs": [cidr]}})))
                .await;
        }

        async fn other(&mut self, name: &str, address: &str) {
            self.node(name, address, true).await;
        }

        async fn node(&mut self, name: &str, address: &str, is_ready: bool) {
            let addresses = json!([{"type": "InternalIP", "address": address}]);
            let ready = json!([{"type": "Ready", "status": if is_ready { "True" } else { "Unknown" }}]);
            self.set(
                "nodes",
                name,
                Some(json!({"status": {"addresses": addresses, "conditions": ready}})),
            )
            .await;
        }

        fn look(&mut self) -> bool {
            self.ranges.look(&mut self.node, &mut self.conflicts)
        }

        /// How long it takes until there is something to look at.
        async fn due(&mut self) -> Option<Duration> {
            let start = Instant::now();
            let due = tokio::time::timeout(Duration::from_secs(3600), self.ranges.due()).await;
            due.ok().map(|()| start.elapsed())
        }

        /// What was told, less what it comes to.
        async fn told(&mut self) -> Vec<String> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut told = Vec::new();
            while let Ok(event) = self.events.try_recv() {
                assert_eq!(event["involvedObject"]["kind"], "ServiceCIDR");
                let message = event["message"].as_str().unwrap();
                told.push(message.split(':').next().unwrap().to_owned());
            }
            told
        }
    }

    fn master() -> Node {
        Node {
            api_port: Some(6443),
            ..Node::example()
        }
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_addresses_come_and_go_has_no_table_made_each_time() {
        let mut bench = Bench::new(master()).await;
        bench.range("more", "10.98.0.0/16").await;
        assert!(bench.look());
        let mut tables = 0;
        let begun = Instant::now();
        let mut tenths = 0_u32;
        while begun.elapsed() < Duration::from_secs(60) {
            bench.other("n2", ["10.98.0.2", "10.9.0.2"][tenths as usize % 2]).await;
            tables += u32::from(bench.look());
            tenths += 1;
            tokio::time::sleep_until(begun + Duration::from_millis(100) * tenths).await;
        }
        assert!((6..=12).contains(&tables), "{tables} in a minute");
        // The last change is looked at, though nothing else happens; then there is nothing to look at.
        bench.other("n2", "10.98.0.2").await;
        bench.due().await.unwrap();
        bench.look();
        assert_eq!(bench.node.shared, [net("10.98.0.0/16")]);
        assert_eq!(bench.due().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_host_has_ways_of_its_own_nobody_is_refused_and_it_is_told_once() {
        let mut bench = Bench::new(Node::example()).await;
        bench.range("more", "10.98.0.0/16").await;
        assert!(bench.look() && bench.node.shared.is_empty());
        for (others, told) in [
            (None, 0),
            (Some("10.98.4.0/24"), 1),
            (Some("10.98.4.0/24"), 0),
            (None, 0),
            (Some("10.98.4.0/24"), 1),
        ] {
            let occupied = others.map(|to| (net("10.98.0.0/16"), net(to)));
            bench.occupied.send_replace(Some(occupied.into_iter().collect()));
            let waited = bench.due().await.unwrap();
            assert!(waited <= BETWEEN_TABLES, "{waited:?}");
            bench.look();
            assert_eq!(bench.node.shared.is_empty(), others.is_none());
            let text = "10.98.0.0/16 overlaps 10.98.4.0/24, where host n1 has a way of its own";
            assert_eq!(bench.told().await, vec![text; told]);
        }
        // Of a range that is gone nothing is kept.
        for told in [0, 1] {
            match told {
                0 => bench.set("servicecidrs", "more", None).await,
                _ => bench.range("more", "10.98.0.0/16").await,
            }
            bench.due().await.unwrap();
            assert!(bench.look());
            assert_eq!(bench.told().await.len(), told);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_tells_of_a_network_that_several_are_in() {
        let (range, route) = (net("10.9.0.128/25"), net("10.9.0.0/24"));
        let of_host = "10.9.0.128/25 overlaps 10.9.0.0/24, where host n1 has a way of its own";
        for (others, n0_is_ready, told) in [
            (["n0", "n2"], true, None),
            (["n0", "n2"], false, Some(of_host)),
            (["n2", "n3"], true, Some(of_host)),
        ] {
            let mut bench = Bench::new(Node::example()).await;
            bench.other("n1", "10.9.0.1").await;
            bench.range("more", "10.9.0.128/25").await;
            for (name, last) in others.iter().zip([2, 3]) {
                bench.node(name, &format!("10.9.0.{last}"), n0_is_ready).await;
            }
            bench.occupied.send_replace(Some(Occupied::from([(range, route)])));
            assert!(bench.look());
            assert_eq!(bench.node.shared, [range]);
            assert_eq!(bench.told().await, Vec::from_iter(told), "{others:?}");
        }
        // Of pods and nodes the API server's tells, whatever its host's routes say.
        let mut bench = Bench::new(master()).await;
        bench.other("n1", "10.9.0.1").await;
        bench.other("n2", "10.9.0.130").await;
        bench.range("more", "10.9.0.128/25").await;
        bench.occupied.send_replace(Some(Occupied::from([(range, route)])));
        assert!(bench.look());
        assert_eq!(bench.node.shared, [range]);
        let of_all = "10.9.0.128/25 holds the address 10.9.0.130 of node n2";
        assert_eq!(bench.told().await, [of_all]);
    }

    /// The API server's own host may not know it by that.
    #[tokio::test(start_paused = true)]
    async fn a_host_tells_of_the_address_by_which_it_alone_knows_an_api_server() {
        for (also_a_node_s, told) in [(false, 1), (true, 0)] {
            let mut node = Node::example();
            node.api = ["10.98.0.7:6443".parse().unwrap()].into();
            let mut bench = Bench::new(node).await;
            if also_a_node_s {
                bench.other("n0", "10.98.0.7").await;
            }
            bench.range("more", "10.98.0.0/16").await;
            assert!(bench.look());
            assert_eq!(bench.node.shared, [net("10.98.0.0/16")]);
            assert_eq!(bench.told().await.len(), told);
        }
    }
}
