//! Claims that ask for more than they have. Nothing that is in the tree grows: a driver's resizer does that, outside, and here
//! is said that it is waited for.
//!
//! Watches claims; writes events, and for volumes of plugins that were in the tree once the name of the driver that does their
//! work now, by which its resizer knows them.

use std::sync::Arc;

use mk8s_api::meta as object;
use mk8s_client::{Event, EventRecorder, Informer, Raw};

use super::{
    CLAIMS, HELD, PRE_RESIZE_CAPACITY, REQUEST, VOLUMES, annotate, claim_of, has_annotation, migrated_to, phase, size,
    volume_name,
};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::meta::{self, Key};
use crate::rest::Part;

const NAME: &str = "volume_expand";
const WORKERS: usize = 1;
/// On a claim: who resizes its volume.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

/// Sources of volumes whose plugin is a driver's now.
const SOURCES: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "kubernetes.io/aws-ebs"),
    ("azureDisk", "kubernetes.io/azure-disk"),
    ("azureFile", "kubernetes.io/azure-file"),
    ("cinder", "kubernetes.io/cinder"),
    ("gcePersistentDisk", "kubernetes.io/gce-pd"),
    ("portworxVolume", "kubernetes.io/portworx-volume"),
    ("vsphereVolume", "kubernetes.io/vsphere-volume"),
];

struct Controller {
    ctx: Context,
    claims: Informer<Raw>,
    volumes: Informer<Raw>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let [claims, volumes] = [&CLAIMS, &VOLUMES].map(|kind| kind.informer(&ctx.informers));
    let mut driver = Driver::new("volume-expand-controller", &ctx.scope);
    driver.watch(&claims, |event| match event {
        Event::Applied { old, new } if asks_anew(old.as_deref(), new) => vec![Key::of(&**new)],
        _ => Vec::new(),
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        claims,
        volumes,
        recorder,
    };
    driver.run(WORKERS, controller).await
}

/// Bound, and asking for more or holding more than before, or never seen.
fn asks_anew(old: Option<&Raw>, new: &Raw) -> bool {
    let grows = |path: &[&str]| old.is_none_or(|old| size(new, path) > size(old, path));
    phase(new) == "Bound" && (grows(&REQUEST) || grows(&HELD))
}

/// What is waited for: the plugin whose driver resizes, if it was in the tree once.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// The volume is another claim's.
    NotBound,
    External,
    Migrated(&'static str),
}

fn plan(claim: &Raw, volume: &Raw) -> Plan {
    let bound =
        claim_of(volume).is_some_and(|(key, uid)| key.namespace == meta::namespace(claim) && uid == meta::uid(claim));
    if !bound {
        return Plan::NotBound;
    }
    if size(claim, &REQUEST) <= size(claim, &HELD) && !has_annotation(volume, PRE_RESIZE_CAPACITY) {
        return Plan::Nothing;
    }
    let has = |source: &str| object::at(&volume.value, &["spec", source]).is_some();
    let old = SOURCES.iter().find(|(source, _)| has(source));
    old.map_or(Plan::External, |(_, plugin)| Plan::Migrated(plugin))
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(claim) = self.claims.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        let name = volume_name(&claim);
        let Some(volume) = self.volume(name).await? else {
            return Err(Error::Invalid(format!("failed to get PV \"{name}\": it is not there")));
        };
        match plan(&claim, &volume) {
            Plan::Nothing => {}
            Plan::NotBound => {
                let why = format!("persistent Volume is not bound to PVC being updated : {key}");
                return Err(Error::Invalid(why));
            }
            Plan::External => self.tell(&claim, "waiting for an external controller to expand this PVC".into()),
            Plan::Migrated(plugin) => {
                let message =
                    format!("CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc");
                self.tell(&claim, message);
                self.name_resizer(&claim, migrated_to(plugin).unwrap_or_default())
                    .await?;
            }
        }
        Ok(Next::Done)
    }
}

impl Controller {
    /// The one that is known may be from before the claim was bound to it.
    async fn volume(&self, name: &str) -> Result<Option<Arc<Raw>>, Error> {
        let known = self.volumes.get(None, name);
        if known
            .as_deref()
            .is_some_and(|volume| claim_of(volume).is_some_and(|(_, uid)| !uid.is_empty()))
        {
            return Ok(known);
        }
        let live = VOLUMES.get(&self.ctx.client, &Key::new("", name)).await?;
        Ok(live.map(Arc::new))
    }

    async fn name_resizer(&self, claim: &Raw, driver: &str) -> Result<(), Error> {
        if meta::annotation(claim, RESIZER) == Some(driver) {
            return Ok(());
        }
        let mut new = claim.value.clone();
        annotate(&mut new, RESIZER, driver);
        CLAIMS.replace(&self.ctx.client, &new, Part::Status).await.map(drop)
    }

    fn tell(&self, claim: &Raw, message: String) {
        let reference = CLAIMS.reference(claim);
        self.recorder.event(&reference, "Normal", "ExternalExpanding", message);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::tests::raw;
    use super::*;

    fn claim(request: &str, held: &str, phase: &str) -> Raw {
        raw(
            json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {"resources": {"requests": {"storage": request}}},
            "status": {"phase": phase, "capacity": {"storage": held}}}),
        )
    }

    #[test]
    fn only_a_bound_claim_that_grows_is_looked_at() {
        let one = claim("1Gi", "1Gi", "Bound");
        for (old, new, expected) in [
            (None, claim("1Gi", "1Gi", "Bound"), true),
            (None, claim("1Gi", "1Gi", "Pending"), false),
            (Some(&one), claim("1024Mi", "1Gi", "Bound"), false),
            (Some(&one), claim("2Gi", "1Gi", "Bound"), true),
            (Some(&one), claim("1Gi", "2Gi", "Bound"), true),
        ] {
            assert_eq!(asks_anew(old, &new), expected, "{new:?}");
        }
    }

    #[test]
    fn who_is_waited_for() {
        let volume = |uid: &str, more: Value| {
            let mut volume =
                json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"namespace": "n", "name": "c", "uid": uid}}});
            mk8s_api::patch::merge(&mut volume, &more).unwrap();
            raw(volume)
        };
        let driver = json!({"spec": {"csi": {"driver": "a.b", "volumeHandle": "h"}}});
        let disk = json!({"spec": {"gcePersistentDisk": {"pdName": "d"}}});
        let resizing = json!({"metadata": {"annotations": {PRE_RESIZE_CAPACITY: "1Gi"}}});
        for (asked, held, volume, expected) in [
            ("2Gi", "1Gi", volume("u", driver.clone()), Plan::External),
            ("2Gi", "2Gi", volume("u", driver.clone()), Plan::Nothing),
            ("2Gi", "2Gi", volume("u", resizing), Plan::External),
            ("2Gi", "1Gi", volume("u", disk), Plan::Migrated("kubernetes.io/gce-pd")),
            ("2Gi", "1Gi", volume("w", driver), Plan::NotBound),
        ] {
            assert_eq!(
                plan(&claim(asked, held, "Bound"), &volume),
                expected,
                "{asked} {held} {volume:?}"
            );
        }
    }
}
