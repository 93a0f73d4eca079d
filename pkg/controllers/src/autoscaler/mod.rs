//! HorizontalPodAutoscalers: as many replicas as what is measured asks for.
//!
//! Watches autoscalers; reads pods, measurements ([`metrics`]) and the target's scale; writes the scale and the autoscaler's status.
//! Measurements are samples, and nothing tells of a sample: so each autoscaler is looked at when it changes, and every 15 seconds, which
//! is upstream's period. Never acts on a target that someone set to zero. [`replicas`] holds the arithmetic, [`limits`] the
//! rates, both pure; [`measure`] reads one metric.

mod limits;
mod measure;
pub mod metrics;
mod replicas;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use mk8s_api::conditions;
use mk8s_api::quantity::Quantity;
use mk8s_api::selectors::{LabelSelector, Operator};
use mk8s_client::{Event, EventRecorder, Index, Informer};
use parking_lot::Mutex;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::index;
use crate::meta::{self, Key};
use crate::scale::{Scales, Target};

use limits::{Bounds, History};
use measure::Reading;
use metrics::{Metrics, Served};
use replicas::{Pods, Tolerances};

const NAME: &str = "horizontal-pod-autoscaler";
const WORKERS: usize = 5;
/// Between two looks.
const PERIOD: Duration = Duration::from_secs(15);
/// Upstream's.
const TOLERANCE: f64 = 0.1;

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

struct Controller {
    ctx: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Index<Pod>,
    scales: Scales,
    metrics: Arc<dyn Metrics>,
    known: Mutex<HashMap<Key, Known>>,
    recorder: EventRecorder,
}

/// What is remembered of an autoscaler.
#[derive(Default)]
struct Known {
    history: History,
    /// Whose pods it counts.
    selector: Option<LabelSelector>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let autoscalers = ctx.informers.of::<HorizontalPodAutoscaler>();
    let pods = index::labels(&ctx.informers.of::<Pod>());
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&autoscalers, |event| match event {
        Event::Applied { old: Some(old), new } if old.spec == new.spec && old.metadata.uid == new.metadata.uid => {
            Vec::new()
        }
        other => vec![Key::of(&**other.object())],
    });
    let metrics = ctx.settings.metrics.clone();
    let controller = Controller {
        metrics: metrics.unwrap_or_else(|| Arc::new(Served::new(ctx.client.clone()))),
        scales: Scales::new(ctx.client.clone(), ctx.hub.clone()),
        recorder: ctx.recorder(NAME),
        known: Mutex::default(),
        autoscalers,
        pods,
        ctx,
    };
    driver.run(WORKERS, controller).await
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let found = self.autoscalers.get(key.ns(), &key.name);
        let Some((found, spec)) = found.as_ref().and_then(|found| Some((found, found.spec.as_ref()?))) else {
            self.known.lock().remove(&key);
            return Ok(Next::Done);
        };
        let mut look = Look {
            controller: self,
            found,
            spec,
            status: found.status.clone().unwrap_or_default(),
        };
        let outcome = look.take(&key).await;
        let status = look.status;
        if found.status.as_ref() != Some(&status) {
            let mut update = (**found).clone();
            update.status = Some(status);
            if let Err(error) = self.ctx.write_status(&update).await {
                let text = error.message();
                self.recorder
                    .event(&meta::reference(&**found), "Warning", "FailedUpdateStatus", text);
                return Next::After(PERIOD).even_if(Err(error));
            }
        }
        if let Err(why) = outcome {
            tracing::debug!(%key, why, "an autoscaler cannot act");
        }
        // What failed is tried at the next look: most of the time it is a measurement that is not there yet.
        Ok(Next::After(PERIOD))
    }
}

/// One look at an autoscaler.
struct Look<'a> {
    controller: &'a Controller,
    found: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
    /// As it will be.
    status: HorizontalPodAutoscalerStatus,
}

/// The size that is wanted, and why.
struct Wish {
    replicas: i32,
    reason: String,
    measured: Option<Vec<MetricStatus>>,
    failure: Option<String>,
}

