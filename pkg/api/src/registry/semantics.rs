//! What is special about a kind's writes, as data in its row: handlers ask these, never a kind's name.

use serde_json::Value;

use super::gates::Part;
use crate::validation::Errors;
use crate::validation::MetadataCheck;

/// What answers a request to a subresource, or the creation of a kind of which nothing is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// get, update and patch of `status`.
    Status,
    /// The same of another part of the object.
    Strategy(&'static Strategy),
    Scale,
    /// A Deployment's return to an earlier revision.
    Rollback,
    Binding,
    Eviction,
    /// A service account's token.
    Token,
    /// A container's log.
    Log,
    /// A stream to the pod: exec, attach, portforward.
    Connect,
    /// Whatever is asked, to what runs behind the name.
    Proxy,
    /// A question about users and tokens.
    Review,
    /// Refused: not in this version of mk8s.
    NotYet,
}

impl Handler {
    /// Whether the answer is another server's, in whichever form the client accepts from that.
    pub fn relays(self) -> bool {
        matches!(self, Handler::Log | Handler::Connect | Handler::Proxy)
    }
}

/// How a part of an object is written that has a subresource of its own.
#[derive(Debug)]
pub struct Strategy {
    /// (new, old): whatever it does not change becomes as it was.
    pub prepare: fn(&mut Value, &Value),
    /// (new, old): what is wrong with the change, besides its metadata.
    pub validate: fn(&Value, &Value, &mut Errors),
}

/// There is one of each, a static, which has an address of its own, as its functions may not.
impl PartialEq for Strategy {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Strategy {}

/// What a DELETE does before the object is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletion {
    /// The object goes unless finalizers hold it.
    #[default]
    AtOnce,
    /// As a Pod's: its node has a grace period to end it.
    Graceful,
    /// As a Namespace's: `spec.finalizers` hold it too, and its phase says so.
    Emptied,
    /// As a CustomResourceDefinition's: a finalizer of the server's own holds it until no object of its kind is left.
    WithInstances,
}

/// What becomes of an object's dependents where the DELETE says nothing of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dependents {
    #[default]
    Collected,
    /// Kinds older than the garbage collector.
    Orphaned,
    /// There are none: the options are not looked at.
    None,
}

/// What is checked of a changed object, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOrder {
    WholeFirst,
    ChangeFirst,
    ChangeAlone,
}

/// The facts of a kind; the default is what most kinds are.
#[derive(Clone, Copy, Debug)]
pub struct Semantics {
    /// A PUT creates the object where there is none (strategies with AllowCreateOnUpdate).
    pub put_creates: bool,
    /// A PUT without resourceVersion is refused (strategies without AllowUnconditionalUpdate).
    pub conditional_only: bool,
    /// A DELETE answers the object instead of a Status (stores with ReturnDeletedObject).
    pub returns_deleted: bool,
    /// New objects keep the status they are sent with.
    pub registers_status: bool,
    /// A finalizer without a domain is any name: kinds that are not judged by the core group's rules for metadata.
    pub free_finalizers: bool,
    /// A write of the status changes nothing of metadata.
    pub status_alone: bool,
    /// A write of the status reads no more of the object than metadata and that, where this says (of the object as it is to be, and
    /// as it is) that nothing else tells whether the status may be so.
    pub status_by_itself: Option<fn(&Value, &Value) -> bool>,
    /// Of a kind with a generation: it is 1, and no change counts.
    pub generation_stays: bool,
    /// Objects hold cluster addresses and node ports.
    pub holds_addresses: bool,
    pub deletion: Deletion,
    pub dependents: Dependents,
    /// What a DELETE is warned of that says nothing of dependents.
    pub dependents_warning: Option<&'static str>,
    /// What answers the creation of a kind of which nothing is stored.
    pub answered_by: Option<Handler>,
    /// Which checks of a changed object's metadata the kind runs again, in its order.
    pub metadata_checks: &'static [MetadataCheck],
    pub change_order: ChangeOrder,
    /// The kind does not look at a new object's metadata: what every kind's has to be is told where nothing else is wrong.
    pub metadata_last: bool,
    /// Fields that are dropped, as upstream's defaults have it.
    pub gates: &'static [Part],
}

impl Default for Semantics {
    fn default() -> Self {
        Semantics {
            put_creates: false,
            conditional_only: false,
            returns_deleted: false,
            registers_status: false,
            free_finalizers: false,
            status_alone: false,
            status_by_itself: None,
            generation_stays: false,
            holds_addresses: false,
            deletion: Deletion::default(),
            dependents: Dependents::default(),
            dependents_warning: None,
            answered_by: None,
            metadata_checks: &[MetadataCheck::Changed],
            change_order: ChangeOrder::WholeFirst,
            metadata_last: false,
            gates: &[],
        }
    }
}
