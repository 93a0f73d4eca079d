//! Service routing on a node: Services, EndpointSlices and host ports become nftables maps.
//!
//! `model` decides what each Service and each pod wants (pure), `reserved` what none of them gets (pure), `held` what
//! the host's processes have already, `ranges` who else is where Services have addresses, `conflicts` tells people so, `tracker` merges it and tells what changes (pure), `rules`
//! is the table's shape and its words (pure), `run` follows the informers and applies one transaction per burst of changes.
//!
//! The table has no chain per Service: a destination leads by one map lookup to a chain that is shared by all Services
//! with as many endpoints, and a second lookup, by destination and a random number, to the endpoint. So the first packet
//! costs the same however many Services there are, and a change is a handful of element updates.

mod conflicts;
mod endpoints;
mod flows;
mod health;
mod held;
mod model;
mod ranges;
mod reserved;
mod rules;
mod run;
mod tracker;

pub use model::{Entries, Node, Routed, host_ports, service};
pub use reserved::Reserved;
pub use rules::{Balancer, Dest, Key, Masquerade, Proto, Value, Verdict, rebuild, transaction};
pub use run::{Hosts, Kernel, run};
pub use tracker::{ChangeTracker, Changes, Owner};
