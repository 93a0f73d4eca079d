//! Conversion of custom resources between their versions by a webhook: all objects that are not in the wanted version, in one
//! question (apiextensions.k8s.io ConversionReview,
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion>).

use std::sync::Arc;
use std::time::Duration;

use mk8s_api::registry::Resource;
use mk8s_api::registry::custom::Webhook;
use mk8s_api::status::{self, Status};
use mk8s_api::validation::{self, Errors, Path};
use mk8s_api::{go, meta};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::handlers::decode::{go_kind, missing, shown};
use crate::object::Object;
use crate::rows::Row;
use crate::state::State;
use crate::webhook::Webhooks;
use crate::write;

/// How long a webhook may take: a request's own deadline is not much later.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stored object in the form of a request's row, or the other way, where a webhook makes it; else as it is.
pub async fn tree(call: &Call, object: Value, form: Form) -> Result<Value, Status> {
    let row = &call.row;
    match form {
        Form::Row => asked_for(call, object, &row.api_version).await,
        Form::Stored => asked_for(call, object, &row.resource.api_version()).await,
    }
}

/// An object in a version, of which the call's webhook makes it.
async fn asked_for(call: &Call, object: Value, wanted: &str) -> Result<Value, Status> {
    let Some(webhook) = call.row.webhook() else {
        return Ok(object);
    };
    if meta::api_version(&object) == wanted {
        return Ok(object);
    }
    // A webhook takes as long as it likes: who waits for a turn does not wait for it.
    let turn = call.turn.as_ref().filter(|turn| turn.give_back());
    let converting = convert(call.server.webhooks(), webhook, vec![object], wanted);
    let converted = tokio::time::timeout_at(call.deadline, converting).await;
    let mut converted = converted.map_err(|_| write::timed_out())??;
    if let Some(turn) = turn {
        turn.hold().await?;
    }
    let mut converted = converted.pop().ok_or_else(|| failure("no object is left".into()))?;
    prune(&call.row.resource, &mut converted);
    Ok(converted)
}

/// Takes out of what a webhook made what its version lacks.
fn prune(resource: &Resource, object: &mut Value) {
    let version = meta::api_version(object);
    let served = resource.versions.iter().find(|served| served.api_version() == version);
    if let Some(custom) = served.and_then(|served| served.custom.as_ref()) {
        custom.prune(object);
    }
}

/// Which form an object is wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Row,
    Stored,
}

/// How many bytes of objects a webhook is asked about at once, about.
const QUESTION: usize = 1 << 20;

/// Cached objects in the row's form, where a webhook makes it; else, and where they are in it already, as they are.
pub async fn objects(state: &State, row: &Row, mut found: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, Status> {
    let Some(webhook) = row.webhook() else {
        return Ok(found);
    };
    let differs = |at: &usize| !found[*at].is_in(&row.api_version);
    let places: Vec<usize> = (0..found.len()).filter(differs).collect();
    let mut rest = places.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |at: &&usize| {
            let fits = bytes < QUESTION;
            bytes += found[**at].json.len();
            fits
        };
        let asked;
        (asked, rest) = rest.split_at(rest.iter().take_while(fits).count());
        let trees: Result<Vec<Value>, Status> = asked.iter().map(|at| found[*at].value()).collect();
        let converted = convert(state.webhooks(), webhook, trees?, &row.api_version).await?;
        for (at, mut tree) in asked.iter().zip(converted) {
            prune(&row.resource, &mut tree);
            found[*at] = Arc::new(write::in_form(&found[*at], row.resource.clone(), &tree)?);
        }
    }
    Ok(found)
}

/// What a webhook made of an object.
struct Known {
    object: Value,
    wanted: String,
    made: Value,
    /// Whether anybody found it since the webhook was asked last.
    used: bool,
}

/// The forms of a call's objects in other versions, which whoever compares what managers own looks at.
#[derive(Default)]
pub struct Forms {
    known: Mutex<Vec<Known>>,
    /// What was looked for and is not known.
    missed: Mutex<Vec<(Value, String)>>,
}

impl Forms {
    pub fn find(&self, object: &Value, version: &str) -> Option<Value> {
        let is = |own: &Value, wanted: &String| wanted == version && own == object;
        let mut known = self.known.lock();
        if let Some(known) = known.iter_mut().find(|known| is(&known.object, &known.wanted)) {
            known.used = true;
            return Some(known.made.clone());
        }
        let mut missed = self.missed.lock();
        if !missed.iter().any(|(own, wanted)| is(own, wanted)) {
            missed.push((object.clone(), version.into()));
        }
        None
    }

