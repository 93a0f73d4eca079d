//! Where autoscalers get their measurements from: one trait, and what reads the three APIs of metrics, which the cluster itself or a
//! server behind it may serve (<https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#support-for-metrics-apis>).
//! Values are in thousandths of what is measured.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use jiff::Timestamp;
use kube::Client;
use mk8s_api::{meta, quantity};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::error;

/// What a measurement of a pod's is, where it does not say: upstream's window.
const WINDOW: Duration = Duration::from_secs(60);

/// The versions of custom metrics, the later first.
const CUSTOM: [&str; 2] = ["v1beta2", "v1beta1"];

/// What was measured of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was measured.
    pub at: Timestamp,
    /// Over which time, up to then.
    pub window: Duration,
    /// In thousandths.
    pub milli: i64,
}

/// By the names of the pods.
pub type Samples = HashMap<String, Sample>;

/// Which kind of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// metrics.k8s.io
    Resource,
    /// custom.metrics.k8s.io
    Custom,
    /// external.metrics.k8s.io
    External,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Resource => "resource",
            Source::Custom => "custom",
            Source::External => "external",
        }
    }
}

/// Why there is no measurement. Upstream's words, which conditions quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// The API did not answer with any.
    #[error("unable to fetch metrics from {} metrics API: {why}", of.name())]
    Fetch {
        /// Which API.
        of: Source,
        /// What it said.
        why: String,
    },
    /// It has none of what was asked for.
    #[error("no metrics returned from {} metrics API", .0.name())]
    Nothing(Source),
}

/// An answer, later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, MetricsError>>;

/// A metric, by its name and by labels of its own.
#[derive(Debug, Clone, Copy)]
pub struct Metric<'a> {
    /// Its name.
    pub name: &'a str,
    /// As a query has it; empty for all.
    pub selector: &'a str,
}

/// An object that something is measured of.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// The group of its kind.
    pub group: &'a str,
    /// As in paths; a kind that nobody knows is asked for by its name in small letters.
    pub plural: &'a str,
    /// In the namespace that is asked about, or it.
    pub name: &'a str,
}

/// Measurements of one namespace. `pods` selects pods, as a query does.
pub trait Metrics: Send + Sync + 'static {
    /// How much of a resource each pod uses, or one container of each.
    fn resource<'a>(
        &'a self,
        namespace: &'a str,
        pods: &'a str,
        resource: &'a str,
        container: Option<&'a str>,
    ) -> Answer<'a, Samples>;

    /// What a metric has for each pod.
    fn pods<'a>(&'a self, namespace: &'a str, pods: &'a str, metric: Metric<'a>) -> Answer<'a, Samples>;

    /// What a metric has for an object.
    fn object<'a>(&'a self, namespace: &'a str, described: Described<'a>, metric: Metric<'a>) -> Answer<'a, i64>;

    /// All values of a metric that belongs to no object of the cluster.
    fn external<'a>(&'a self, namespace: &'a str, metric: Metric<'a>) -> Answer<'a, Vec<i64>>;
}

/// Asks the three APIs.
pub struct Served {
    client: Client,
}

impl Served {
    /// Asks with the rights of `client`.
    pub fn new(client: Client) -> Self {
        Served { client }
    }

    /// The answer's items. `what` is the resource, as upstream names it where nobody serves it.
    async fn items(&self, source: Source, path: String, what: &str) -> Result<Vec<Value>, MetricsError> {
        let mut list = self.ask(path).await.map_err(|answer| MetricsError::Fetch {
            of: source,
            why: answer.words(what),
        })?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if !items.is_empty() => Ok(items),
            _ => Err(MetricsError::Nothing(source)),
        }
    }

    async fn ask(&self, path: String) -> Result<Value, Refusal> {
        let request = Request::get(path).body(Vec::new());
        let answer = match request {
            Ok(request) => self.client.request(request).await,
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        answer.map_err(Refusal)
    }

    /// Of the first version that is served.
    async fn custom(&self, path: &str, what: &str) -> Result<Vec<Value>, MetricsError> {
        let at = |version| format!("/apis/custom.metrics.k8s.io/{version}/{path}");
        match self.ask(at(CUSTOM[0])).await {
            Err(refusal) if refusal.is_unserved() => self.items(Source::Custom, at(CUSTOM[1]), what).await,
            Err(refusal) => Err(MetricsError::Fetch {
                of: Source::Custom,
                why: refusal.words(what),
            }),
            Ok(list) => match meta::items(&list, &["items"]) {
                [] => Err(MetricsError::Nothing(Source::Custom)),
                items => Ok(items.to_vec()),
            },
        }
    }
}

