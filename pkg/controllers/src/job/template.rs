//! The pods that a Job makes.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::view::{FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, View};
use crate::{meta, replicas};

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
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
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
