//! Requests: a valid one of some resource, mutated.

use serde_json::{Value, json};

use crate::client::Case;
use crate::mutate;
use crate::random::Random;
use crate::world::{NAMESPACE, Resource, Subresource, World};

/// A request in the parts that are mutated one by one.
#[derive(Clone, Debug)]
pub struct Draft {
    pub method: String,
    pub path: String,
    /// As they stand in the query: encoded.
    pub query: Vec<String>,
    pub headers: Vec<(String, String)>,
    /// A tree is mutated as one, text as text.
    pub tree: Option<Value>,
    pub text: Option<Vec<u8>>,
}

const PATHS: [&str; 18] = [
    "/",
    "/api",
    "/apis",
    "/api/v1",
    "/apis/apps",
    "/apis/apps/v1",
    "/apis/batch/v1",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/healthz/ping",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/apis/apps/v1",
    "/openapi/v3/api/v1",
    "/openid/v1/jwks",
    "/.well-known/openid-configuration",
];

pub const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl Draft {
    fn new(method: &str, path: String) -> Self {
        let headers = [("accept", "application/json"), ("user-agent", "diff")];
        Self {
            method: method.into(),
            path,
            query: Vec::new(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .into(),
            tree: None,
            text: None,
        }
    }

    fn body(mut self, kind: &str, tree: Value) -> Self {
        self.headers.push(("content-type".into(), kind.into()));
        self.tree = Some(tree);
        self
    }

    fn ask(mut self, query: &str) -> Self {
        self.query.push(query.into());
        self
    }

    pub fn set_header(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(own, _)| own != name);
        if let Some(value) = value {
            self.headers.push((name.into(), value.into()));
        }
    }

    fn writes(&self) -> bool {
        matches!(&*self.method, "POST" | "PUT" | "PATCH" | "DELETE")
    }

    /// Whether what it changes stays.
    pub fn changes(&self) -> bool {
        let by_body = self.tree.as_ref().is_some_and(|tree| tree["dryRun"] == json!(["All"]));
        self.writes() && !by_body && !self.query.iter().any(|pair| pair == "dryRun=All")
    }

    /// A deletion of anything but an object of the fixtures would leave the two servers with less than others need; and a
    /// definition that comes or goes takes its time on both.
    fn make_harmless(&mut self, world: &World) {
        let ends_in_fixture = world.resources.iter().any(|resource| self.path == resource.item());
        let defines = self.writes() && self.path.to_lowercase().contains("customresourcedefinitions");
        if defines && self.method != "DELETE" && !self.query.iter().any(|pair| pair == "dryRun=All") {
            self.query.push("dryRun=All".into());
        }
        if self.method == "DELETE" && (defines || !ends_in_fixture) {
            (self.tree, self.text) = (None, None);
            if !self.query.iter().any(|pair| pair == "dryRun=All") {
                self.query.push("dryRun=All".into());
            }
        }
    }

    pub fn case(&self) -> Case {
        let query = if self.query.is_empty() {
            String::new()
        } else {
            format!("?{}", self.query.join("&"))
        };
        let body = match (&self.text, &self.tree) {
            (Some(text), _) => text.clone(),
            (None, Some(tree)) => tree.to_string().into_bytes(),
            (None, None) => Vec::new(),
        };
        Case {
            method: self.method.clone(),
            target: format!("{}{query}", self.path),
            headers: self.headers.clone(),
            body: body.into(),
        }
    }
}

/// The request of a number, with its draft.
pub fn make(world: &World, seed: u64, number: u64) -> Draft {
    let random = &mut Random::new(seed, number);
    let mut draft = valid(world, random);
    if draft.writes() && random.percent(85) {
        draft.query.push("dryRun=All".into());
    }
    for _ in 0..*random.pick(&[0, 1, 1, 1, 1, 2, 2, 3]) {
        mutate::any(&mut draft, world, random);
    }
    draft.make_harmless(world);
    draft
}

