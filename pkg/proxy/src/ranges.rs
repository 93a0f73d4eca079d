//! Where Services have their addresses besides the range that the cluster was made with, and who else is there: looked at when
//! ServiceCIDRs, nodes or the host's own routes have changed, and told of once by one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1 as api;
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
        let mut told = match node.api_port.is_some() {
            true => all.clone(),
            false => BTreeMap::new(),
        };
        for (range, to) in self.occupied.borrow_and_update().iter().flatten() {
            if let Some(beside @ None) = all.get_mut(range) {
                *beside = Some(format!("overlaps {to}, where host {} has a way of its own", node.name));
                if speaks_for(&node.name, to, nodes.clone()) {
                    told.insert(*range, beside.clone());
                }
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
/// of them by name does.
fn speaks_for<'a>(own: &str, to: &Ipv4Net, nodes: impl Iterator<Item = &'a api::Node>) -> bool {
    let inside = nodes.filter(|node| internal_addresses(node).any(|address| to.contains(&address)));
    let inside: BTreeSet<&str> = inside.filter_map(|node| node.metadata.name.as_deref()).collect();
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
            let addresses = json!([{"type": "InternalIP", "address": address}]);
            self.set("nodes", name, Some(json!({"status": {"addresses": addresses}})))
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
        for (others, master_of, told) in [
            (["n0", "n2"], false, 0),
            (["n2", "n3"], false, 1),
            // Of pods and nodes the API server's tells.
            (["n0", "n2"], true, 1),
        ] {
            let node = if master_of { master() } else { Node::example() };
            let mut bench = Bench::new(node).await;
            bench.other("n1", "10.9.0.1").await;
            bench.range("more", "10.9.0.128/25").await;
            for (name, last) in others.iter().zip([2, 3]) {
                let last = if master_of { last + 128 } else { last };
                bench.other(name, &format!("10.9.0.{last}")).await;
            }
            let occupied = Occupied::from([(net("10.9.0.128/25"), net("10.9.0.0/24"))]);
            bench.occupied.send_replace(Some(occupied));
            assert!(bench.look());
            assert_eq!(bench.node.shared, [net("10.9.0.128/25")]);
            assert_eq!(bench.told().await.len(), told, "{others:?}");
        }
    }
}
