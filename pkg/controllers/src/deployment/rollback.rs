//! A Deployment's return to an earlier revision, which old clients ask the server for by an annotation. The annotation goes,
//! whatever becomes of it.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use mk8s_api::meta::DEPLOYMENT_ROLLBACK as ASKED;

use super::plan::{self, HASH_LABEL, Sets};
use super::revision;
use crate::meta;

/// What becomes of a Deployment that is asked to go back.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// It has the template of this revision again.
    Done(i64),
    /// It has that template already.
    Unchanged,
    /// No set has that revision; zero: nor is there a last one.
    NotFound(i64),
}

/// The revision that is asked for; zero is the last one before the present.
pub fn asked(deployment: &Deployment) -> Option<i64> {
    meta::annotation(deployment, ASKED)?.parse().ok()
}

/// Goes back to a revision. What asked for it is taken away.
pub fn roll_back(deployment: &mut Deployment, sets: &Sets, asked: i64) -> Outcome {
    if let Some(annotations) = &mut deployment.metadata.annotations {
        annotations.remove(ASKED);
    }
    let wanted = match asked {
        0 => last(sets).unwrap_or(0),
        revision => revision,
    };
    let of_wanted = |set: &&std::sync::Arc<ReplicaSet>| number(set) == Some(wanted);
    let Some(set) = sets.all.iter().find(of_wanted).filter(|_| wanted != 0) else {
        return Outcome::NotFound(wanted);
    };
    if plan::same_template(deployment, set) {
        return Outcome::Unchanged;
    }
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone());
    if let (Some(spec), Some(mut template)) = (&mut deployment.spec, template) {
        if let Some(labels) = template.metadata.as_mut().and_then(|own| own.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        spec.template = template;
    }
    revision::restore(&mut deployment.metadata, &set.metadata);
    Outcome::Done(wanted)
}

fn number(set: &ReplicaSet) -> Option<i64> {
    revision::number(set, revision::REVISION)
}

/// The revision before the newest one.
fn last(sets: &Sets) -> Option<i64> {
    let mut all: Vec<i64> = sets.all.iter().filter_map(|set| number(set)).collect();
    all.sort_unstable();
    all.into_iter().rev().nth(1)
}

impl Outcome {
    /// The event that tells of it: type, reason and text.
    pub fn event(&self, name: &str) -> (&'static str, &'static str, String) {
        match self {
            Outcome::Done(revision) => (
                "Normal",
                "DeploymentRollback",
                format!("Rolled back deployment {name:?} to revision {revision}"),
            ),
            Outcome::Unchanged => (
                "Warning",
                "DeploymentRollbackTemplateUnchanged",
                format!("The rollback revision contains the same template as current deployment {name:?}"),
            ),
            Outcome::NotFound(0) => (
                "Warning",
                "DeploymentRollbackRevisionNotFound",
                "Unable to find last revision.".to_owned(),
            ),
            Outcome::NotFound(_) => (
                "Warning",
                "DeploymentRollbackRevisionNotFound",
                "Unable to find the revision to rollback to.".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn template(image: &str, labels: Value) -> Value {
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}})
    }

    fn set(image: &str, number: &str) -> Arc<ReplicaSet> {
        let labels = json!({"app": "a", HASH_LABEL: number});
        let set = json!({"metadata": {"name": number, "annotations": {
            revision::REVISION: number, revision::DESIRED: "3", "kubernetes.io/change-cause": image}},
            "spec": {"selector": {}, "template": template(image, labels)}});
        Arc::new(serde_json::from_value(set).unwrap())
    }

    fn deployment(to: &str) -> Deployment {
        let deployment = json!({"metadata": {"name": "d", "annotations": {
            ASKED: to, revision::REVISION: "3", "kubernetes.io/change-cause": "three"}},
            "spec": {"selector": {}, "template": template("three", json!({"app": "a"}))}});
        serde_json::from_value(deployment).unwrap()
    }

    #[test]
    fn the_template_and_its_annotations_come_back() {
        for (to, image) in [("1", "one"), ("0", "two")] {
            let mut deployment = deployment(to);
            let sets = Sets::new(&deployment, vec![set("one", "1"), set("two", "2"), set("three", "3")]);
            let asked = asked(&deployment).unwrap();
            let outcome = roll_back(&mut deployment, &sets, asked);
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            let spec = deployment.spec.unwrap();
            let expected = serde_json::from_value(template(image, json!({"app": "a"}))).unwrap();
            assert_eq!(spec.template, expected);
            let annotations = serde_json::to_value(deployment.metadata.annotations).unwrap();
            let kept = json!({revision::REVISION: "3", "kubernetes.io/change-cause": image});
            assert_eq!(annotations, kept);
        }
    }

    #[test]
    fn what_asked_for_it_goes_though_nothing_is_done() {
        for (to, outcome) in [("3", Outcome::Unchanged), ("7", Outcome::NotFound(7))] {
            let mut deployment = deployment(to);
            let before = deployment.spec.clone();
            let sets = Sets::new(&deployment, vec![set("one", "1"), set("three", "3")]);
            let asked = asked(&deployment).unwrap();
            assert_eq!(roll_back(&mut deployment, &sets, asked), outcome);
            assert_eq!(deployment.spec, before);
            assert_eq!(super::asked(&deployment), None);
        }
        let mut alone = deployment("0");
        let sets = Sets::new(&alone, vec![set("three", "3")]);
        assert_eq!(roll_back(&mut alone, &sets, 0), Outcome::NotFound(0));
    }
}