/// Why an API did not answer.
struct Refusal(kube::Error);

impl Refusal {
    /// Nobody serves it: what answers such a path knows of no object.
    fn is_unserved(&self) -> bool {
        error::code(&self.0) == Some(404) && !error::names_object(&self.0)
    }

    fn words(&self, what: &str) -> String {
        // Which version of them is served upstream finds out first.
        if self.is_unserved() && what.ends_with(".custom.metrics.k8s.io") {
            return "no custom metrics API (custom.metrics.k8s.io) registered".to_owned();
        }
        if self.is_unserved() {
            return format!("the server could not find the requested resource (get {what})");
        }
        error::message(&self.0)
    }
}

impl Metrics for Served {
    fn resource<'a>(
        &'a self,
        namespace: &'a str,
        pods: &'a str,
        resource: &'a str,
        container: Option<&'a str>,
    ) -> Answer<'a, Samples> {
        async move {
            let path = format!(
                "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?{}",
                query(&[("labelSelector", pods)])
            );
            let items = self.items(Source::Resource, path, "pods.metrics.k8s.io").await?;
            let used = |item: &Value| {
                let containers = meta::items(item, &["containers"]);
                let of = |c: &Value| milli(c.get("usage")?.get(resource)?);
                match container {
                    Some(name) => of(containers.iter().find(|c| meta::string(c, &["name"]) == name)?),
                    // One that tells nothing makes the sum worthless.
                    None if containers.is_empty() => None,
                    None => containers.iter().map(of).sum(),
                }
            };
            let sample = |item: &Value| {
                let window = meta::string(item, &["window"]).parse::<jiff::SignedDuration>().ok();
                let window = window.and_then(|w| Duration::try_from(w).ok());
                Some((
                    meta::name(item).to_owned(),
                    Sample {
                        at: at(item)?,
                        window: window.unwrap_or(WINDOW),
                        milli: used(item)?,
                    },
                ))
            };
            Ok(items.iter().filter_map(sample).collect())
        }
        .boxed()
    }

    fn pods<'a>(&'a self, namespace: &'a str, pods: &'a str, metric: Metric<'a>) -> Answer<'a, Samples> {
        async move {
            let asked = query(&[("labelSelector", pods), ("metricLabelSelector", metric.selector)]);
            let path = format!("namespaces/{namespace}/pods/*/{}?{asked}", metric.name);
            let items = self.custom(&path, "pods.custom.metrics.k8s.io").await?;
            let sample = |item: &Value| {
                let seconds = item.get("windowSeconds").and_then(Value::as_u64);
                Some((
                    meta::string(item, &["describedObject", "name"]).to_owned(),
                    Sample {
                        at: at(item)?,
                        window: seconds.map_or(WINDOW, Duration::from_secs),
                        milli: milli(item.get("value")?)?,
                    },
                ))
            };
            Ok(items.iter().filter_map(sample).collect())
        }
        .boxed()
    }

    fn object<'a>(&'a self, namespace: &'a str, described: Described<'a>, metric: Metric<'a>) -> Answer<'a, i64> {
        async move {
            let Described { group, plural, name } = described;
            let asked = query(&[("metricLabelSelector", metric.selector)]);
            // Nobody sees another namespace than his own by it.
            let path = if (group, plural) == ("", "namespaces") {
                format!("namespaces/{namespace}/metrics/{}?{asked}", metric.name)
            } else {
                let dot = if group.is_empty() { "" } else { "." };
                format!(
                    "namespaces/{namespace}/{plural}{dot}{group}/{name}/{}?{asked}",
                    metric.name
                )
            };
            let what = format!("{plural}.custom.metrics.k8s.io");
            let items = self.custom(&path, &what).await?;
            let value = items.first().and_then(|item| milli(item.get("value")?));
            value.ok_or(MetricsError::Nothing(Source::Custom))
        }
        .boxed()
    }

    fn external<'a>(&'a self, namespace: &'a str, metric: Metric<'a>) -> Answer<'a, Vec<i64>> {
        async move {
            let asked = query(&[("labelSelector", metric.selector)]);
            let path = format!(
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}?{asked}",
                metric.name
            );
            let what = format!("{}.external.metrics.k8s.io", metric.name);
            let items = self.items(Source::External, path, &what).await?;
            Ok(items.iter().filter_map(|item| milli(item.get("value")?)).collect())
        }
        .boxed()
    }
}