impl Look<'_> {
    fn tell(&self, kind: &'static str, reason: &str, text: &str) {
        self.controller
            .recorder
            .event(&meta::reference(self.found), kind, reason, text);
    }

    fn set(&mut self, type_: &str, status: bool, reason: &str, text: &str) {
        let condition = HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(text.to_owned()),
            last_transition_time: Some(meta::now()),
        };
        conditions::put(self.status.conditions.get_or_insert_default(), condition);
    }

    /// Puts what was found into the status; an error says what kept it from acting.
    async fn take(&mut self, key: &Key) -> Result<(), String> {
        let of = &self.spec.scale_target_ref;
        let api_version = of.api_version.as_deref().unwrap_or("v1");
        let scales = &self.controller.scales;
        let mut target = match scales.get(&key.namespace, api_version, &of.kind, &of.name).await {
            Ok(target) => target,
            Err(error) => {
                let why = error.message();
                self.tell("Warning", "FailedGetScale", &why);
                let text = format!("the HPA controller was unable to get the target's current scale: {why}");
                self.set(ABLE, false, "FailedGetScale", &text);
                return Err(why);
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        self.set(ABLE, true, "SucceededGetScale", text);
        let (current, now) = (target.replicas(), Timestamp::now());
        self.remember(key, |known| known.history.begin(current, now));

        let least = self.spec.min_replicas.unwrap_or(1);
        let sized = |replicas, reason: &str| Wish {
            replicas,
            reason: reason.to_owned(),
            measured: None,
            failure: None,
        };
        let wish = if current == 0 && least != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            self.set(ACTIVE, false, "ScalingDisabled", text);
            sized(0, "")
        } else if current > self.spec.max_replicas {
            sized(
                self.spec.max_replicas,
                "Current number of replicas above Spec.MaxReplicas",
            )
        } else if current < least {
            sized(least, "Current number of replicas below Spec.MinReplicas")
        } else {
            self.wish(key, &target, least, now).await.inspect_err(|why| {
                self.tell("Warning", "FailedComputeMetricsReplicas", why);
            })?
        };
        self.rescale(key, &mut target, wish, now).await
    }

    fn remember<T>(&self, key: &Key, what: impl FnOnce(&mut Known) -> T) -> T {
        what(self.controller.known.lock().entry(key.clone()).or_default())
    }

    async fn rescale(&mut self, key: &Key, target: &mut Target, wish: Wish, now: Timestamp) -> Result<(), String> {
        let (current, wanted, reason) = (target.replicas(), wish.replicas, &wish.reason);
        let scaled = wanted != current;
        self.status.current_metrics = wish.measured;
        self.status.current_replicas = Some(current);
        if scaled && let Err(error) = self.controller.scales.set(target, wanted).await {
            let why = error.message();
            let text = format!("New size: {wanted}; reason: {reason}; error: {why}");
            self.tell("Warning", "FailedRescale", &text);
            let text = format!("the HPA controller was unable to update the target scale: {why}");
            self.set(ABLE, false, "FailedUpdateScale", &text);
            return Err(why);
        }
        self.status.desired_replicas = wanted;
        if scaled {
            let text = format!("the HPA controller was able to update the target scale to {wanted}");
            self.set(ABLE, true, "SucceededRescale", &text);
            self.tell(
                "Normal",
                "SuccessfulRescale",
                &format!("New size: {wanted}; reason: {reason}"),
            );
            let behavior = self.spec.behavior.as_ref();
            self.remember(key, |known| known.history.note(current, wanted, behavior, now));
            self.status.last_scale_time = Some(meta::now());
        }
        wish.failure.map_or(Ok(()), Err)
    }

    /// What the metrics ask for, within its bounds.
    async fn wish(&mut self, key: &Key, target: &Target, least: i32, now: Timestamp) -> Result<Wish, String> {
        let current = target.replicas();
        self.status.current_replicas = Some(current);
        let (measured, highest, failure) = self.measure(key, target, now).await?;
        let (asked, name) = highest;
        let mut reason = String::new();
        if asked > current {
            reason = format!("{name} above target");
        } else if asked < current {
            "All metrics below target".clone_into(&mut reason);
        }
        let bounds = Bounds {
            least,
            most: self.spec.max_replicas,
            behavior: self.spec.behavior.as_ref(),
        };
        let step = self.remember(key, |known| known.history.step(current, asked, bounds, now));
        self.set(ABLE, true, step.stabilized.0, step.stabilized.1);
        let (limited, (why, text)) = step.limited;
        self.set(LIMITED, limited, why, text);
        Ok(Wish {
            replicas: step.replicas,
            reason,
            measured: Some(measured),
            failure,
        })
    }

    /// All metrics: their statuses, and the highest size that one asks for, with its name.
    async fn measure(
        &mut self,
        key: &Key,
        target: &Target,
        now: Timestamp,
    ) -> Result<(Vec<MetricStatus>, (i32, String), Option<String>), String> {
        let pods = self.pods(key, target)?;
        let controller = self.controller;
        let reading = Reading {
            metrics: &*controller.metrics,
            hub: &controller.ctx.hub,
            namespace: &key.namespace,
            selector: target.selector(),
            pods: Pods {
                all: &pods,
                now,
                replicas: target.replicas(),
                tolerances: tolerances(self.spec),
            },
            current: target.current(),
        };
        let specs = self.spec.metrics.as_deref().unwrap_or_default();
        let (mut statuses, mut highest, mut failures) = (Vec::new(), (0, String::new()), Vec::new());
        for spec in specs {
            match measure::measure(reading, spec).await {
                Ok(asked) => {
                    if highest.0 == 0 || asked.replicas > highest.0 {
                        highest = (asked.replicas, asked.name);
                    }
                    statuses.push(asked.status);
                }
                Err(unknown) => {
                    self.tell("Warning", unknown.reason, &unknown.why);
                    // Upstream leaves an empty one in its place.
                    statuses.push(MetricStatus::default());
                    failures.push(unknown);
                }
            }
        }
        let first = failures.first().map(|first| {
            let what = match first.what.as_str() {
                "" => first.why.clone(),
                what => format!("failed to get {what}: {}", first.why),
            };
            let (invalid, all) = (failures.len(), specs.len());
            format!("invalid metrics ({invalid} invalid out of {all}), first error is: {what}")
        });
        if let Some(failed) = failures.first()
            && (failures.len() == specs.len() || highest.0 < target.replicas())
        {
            let text = format!("the HPA was unable to compute the replica count: {}", failed.why);
            self.set(ACTIVE, false, failed.reason, &text);
            self.status.current_metrics = Some(statuses);
            return Err(first.unwrap_or_default());
        }
        let text = format!(
            "the HPA was able to successfully calculate a replica count from {}",
            highest.1
        );
        self.set(ACTIVE, true, "ValidMetricFound", &text);
        Ok((statuses, highest, first))
    }

    /// The target's pods, where they are one autoscaler's alone.
    fn pods(&mut self, key: &Key, target: &Target) -> Result<Vec<Arc<Pod>>, String> {
        let text = target.selector();
        if text.is_empty() {
            let why = "selector is required";
            self.tell("Warning", "SelectorRequired", why);
            self.set(
                ACTIVE,
                false,
                "InvalidSelector",
                "the HPA target's scale is missing a selector",
            );
            return Err(why.to_owned());
        }
        let selector = LabelSelector::parse(text).map_err(|error| {
            let why = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            self.tell("Warning", "InvalidSelector", &why);
            self.set(ACTIVE, false, "InvalidSelector", &why);
            why
        })?;
        let candidates = index::with_labels(&self.controller.pods, &key.namespace, &required(&selector));
        let pods = measure::selected(candidates, &selector);
        self.remember(key, |known| known.selector = Some(selector));
        let others = self.others(key, &pods);
        if others.len() > 1 {
            let why = format!(
                "pods by selector {text} are controlled by multiple HPAs: [{}]",
                others.join(" ")
            );
            self.tell("Warning", "AmbiguousSelector", &why);
            self.set(ACTIVE, false, "AmbiguousSelector", &why);
            return Err(why);
        }
        Ok(pods)
    }

    /// Who selects some of these pods, itself too; sorted, so that it is told in the same words each time.
    fn others(&self, key: &Key, pods: &[Arc<Pod>]) -> Vec<String> {
        let known = self.controller.known.lock();
        let selects = |selector: &LabelSelector| {
            pods.iter().any(|pod| {
                let labels = meta::labels(&**pod);
                selector.matches(|label| labels.get(label).map(String::as_str))
            })
        };
        let of_namespace = known.iter().filter(|(other, _)| other.namespace == key.namespace);
        let all = of_namespace.filter(|(_, known)| known.selector.as_ref().is_some_and(selects));
        let mut names: Vec<String> = all.map(|(other, _)| other.to_string()).collect();
        names.sort_unstable();
        names
    }
}

/// The labels that every selected pod has.
fn required(selector: &LabelSelector) -> BTreeMap<String, String> {
    let one = selector
        .requirements
        .iter()
        .filter_map(|term| match (term.operator, term.values.as_slice()) {
            (Operator::Equals | Operator::In, [value]) => Some((term.key.clone(), value.clone())),
            _ => None,
        });
    one.collect()
}

fn tolerances(spec: &HorizontalPodAutoscalerSpec) -> Tolerances {
    let behavior = spec.behavior.as_ref();
    let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        let text = rules.and_then(|r| r.tolerance.as_ref())?;
        let parsed = Quantity::parse(&text.0).ok()?;
        Some(parsed.nanos() as f64 / 1e9)
    };
    Tolerances {
        down: of(behavior.and_then(|b| b.scale_down.as_ref())).unwrap_or(TOLERANCE),
        up: of(behavior.and_then(|b| b.scale_up.as_ref())).unwrap_or(TOLERANCE),
    }
}
