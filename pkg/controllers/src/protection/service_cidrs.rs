//! A ServiceCIDR stays while an address of a Service is of it alone
//! (<https://kubernetes.io/docs/reference/networking/virtual-ips/>).
//!
//! Watches ServiceCIDRs and IPAddresses; writes the former's finalizer and their condition Ready. The API server takes no address of
//! one that is to go, but may not have heard of that yet: none is let go before a while is over.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use mk8s_api::service_cidr::{MANAGED_BY, gives};
use mk8s_client::{Event, Informer, Partial};
use serde_json::{Value, json};

use super::{Finalizer, SERVICE_CIDRS, change};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const NAME: &str = "service-cidrs-controller";
const WORKERS: usize = 1;
/// After its deletion: in this time the API servers have heard of it.
const PATIENCE: Duration = Duration::from_secs(10);

struct Controller {
    ctx: Context,
    ranges: Informer<Partial>,
    addresses: Informer<Partial>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let ranges = SERVICE_CIDRS.informer(&ctx);
    let addresses = Partial::informer(&ctx.informers, SERVICE_CIDRS.group, "IPAddress", "ipaddresses");
    let mut driver = Driver::new(NAME, &ctx.scope);
    // One that comes may let another go, one that goes may hold it.
    let all = ranges.clone();
    driver.watch(&ranges, move |event| {
        let mut keys = going(&all, |_| true);
        if let Event::Applied { new, .. } = event {
            keys.push(Key::of(&**new));
        }
        keys
    });
    let all = ranges.clone();
    driver.watch(&addresses, move |event| {
        let found = address(event.object());
        found.map_or_else(Vec::new, |address| going(&all, |range| has(range, address)))
    });
    let controller = Controller { ctx, ranges, addresses };
    driver.run(WORKERS, controller).await
}

/// Those that are to go, of those that `concern`.
fn going(ranges: &Informer<Partial>, concern: impl Fn(&Partial) -> bool) -> Vec<Key> {
    let going = ranges.filter(|range| meta::deleting(range) && concern(range));
    going.iter().map(|range| Key::of(&**range)).collect()
}

/// The address that an object says a Service has.
fn address(object: &Partial) -> Option<IpAddr> {
    let managed = meta::labels(object)
        .get(MANAGED_BY.0)
        .is_some_and(|by| by == MANAGED_BY.1);
    meta::name(object).parse().ok().filter(|_| managed)
}

fn has(range: &Partial, address: IpAddr) -> bool {
    range.cidrs().any(|net| gives(&net, address))
}

/// The networks that can take over from a range that is to go: those that stay, and of those that go too the larger, which look
/// at the addresses themselves. Of equal ones that are all to go, one stays to the end.
fn heirs(range: &Partial, all: &[std::sync::Arc<Partial>]) -> Vec<IpNet> {
    let outlasts = |other: &Partial, net: &IpNet| {
        !meta::deleting(other)
            || range
                .cidrs::<IpNet>()
                .any(|own| net.contains(&own) && (*net != own || meta::name(other) < meta::name(range)))
    };
    let others = all.iter().filter(|other| meta::name(&***other) != meta::name(range));
    let nets = others.flat_map(|other| other.cidrs().filter(move |net| outlasts(other, net)));
    nets.collect()
}

/// Whether all that is of a range, whatever it may be, is of its heirs.
fn is_covered(range: &Partial, heirs: &[IpNet]) -> bool {
    range
        .cidrs::<IpNet>()
        .all(|own| heirs.iter().any(|net| net.contains(&own)))
}

