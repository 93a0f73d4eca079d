//! The pods that a Job makes.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::view::{FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, View};
use crate::{meta, replicas};

/// As much of the Job's name as leaves room for the index, and for what the API server adds.
fn generate_name(job: &str, index: i32) -> String {
    const LONGEST: usize = 58;
    let suffix = format!("-{index}-");
    // Names are of one byte a letter.
    let job = &job[..job.len().min(LONGEST - suffix.len())];
    format!("{job}{suffix}")
}

/// A pod of the Job, for this index if the Job has indexes.
pub(super) fn new_pod(view: &View, index: Option<i32>) -> Pod {
    let template = view.job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let name = meta::name(&view.job);
    let mut pod = replicas::from_template(&template, name, meta::owner_reference(&view.job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    pod.metadata.generate_name = Some(generate_name(name, index));
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(INDEX.to_owned(), index.to_string());
    meta::set_annotation(&mut pod.metadata, INDEX, index.to_string());
    if view.numbers.per_index.is_some() {
        let (counted, ignored) = view.failure_counts(index);
        meta::set_annotation(&mut pod.metadata, FAILURES, counted.to_string());
        if ignored > 0 {
            meta::set_annotation(&mut pod.metadata, IGNORED_FAILURES, ignored.to_string());
        }
    }
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            let env = container.env.get_or_insert_default();
            if env.iter().any(|v| v.name == "JOB_COMPLETION_INDEX") {
                continue;
            }
            env.push(EnvVar {
                name: "JOB_COMPLETION_INDEX".to_owned(),
                value: None,
                value_from: Some(EnvVarSource {
                    field_ref: Some(ObjectFieldSelector {
                        api_version: None,
                        field_path: format!("metadata.labels['{INDEX}']"),
                    }),
                    ..EnvVarSource::default()
                }),
            });
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::view::tests::{job, pod, view};
    use super::*;

    #[test]
    fn a_long_name_leaves_room_for_the_index() {
        assert_eq!(generate_name("cases", 7), "cases-7-");
        let long = "j".repeat(63);
        assert_eq!(generate_name(&long, 123), format!("{}-123-", "j".repeat(53)));
    }

    #[test]
    fn pods_of_an_index_know_it_and_how_often_it_failed() {
        let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimitPerIndex": 2,
            "template": {"spec": {"initContainers": [{"name": "i"}],
                "containers": [{"name": "c", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "own"}]}, {"name": "d"}]}}});
        let failed = pod("a", "Failed", Some(1), json!({FAILURES: "1", IGNORED_FAILURES: "4"}));
        let view = view(job(spec, json!({})), vec![failed]);
        for (index, counted, ignored) in [(0, "0", None), (1, "2", Some("4"))] {
            let made = new_pod(&view, Some(index));
            let text = index.to_string();
            assert_eq!(made.metadata.generate_name, Some(format!("j-{index}-")));
            assert_eq!(meta::labels(&made).get(INDEX), Some(&text));
            assert_eq!(meta::annotation(&made, INDEX), Some(text.as_str()));
            assert_eq!(meta::annotation(&made, FAILURES), Some(counted));
            assert_eq!(meta::annotation(&made, IGNORED_FAILURES), ignored);
            assert!(meta::has_finalizer(&made, FINALIZER) && meta::controlled_by(&made, "j"));
            let spec = made.spec.unwrap();
            assert_eq!(spec.hostname, Some(format!("j-{index}")));
            let env = |container: &k8s_openapi::api::core::v1::Container| {
                let env = container.env.as_ref().unwrap();
                assert_eq!((env.len(), env[0].name.as_str()), (1, "JOB_COMPLETION_INDEX"));
                env[0].value_from.is_some()
            };
            // Who sets it himself has it so.
            assert_eq!((env(&spec.containers[0]), env(&spec.containers[1])), (false, true));
            assert!(env(&spec.init_containers.unwrap()[0]));
        }
    }
}