    /// Asks the call's webhook for what was missed; whether anything was, so that it is worth looking again.
    ///
    /// # Errors
    /// The webhook's.
    pub async fn ask(&self, call: &Call) -> Result<bool, Status> {
        let missed = std::mem::take(&mut *self.missed.lock());
        let asked = !missed.is_empty();
        self.forget();
        for (object, wanted) in missed {
            let made = asked_for(call, object.clone(), &wanted).await?;
            self.known.lock().push(Known {
                object,
                wanted,
                made,
                used: true,
            });
        }
        Ok(asked)
    }
}

impl Forms {
    /// What was of use to the attempts before is of none to this one: a write that others overtake is tried again and again.
    fn forget(&self) {
        let mut known = self.known.lock();
        known.retain(|known| known.used);
        for known in &mut *known {
            known.used = false;
        }
    }
}

/// The objects in a version (`example.org/v1`), in the same order; those that are in it already stay as they are.
pub async fn convert(
    webhooks: &Webhooks,
    webhook: &Webhook,
    mut objects: Vec<Value>,
    wanted: &str,
) -> Result<Vec<Value>, Status> {
    let places: Vec<usize> = (0..objects.len())
        .filter(|at| meta::api_version(&objects[*at]) != wanted)
        .collect();
    let Some(first) = places.first().map(|at| &objects[*at]) else {
        return Ok(objects);
    };
    let what = described(first);
    let Some(version) = webhook
        .review_versions
        .iter()
        .find(|own| matches!(own.as_str(), "v1" | "v1beta1"))
    else {
        return Err(failure("no supported conversion review versions".into()));
    };
    let uid = uuid::Uuid::new_v4().to_string();
    let sent: Vec<&Value> = places.iter().map(|at| &objects[*at]).collect();
    let question = json!({
        "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": sent},
    });
    let answer = webhooks.call(webhook, &question, PATIENCE).await;
    let answer = answer.map_err(|error| failure(format!("conversion webhook for {what} failed: {error}")))?;
    let converted = answered(&answer, version, &uid);
    let converted = converted.map_err(|why| failure(format!("conversion webhook for {what} failed: {why}")))?;
    if converted.len() != places.len() {
        let (got, expected) = (converted.len(), places.len());
        return Err(failure(format!(
            "conversion webhook for {what} returned {got} objects, expected {expected}"
        )));
    }
    let alone = places.len() == 1;
    for (index, (at, new)) in places.into_iter().zip(converted).enumerate() {
        let settled = settled(&objects[at], new, wanted);
        objects[at] = settled.map_err(|fault| failure(fault.told(&what, (!alone).then_some(index))))?;
    }
    Ok(objects)
}

/// `example.org/v1, Kind=Car`
fn described(object: &Value) -> String {
    format!("{}, Kind={}", meta::api_version(object), meta::kind(object))
}

/// Of what a webhook says no more is told than of a body.
fn failure(message: String) -> Status {
    Status::new(500, "", shown(message.as_bytes()))
}

/// Whether a value fits into a part of an answer.
type Fits = fn(&Value) -> bool;

/// The parts of an answer: Go's struct that has it, the way to it, and its type there.
const PARTS: [(&str, &[&str], &str, Fits); 6] = [
    (
        "ConversionReview",
        &["response"],
        "v1.ConversionResponse",
        Value::is_object,
    ),
    (
        "ConversionResponse",
        &["response", "uid"],
        "types.UID",
        Value::is_string,
    ),
    (
        "ConversionResponse",
        &["response", "result"],
        "v1.Status",
        Value::is_object,
    ),
    ("Status", &["response", "result", "status"], "string", Value::is_string),
    ("Status", &["response", "result", "message"], "string", Value::is_string),
    (
        "ConversionResponse",
        &["response", "convertedObjects"],
        "[]runtime.RawExtension",
        Value::is_array,
    ),
];

