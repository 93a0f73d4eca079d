//! What each metric of an autoscaler asks for, and how that stands in its status. Reads measurements, and decides by [`replicas`].

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use mk8s_api::quantity::{Format, Quantity};
use mk8s_api::selectors;

use super::metrics::{Described, Metric, Metrics};
use super::replicas::{self, Goal, Pods, Proposal};
use crate::meta;
use crate::monitor::Hub;

/// Whose metrics are read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub metrics: &'a dyn Metrics,
    pub hub: &'a Hub,
    pub namespace: &'a str,
    /// As a query has it.
    pub selector: &'a str,
    pub pods: Pods<'a>,
    /// The pods that the target's controller saw last.
    pub current: i32,
}

/// What one metric asks for.
pub struct Asked {
    pub replicas: i32,
    /// The metric, as conditions and Events name it.
    pub name: String,
    pub status: MetricStatus,
}

/// Why one asks for nothing.
pub struct Unknown {
    /// Of the condition and the Event.
    pub reason: &'static str,
    pub why: String,
    /// What could not be had.
    pub what: String,
}

/// The reason of a failure, and what could not be had, in upstream's words. The cause itself, which conditions quote, follows them in the
/// failure of all metrics alone.
fn named(spec: &MetricSpec) -> Result<(&'static str, String), Unknown> {
    Ok(match spec.type_.as_str() {
        "Object" => {
            let which = spec.object.as_ref().and_then(|o| match goal(&o.target) {
                Some(Value::Mean(_)) => Some(format!(": failed to get {} object metric", o.metric.name)),
                _ => None,
            });
            (
                "FailedGetObjectMetric",
                format!("object metric value{}", which.unwrap_or_default()),
            )
        }
        "Pods" => ("FailedGetPodsMetric", "pods metric value".to_owned()),
        "Resource" => {
            let name = spec.resource.as_ref().map_or("", |r| r.name.as_str());
            ("FailedGetResourceMetric", format!("{name} resource metric value"))
        }
        "ContainerResource" => {
            let name = spec.container_resource.as_ref().map_or("", |r| r.container.as_str());
            (
                "FailedGetContainerResourceMetric",
                format!("{name} container metric value"),
            )
        }
        "External" => {
            let of = spec.external.as_ref();
            let name = of.map_or("", |e| e.metric.name.as_str());
            let which = match of.and_then(|e| goal(&e.target)) {
                Some(Value::Whole(_)) => format!(": failed to get external metric {name}"),
                Some(Value::Mean(_)) => format!(": failed to get {name} external metric"),
                None => String::new(),
            };
            (
                "FailedGetExternalMetric",
                format!("{name} external metric value{which}"),
            )
        }
        other => {
            return Err(Unknown {
                reason: "InvalidMetricSourceType",
                why: format!("unknown metric source type {other:?}"),
                what: String::new(),
            });
        }
    })
}

/// Reads one metric.
pub async fn measure(reading: Reading<'_>, spec: &MetricSpec) -> Result<Asked, Unknown> {
    let (reason, what) = named(spec)?;
    let asked = match spec.type_.as_str() {
        "Object" => reading.object(spec).await,
        "Pods" => reading.of_pods(spec).await,
        "External" => reading.external(spec).await,
        _ => reading.resource(spec).await,
    };
    let asked = asked.map(|(proposal, name, mut status)| {
        status.type_.clone_from(&spec.type_);
        Asked {
            replicas: proposal.replicas,
            name,
            status,
        }
    });
    asked.map_err(|why| Unknown { reason, why, what })
}

type Found = Result<(Proposal, String, MetricStatus), String>;

