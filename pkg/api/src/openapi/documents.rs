//! Which documents version 3 has: one for each version that is served, and for each path beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::META;
use super::operation::{Content, Operation, Path};
use super::paths::{OBJECTS, of_row, prefix, titles};
use super::{hash, served};
use crate::registry::{Resource, Served};

pub(super) enum Document<'r> {
    Version { group: &'r str, version: &'r str },
    Group(&'r str),
    Service(&'static Service),
}

/// A path that is no group's.
pub(super) struct Service {
    /// Without the slashes around it.
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    takes: &'static [&'static str],
    gives: &'static [&'static str],
    /// The definition of the answer; "" where that is a text.
    answer: &'static str,
}

const JSON: &[&str] = &["application/json"];
const SERVICES: &[Service] = &[
    Service {
        path: ".well-known/openid-configuration",
        id: "getServiceAccountIssuerOpenIDConfiguration",
        tag: "WellKnown",
        takes: &[],
        gives: JSON,
        answer: "",
    },
    Service {
        path: "openid/v1/jwks",
        id: "getServiceAccountIssuerOpenIDKeyset",
        tag: "openid",
        takes: &[],
        gives: &["application/jwk-set+json"],
        answer: "",
    },
    Service {
        path: "version",
        id: "getCodeVersion",
        tag: "version",
        takes: JSON,
        gives: JSON,
        answer: "io.k8s.apimachinery.pkg.version.Info",
    },
    Service {
        path: "api",
        id: "getCoreAPIVersions",
        tag: "core",
        takes: OBJECTS,
        gives: OBJECTS,
        answer: "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions",
    },
    Service {
        path: "apis",
        id: "getAPIVersions",
        tag: "apis",
        takes: OBJECTS,
        gives: OBJECTS,
        answer: "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList",
    },
];

/// By their places under /openapi/v3: `version`, `apis/apps`, `apis/apps/v1`.
pub(super) fn documents(rows: &[Arc<Resource>]) -> BTreeMap<String, Document<'_>> {
    let services = SERVICES.iter();
    let mut all: BTreeMap<String, Document<'_>> = services
        .map(|service| (service.path.to_string(), Document::Service(service)))
        .collect();
    for (_, served) in served(rows) {
        let (group, version) = (&*served.group, &*served.name);
        let place = prefix(group, version).trim_start_matches('/').to_string();
        // Of custom kinds upstream describes what is read and written alone.
        if !group.is_empty() && served.custom.is_none() {
            all.entry(format!("apis/{group}")).or_insert(Document::Group(group));
        }
        all.entry(place).or_insert(Document::Version { group, version });
    }
    all
}

impl<'r> Document<'r> {
    /// The versions of resources that it is about.
    pub(super) fn versions(&self, rows: &'r [Arc<Resource>]) -> impl Iterator<Item = (&'r Resource, &'r Served)> {
        let own = match *self {
            Document::Version { group, version } => Some((group, version)),
            _ => None,
        };
        served(rows).filter(move |(_, served)| own == Some((&*served.group, &*served.name)))
    }

    pub(super) fn hash(&self, place: &str, rows: &'r [Arc<Resource>]) -> String {
        hash(place, self.versions(rows))
    }

    pub(super) fn paths(&self, rows: &'r [Arc<Resource>]) -> Vec<Path> {
        let reads = |path: &str, id: String, tag: String, kind: &str| Path {
            path: format!("/{path}/"),
            operations: vec![Operation {
                answer: Content::Definition(format!("{META}{kind}")),
                ..service(id, tag)
            }],
        };
        match *self {
            Document::Version { group, version } => {
                let mut all: Vec<Path> = self.versions(rows).flat_map(|(row, own)| of_row(row, own)).collect();
                if self.versions(rows).any(|(_, own)| own.custom.is_none()) {
                    let (id, tag) = titles(group, version);
                    let place = prefix(group, version);
                    let place = place.trim_start_matches('/');
                    all.push(reads(place, format!("get{id}APIResources"), tag, "APIResourceList"));
                }
                all
            }
            Document::Group(group) => {
                let (id, tag) = titles(group, "");
                vec![reads(
                    &format!("apis/{group}"),
                    format!("get{id}APIGroup"),
                    tag,
                    "APIGroup",
                )]
            }
            Document::Service(own) => vec![Path {
                path: format!("/{}/", own.path),
                operations: vec![Operation {
                    takes: own.takes,
                    gives: own.gives,
                    answer: match own.answer {
                        "" => Content::Text,
                        name => Content::Definition(name.into()),
                    },
                    ..service(own.id.into(), own.tag.into())
                }],
            }],
        }
    }
}

fn service(id: String, tag: String) -> Operation {
    Operation {
        method: "get",
        action: "",
        id,
        tag,
        kind: None,
        takes: OBJECTS,
        gives: OBJECTS,
        parameters: Vec::new(),
        body: None,
        answer: Content::Text,
        codes: &[200],
    }
}
