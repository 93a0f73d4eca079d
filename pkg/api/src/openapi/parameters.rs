//! The parameters of operations. Version 2 writes what many operations have once, by a name that ends in a digest of
//! upstream's words for it, which clients that were generated from the document know.

use serde_json::{Map, Value, json};

use super::names::{Flavor, META, reference};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameter {
    name: &'static str,
    /// `path` or `query`
    place: &'static str,
    kind: &'static str,
    /// How its name ends where version 2 shares it; none of those that kubectl looks for in each operation, or that name
    /// the kind.
    shared: &'static str,
}

const fn query(kind: &'static str, name: &'static str, shared: &'static str) -> Parameter {
    Parameter {
        name,
        place: "query",
        kind,
        shared,
    }
}

const fn path(name: &'static str, shared: &'static str) -> Parameter {
    Parameter {
        name,
        place: "path",
        kind: "string",
        shared,
    }
}

const TEXT: &str = "string";
const FLAG: &str = "boolean";
const NUMBER: &str = "integer";

pub(super) const NAME: Parameter = path("name", "");
pub(super) const NAMESPACE: Parameter = path("namespace", "vgWSWtn3");
/// What follows `proxy/`.
pub(super) const REST: Parameter = path("path", "z6Ciiujn");
pub(super) const PRETTY: Parameter = query(TEXT, "pretty", "tJGM1-ng");

const DRY_RUN: Parameter = query(TEXT, "dryRun", "");
const FIELD_VALIDATION: Parameter = query(TEXT, "fieldValidation", "");
const GRACE_PERIOD: Parameter = query(NUMBER, "gracePeriodSeconds", "-K5HaBOS");
const UNREADABLE: Parameter = query(FLAG, "ignoreStoreReadErrorWithClusterBreakingPotential", "QbNkfIqj");
const ORPHANS: Parameter = query(FLAG, "orphanDependents", "uRB25kX5");
const PROPAGATION: Parameter = query(TEXT, "propagationPolicy", "6jk3prlO");
const BOOKMARKS: Parameter = query(FLAG, "allowWatchBookmarks", "HC2hJt-J");
const CONTINUE: Parameter = query(TEXT, "continue", "QfD61s0i");
const FIELDS: Parameter = query(TEXT, "fieldSelector", "xIcQKXFG");
const LABELS: Parameter = query(TEXT, "labelSelector", "5Zw57w4C");
const LIMIT: Parameter = query(NUMBER, "limit", "1NfNmdNH");
const REVISION: Parameter = query(TEXT, "resourceVersion", "5WAnf1kx");
const REVISION_MATCH: Parameter = query(TEXT, "resourceVersionMatch", "t8XhRHeC");
const INITIAL_EVENTS: Parameter = query(FLAG, "sendInitialEvents", "rLXlEK_k");
const TIMEOUT: Parameter = query(NUMBER, "timeoutSeconds", "yvYezaOC");
const WATCH: Parameter = query(FLAG, "watch", "XNNPZGbK");

/// Of one object of a custom kind.
pub(super) const GET: &[Parameter] = &[REVISION];
pub(super) const WRITE: &[Parameter] = &[DRY_RUN, query(TEXT, "fieldManager", "Qy4HdaTW"), FIELD_VALIDATION];
pub(super) const PATCH: &[Parameter] = &[
    DRY_RUN,
    query(TEXT, "fieldManager", "7c6nTn1T"),
    FIELD_VALIDATION,
    query(FLAG, "force", "tOGGb0Yi"),
];
pub(super) const DELETE: &[Parameter] = &[DRY_RUN, GRACE_PERIOD, UNREADABLE, ORPHANS, PROPAGATION];
pub(super) const LIST: &[Parameter] = &[
    BOOKMARKS,
    CONTINUE,
    FIELDS,
    LABELS,
    LIMIT,
    REVISION,
    REVISION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
    WATCH,
];
pub(super) const DELETE_COLLECTION: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELDS,
    GRACE_PERIOD,
    UNREADABLE,
    LABELS,
    LIMIT,
    ORPHANS,
    PROPAGATION,
    REVISION,
    REVISION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
];
const LOG: &[Parameter] = &[
    query(TEXT, "container", "1GeXxFDC"),
    query(FLAG, "follow", "9OIXh_2R"),
    query(FLAG, "insecureSkipTLSVerifyBackend", "gM00jVbe"),
    query(NUMBER, "limitBytes", "zwd1RXuc"),
    query(FLAG, "previous", "1jxDPu3y"),
    query(NUMBER, "sinceSeconds", "vE2NLdnP"),
    query(TEXT, "stream", "l-48cgXv"),
    query(NUMBER, "tailLines", "9xQLWHMV"),
    query(FLAG, "timestamps", "c17fW1w_"),
];
const EXEC: &[Parameter] = &[
    query(TEXT, "command", "Py3eQybp"),
    query(TEXT, "container", "i5dOmRiM"),
    query(FLAG, "stderr", "W_1TNlWc"),
    query(FLAG, "stdin", "PSzNhyUC"),
    query(FLAG, "stdout", "-EZLRwV1"),
    query(FLAG, "tty", "s0flW37O"),
];
const ATTACH: &[Parameter] = &[
    query(TEXT, "container", "_Q-EJ3nR"),
    query(FLAG, "stderr", "26jJhFUR"),
    query(FLAG, "stdin", "sEFnN3IS"),
    query(FLAG, "stdout", "005YMKE6"),
    query(FLAG, "tty", "g7MlET_l"),
];

