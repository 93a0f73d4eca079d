//! How many requests are worked on at once, and how many of them are one user's. A permit lasts until the answer is
//! made, if it is a short one, else until it is sent, but no longer than the request's deadline: who never reads his answer
//! keeps nobody else's place, and loses his connection in the end (`pieces.rs`) if it is long. Nor can he take all places at once: administrators need none (upstream exempts
//! `system:masters`; here admin.conf, which is of kubeadm's group, must not be shut out either); nodes and the cluster's own
//! accounts have a quarter of them to themselves; and of the rest one user, or all service accounts of one namespace, has at
//! most a third.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use mk8s_api::status::Status;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::identity::User;

/// Places for one kind of request.
#[derive(Clone)]
pub struct Pool {
    size: usize,
    hasher: RandomState,
    held: Arc<Mutex<Held>>,
}

/// Whose places they are. Two users with one hash share theirs; the hash can't be foreseen.
#[derive(Clone, Copy)]
pub enum Flow {
    /// Nodes, and the service accounts of kube-system.
    Cluster,
    Of(u64),
}

#[derive(Default)]
struct Held {
    /// Whose each permit is, and when it ends at the latest.
    permits: HashMap<u64, (Instant, Flow)>,
    next: u64,
    /// Of users that are not the cluster's: together, and each one's.
    common: usize,
    flows: HashMap<u64, usize>,
}

/// A place, until it is dropped; administrators work without one.
pub struct Permit {
    place: Option<(u64, Arc<Mutex<Held>>)>,
}

impl Pool {
    pub fn new(size: usize) -> Pool {
        Pool {
            size,
            hasher: RandomState::new(),
            held: Arc::default(),
        }
    }

    /// A place until a deadline; None where all that the user may have are taken.
    pub fn take(&self, user: &User, deadline: Instant) -> Option<Permit> {
        let Some(flow) = self.flow(user) else {
            return Some(Permit { place: None });
        };
        let mut held = self.held.lock();
        if !self.has_room(&held, flow) {
            held.forget_late(Instant::now());
            if !self.has_room(&held, flow) {
                return None;
            }
        }
        let number = held.add(deadline, flow);
        Some(Permit {
            place: Some((number, self.held.clone())),
        })
    }

    /// Whose a request is; administrators' is nobody's.
    pub fn flow(&self, user: &User) -> Option<Flow> {
        let mut of_namespace = None;
        for group in &user.groups {
            match group.as_str() {
                "system:masters" | "kubeadm:cluster-admins" => return None,
                "system:nodes" | "system:serviceaccounts:kube-system" => return Some(Flow::Cluster),
                group if group.starts_with("system:serviceaccounts:") => of_namespace = Some(group),
                _ => {}
            }
        }
        Some(Flow::Of(self.hasher.hash_one(of_namespace.unwrap_or(&user.name))))
    }

    fn has_room(&self, held: &Held, flow: Flow) -> bool {
        let common = self.size - self.size / 4;
        let (all, free) = (held.permits.len(), self.size);
        match flow {
            Flow::Cluster => all < free,
            Flow::Of(user) => {
                let own = held.flows.get(&user).copied().unwrap_or(0);
                all < free && held.common < common && own < common.div_ceil(3)
            }
        }
    }
}

/// Streams to each node's server at once. It takes 1000 connections, and whose stream it is it can't tell: what is left is for
/// administrators, who work without a place.
const STREAMS_TO_A_NODE: usize = 800;
/// A stream has no deadline.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Places for logs, exec, attach and port-forward, node by node.
#[derive(Default)]
pub struct Streams(Mutex<HashMap<Box<str>, Pool>>);

impl Streams {
    /// # Errors
    /// 429 where all are taken that the user may have at this node.
    pub fn take(&self, node: &str, user: &User) -> Result<Permit, Status> {
        let mut pools = self.0.lock();
        pools.retain(|_, pool| !pool.held.lock().permits.is_empty());
        let pool = pools.entry(node.into()).or_insert_with(|| Pool::new(STREAMS_TO_A_NODE));
        let place = pool.take(user, Instant::now() + NEVER);
        place.ok_or_else(|| Status::too_many_requests(format!("too many streams to node {node:?} are open"), 1))
    }
}

