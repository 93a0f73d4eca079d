//! The built-in types: `data/schema.tsv`, written by `hack/update-schema.sh` from upstream's Go types, as nodes. It is
//! read once, when first asked for; every string of it is a slice of the program's own text.

use std::sync::LazyLock;

use super::Schema;
use super::load::{self, Table};

static TABLE: LazyLock<Table> = LazyLock::new(|| load::parse(load::TEXT));

/// The type of a kind; metav1's options are kinds of every group and version.
pub fn by_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
    fn find(group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
        let types = TABLE.by_kind.get(kind)?;
        types.iter().find(|(of, _)| *of == [group, version]).map(|(_, ty)| ty)
    }
    find(group, version, kind).or_else(|| match kind {
        "DeleteOptions" | "CreateOptions" | "UpdateOptions" | "PatchOptions" | "GetOptions" | "ListOptions"
        | "WatchEvent" => find("", "v1", kind),
        _ => None,
    })
}

/// The type of a kind in one of its group's versions.
pub(crate) fn by_kind(group: &str, kind: &str) -> Option<&'static Schema> {
    let types = TABLE.by_kind.get(kind)?;
    types.iter().find(|(of, _)| of[0] == group).map(|(_, ty)| ty)
}

/// The type of an `apiVersion` and `kind`. Discovery's documents of old name no version; meta.k8s.io/v1beta1 is another
/// name of v1, but for the list, which has the type of its own.
pub fn by_api_version(api_version: &str, kind: &str) -> Option<&'static Schema> {
    let api_version = match (api_version, kind) {
        ("", _) => "v1",
        ("meta.k8s.io/v1beta1", "PartialObjectMetadata" | "Table") => "meta.k8s.io/v1",
        _ => api_version,
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_gvk(group, version, kind)
}

/// By OpenAPI's name: `io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta`.
pub fn by_name(name: &str) -> Option<&'static Schema> {
    TABLE.by_name.get(name)
}

/// What every custom resource is: kind, apiVersion and typed metadata; all other fields are kept as they are.
pub fn custom() -> &'static Schema {
    &TABLE.custom
}
