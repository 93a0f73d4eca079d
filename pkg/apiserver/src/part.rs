//! An object of which a write through `/status` reads a part: what it may change is a tree, everything else stays the text
//! that it is. A node writes its pods' statuses far more often than anybody writes their specs, and a spec is most of a pod.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use mk8s_api::codec::json;
use mk8s_api::registry::Resource;
use mk8s_api::status::Status;
use serde_json::Value;

use crate::object::{Object, Selectable};
use crate::rows::Row;

/// What such a write reads.
const READ: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// The other fields of an object, as text.
pub struct Rest {
    object: Arc<Object>,
    /// By name, in its order: where they stand in the object's text.
    fields: Vec<(String, Range<usize>)>,
}

/// Whether a change says nothing of what is not read.
pub fn suffices(change: &Value) -> bool {
    let fields = change.as_object();
    fields.is_some_and(|fields| fields.keys().all(|key| READ.contains(&key.as_str())))
}

/// Whether a write of a row's status may be decided from the part alone.
pub fn decides(row: &Row) -> bool {
    row.shows_stored() && row.resource.semantics.status_by_itself.is_some()
}

/// What a changed part is judged against: the object as it was, whole where the part alone does not tell.
///
/// # Errors
/// What is stored is damaged.
pub fn judge<'a>(
    resource: &Resource,
    rest: Option<&Rest>,
    new: &Value,
    old: &'a Value,
) -> Result<Cow<'a, Value>, Status> {
    match (rest, resource.semantics.status_by_itself) {
        (Some(rest), Some(by_itself)) if !by_itself(new, old) => rest.whole(old.clone()).map(Cow::Owned),
        _ => Ok(Cow::Borrowed(old)),
    }
}

impl Rest {
    /// The part that is read, and the rest.
    ///
    /// # Errors
    /// What is stored is damaged.
    pub fn split(object: &Arc<Object>) -> Result<(Value, Rest), Status> {
        let text = &object.json;
        let damaged = || Status::internal(format!("{} is stored damaged", object.key));
        let (tree, others) = json::split(text, &READ).ok_or_else(damaged)?;
        let place = |raw: &str| {
            let from = raw.as_ptr() as usize - text.as_ptr() as usize;
            from..from + raw.len()
        };
        let mut fields: Vec<_> = others.into_iter().map(|(key, raw)| (key, place(raw))).collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        let object = object.clone();
        Ok((tree, Rest { object, fields }))
    }

    /// Drops from a tree what is not its part.
    pub fn trim(&self, tree: &mut Value) {
        if let Value::Object(fields) = tree {
            fields.retain(|key, _| READ.contains(&key.as_str()));
        }
    }

    /// Names and texts, in the order of the names.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let text = &self.object.json;
        self.fields
            .iter()
            .map(|(key, place)| (key.as_str(), &text[place.clone()]))
    }

    /// The whole object of a part.
    ///
    /// # Errors
    /// What is stored is damaged.
    pub fn whole(&self, part: Value) -> Result<Value, Status> {
        let mut whole = self.object.value()?;
        let (Value::Object(fields), Value::Object(part)) = (&mut whole, part) else {
            return Err(Status::internal(format!("{} is stored damaged", self.object.key)));
        };
        fields.retain(|key, _| !READ.contains(&key.as_str()));
        fields.extend(part);
        Ok(whole)
    }

    /// What selectors ask of the whole object of a part.
    pub fn selectable(&self, resource: &Resource, part: &Value) -> Selectable {
        let mut selectable = Selectable::of(resource, part);
        let before = &self.object.selectable().fields;
        for ((own, before), field) in selectable.fields.iter_mut().zip(before).zip(&resource.index) {
            let kept = field.path.first().is_some_and(|first| !READ.contains(&first.as_ref()));
            if kept {
                own.clone_from(before);
            }
        }
        selectable
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_api::registry;
    use mk8s_store::Entry;
    use serde_json::json;

    use super::*;
    use crate::write::Printed;

    #[test]
    fn a_part_and_the_rest_are_the_whole() {
        let resource = registry::find("", "v1", "pods").unwrap();
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "resourceVersion": "7"},
            "aaa": [1], "spec": {"nodeName": "n", "containers": [{"name": "c"}]}, "zzz": "\u{e9}",
            "status": {"phase": "Pending"}});
        let text = pod.to_string();
        let object = Arc::new(Object::new(
            resource.clone(),
            Entry {
                key: "/registry/core/pods/a/p".into(),
                revision_at: text.find("\"7\"").unwrap() + 1,
                value: text.into(),
                create_revision: 7,
                mod_revision: 7,
            },
            None,
        ));
        let (mut part, rest) = Rest::split(&object).unwrap();
        assert!(part.get("spec").is_none() && part["status"]["phase"] == "Pending");
        for value in [&mut pod, &mut part] {
            value["status"]["phase"] = "Running".into();
            value["spec"]["nodeName"] = "n".into();
        }
        rest.trim(&mut part);
        let printed = Printed::of_part(resource, &part, &rest, &object.managed).unwrap();
        assert_eq!(
            printed.text(),
            Printed::of(resource, &pod, &object.managed).unwrap().text()
        );
        assert_eq!(rest.selectable(resource, &part), Selectable::of(resource, &pod));
        assert_eq!(rest.whole(part).unwrap(), pod);
    }

    #[test]
    fn what_says_something_of_the_spec_needs_the_whole() {
        assert!(suffices(&json!({"metadata": {}, "status": {"a": 1}})));
        assert!(!suffices(&json!({"status": {}, "spec": {}})));
        assert!(!suffices(&json!([{"op": "test"}])));
    }
}
