//! How every component talks to the API server: a `kube::Client` over the router in this process or over HTTPS, and on
//! top of it shared informers, work queues and the events recorder.

mod connect;
mod decoded;
mod events;
mod informer;
mod queue;

pub use connect::{Remote, RemoteError, in_process, remote, untrusted};
pub use decoded::Kind;
pub use events::EventRecorder;
pub use informer::{Event, Informer, Informers, Subscription};
pub use queue::WorkQueue;
