//! How every component talks to the API server: a `kube::Client` over the router in this process or over HTTPS, and on
//! top of it shared informers, work queues, the events recorder and leader election.

#![warn(missing_docs)]

mod api;
mod connect;
mod events;
pub mod feed;
mod handlers;
mod host_ports;
mod http_feed;
mod informer;
mod informers;
mod kind;
pub mod lease;
mod node_terms;
mod partial;
mod pauses;
mod queue;
mod raw;
mod reflector;
mod seen;
mod servers;
mod service_ranges;
mod service_slices;
pub mod storage;
mod subscription;

pub use api::{Answer, Api, Page, words};
pub use connect::{Remote, RemoteError, in_process, remote, untrusted};
pub use events::{EventRecorder, SeriesRecorder};
pub use feed::{Change, Feed, FeedError, Selection};
pub use handlers::{EventHandler, Registration};
pub use host_ports::{HostPort, host_ports, lasting_containers};
pub use http_feed::HttpFeed;
pub use informer::{Index, Informer};
pub use informers::Informers;
pub use kind::{Kind, Trim, pod_template};
pub use node_terms::{NodeNames, NodePin, NodeTerms};
pub use partial::Partial;
pub use pauses::Pauses;
pub use queue::WorkQueue;
pub use raw::Raw;
pub use seen::Seen;
pub use servers::{ApiServers, api_servers};
pub use service_ranges::{internal_addresses, node_addresses, service_ranges};
pub use service_slices::{ServiceSlices, services_of};
pub use subscription::{Event, Subscription};
