//! Server-side apply, without IO: who owns which field of an object
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>).
//!
//! An object's fields are named by paths ([`Element`]), sets of them ([`Set`]) are what managers own. A change is compared
//! with what was there by the schema ([`compare`]), and what it touches goes to whoever made it.

mod check;
mod compare;
mod configuration;
mod conflict;
mod element;
mod extract;
mod fields_v1;
mod fit;
mod gained;
mod intern;
mod items;
mod last_applied;
mod managed;
mod merge;
mod node;
mod remove;
mod scale;
mod set;
mod update;

pub use check::{Problem, check, check_live, told};
pub use compare::{Comparison, compare};
pub use configuration::{Applied, ApplyError, Configuration};
pub use conflict::{Conflict, Conflicts};
pub use element::Element;
pub use fit::fit;
pub use items::ItemError;
pub use last_applied::apply;
pub use managed::{Entry, Managed, ManagedError, Operation, Owner, Time, is_reset, print_field};
pub use merge::MergeError;
pub use node::Node;
pub use scale::{ReplicasPath, from_scale, to_scale};
pub use set::Set;
pub use update::{Versions, Writer, update};