/// The objects of an answer that says it went well, to a question in a version of reviews, in whose place nothing else may be.
fn answered(answer: &Value, asked: &str, uid: &str) -> Result<Vec<Value>, String> {
    const GROUP: &str = "apiextensions.k8s.io";
    let (version, kind) = (meta::api_version(answer), meta::kind(answer));
    // What it does not say is what was asked for.
    let or = |said: &str, asked: String| if said.is_empty() { asked } else { said.to_string() };
    let read_as = (
        or(version, format!("{GROUP}/{asked}")),
        or(kind, "ConversionReview".into()),
    );
    let unlike = |of: &str, kind: &str| {
        Err(format!(
            "converting ({of}.{kind}) to ({asked}.ConversionReview): unknown conversion"
        ))
    };
    match (read_as.0.strip_prefix(GROUP), read_as.1.as_str()) {
        (_, "Status") => return unlike("v1", "Status"),
        (Some("/v1" | "/v1beta1"), "ConversionReview") => {
            let of = read_as.0.rsplit('/').next().unwrap_or_default();
            if of != asked {
                return unlike(of, "ConversionReview");
            }
        }
        _ => {
            let (version, kind) = read_as;
            return Err(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\""
            ));
        }
    }
    for (holder, path, wanted, fits) in PARTS {
        if let Some(found) = meta::at(answer, path).filter(|found| !found.is_null() && !fits(found)) {
            let (found, path) = (go_kind(found), path.join("."));
            return Err(format!(
                "json: cannot unmarshal {found} into Go struct field {holder}.{path} of type {wanted}"
            ));
        }
    }
    let said = (version, kind) == ("apiextensions.k8s.io/v1", "ConversionReview");
    if asked == "v1" && !said {
        let version = or(version, "/".into());
        return Err(format!(
            "expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {version}, Kind={kind}"
        ));
    }
    let response = answer["response"].as_object().ok_or("no response provided")?;
    let own = meta::string(answer, &["response", "uid"]);
    if asked == "v1" && own != uid {
        return Err(format!("expected response.uid={uid:?}, got {own:?}"));
    }
    let result = response.get("result").unwrap_or(&Value::Null);
    let status = meta::string(result, &["status"]);
    if status != "Success" {
        return Err(match meta::string(result, &["message"]) {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_string(),
        });
    }
    let converted = response.get("convertedObjects").and_then(Value::as_array);
    Ok(converted.cloned().unwrap_or_default())
}

/// What is wrong with a converted object.
#[derive(Debug, PartialEq)]
enum Fault {
    /// It is no object that says what it is.
    Unread(String),
    Kind(String),
    Identity(String),
    Metadata(String),
}

impl Fault {
    /// In upstream's words, which differ with whether one object was asked about, or the one at a place of several.
    fn told(self, what: &str, index: Option<usize>) -> String {
        let why = match (self, index) {
            (Fault::Unread(why), None) => return why,
            (Fault::Kind(why), None) => format!("object at index 0: {why}"),
            (Fault::Identity(why), None) => format!("object: {why}"),
            (Fault::Metadata(why), None) => format!("metadata: {why}"),
            (Fault::Unread(why) | Fault::Kind(why) | Fault::Identity(why), Some(index)) => {
                format!("converted object at index {index}: {why}")
            }
            (Fault::Metadata(why), Some(index)) => format!("metadata in object at index {index}: {why}"),
        };
        format!("conversion webhook for {what} returned invalid {why}")
    }
}

/// A converted object, with the metadata that no webhook may change.
fn settled(before: &Value, mut now: Value, wanted: &str) -> Result<Value, Fault> {
    let unread = match &now {
        Value::Null => Some("unexpected end of JSON input".to_string()),
        Value::Object(_) if meta::kind(&now).is_empty() => Some(missing("Kind", now.to_string().as_bytes())),
        Value::Object(_) => None,
        other => {
            let found = go_kind(other);
            Some(format!(
                "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
            ))
        }
    };
    if let Some(why) = unread {
        return Err(Fault::Unread(why));
    }
    let version = meta::api_version(&now);
    if version != wanted {
        let why = format!("invalid groupVersion (expected {wanted}, received {version})");
        return Err(Fault::Kind(why));
    }
    if meta::kind(before) != meta::kind(&now) {
        let (expected, received) = (meta::kind(before), meta::kind(&now));
        let why = format!("invalid kind (expected {expected}, received {received})");
        return Err(Fault::Kind(why));
    }
    for (what, of) in [
        ("name", meta::name as fn(&Value) -> &str),
        ("namespace", meta::namespace),
        ("UID", meta::uid),
    ] {
        let (expected, received) = (of(before), of(&now));
        if expected != received {
            let why = format!("must have the same {what}: {expected} != {received}");
            return Err(Fault::Identity(why));
        }
    }
    now["metadata"] = metadata(before, &now).map_err(Fault::Metadata)?;
    Ok(now)
}