impl Reading<'_> {
    async fn resource(self, spec: &MetricSpec) -> Found {
        let (resource, target, container) = match (&spec.resource, &spec.container_resource) {
            (Some(of), _) => (&of.name, &of.target, None),
            (None, Some(of)) => (&of.name, &of.target, Some(of.container.as_str())),
            _ => return Err("invalid resource metric source: neither a pod's nor a container's".to_owned()),
        };
        let of_use = if target.average_value.is_some() {
            "usage"
        } else {
            "utilization"
        };
        let read = async {
            let read = self
                .metrics
                .resource(self.namespace, self.selector, resource, container)
                .await;
            let samples = read.map_err(|e| format!("unable to get metrics for resource {resource}: {e}"))?;
            let of_cpu = resource == "cpu";
            if let Some(mean) = &target.average_value {
                return replicas::of_samples(self.pods, &samples, of_cpu, &Goal::Mean(milli(mean)));
            }
            let percent = target.average_utilization.ok_or_else(|| {
                "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned()
            })?;
            let requested = replicas::requests(self.pods.all, resource, container)?;
            replicas::of_samples(self.pods, &samples, of_cpu, &Goal::Utilization(percent, &requested))
        };
        let proposal = read
            .await
            .map_err(|why| format!("failed to get {resource} {of_use}: {why}"))?;
        let name = match (of_use, container) {
            ("usage", _) => format!("{resource} resource"),
            (_, None) => format!("{resource} resource utilization (percentage of request)"),
            (_, Some(_)) => format!("{resource} container resource utilization (percentage of request)"),
        };
        let current = MetricValueStatus {
            average_utilization: proposal.utilization,
            average_value: Some(amount(resource, proposal.milli)),
            value: None,
        };
        let mut status = MetricStatus::default();
        match container {
            None => {
                status.resource = Some(ResourceMetricStatus {
                    name: resource.clone(),
                    current,
                });
            }
            Some(container) => {
                status.container_resource = Some(ContainerResourceMetricStatus {
                    name: resource.clone(),
                    container: container.to_owned(),
                    current,
                });
            }
        }
        Ok((proposal, name, status))
    }

    async fn of_pods(self, spec: &MetricSpec) -> Found {
        let Some(of) = &spec.pods else {
            return Err("invalid pods metric source: there is none".to_owned());
        };
        let name = &of.metric.name;
        let selector = query(of.metric.selector.as_ref())?;
        let metric = Metric {
            name,
            selector: &selector,
        };
        let read = self.metrics.pods(self.namespace, self.selector, metric).await;
        let samples = read.map_err(|e| format!("unable to get metric {name}: {e}"))?;
        let mean = of.target.average_value.as_ref().map_or(0, milli);
        let proposal = replicas::of_samples(self.pods, &samples, false, &Goal::Mean(mean))?;
        let status = MetricStatus {
            pods: Some(PodsMetricStatus {
                metric: of.metric.clone(),
                current: mean_of(proposal),
            }),
            ..MetricStatus::default()
        };
        Ok((proposal, format!("pods metric {name}"), status))
    }

    async fn object(self, spec: &MetricSpec) -> Found {
        let Some(of) = &spec.object else {
            return Err("invalid object metric source: there is none".to_owned());
        };
        let name = &of.metric.name;
        let selector = query(of.metric.selector.as_ref())?;
        let (kind, object) = (&of.described_object.kind, &of.described_object.name);
        let api_version = of.described_object.api_version.as_deref().unwrap_or("v1");
        let known = self.hub.kind(api_version, kind);
        let plural = known.map_or_else(|| kind.to_lowercase(), |known| known.api.plural.clone());
        let described = Described {
            group: mk8s_api::meta::split_api_version(api_version).0,
            plural: &plural,
            name: object,
        };
        let metric = Metric {
            name,
            selector: &selector,
        };
        let read = self.metrics.object(self.namespace, described, metric).await;
        let unread = |e| format!("unable to get metric {name}: {kind} on {} {object}/{e}", self.namespace);
        let (proposal, text, current) = match goal(&of.target) {
            Some(Value::Whole(goal)) => {
                let value = read.map_err(unread)?;
                let proposal = replicas::of_value(self.pods, value, goal)?;
                (proposal, format!("{kind} metric {name}"), whole_of(proposal))
            }
            Some(Value::Mean(goal)) => {
                let value = read.map_err(unread)?;
                let proposal = replicas::of_share(self.pods, self.current, value, goal);
                (proposal, external_name(&of.metric), mean_of(proposal))
            }
            None => {
                let why = "invalid object metric source: neither a value target nor an average value target was set";
                return Err(why.to_owned());
            }
        };
        let status = MetricStatus {
            object: Some(ObjectMetricStatus {
                described_object: of.described_object.clone(),
                metric: of.metric.clone(),
                current,
            }),
            ..MetricStatus::default()
        };
        Ok((proposal, text, status))
    }

    async fn external(self, spec: &MetricSpec) -> Found {
        let Some(of) = &spec.external else {
            return Err("invalid external metric source: there is none".to_owned());
        };
        let name = &of.metric.name;
        let selector = query(of.metric.selector.as_ref())?;
        let metric = Metric {
            name,
            selector: &selector,
        };
        let read = async {
            let read = self.metrics.external(self.namespace, metric).await;
            let shown = meta::go_selector(of.metric.selector.as_ref());
            let read =
                read.map_err(|e| format!("unable to get external metric {}/{name}/{shown}: {e}", self.namespace));
            read.map(|values| values.into_iter().fold(0_i64, i64::saturating_add))
        };
        let (proposal, current) = match goal(&of.target) {
            Some(Value::Mean(goal)) => {
                let value = read.await?;
                let proposal = replicas::of_share(self.pods, self.current, value, goal);
                (proposal, mean_of(proposal))
            }
            Some(Value::Whole(goal)) => {
                let of_value = |value| replicas::of_value(self.pods, value, goal);
                let proposal = read.await.and_then(of_value)?;
                (proposal, whole_of(proposal))
            }
            None => {
                let why = "invalid external metric source: neither a value target nor an average value target was set";
                return Err(why.to_owned());
            }
        };
        let status = MetricStatus {
            external: Some(ExternalMetricStatus {
                metric: of.metric.clone(),
                current,
            }),
            ..MetricStatus::default()
        };
        Ok((proposal, external_name(&of.metric), status))
    }
}

