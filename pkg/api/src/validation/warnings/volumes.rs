//! Volumes of a pod: drivers that are gone, and files of one volume that lie over each other.

use serde_json::Value;

use super::{MOST, claim_spec};
use crate::bounded;
use crate::quote::quoted;
use crate::validation::{Path, each, has, list, text};

/// Sources of volumes that nothing serves any more, and since when.
pub(super) const GONE: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// A source as warnings name it.
pub(super) fn shown(source: &str) -> &str {
    if source == "storageos" { "storageOS" } else { source }
}

pub(super) fn check(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let volumes = path.child("volumes");
    for (index, volume) in each(spec, "volumes") {
        let path = volumes.index(index);
        for source in volume.as_object().into_iter().flat_map(|fields| fields.keys()) {
            if let Some((_, why)) = GONE.iter().find(|(gone, _)| gone == source) {
                warnings.push(format!("{}: {why}", path.child(shown(source))));
            }
        }
        if let Some(template) = has(volume, "ephemeral").and_then(|ephemeral| has(ephemeral, "volumeClaimTemplate")) {
            let ephemeral = path.child("ephemeral");
            let path = ephemeral.child("volumeClaimTemplate");
            claim_spec(has(template, "spec"), &path.child("spec"), warnings);
        }
    }
    for volume in list(spec, "volumes") {
        let name = quoted(text(volume, "name"));
        files(volume, &mut |kind, what| {
            warnings.push(format!("volume {name} ({kind}): overlapping paths: {what}"));
        });
        for source in has(volume, "projected")
            .into_iter()
            .flat_map(|projected| list(projected, "sources"))
        {
            if KNOWN.iter().all(|known| has(source, known).is_none()) {
                warnings.push(format!("volume {name} (Projected) has no sources provided"));
            }
        }
    }
}

/// What a projected volume may take files from.
const KNOWN: [&str; 6] = [
    "configMap",
    "secret",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
];

/// A file of a volume, and what it comes from.
struct File<'a> {
    path: &'a str,
    source: String,
}

impl std::fmt::Display for File<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&quoted(bounded::step(self.path)))?;
        if self.source.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.source)
    }
}

/// Tells of each volume in a volume which of its files lie over others: what it is, and the two.
fn files(volume: &Value, tell: &mut dyn FnMut(&str, String)) {
    let mut over = |kind: &str, files: &[File<'_>]| {
        for (later, earlier) in overlaps(files) {
            tell(kind, format!("{} with {}", files[later], files[earlier]));
        }
    };
    if let Some(source) = has(volume, "configMap") {
        over(
            &format!("ConfigMap {}", quoted(text(source, "name"))),
            &items(list(source, "items"), ""),
        );
    }
    if let Some(source) = has(volume, "secret") {
        over(
            &format!("Secret {}", quoted(text(source, "secretName"))),
            &items(list(source, "items"), ""),
        );
    }
    if let Some(source) = has(volume, "downwardAPI") {
        over("DownwardAPI", &items(list(source, "items"), ""));
    }
    if let Some(projected) = has(volume, "projected") {
        let files: Vec<File<'_>> = list(projected, "sources").iter().flat_map(projected_files).collect();
        over("Projected", &files);
    }
}

fn items<'a>(items: &'a [Value], source: &str) -> Vec<File<'a>> {
    let file = |item: &'a Value| File {
        path: text(item, "path").trim_end_matches('/'),
        source: source.to_string(),
    };
    items.iter().map(file).collect()
}

fn projected_files(source: &Value) -> Vec<File<'_>> {
    let one = |path, source: String| File { path, source };
    if let Some(from) = has(source, "configMap").filter(|from| !list(from, "items").is_empty()) {
        return items(
            list(from, "items"),
            &format!("ConfigMap {}", quoted(text(from, "name"))),
        );
    }
    if let Some(from) = has(source, "secret").filter(|from| !list(from, "items").is_empty()) {
        return items(list(from, "items"), &format!("Secret {}", quoted(text(from, "name"))));
    }
    if let Some(from) = has(source, "downwardAPI").filter(|from| !list(from, "items").is_empty()) {
        return items(list(from, "items"), "DownwardAPI");
    }
    if let Some(token) = has(source, "serviceAccountToken") {
        return vec![one(text(token, "path"), "ServiceAccountToken".into())];
    }
    if let Some(bundle) = has(source, "clusterTrustBundle") {
        let name = ["name", "signerName"]
            .map(|key| text(bundle, key))
            .into_iter()
            .find(|name| !name.is_empty());
        let source = format!("ClusterTrustBundle {}", quoted(name.unwrap_or_default()));
        return vec![one(text(bundle, "path"), source)];
    }
    let Some(certificate) = has(source, "podCertificate") else {
        return Vec::new();
    };
    let paths = [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ];
    let paths = paths.map(|(key, source)| one(text(certificate, key), source.into()));
    paths.into_iter().filter(|file| !file.path.is_empty()).collect()
}

/// Which files are the same as an earlier one, lie in it, or hold it: (later, earlier), in their order. In order of their
/// paths what lies in one follows it, so that no file is compared with all.
fn overlaps(files: &[File<'_>]) -> Vec<(usize, usize)> {
    let below = |path: &str, of: &str| {
        path.strip_prefix(of)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut order: Vec<usize> = (0..files.len()).filter(|at| !files[*at].path.is_empty()).collect();
    order.sort_by(|one, other| {
        let parts = |at: &usize| files[*at].path.split('/');
        parts(one).cmp(parts(other))
    });
    let (mut open, mut found): (Vec<usize>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
    for at in order {
        open.retain(|of| below(files[at].path, files[*of].path));
        found.extend(open.iter().map(|of| (at.max(*of), at.min(*of))));
        open.push(at);
        if found.len() >= MOST {
            break;
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(volume: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        check(&json!({"volumes": [volume]}), &Path::new("spec"), &mut warnings);
        warnings
    }

    #[test]
    fn files_over_each_other_are_told() {
        let items = |paths: &[&str]| -> Value { paths.iter().map(|path| json!({"key": "k", "path": path})).collect() };
        let volume =
            json!({"name": "v", "configMap": {"name": "c", "items": items(&["a/b", "ab", "a", "a/b/", "a-b", "c"])}});
        assert_eq!(
            told(&volume),
            [
                r#"volume "v" (ConfigMap "c"): overlapping paths: "a" with "a/b""#,
                r#"volume "v" (ConfigMap "c"): overlapping paths: "a/b" with "a/b""#,
                r#"volume "v" (ConfigMap "c"): overlapping paths: "a/b" with "a""#,
            ]
        );
        let sources = json!([{"secret": {"name": "s", "items": items(&["x"])}}, {"serviceAccountToken": {"path": "x/token"}}, {}]);
        assert_eq!(
            told(&json!({"name": "v", "projected": {"sources": sources}})),
            [
                r#"volume "v" (Projected): overlapping paths: "x/token" (ServiceAccountToken) with "x" (Secret "s")"#,
                r#"volume "v" (Projected) has no sources provided"#,
            ]
        );
    }

    #[test]
    fn drivers_that_are_gone_are_told() {
        assert_eq!(
            told(&json!({"name": "v", "storageos": {}})),
            ["spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+"]
        );
    }
}