const PORT_FORWARD: &[Parameter] = &[query(NUMBER, "ports", "91KROJmm")];
const NODE_PROXY: &[Parameter] = &[query(TEXT, "path", "rFDtV0x9")];
const POD_PROXY: &[Parameter] = &[query(TEXT, "path", "oPbzgLUj")];
const SERVICE_PROXY: &[Parameter] = &[query(TEXT, "path", "QCf0eosM")];

/// Those of a subresource that answers with no object.
pub(super) fn of_stream(subresource: &str, kind: &str) -> Option<&'static [Parameter]> {
    Some(match (subresource, kind) {
        ("log", _) => LOG,
        ("exec", _) => EXEC,
        ("attach", _) => ATTACH,
        ("portforward", _) => PORT_FORWARD,
        ("proxy", "Node") => NODE_PROXY,
        ("proxy", "Pod") => POD_PROXY,
        ("proxy", "Service") => SERVICE_PROXY,
        _ => return None,
    })
}

/// What an operation's body is, and whether there has to be one.
pub(super) fn body(schema: Value, required: bool) -> Value {
    let mut body = json!({"name": "body", "in": "body", "schema": schema});
    if required {
        body["required"] = true.into();
    }
    body
}

/// The bodies that version 2 shares: name, type, whether there has to be one.
const BODIES: [(&str, &str, bool); 2] = [
    ("body-2Y1dVQaQ", "DeleteOptions", false),
    ("body-78PwaGsr", "Patch", true),
];

/// The name by which version 2 shares a body of this type of metav1.
pub(super) fn shared_body(kind: &str) -> Option<Value> {
    let (name, ..) = BODIES.iter().find(|(_, of, _)| *of == kind)?;
    Some(to_shared(name))
}

fn to_shared(name: &str) -> Value {
    json!({"$ref": format!("#/parameters/{name}")})
}

impl Parameter {
    pub(super) fn render(&self, flavor: Flavor) -> Value {
        match flavor {
            Flavor::V2 if !self.shared.is_empty() => to_shared(&self.shared_name()),
            _ => self.whole(flavor),
        }
    }

    fn shared_name(&self) -> String {
        format!("{}-{}", self.name, self.shared)
    }

    fn whole(&self, flavor: Flavor) -> Value {
        let mut out = Map::new();
        out.insert("name".into(), self.name.into());
        out.insert("in".into(), self.place.into());
        if self.place == "path" {
            out.insert("required".into(), true.into());
        }
        match flavor {
            Flavor::V2 => {
                out.insert("type".into(), self.kind.into());
                out.insert("uniqueItems".into(), true.into());
            }
            Flavor::V3 => {
                out.insert("schema".into(), json!({"type": self.kind, "uniqueItems": true}));
            }
        }
        Value::Object(out)
    }
}

/// What version 2 shares, by name.
pub(super) fn shared() -> impl Iterator<Item = (String, Value)> {
    let streams = ["log", "exec", "attach", "portforward", "proxy"];
    let streams = streams
        .into_iter()
        .flat_map(|stream| ["Node", "Pod", "Service"].map(|kind| of_stream(stream, kind).unwrap_or_default()));
    let mut all: Vec<Parameter> = [PATCH, WRITE, DELETE, LIST, &[NAMESPACE, REST, PRETTY]]
        .into_iter()
        .chain(streams)
        .flatten()
        .copied()
        .collect();
    all.sort();
    all.dedup();
    let bodies = BODIES.into_iter().map(|(name, of, required)| {
        let schema = reference(&format!("{META}{of}"), Flavor::V2);
        (name.to_string(), body(schema, required))
    });
    let all = all.into_iter().filter(|parameter| !parameter.shared.is_empty());
    bodies.chain(all.map(|parameter| (parameter.shared_name(), parameter.whole(Flavor::V2))))
}