/// What one value is to be, or each pod's share of it; in thousandths.
enum Value {
    Whole(i64),
    Mean(i64),
}

fn goal(target: &MetricTarget) -> Option<Value> {
    let mean = target.average_value.as_ref().map(|v| Value::Mean(milli(v)));
    let whole = target.value.as_ref().map(|v| Value::Whole(milli(v)));
    if target.type_ == "Value" {
        whole.or(mean)
    } else {
        mean.or(whole)
    }
}

fn milli(text: &Text) -> i64 {
    Quantity::parse(&text.0).map_or(0, |q| q.milli_value())
}

fn mean_of(proposal: Proposal) -> MetricValueStatus {
    MetricValueStatus {
        average_value: Some(decimal(proposal.milli)),
        ..MetricValueStatus::default()
    }
}

fn whole_of(proposal: Proposal) -> MetricValueStatus {
    MetricValueStatus {
        value: Some(decimal(proposal.milli)),
        ..MetricValueStatus::default()
    }
}

fn decimal(milli: i64) -> Text {
    Text(Quantity::from_milli(milli).to_string())
}

/// Memory is counted in powers of two, as measurements of it are.
fn amount(resource: &str, milli: i64) -> Text {
    if resource != "memory" || milli.unsigned_abs() < 1_024_000 {
        return decimal(milli);
    }
    let bytes = milli.div_euclid(1000) + i64::from(milli.rem_euclid(1000) > 0);
    Text(Quantity::from_value(bytes, Format::BinarySi).to_string())
}

/// The labels that a metric is to have, as a query.
fn query(selector: Option<&LabelSelector>) -> Result<String, String> {
    let Some(selector) = selector else {
        return Ok(String::new());
    };
    let tree = serde_json::to_value(selector).map_err(|e| e.to_string())?;
    let parsed = selectors::LabelSelector::from_json(&tree).map_err(|e| e.to_string())?;
    Ok(parsed.to_string())
}

/// Upstream names metrics of objects by their share so as well.
fn external_name(metric: &MetricIdentifier) -> String {
    format!(
        "external metric {}({})",
        metric.name,
        meta::go_selector(metric.selector.as_ref())
    )
}

/// The pods that a selector selects.
pub fn selected(all: Vec<Arc<Pod>>, selector: &selectors::LabelSelector) -> Vec<Arc<Pod>> {
    let mut all = all;
    all.retain(|pod| {
        let labels = meta::labels(&**pod);
        selector.matches(|key| labels.get(key).map(String::as_str))
    });
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_could_not_be_had_is_named_by_metric_and_target() {
        let metric = json!({"name": "q"});
        let whole = json!({"type": "Value", "value": "1"});
        let mean = json!({"type": "AverageValue", "averageValue": "1"});
        let object =
            |target| json!({"metric": metric, "target": target, "describedObject": {"kind": "Pod", "name": "p"}});
        for (type_, field, of, expected) in [
            (
                "External",
                "external",
                json!({"metric": metric, "target": whole}),
                "q external metric value: failed to get external metric q",
            ),
            (
                "External",
                "external",
                json!({"metric": metric, "target": mean}),
                "q external metric value: failed to get q external metric",
            ),
            ("Object", "object", object(whole.clone()), "object metric value"),
            (
                "Object",
                "object",
                object(mean.clone()),
                "object metric value: failed to get q object metric",
            ),
            (
                "Resource",
                "resource",
                json!({"name": "cpu", "target": mean}),
                "cpu resource metric value",
            ),
        ] {
            let spec: MetricSpec = serde_json::from_value(json!({"type": type_, field: of})).unwrap();
            let found = named(&spec).map(|(_, what)| what).map_err(|unknown| unknown.why);
            assert_eq!(found.as_deref(), Ok(expected), "{spec:?}");
        }
    }
}