/// The metadata of an object, with the labels and annotations that a webhook made of its own, where they are such.
fn metadata(before: &Value, now: &Value) -> Result<Value, String> {
    let mut metadata = before["metadata"].as_object().cloned().unwrap_or_default();
    let told = now["metadata"]
        .as_object()
        .ok_or("missing metadata in converted object")?;
    for (field, shown, check) in TEXTS {
        match told.get(field) {
            None | Some(Value::Null) => drop(metadata.remove(field)),
            Some(made @ Value::Object(texts)) => {
                all_texts(field, texts)?;
                if metadata.get(field) != Some(made) {
                    let mut errors = Errors::new();
                    check(Some(made), &Path::new(shown), &mut errors);
                    errors.truncate(MOST_TOLD);
                    if !errors.is_empty() {
                        return Err(status::told(&errors));
                    }
                }
                metadata.insert(field.into(), made.clone());
            }
            Some(other) => {
                let found = go::type_of(other);
                return Err(format!("invalid metadata.{field} of type {found} in converted object"));
            }
        }
    }
    Ok(Value::Object(metadata))
}

/// How many faults of one object's metadata are told of.
const MOST_TOLD: usize = 20;

type Check = fn(Option<&Value>, &Path<'_>, &mut Errors);
/// What of its metadata a webhook may change: the field, what upstream calls it, and what it has to be.
const TEXTS: [(&str, &str, Check); 2] = [
    ("labels", "metadata.labels", validation::labels),
    ("annotations", "metadata.annotation", validation::annotations),
];

fn all_texts(field: &str, texts: &Map<String, Value>) -> Result<(), String> {
    match texts.iter().find(|(_, value)| !value.is_string()) {
        None => Ok(()),
        Some((key, other)) => {
            let found = go::type_of(other);
            Err(format!(
                "metadata.{field}[{key}] must be a string, but is {found} in converted object"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_changes_no_more_of_metadata_than_labels_and_annotations() {
        let before = json!({"apiVersion": "e/v1", "kind": "K", "metadata": {
            "name": "a", "uid": "u", "labels": {"a": "b"}, "resourceVersion": "7", "finalizers": ["f"]}});
        let mut now = json!({"apiVersion": "e/v2", "kind": "K", "metadata": {
            "name": "a", "uid": "u", "annotations": {"c": "d"}, "resourceVersion": "8"}, "spec": {}});
        let settled_now = settled(&before, now.clone(), "e/v2").expect("an object");
        let metadata =
            json!({"name": "a", "uid": "u", "annotations": {"c": "d"}, "resourceVersion": "7", "finalizers": ["f"]});
        assert_eq!(settled_now["metadata"], metadata);
        now["metadata"]["uid"] = "other".into();
        let why = "must have the same UID: u != other";
        assert_eq!(settled(&before, now.clone(), "e/v2"), Err(Fault::Identity(why.into())));
        let why = "invalid groupVersion (expected e/v3, received e/v2)";
        assert_eq!(settled(&before, now, "e/v3"), Err(Fault::Kind(why.into())));
    }

    #[test]
    fn labels_that_a_webhook_makes_are_labels() {
        let before =
            json!({"apiVersion": "e/v1", "kind": "K", "metadata": {"name": "a", "labels": {"was there": "b!"}}});
        let now =
            |labels: Value| json!({"apiVersion": "e/v2", "kind": "K", "metadata": {"name": "a", "labels": labels}});
        let made = settled(&before, now(json!({"a b": "c"})), "e/v2");
        let Err(fault) = made else { panic!("{made:?}") };
        let told = fault.told("K", None);
        let words = "conversion webhook for K returned invalid metadata: metadata.labels: Invalid value: \"a b\": ";
        assert!(told.starts_with(words), "{told}");
        assert_eq!(
            Fault::Metadata("x".into()).told("K", Some(3)),
            "conversion webhook for K returned invalid metadata in object at index 3: x"
        );
        // What is stored already stays as it is.
        assert!(settled(&before, now(json!({"was there": "b!"})), "e/v2").is_ok());
    }
}
