//! Which volumes a node needs, which it has, and what is to be done about the difference. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use mk8s_api::meta as object;
use mk8s_client::Raw;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::meta;

/// How the names of volumes begin in a node's status.
const PLUGIN: &str = "kubernetes.io/csi/";
/// A node whose kubelet is silent is waited for so long to let go of a volume.
pub const PATIENCE: Duration = Duration::from_secs(6 * 60);
/// An attacher that says nothing for so long is told of.
pub const SILENCE: Duration = Duration::from_secs(2 * 60);
/// Whoever sees it detaches what the node may still have: it is known to be down.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// A driver's volume, as its VolumeAttachments and a node's status name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    pub driver: String,
    pub handle: String,
}

impl Handle {
    /// Of a volume that a driver provides.
    pub fn of(volume: &Raw) -> Option<Handle> {
        let source = object::at(&volume.value, &["spec", "csi"])?;
        Some(Handle {
            driver: object::string(source, &["driver"]).to_owned(),
            handle: object::string(source, &["volumeHandle"]).to_owned(),
        })
    }

    /// Of a name in a node's status.
    fn named(name: &str) -> Option<Handle> {
        let (driver, handle) = name.strip_prefix(PLUGIN)?.split_once('^')?;
        Some(Handle {
            driver: driver.to_owned(),
            handle: handle.to_owned(),
        })
    }

    /// How a node's status names it.
    pub fn unique_name(&self) -> String {
        format!("{PLUGIN}{}^{}", self.driver, self.handle)
    }

    /// The name of its VolumeAttachment to a node: every attacher computes the same.
    pub fn attachment(&self, node: &str) -> String {
        let sum = digest(&SHA256, format!("{}{}{node}", self.handle, self.driver).as_bytes());
        sum.as_ref().iter().fold("csi-".to_owned(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        })
    }
}

/// Whether a volume may be at several nodes. Where no access mode says so, its driver decides.
pub fn is_exclusive(volume: &Raw) -> bool {
    let modes: Vec<&str> = super::super::access_modes(volume).collect();
    let shared = modes
        .iter()
        .any(|mode| matches!(*mode, "ReadWriteMany" | "ReadOnlyMany"));
    !modes.is_empty() && !shared
}

/// A volume that pods of the node need.
pub struct Wanted {
    pub volume: Arc<Raw>,
    pub handle: Handle,
    /// The pods of the node that need it.
    pub pods: Vec<Arc<Pod>>,
    /// Whether it is at another node, or about to be.
    pub elsewhere: bool,
    /// The pods of other nodes that use it.
    pub others: Vec<Arc<Pod>>,
}

/// What is known of the node.
#[derive(Default)]
pub struct Place {
    pub name: String,
    /// Whether attaching is this controller's business there. Of a node that is gone it is.
    pub managed: bool,
    /// Whether it may have whatever it was given: nobody has heard what it uses.
    pub unknown: bool,
    pub in_use: Vec<String>,
    /// What its status says is attached.
    pub reported: Vec<String>,
    pub ready: bool,
    pub out_of_service: bool,
}

impl Place {
    /// A node that is there.
    pub fn of(node: &Node) -> Place {
        let status = node.status.as_ref();
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let attached = status
            .and_then(|status| status.volumes_attached.clone())
            .unwrap_or_default();
        Place {
            name: meta::name(node).to_owned(),
            managed: meta::annotation(node, MANAGED) == Some("true"),
            unknown: false,
            in_use: status
                .and_then(|status| status.volumes_in_use.clone())
                .unwrap_or_default(),
            reported: attached.into_iter().map(|volume| volume.name).collect(),
            ready: crate::node_lifecycle::is_ready(node),
            out_of_service: taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE),
        }
    }

    fn uses(&self, name: &str) -> bool {
        self.unknown || self.in_use.iter().any(|own| own == name)
    }
}

/// Something to be told, to the pods that need a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The volume that it is about.
    pub volume: String,
    pub message: String,
}

/// What is to be done about a node.
#[derive(Debug, Default)]
pub struct Plan {
    /// VolumeAttachments to be made.
    pub attach: Vec<Value>,
    /// VolumeAttachments to be deleted, after the node's status does not have them any more; whether the node has to be asked
    /// once more what it uses.
    pub detach: Vec<(Arc<Raw>, bool)>,
    /// What the node's status is to have.
    pub report: Vec<String>,
    /// The volumes that are attached now, and were not reported.
    pub attached: Vec<Word>,
    /// Why volumes are not attached.
    pub failed: Vec<Word>,
    /// Attachments that are waited for before they are detached.
    pub waiting: Vec<String>,
    /// When to look again.
    pub next: Option<Duration>,
}

impl Plan {
    fn again_in(&mut self, wait: Duration) {
        self.next = Some(self.next.map_or(wait, |next| next.min(wait)));
    }
}

