//! The conditions of a CustomResourceDefinition's status.

use std::borrow::Cow;

use mk8s_api::{meta, status, time, validation};
use serde_json::{Value, json};

/// What one condition says, without its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub type_: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: Cow<'static, str>,
}

impl Condition {
    pub fn new(
        type_: &'static str,
        status: bool,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Condition {
        Condition {
            type_,
            status: if status { "True" } else { "False" },
            reason,
            message: message.into(),
        }
    }

    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// Whether the definition says it already.
    pub fn stands_in(&self, definition: &Value) -> bool {
        let stands = meta::condition(definition, self.type_);
        stands.is_some_and(|own| {
            own["status"] == self.status && own["reason"] == self.reason && own["message"] == *self.message
        })
    }

    /// Puts it into the definition's status; its time is that of the last change of the status.
    pub fn put(&self, definition: &mut Value) {
        let mut since = json!(time::rfc3339(jiff::Timestamp::now()));
        if let Some(own) = meta::condition(definition, self.type_)
            && own["status"] == self.status
            && !own["lastTransitionTime"].is_null()
        {
            since = own["lastTransitionTime"].clone();
        }
        let new = json!({
            "type": self.type_, "status": self.status, "reason": self.reason, "message": self.message,
            "lastTransitionTime": since,
        });
        let mut all = meta::items(definition, &["status", "conditions"]).to_vec();
        match all.iter_mut().find(|own| own["type"] == self.type_) {
            Some(own) => *own = new,
            None => all.push(new),
        }
        meta::set(definition, &["status", "conditions"], all);
    }
}

/// What is said of a definition whose schemas are not structural, or whose objects are not pruned.
pub const NON_STRUCTURAL: &str = "NonStructuralSchema";

/// How many violations a condition tells: a schema of 3 MB may have 300 000, and a status that long can't be stored.
const MOST_VIOLATIONS: usize = 100;

/// None where there is nothing to say. Only a definition that preserves unknown fields may be so.
pub fn non_structural(definition: &Value) -> Option<Condition> {
    if definition["spec"]["preserveUnknownFields"] != true {
        return None;
    }
    let wrong = validation::non_structural(definition);
    let shown = &wrong[..wrong.len().min(MOST_VIOLATIONS)];
    Some(Condition::new(NON_STRUCTURAL, true, "Violations", status::told(shown)))
}

/// Takes what a condition says out of a definition's status.
pub fn remove(definition: &mut Value, type_: &str) {
    if let Some(Value::Array(all)) = definition.pointer_mut("/status/conditions") {
        all.retain(|own| own["type"] != type_);
    }
}

/// The annotation by which a kind in a protected group says where it was approved.
const APPROVED: &str = "api-approved.kubernetes.io";

/// Whether a kind of Kubernetes' own groups was approved; None for the groups of others.
pub fn approval(definition: &Value) -> Option<Condition> {
    const TYPE: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = meta::string(definition, &["spec", "group"]);
    let protected = ["k8s.io", "kubernetes.io"];
    let is_protected = |owner: &&&str| {
        let rest = group.strip_suffix(**owner);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    protected.iter().find(|owner| is_protected(owner))?;
    let annotation = meta::annotation(definition, APPROVED).unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    Some(if annotation.is_empty() {
        let message = format!("protected groups must have approval annotation {APPROVED:?}, {see}");
        Condition::new(TYPE, false, "MissingAnnotation", message)
    } else if annotation.starts_with("unapproved") {
        Condition::new(
            TYPE,
            false,
            "UnapprovedAnnotation",
            format!("not approved: {annotation:?}"),
        )
    } else if is_url(annotation) {
        Condition::new(TYPE, true, "ApprovedAnnotation", format!("approved in {annotation}"))
    } else {
        let message = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \
             \"unapproved\", {see}"
        );
        Condition::new(TYPE, false, "InvalidAnnotation", message)
    })
}

fn is_url(text: &str) -> bool {
    let uri = text.parse::<http::Uri>().ok();
    uri.is_some_and(|uri| uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut definition = json!({"status": {"conditions": [
            {"type": "Established", "status": "True", "reason": "a", "message": "b", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let same = Condition::new("Established", true, "c", "d");
        assert!(!same.stands_in(&definition));
        same.put(&mut definition);
        assert!(same.stands_in(&definition));
        let stands = |definition: &Value| definition["status"]["conditions"][0].clone();
        assert_eq!(stands(&definition)["lastTransitionTime"], "2026-01-01T00:00:00Z");
        Condition::new("Established", false, "c", "d").put(&mut definition);
        assert_ne!(stands(&definition)["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn kinds_of_kubernetes_groups_say_where_they_were_approved() {
        let of = |group: &str, annotation: &str| {
            let definition = json!({"metadata": {"annotations": {APPROVED: annotation}}, "spec": {"group": group}});
            approval(&definition).map(|condition| condition.reason)
        };
        assert_eq!(of("example.org", ""), None);
        assert_eq!(of("notk8s.io", ""), None);
        assert_eq!(of("x.k8s.io", ""), Some("MissingAnnotation"));
        assert_eq!(of("x.k8s.io", "unapproved, for now"), Some("UnapprovedAnnotation"));
        assert_eq!(of("kubernetes.io", "https://example.org/1"), Some("ApprovedAnnotation"));
        assert_eq!(of("x.k8s.io", "yes"), Some("InvalidAnnotation"));
    }
}
