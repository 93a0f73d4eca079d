//! mk8s-containerd: the only crate that speaks to containerd, and the only user of containerd-client and tonic.
//!
//! One container through it, as the node agent drives it:
//!
//! ```text
//!  pull(image) ─▶ image ─▶ accounts(image) ─▶ spec::build ─▶ create(ContainerSpec) ─▶ start(&Container) ─▶ events(): Exit
//!   registry/     image/    users inside it     spec/ (pure)   container.rs             task.rs            events.rs
//! ```
//!
//! Invariants:
//! - everything lives in containerd's namespace `k8s.io`, in the runtime that the pod's class names, one shim per pod;
//! - nothing a container needs while it runs lives in this process: log lines are written by a child of the shim
//!   (`logs`), or by a detached child of ours where the container wants stdin or a terminal (`stdio`), so mk8s may be
//!   killed and started again at any moment;
//! - removing what is not there is success; creating is never retried blindly.

mod client;
mod container;
mod content;
mod error;
mod events;
mod exec;
pub mod image;
mod lease;
mod lock;
pub mod logs;
mod mount;
pub mod registry;
mod runtimes;
mod snapshot;
pub mod spec;
mod stdio;
mod task;
mod unpack;
mod volume;

pub use client::{Containerd, Options, Version};
pub use container::{Container, ContainerSpec, Stdio};
pub use error::{Error, Result};
pub use events::Event;
pub use exec::{Exec, ExecOptions, ExecOutput};
pub use image::{Image, ImageConfig};
pub use registry::{Credential, Keychain, PullError};
pub use runtimes::{Runtime, Runtimes};
pub use spec::accounts::Accounts;
pub use stdio::{Attached, Output, Stdin};
pub use task::{Exit, Task, TaskStatus};