fn valid(world: &World, random: &mut Random) -> Draft {
    let custom = world.resources.iter().filter(|one| one.is_custom());
    let custom: Vec<&Resource> = custom.collect();
    let resource = match random.percent(12) {
        true => *random.pick(&custom),
        false => random.pick(&world.resources),
    };
    let every = format!("{}/{}", resource.base(), resource.plural);
    match random.below(if resource.is_read() { 7 } else { 24 }) {
        0 => Draft::new("GET", (*random.pick(&PATHS)).to_string()),
        1 | 2 => Draft::new("GET", resource.item()),
        3 => Draft::new("GET", resource.collection()),
        4 => Draft::new("GET", every),
        5 => Draft::new("GET", resource.collection())
            .ask("watch=1")
            .ask("timeoutSeconds=1"),
        6 => {
            let prefixed = resource
                .item()
                .replacen(&resource.base(), &format!("{}/watch", resource.base()), 1);
            Draft::new("GET", prefixed).ask("timeoutSeconds=1")
        }
        7..=9 => create(resource),
        10..=12 => Draft::new("PUT", resource.item()).body("application/json", resource.object.clone()),
        13..=16 => patch(resource, resource.item(), &resource.object, random),
        17 => Draft::new("DELETE", resource.item()),
        18 => Draft::new("DELETE", resource.item()).body(
            "application/json",
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"], "gracePeriodSeconds": 0}),
        ),
        19 => Draft::new("DELETE", resource.collection()),
        _ => {
            let parted = |one: &&Resource| !one.subresources.is_empty();
            let with: Vec<&Resource> = world.resources.iter().filter(parted).collect();
            let resource = if parted(&resource) {
                resource
            } else {
                random.pick(&with)
            };
            let subresource = random.pick(&resource.subresources);
            of_subresource(resource, subresource, random)
        }
    }
}

fn create(resource: &Resource) -> Draft {
    let mut object = resource.object.clone();
    if !object.is_null() && resource.name == "fixed" {
        object["metadata"]["name"] = "another".into();
    }
    Draft::new("POST", resource.collection()).body("application/json", object)
}

fn patch(resource: &Resource, path: String, object: &Value, random: &mut Random) -> Draft {
    let kind = *random.pick(&PATCHES);
    let tree = match kind {
        "application/json-patch+json" => json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]),
        "application/apply-patch+yaml" => object.clone(),
        _ => json!({"metadata": {"labels": {"a": "b"}}}),
    };
    let draft = Draft::new("PATCH", path).body(kind, tree);
    if kind != "application/apply-patch+yaml" {
        return draft;
    }
    let _ = resource;
    draft.ask("fieldManager=diff").ask("force=true")
}

fn of_subresource(resource: &Resource, subresource: &Subresource, random: &mut Random) -> Draft {
    let path = format!("{}/{}", resource.item(), subresource.name);
    let own = matches!(&*subresource.name, "status" | "finalize" | "approval");
    let object = if own { &resource.object } else { &subresource.object };
    if resource.is_read() {
        return Draft::new("GET", path);
    }
    match &**random.pick(&subresource.verbs) {
        "update" => Draft::new("PUT", path).body("application/json", object.clone()),
        "patch" => patch(resource, path, object, random),
        "create" => Draft::new("POST", path).body("application/json", object.clone()),
        "delete" => Draft::new("DELETE", path),
        _ => Draft::new("GET", path),
    }
}

/// The plural that a path names, by upstream's reading.
pub fn plural(path: &str) -> Option<&str> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let skip = if parts.first() == Some(&"apis") { 3 } else { 2 };
    parts.drain(..skip.min(parts.len()));
    match parts.as_slice() {
        ["namespaces", _, resource, ..] if !matches!(*resource, "status" | "finalize") => Some(resource),
        [resource, ..] => Some(resource),
        [] => None,
    }
}

/// A namespace that is there, one that is not, and what is none.
pub const NAMESPACES: [&str; 9] = [NAMESPACE, "missing", "default", "..", ".", "%2e%2e", "A_B", "a%2Fb", ""];