impl Held {
    fn add(&mut self, deadline: Instant, flow: Flow) -> u64 {
        let number = self.next;
        self.next += 1;
        self.permits.insert(number, (deadline, flow));
        if let Flow::Of(user) = flow {
            self.common += 1;
            *self.flows.entry(user).or_default() += 1;
        }
        number
    }

    fn remove(&mut self, number: u64) {
        // Gone already where its time was over.
        let Some((_, Flow::Of(user))) = self.permits.remove(&number) else {
            return;
        };
        self.common -= 1;
        if let Some(own) = self.flows.get_mut(&user) {
            *own -= 1;
            if *own == 0 {
                self.flows.remove(&user);
            }
        }
    }

    fn forget_late(&mut self, now: Instant) {
        let late = self.permits.iter().filter(|(_, (deadline, _))| *deadline <= now);
        let late: Vec<u64> = late.map(|(number, _)| *number).collect();
        for number in late {
            self.remove(number);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((number, held)) = self.place.take() {
            held.lock().remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User::authenticated(name, groups.iter().map(|group| (*group).to_string()))
    }

    /// The node alone would give all its connections to whoever comes first.
    #[test]
    fn nobody_takes_all_streams_to_a_node() {
        let streams = Streams::default();
        let all_of = |node: &str, user: &User| -> Vec<Permit> {
            std::iter::from_fn(|| streams.take(node, user).ok())
                .take(1000)
                .collect()
        };
        let (jane, joe) = (user("jane", &[]), user("joe", &[]));
        let held = all_of("a", &jane);
        assert_eq!(held.len(), 200);
        assert_eq!(streams.take("a", &jane).err().map(|status| status.code), Some(429));
        assert_eq!(all_of("b", &jane).len(), 200);
        assert_eq!(all_of("a", &joe).len(), 200);
        assert_eq!(all_of("a", &user("admin", &["system:masters"])).len(), 1000);
        drop(held);
        assert!(streams.take("a", &jane).is_ok());
        assert_eq!(streams.0.lock().len(), 1, "a node without streams is forgotten");
    }

    #[test]
    fn places_come_back_when_their_time_is_over() {
        let node = user("system:node:a", &["system:nodes"]);
        let pool = Pool::new(1);
        let soon = Instant::now() + Duration::from_millis(30);
        let held = pool.take(&node, soon);
        assert!(held.is_some() && pool.take(&node, soon).is_none());
        drop(held);
        let late = pool.take(&node, soon);
        assert!(late.is_some());
        std::thread::sleep(Duration::from_millis(40));
        let next = pool.take(&node, Instant::now() + Duration::from_secs(1));
        assert!(next.is_some(), "its time is over");
        drop(late);
        assert!(
            pool.take(&node, soon).is_none(),
            "what it no longer held is not given back twice"
        );
    }

    /// One account without any right kept everybody out, the administrator too.
    #[test]
    fn nobody_takes_all_places() {
        let pool = Pool::new(16);
        let late = Instant::now() + Duration::from_secs(60);
        let all_of = |user: &User| -> Vec<Permit> { std::iter::from_fn(|| pool.take(user, late)).take(100).collect() };
        let accounts = ["a", "b"].map(|name| user(name, &["system:serviceaccounts", "system:serviceaccounts:ns"]));
        let first = all_of(&accounts[0]);
        assert_eq!(first.len(), 4);
        assert!(all_of(&accounts[1]).is_empty(), "accounts of one namespace share");
        let others = ["jane", "joe", "jim"].map(|name| all_of(&user(name, &[])));
        assert_eq!(others.each_ref().map(Vec::len), [4, 4, 0]);
        for group in ["system:masters", "kubeadm:cluster-admins"] {
            assert_eq!(all_of(&user("admin", &[group])).len(), 100);
        }
        let node = user("system:node:a", &["system:nodes"]);
        assert_eq!(all_of(&node).len(), 4);
        drop(others);
        let account = user("c", &["system:serviceaccounts", "system:serviceaccounts:kube-system"]);
        assert_eq!(all_of(&account).len(), 12);
        drop(first);
        assert_eq!(all_of(&accounts[1]).len(), 4);
    }
}