/// What a condition has to say: status, reason, message.
type Said = (&'static str, &'static str, &'static str);

const READY: Said = ("True", "", "Kubernetes Service CIDR is ready");
const HELD: Said = (
    "False",
    "Terminating",
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
);

fn says(range: &Partial, (status, reason, message): Said) -> bool {
    let conditions = range
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    let text = |condition: &Value, key| mk8s_api::meta::string(condition, &[key]).to_owned();
    ready.any(|own| text(own, "status") == status && text(own, "reason") == reason && text(own, "message") == message)
}

/// How long a range that nothing holds still waits.
fn rest(range: &Partial, now: Timestamp) -> Duration {
    let since = range.metadata.deletion_timestamp.as_ref().map_or(now, |at| at.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    PATIENCE.saturating_sub(passed)
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(range) = self.ranges.get(None, &key.name) else {
            return Ok(Next::Done);
        };
        let wanted = change(&range.metadata, SERVICE_CIDRS.finalizer);
        if !meta::deleting(&*range) {
            if let Some(wanted) = wanted {
                SERVICE_CIDRS.write(&self.ctx, &range, &wanted).await?;
            }
            return self.say(&range, READY).await;
        }
        if wanted != Some(Finalizer::Removed) {
            return Ok(Next::Done);
        }
        if self.is_held(&range) {
            return self.say(&range, HELD).await;
        }
        let rest = rest(&range, Timestamp::now());
        if !rest.is_zero() {
            return Ok(Next::After(rest));
        }
        SERVICE_CIDRS.write(&self.ctx, &range, &Finalizer::Removed).await?;
        Ok(Next::Done)
    }
}

impl Controller {
    fn is_held(&self, range: &Partial) -> bool {
        let heirs = heirs(range, &self.ranges.list());
        let lost = |address| has(range, address) && !heirs.iter().any(|net| gives(net, address));
        !is_covered(range, &heirs) && self.addresses.any(|object| address(object).is_some_and(lost))
    }

    async fn say(&self, range: &Partial, said: Said) -> Result<Next, Error> {
        if says(range, said) {
            return Ok(Next::Done);
        }
        let (status, reason, message) = said;
        let name = meta::name(range);
        let what = || format!("say of ServiceCIDR {name} that Ready is {status}");
        let applied = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": SERVICE_CIDRS.kind,
            "metadata": {"name": name, "uid": meta::uid(range)},
            "status": {"conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": meta::now(),
            }]},
        });
        let path = Request::new(SERVICE_CIDRS.path(""));
        let how = PatchParams::apply(NAME).force();
        let asked = path.patch_subresource("status", name, &how, &Patch::Apply(applied));
        let asked = asked.map_err(|error| Error::Invalid(format!("{}: {error}", what())))?;
        let written = self.ctx.client.request::<Value>(asked).await;
        written.tried_if_exists(what).map(|_| Next::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::super::tests::protected;
    use super::*;

    fn range(name: &str, cidrs: &[&str], going: bool) -> Arc<Partial> {
        let mut object = json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}});
        if going {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(protected(object))
    }

    #[test]
    fn who_takes_over_from_a_range() {
        let own = ["10.1.0.0/24", "fd00::/112"];
        let goes = range("m", &own, true);
        for (name, cidrs, going, heir, covered) in [
            ("z", vec!["10.1.0.0/24", "fd00::/112"], false, 2, true),
            ("z", vec!["10.1.0.0/24"], false, 1, false),
            ("z", vec!["10.1.0.0/16", "fd00::/64"], true, 2, true),
            ("a", vec!["10.1.0.0/24", "fd00::/112"], true, 2, true),
            ("z", vec!["10.1.0.0/24", "fd00::/112"], true, 0, false),
            ("a", vec!["10.1.0.0/28"], true, 0, false),
            ("a", vec!["10.1.0.0/28"], false, 1, false),
            ("m", vec!["10.1.0.0/24", "fd00::/112"], false, 0, false),
        ] {
            let heirs = heirs(&goes, &[range(name, &cidrs, going), goes.clone()]);
            assert_eq!(heirs.len(), heir, "{name} {cidrs:?} {going}");
            assert_eq!(is_covered(&goes, &heirs), covered, "{name} {cidrs:?} {going}");
        }
    }

    #[test]
    fn addresses_are_those_that_the_api_server_gave() {
        let of = |name: &str, labels: Value| address(&protected(json!({"metadata": {"name": name, "labels": labels}})));
        let given = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
        assert_eq!(of("10.1.0.7", given.clone()), Some("10.1.0.7".parse().unwrap()));
        assert_eq!(
            of("10.1.0.7", json!({"ipaddress.kubernetes.io/managed-by": "me"})),
            None
        );
        assert_eq!(of("10.1.0.7", json!(null)), None);
        assert_eq!(of("x", given), None);
    }

    #[test]
    fn a_condition_is_said_once() {
        let with = |conditions| protected(json!({"metadata": {}, "status": {"conditions": conditions}}));
        let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": READY.2});
        assert!(says(&with(json!([{"type": "Other"}, ready])), READY));
        assert!(!says(&with(json!([ready])), HELD));
        assert!(!says(&with(json!(null)), READY));
    }

    #[test]
    fn what_nothing_holds_waits_ten_seconds() {
        let goes = range("m", &[], true);
        let at = |seconds| {
            rest(
                &goes,
                "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(seconds),
            )
        };
        assert_eq!([at(0), at(4), at(10), at(60)].map(|rest| rest.as_secs()), [10, 6, 0, 0]);
    }
}