fn query(pairs: &[(&str, &str)]) -> String {
    let said = pairs.iter().filter(|(_, value)| !value.is_empty());
    let pair = |(key, value): &(&str, &str)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    said.map(pair).collect::<Vec<_>>().join("&")
}

fn milli(value: &Value) -> Option<i64> {
    Some(quantity::from_json(value).ok()?.milli_value())
}

fn at(item: &Value) -> Option<Timestamp> {
    meta::string(item, &["timestamp"]).parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// Serves resource metrics, custom ones in their older version, and no external ones.
    async fn serve(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let asked = request.uri().path_and_query().unwrap().as_str();
        let (at, described) = ("2024-01-01T00:00:00Z", json!({"kind": "Pod", "name": "a"}));
        let body = match asked {
            "/apis/metrics.k8s.io/v1beta1/namespaces/d/pods?labelSelector=app%3Dx" => json!({"items": [
                {"metadata": {"name": "a"}, "timestamp": at, "window": "1m30s", "containers": [
                    {"name": "c", "usage": {"cpu": "100m"}}, {"name": "side", "usage": {"cpu": "50m"}}]},
                {"metadata": {"name": "half"}, "timestamp": at, "window": "30s", "containers": [
                    {"name": "c", "usage": {"cpu": "1"}}, {"name": "side", "usage": {}}]}]}),
            "/apis/metrics.k8s.io/v1beta1/namespaces/empty/pods?" => json!({"items": []}),
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/d/pods/*/hits?labelSelector=app%3Dx" => json!({"items": [
                {"describedObject": described, "metricName": "hits", "timestamp": at, "value": "7"}]}),
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/d/ingresses.networking.k8s.io/main/hits?metricLabelSelector=a%3Db"
            | "/apis/custom.metrics.k8s.io/v1beta1/namespaces/d/metrics/hits?" => {
                json!({"items": [{"timestamp": at, "value": "1500m"}]})
            }
            _ => {
                let answer = Response::builder().status(404);
                return Ok(answer.body(Body::from(b"404 page not found\n".to_vec())).unwrap());
            }
        };
        Ok(Response::new(Body::from(body.to_string().into_bytes())))
    }

    #[tokio::test]
    async fn measurements_are_read_as_the_three_apis_serve_them() {
        let served = Served::new(Client::new(tower::service_fn(serve), "d"));
        let of = |samples: Samples| {
            let mut all: Vec<_> = samples
                .into_iter()
                .map(|(pod, s)| (pod, s.milli, s.window.as_secs()))
                .collect();
            all.sort();
            all
        };
        let pod = |name: &str, milli, window| (name.to_owned(), milli, window);
        // What one container does not tell makes the pod's sum worthless, and no other container's value.
        assert_eq!(
            served.resource("d", "app=x", "cpu", None).await.map(of),
            Ok(vec![pod("a", 150, 90)])
        );
        let found = served.resource("d", "app=x", "cpu", Some("c")).await.map(of);
        assert_eq!(found, Ok(vec![pod("a", 100, 90), pod("half", 1000, 30)]));
        let empty = served.resource("empty", "", "cpu", None).await;
        assert_eq!(empty, Err(MetricsError::Nothing(Source::Resource)));
        let hits = Metric {
            name: "hits",
            selector: "",
        };
        assert_eq!(
            served.pods("d", "app=x", hits).await.map(of),
            Ok(vec![pod("a", 7000, 60)])
        );
        let ingress = Described {
            group: "networking.k8s.io",
            plural: "ingresses",
            name: "main",
        };
        let labelled = Metric {
            name: "hits",
            selector: "a=b",
        };
        assert_eq!(served.object("d", ingress, labelled).await, Ok(1500));
        let other = Described {
            group: "",
            plural: "namespaces",
            name: "other",
        };
        assert_eq!(served.object("d", other, hits).await, Ok(1500));
        let unserved = served.external("d", hits).await.unwrap_err().to_string();
        let expected = "unable to fetch metrics from external metrics API: the server could not find the requested resource (get hits.external.metrics.k8s.io)";
        assert_eq!(unserved, expected);
    }
}
