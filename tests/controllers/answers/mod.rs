//! What controllers make of manifests, beside what upstream's made of the same: statuses, conditions, names, revisions and Events.
//!
//! `cases.yaml` says what is asked for and what is read then; `upstream.json` has what was read of upstream, recorded by
//! hack/update-controller-answers.sh, which runs this same test against it. What chance or time decides is made the same in both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cluster::{self, Cluster};

const CASES: &str = include_str!("cases.yaml");
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/controllers/answers/upstream.json");

/// What upstream may take for a step, which waits for its periods.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: Vec<Step>,
}

/// One field each. Paths are `apps/v1/deployments/web`, in the namespace of the case, or begin with a slash.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Step {
    /// An object; `path` is where its kind is.
    Create {
        path: String,
        object: Value,
    },
    /// A merge patch.
    Patch {
        path: String,
        with: Value,
    },
    Delete {
        path: String,
    },
    /// Waits until what is there at a JSON pointer is so.
    Until {
        path: String,
        at: String,
        is: Value,
    },
    /// What is compared: an object, a list, or the Events.
    Read {
        path: String,
    },
}

struct World {
    client: Client,
    namespace: String,
}

impl World {
    fn url(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.replace("NAMESPACE", &self.namespace);
        }
        let (api, rest) = match path.strip_prefix("v1/") {
            Some(rest) => ("/api/v1".to_owned(), rest),
            None => {
                let mut parts = path.splitn(3, '/');
                let (group, version) = (parts.next().unwrap(), parts.next().unwrap());
                (format!("/apis/{group}/{version}"), parts.next().unwrap())
            }
        };
        format!("{api}/namespaces/{}/{rest}", self.namespace)
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Result<Value, kube::Error> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("content-type", content_type);
        self.client.request(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Value {
        match self.send("GET", path, "application/json", &Value::Null).await {
            Ok(found) => found,
            Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Nothing where it is no reading.
    async fn take(&self, step: &Step) -> Option<Value> {
        match step {
            Step::Create { path, object } => {
                self.send("POST", path, "application/json", object).await.unwrap();
            }
            Step::Patch { path, with } => {
                self.send("PATCH", path, "application/merge-patch+json", with)
                    .await
                    .unwrap();
            }
            Step::Delete { path } => {
                self.send("DELETE", path, "application/json", &Value::Null)
                    .await
                    .unwrap();
            }
            Step::Until { path, at, is } => {
                let begun = Instant::now();
                loop {
                    let found = self.get(path).await;
                    if found.pointer(at).unwrap_or(&Value::Null) == is {
                        break;
                    }
                    assert!(begun.elapsed() < PATIENCE, "{path}: {at} is not {is}: {found}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Step::Read { path } => return Some(self.get(path).await),
        }
        None
    }

    /// The whole case; readings are tried again until they are as `expected`, where something is.
    async fn run(&self, case: &Case, expected: Option<&Value>) -> Value {
        let namespace = json!({"metadata": {"name": self.namespace}});
        self.send("POST", "/api/v1/namespaces", "application/json", &namespace)
            .await
            .unwrap();
        let account = Step::Until {
            path: "v1/serviceaccounts/default".to_owned(),
            at: "/metadata/name".to_owned(),
            is: json!("default"),
        };
        self.take(&account).await;
        let mut answers = Map::new();
        for (number, step) in case.steps.iter().enumerate() {
            let begun = Instant::now();
            loop {
                let Some(found) = self.take(step).await else { break };
                let Step::Read { path } = step else { break };
                let (key, answer) = (format!("{number} {path}"), self.normal(found).await);
                let so = expected.is_none_or(|expected| expected[&key] == answer);
                // What was recorded is what there is when nothing changes any more.
                let settled =
                    expected.is_some() || answers.insert(key.clone(), answer.clone()).as_ref() == Some(&answer);
                if so && settled || expected.is_some() && begun.elapsed() > Duration::from_secs(10) {
                    answers.insert(key, answer);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(if expected.is_some() { 50 } else { 3_000 })).await;
            }
        }
        Value::Object(answers)
    }

    /// Without what chance and time decide.
    async fn normal(&self, found: Value) -> Value {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for path in [
            "v1/pods",
            "apps/v1/replicasets",
            "discovery.k8s.io/v1/endpointslices",
            "apps/v1/controllerrevisions",
            "batch/v1/jobs",
            "resource.k8s.io/v1/resourceclaims",
        ] {
            let list = self.get(path).await;
            for object in list["items"].as_array().into_iter().flatten() {
                let meta = &object["metadata"];
                if let (Some(name), Some(prefix)) = (meta["name"].as_str(), meta["generateName"].as_str()) {
                    names.insert(name.to_owned(), format!("{prefix}*"));
                }
                for label in ["pod-template-hash", "controller-revision-hash"] {
                    // A StatefulSet's is the name of a revision, which is to be upstream's own.
                    if let Some(hash) = meta["labels"][label].as_str().filter(|hash| !hash.contains('-')) {
                        names.insert(hash.to_owned(), "HASH".to_owned());
                    }
                }
                if let Some(uid) = meta["uid"].as_str() {
                    names.insert(uid.to_owned(), "UID".to_owned());
                }
            }
        }
        // The longest first: a hash is part of a name.
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut found = match found["kind"].as_str() {
            Some("EventList") => told(&found),
            _ => found,
        };
        clean(&mut found, &names);
        if let Some(items) = found.get_mut("items").and_then(Value::as_array_mut) {
            items.sort_by_key(Value::to_string);
        }
        if let Some(lines) = found.as_array_mut() {
            lines.sort_by_key(Value::to_string);
            lines.dedup();
        }
        found
    }
}

/// Each Event as a line.
fn told(events: &Value) -> Value {
    let line = |event: &Value| {
        let (object, text) = (&event["involvedObject"], |at: &str| {
            event[at].as_str().unwrap_or_default().to_owned()
        });
        let source = event["source"]["component"]
            .as_str()
            .or(event["reportingComponent"].as_str())
            .unwrap_or_default();
        let of = |at: &str| object[at].as_str().unwrap_or_default().to_owned();
        json!(format!(
            "{} {} {}/{} by {source}: {}",
            text("type"),
            text("reason"),
            of("kind"),
            of("name"),
            text("message")
        ))
    };
    events["items"].as_array().into_iter().flatten().map(line).collect()
}

const CHANCE: [&str; 6] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "namespace",
    "endpoints.kubernetes.io/last-change-trigger-time",
];

/// What generated names end with.
const RANDOM: &str = r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b";

fn clean(value: &mut Value, names: &[(String, String)]) {
    match value {
        Value::Object(map) => {
            CHANCE.iter().for_each(|key| drop(map.remove(*key)));
            // What a pod says of itself is its node's; how often a slice was written, chance's.
            if map.get("spec").is_some_and(|spec| spec.get("containers").is_some()) {
                map.remove("status");
            }
            if map.contains_key("addressType")
                && let Some(Value::Object(meta)) = map.get_mut("metadata")
            {
                meta.remove("generation");
            }
            map.values_mut().for_each(|value| clean(value, names));
            map.retain(|key, value| key != "annotations" || value != &json!({}));
            for (name, other) in names {
                if let Some(value) = map.remove(name) {
                    map.insert(other.clone(), value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| clean(value, names)),
        Value::String(text) => {
            if text.parse::<jiff::Timestamp>().is_ok() {
                "TIME".clone_into(text);
            } else if text.parse::<std::net::IpAddr>().is_ok() {
                "ADDRESS".clone_into(text);
            }
            for (name, other) in names {
                if text.contains(name.as_str()) {
                    *text = text.replace(name.as_str(), other);
                }
            }
            let random = regex::Regex::new(RANDOM).unwrap();
            if let std::borrow::Cow::Owned(other) = random.replace_all(text, "-*") {
                *text = other;
            }
        }
        _ => {}
    }
}

async fn all(client: &Client, expected: Option<&Value>) -> Value {
    let cases: Vec<Case> = serde_saphyr::from_str(CASES).unwrap();
    let answers = cases.iter().map(|case| async move {
        let world = World {
            client: client.clone(),
            namespace: format!("answers-{}", case.name),
        };
        let answers = world.run(case, expected.map(|expected| &expected[&case.name])).await;
        (case.name.clone(), answers)
    });
    Value::Object(futures::future::join_all(answers).await.into_iter().collect())
}

/// Against upstream, whose kubeconfig the environment names: writes what it answers.
async fn record(kubeconfig: &str) {
    let config = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    let end = cluster::play(&client, "n1").await;
    let answers = all(&client, None).await;
    end.cancel();
    let mut text = serde_json::to_string_pretty(&answers).unwrap();
    text.push('\n');
    std::fs::write(RECORDED, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_answer_as_upstreams() {
    if let Ok(kubeconfig) = std::env::var("MK8S_RECORD_FROM") {
        return record(&kubeconfig).await;
    }
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(RECORDED).unwrap()).unwrap();
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let found = all(&cluster.admin, Some(&expected)).await;
    let mut wrong = Vec::new();
    let names = |all: &Value| all.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(&expected), "each case, and no other, is recorded");
    for (case, readings) in expected.as_object().unwrap() {
        assert_eq!(names(&found[case]), names(readings), "{case}: so is each reading");
        for (reading, expected) in readings.as_object().unwrap() {
            differences(
                &format!("{case}: {reading}"),
                expected,
                &found[case][reading],
                &mut wrong,
            );
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    cluster.stop().await;
}

/// Each place where they are not the same.
fn differences(at: &str, expected: &Value, found: &Value, wrong: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                differences(&format!("{at}/{key}"), &expected[key], &found[key], wrong);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.iter().all(Value::is_string) => {
            wrong.extend(
                a.iter()
                    .filter(|line| !b.contains(line))
                    .map(|line| format!("{at}: missing {line}")),
            );
            wrong.extend(
                b.iter()
                    .filter(|line| !a.contains(line))
                    .map(|line| format!("{at}: not upstream's {line}")),
            );
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (number, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}/{number}"), a, b, wrong);
            }
        }
        _ if expected == found => {}
        _ => wrong.push(format!("{at}: {expected} is {found}")),
    }
}
