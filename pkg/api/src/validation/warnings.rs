//! `Warning` texts: fields that are stored though nothing acts on them yet, each named by its path.

use serde_json::Value;

use super::{Path, each, has, list, text};
use crate::meta as object;

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const SPEC: Path<'static> = Path::new("spec");

/// Of a Pod.
pub fn pod_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    // told once, when the pod is made
    if old.is_some() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    if let Some(spec) = has(new, "spec") {
        spec_warnings(spec, &SPEC, &mut warnings);
    }
    warnings
}

/// Of a workload kind with `spec.template`.
pub fn pod_template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let template = |object: &Value| -> Option<Value> { object::at(object, &["spec", "template"]).cloned() };
    if let Some(old) = old
        && template(new) == template(old)
    {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    if let Some(spec) = object::at(new, &["spec", "template", "spec"]) {
        let template = SPEC.child("template");
        spec_warnings(spec, &template.child("spec"), &mut warnings);
    }
    warnings
}

fn nothing_acts(warnings: &mut Vec<String>, path: impl std::fmt::Display) {
    warnings.push(format!(
        "{path}: stored, but nothing acts on it in this version of mk8s"
    ));
}

fn spec_warnings(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        if !object::items(spec, &["affinity", kind, PREFERRED]).is_empty() {
            nothing_acts(warnings, path.child("affinity").child(kind).child(PREFERRED));
        }
    }
    for (index, constraint) in each(spec, "topologySpreadConstraints") {
        if text(constraint, "whenUnsatisfiable") == "ScheduleAnyway" {
            nothing_acts(warnings, path.child("topologySpreadConstraints").index(index));
        }
    }
    for (index, volume) in each(spec, "volumes") {
        let Some(empty) = has(volume, "emptyDir") else { continue };
        if has(empty, "sizeLimit").is_some() && text(empty, "medium") != "Memory" {
            let volumes = path.child("volumes");
            nothing_acts(warnings, volumes.index(index).child("emptyDir").child("sizeLimit"));
        }
    }
    for kind in ["initContainers", "containers"] {
        for (index, container) in list(spec, kind).iter().enumerate() {
            if object::at(container, &["resources", "limits", "ephemeral-storage"]).is_some() {
                let containers = path.child(kind);
                let container_path = containers.index(index);
                let resources = container_path.child("resources");
                nothing_acts(warnings, resources.child("limits").key("ephemeral-storage"));
            }
        }
    }
    let priority = object::i64_at(spec, &["priority"]).unwrap_or(0);
    if priority > 0 && text(spec, "preemptionPolicy") != "Never" {
        warnings.push(format!(
            "{}: orders the queue, but preempts nothing in this version of mk8s",
            path.child("priority")
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_names_its_field() {
        let pod = json!({"spec": {"priority": 5, "volumes": [{"emptyDir": {"sizeLimit": "1Gi"}}],
            "containers": [{"resources": {"limits": {"ephemeral-storage": "1Gi"}}}]}});
        assert_eq!(
            pod_warnings(&pod, None),
            [
                "spec.volumes[0].emptyDir.sizeLimit: stored, but nothing acts on it in this version of mk8s",
                "spec.containers[0].resources.limits[ephemeral-storage]: stored, but nothing acts on it in this version of mk8s",
                "spec.priority: orders the queue, but preempts nothing in this version of mk8s",
            ]
        );
    }
}