/// Decides about a node. `held` are its VolumeAttachments, `handle_of` finds the volume of one, `since` how long one has been
/// waited for to be detached, `age` how old it is.
pub fn plan(
    place: &Place,
    wanted: &[Wanted],
    held: &[Arc<Raw>],
    handle_of: impl Fn(&Raw) -> Option<Handle>,
    since: impl Fn(&str) -> Duration,
    age: impl Fn(&Raw) -> Duration,
) -> Plan {
    let mut plan = Plan::default();
    if !place.managed {
        plan.report.clone_from(&place.reported);
        return plan;
    }
    // What other plugins have said stays.
    plan.report
        .extend(place.reported.iter().filter(|name| !name.starts_with(PLUGIN)).cloned());
    let by_name: BTreeMap<&str, &Arc<Raw>> = held.iter().map(|held| (meta::name(&**held), held)).collect();
    for want in wanted {
        attach(
            place,
            want,
            by_name.get(&*want.handle.attachment(&place.name)),
            &age,
            &mut plan,
        );
    }
    for held in held {
        let name = meta::name(&**held);
        let handle = handle_of(held).or_else(|| told_by(place, name));
        let Some(handle) = handle.filter(|handle| handle.attachment(&place.name) == name) else {
            // Somebody else's.
            continue;
        };
        if wanted.iter().any(|want| want.handle == handle) || meta::deleting(&**held) {
            continue;
        }
        let unique = handle.unique_name();
        let elapsed = since(name);
        let forced = !place.ready && elapsed > PATIENCE;
        if place.uses(&unique) && !forced && !place.out_of_service {
            if is_attached(held) {
                plan.report.push(unique);
            }
            plan.waiting.push(name.to_owned());
            if !place.ready {
                // Past the time, not at it.
                plan.again_in(PATIENCE.saturating_sub(elapsed) + Duration::from_millis(1));
            }
            continue;
        }
        plan.detach
            .push((held.clone(), !forced && !place.out_of_service && !place.unknown));
    }
    plan.report.sort();
    plan.report.dedup();
    plan
}

/// The volume of an attachment whose PersistentVolume is gone, if the node's status still names it.
fn told_by(place: &Place, attachment: &str) -> Option<Handle> {
    let names = place.reported.iter().chain(&place.in_use);
    let handles = names.filter_map(|name| Handle::named(name));
    handles
        .into_iter()
        .find(|handle| handle.attachment(&place.name) == attachment)
}

fn is_attached(attachment: &Raw) -> bool {
    object::bool_at(&attachment.value, &["status", "attached"]) == Some(true)
}

fn attach(place: &Place, want: &Wanted, held: Option<&&Arc<Raw>>, age: impl Fn(&Raw) -> Duration, plan: &mut Plan) {
    let volume = meta::name(&*want.volume).to_owned();
    let failed = |message: String| Word {
        volume: volume.clone(),
        message: format!("AttachVolume.Attach failed for volume \"{volume}\" : {message}"),
    };
    let Some(held) = held else {
        if want.elsewhere && is_exclusive(&want.volume) {
            let message = format!("Multi-Attach error for volume \"{volume}\" {}", conflict(want));
            plan.failed.push(Word { volume, message });
        } else {
            plan.attach.push(attachment(place, want));
        }
        return;
    };
    if meta::deleting(&***held) {
        // Its end is heard of.
        return;
    }
    if is_attached(held) {
        let name = want.handle.unique_name();
        if !place.reported.contains(&name) {
            let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
            plan.attached.push(Word { volume, message });
        }
        plan.report.push(name);
        return;
    }
    if let Some(message) = object::str_at(&held.value, &["status", "attachError", "message"]) {
        plan.failed.push(failed(message.to_owned()));
        return;
    }
    match SILENCE.checked_sub(age(held)).filter(|left| !left.is_zero()) {
        Some(left) => plan.again_in(left),
        None => plan.failed.push(failed(format!(
            "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
            want.handle.driver, want.handle.handle
        ))),
    }
}

fn attachment(place: &Place, want: &Wanted) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": want.handle.attachment(&place.name)},
        "spec": {
            "attacher": want.handle.driver, "nodeName": place.name,
            "source": {"persistentVolumeName": meta::name(&*want.volume)},
        },
    })
}

/// By whom a volume is used that can't be had. Pods of other namespaces are counted, not named.
fn conflict(want: &Wanted) -> String {
    let Some(first) = want.pods.first() else {
        return String::new();
    };
    let (local, foreign): (Vec<_>, Vec<_>) = want
        .others
        .iter()
        .partition(|pod| meta::namespace(&***pod) == meta::namespace(&**first));
    let mut names: Vec<&str> = local.iter().map(|pod| meta::name(&***pod)).collect();
    names.sort_unstable();
    match (names.is_empty(), foreign.len()) {
        (true, 0) => "Volume is already exclusively attached to one node and can't be attached to another".into(),
        (true, count) => format!("Volume is already used by {count} pod(s) in different namespaces"),
        (false, 0) => format!("Volume is already used by pod(s) {}", names.join(", ")),
        (false, count) => format!(
            "Volume is already used by pod(s) {} and {count} pod(s) in different namespaces",
            names.join(", ")
        ),
    }
}
