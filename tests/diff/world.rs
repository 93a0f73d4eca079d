//! What both servers hold: one object of every kind, in one namespace, and how that comes back after a request changed it.
//! Two kinds are custom ones, of definitions that no request changes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, Failure};

pub const NAMESPACE: &str = "fuzz";

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The object of a kind, as tests/diff/fixtures.jsonl has it.
#[derive(Deserialize)]
struct Fixture {
    group: String,
    kind: String,
    /// The subresource that this is written to.
    #[serde(default)]
    part: String,
    name: String,
    /// Null where nobody writes one: the server has it of itself.
    body: Value,
}

type Fixtures = HashMap<[String; 3], Fixture>;

#[derive(Clone, Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub is_namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    pub name: String,
    /// Whole and valid; null where none can be written.
    pub object: Value,
}

#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: String,
    pub verbs: Vec<String>,
    /// What is written to it.
    pub object: Value,
}

impl Resource {
    pub fn base(&self) -> String {
        if self.group.is_empty() {
            "/api/v1".into()
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    pub fn collection(&self) -> String {
        let base = self.base();
        if self.is_namespaced {
            format!("{base}/namespaces/{NAMESPACE}/{}", self.plural)
        } else {
            format!("{base}/{}", self.plural)
        }
    }

    pub fn item(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// The object that it begins with, as `namespace/name`.
    fn key(&self) -> String {
        let namespace = if self.is_namespaced { NAMESPACE } else { "" };
        format!("{namespace}/{}", self.name)
    }

    fn stores(&self) -> bool {
        self.verbs.iter().any(|verb| verb == "delete") && !self.object.is_null()
    }

    /// Of a definition, or a definition itself.
    pub fn is_custom(&self) -> bool {
        matches!(&*self.group, DEFINED | "apiextensions.k8s.io")
    }

    /// Whether it is only read: what is written to it is refused by what is compared.
    pub fn is_read(&self) -> bool {
        self.verbs.iter().any(|verb| verb == "create") && self.object.is_null()
    }
}

/// The group of definitions.jsonl.
pub const DEFINED: &str = "diff.example.org";

pub struct World {
    pub resources: Vec<Resource>,
    /// Per server: what it holds of itself, by collection path and `namespace/name`.
    baseline: [HashMap<String, BTreeSet<String>>; 2],
}

fn fixtures() -> Fixtures {
    let lines = include_str!("fixtures.jsonl").lines();
    let read = lines.map(|line| serde_json::from_str::<Fixture>(line).unwrap());
    let key = |fixture: &Fixture| [&fixture.group, &fixture.kind, &fixture.part].map(Clone::clone);
    read.map(|fixture| (key(&fixture), fixture)).collect()
}

/// Name and object of a kind, or of what is written to a part of it.
fn object(fixtures: &Fixtures, kind: [&str; 3], part: &str) -> (String, Value) {
    let [group, version, kind] = kind;
    let of = |part: &str| fixtures.get(&[group, kind, part].map(str::to_string));
    let Some(fixture) = of(part).or_else(|| of("")) else {
        return ("fixed".into(), Value::Null);
    };
    if fixture.body.is_null() {
        return (fixture.name.clone(), Value::Null);
    }
    let mut object = fixture.body.clone();
    object["apiVersion"] = if group.is_empty() {
        version.into()
    } else {
        format!("{group}/{version}").into()
    };
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": fixture.name});
    (fixture.name.clone(), object)
}

/// The groups that a server's discovery names, each with each of its versions.
async fn versions(client: &mut Client) -> Result<Vec<(String, String)>, Failure> {
    let (_, groups) = client.ask("GET", "/apis", None).await?;
    let listed = groups["groups"].as_array().cloned().unwrap_or_default();
    let mut versions = vec![(String::new(), "v1".to_string())];
    for group in &listed {
        for version in group["versions"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            versions.push((text(&group["name"]), text(&version["version"])));
        }
    }
    Ok(versions)
}

/// The resources that a server's discovery names.
async fn discover(client: &mut Client) -> Result<Vec<Resource>, Failure> {
    let fixtures = fixtures();
    let mut found = Vec::new();
    for (group, version) in versions(client).await? {
        let base = if group.is_empty() {
            "/api/v1".into()
        } else {
            format!("/apis/{group}/{version}")
        };
        let (_, document) = client.ask("GET", &base, None).await?;
        let listed = document["resources"].as_array().cloned().unwrap_or_default();
        let verbs = |entry: &Value| -> Vec<String> {
            let verbs = entry["verbs"].as_array().into_iter().flatten();
            verbs.filter_map(|verb| verb.as_str().map(str::to_string)).collect()
        };
        for entry in &listed {
            let (name, kind) = (
                entry["name"].as_str().unwrap_or_default(),
                entry["kind"].as_str().unwrap_or_default(),
            );
            if name.contains('/') {
                continue;
            }
            let (own_name, own) = object(&fixtures, [&group, &version, kind], "");
            let subresources = listed.iter().filter_map(|sub| {
                let part = sub["name"].as_str()?.strip_prefix(&format!("{name}/"))?.to_string();
                let kind = sub["kind"].as_str().unwrap_or_default();
                let written = sub["group"].as_str().unwrap_or(&group);
                let version = sub["version"].as_str().unwrap_or(&version);
                let (_, mut object) = object(&fixtures, [written, version, kind], &part);
                if !object.is_null() {
                    object["metadata"]["name"] = own_name.clone().into();
                }
                Some(Subresource {
                    name: part,
                    verbs: verbs(sub),
                    object,
                })
            });
            found.push(Resource {
                plural: name.into(),
                is_namespaced: entry["namespaced"] == true,
                verbs: verbs(entry),
                subresources: subresources.collect(),
                name: own_name,
                object: own,
                group: group.clone(),
                version: version.clone(),
            });
        }
    }
    Ok(found)
}

impl World {
    /// Makes both servers hold the same; what only one of them serves is left out, and named.
    pub async fn make(clients: &mut [Client; 2]) -> Result<Self, Failure> {
        for client in clients.iter_mut() {
            define(client).await?;
        }
        let [upstream, own] = clients;
        let mut resources = discover(upstream).await?;
        let served = discover(own).await?;
        let same = |one: &Resource, other: &Resource| {
            (&one.group, &one.version, &one.plural) == (&other.group, &other.version, &other.plural)
        };
        resources.retain(|resource| {
            let both = served.iter().any(|other| same(resource, other));
            if !both {
                eprintln!("left out: {}/{}/{}", resource.group, resource.version, resource.plural);
            }
            both
        });
        read_refused(own, &mut resources).await?;
        let mut world = Self {
            resources,
            baseline: Default::default(),
        };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        for (index, client) in clients.iter_mut().enumerate() {
            client.ask("POST", "/api/v1/namespaces", Some(&namespace)).await?;
            client
                .ask(
                    "POST",
                    &format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
                    Some(&account),
                )
                .await?;
            for resource in &world.resources {
                if resource.stores() {
                    let held = held(client, resource).await?;
                    world.baseline[index].insert(resource.collection(), held);
                }
            }
            for resource in &world.resources {
                world.restore(index, client, resource).await?;
            }
        }
        Ok(world)
    }

    /// Brings a resource back to what it began with, on both servers.
    pub async fn reset(&self, clients: &mut [Client; 2], plural: &str) -> Result<(), Failure> {
        // A binding changes its pod.
        let plural = if plural == "bindings" { "pods" } else { plural };
        // A Service takes its Endpoints along, which come back after it.
        let plurals = match plural {
            "services" => vec!["services", "endpoints"],
            plural => vec![plural],
        };
        for resource in plurals.iter().flat_map(|plural| self.named(plural)) {
            for (index, client) in clients.iter_mut().enumerate() {
                self.restore(index, client, resource).await?;
            }
        }
        Ok(())
    }

    /// Brings everything back to what it began with.
    pub async fn reset_all(&self, clients: &mut [Client; 2]) -> Result<(), Failure> {
        for (index, client) in clients.iter_mut().enumerate() {
            for resource in &self.resources {
                self.restore(index, client, resource).await?;
            }
        }
        Ok(())
    }

    /// Whether another resource of the same plural, which may show the same objects, began with this one.
    fn is_anothers(&self, resource: &Resource, object: &str) -> bool {
        let own = resource.key();
        let mut others = self.named(&resource.plural).map(Resource::key);
        object != own && others.any(|other| other == object)
    }

    fn named<'a>(&'a self, plural: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().filter(move |resource| resource.plural == plural)
    }

    async fn restore(&self, index: usize, client: &mut Client, resource: &Resource) -> Result<(), Failure> {
        if !resource.stores() {
            return Ok(());
        }
        let kept = &self.baseline[index][&resource.collection()];
        for object in held(client, resource).await? {
            if kept.contains(&object) || self.is_anothers(resource, &object) {
                continue;
            }
            let (namespace, name) = object.split_once('/').unwrap_or_default();
            let base = resource.base();
            let path = match namespace {
                "" => format!("{base}/{}/{name}", resource.plural),
                _ => format!("{base}/namespaces/{namespace}/{}/{name}", resource.plural),
            };
            client
                .ask(
                    "DELETE",
                    &format!("{path}?gracePeriodSeconds=0&propagationPolicy=Background"),
                    None,
                )
                .await?;
            let loose = json!({"metadata": {"finalizers": null}});
            client.ask("PATCH", &path, Some(&loose)).await?;
            if resource.plural == "namespaces" {
                let empty = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {}});
                client.ask("PUT", &format!("{path}/finalize"), Some(&empty)).await?;
            }
        }
        let (code, answer) = client
            .ask("POST", &resource.collection(), Some(&resource.object))
            .await?;
        if code != 201 {
            eprintln!("server {index}: no {}: {code} {answer}", resource.item());
        }
        Ok(())
    }
}

/// What promises protection that mk8s does not give yet: of these no object can be made.
pub const REFUSED: &[&str] = &[
    "apiservices",
    "limitranges",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "networkpolicies",
    "resourcequotas",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// Of them alone nothing is written.
async fn read_refused(client: &mut Client, resources: &mut [Resource]) -> Result<(), Failure> {
    for resource in resources.iter_mut().filter(|resource| resource.stores()) {
        let path = format!("{}?dryRun=All", resource.collection());
        let (_, answer) = client.ask("POST", &path, Some(&resource.object)).await?;
        let text = answer["message"].as_str().unwrap_or_default();
        if text.contains("not in this version of mk8s") {
            if !REFUSED.contains(&&*resource.plural) {
                return Err(format!("{} is not among those that are refused: {text}", resource.plural).into());
            }
            resource.object = Value::Null;
        }
    }
    for resource in resources.iter().filter(|resource| resource.is_read()) {
        eprintln!("only read: {}", resource.collection());
    }
    for plural in taken(resources) {
        eprintln!("{plural} can be made: no longer one of those of which REFUSED forgives everything");
    }
    Ok(())
}

/// Those of [`REFUSED`] that are asked for and were not refused.
fn taken(resources: &[Resource]) -> BTreeSet<&str> {
    let written = resources.iter().filter(|resource| !resource.is_read());
    let plurals = written.map(|resource| &*resource.plural);
    plurals.filter(|plural| REFUSED.contains(plural)).collect()
}

/// Makes the custom kinds, and waits until they are served.
async fn define(client: &mut Client) -> Result<(), Failure> {
    for line in include_str!("definitions.jsonl").lines() {
        let definition: Value = serde_json::from_str(line)?;
        let made = client.ask("POST", DEFINITIONS, Some(&definition)).await?;
        if made.0 != 201 {
            return Err(format!("no definition: {} {}", made.0, made.1).into());
        }
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let (plural, group) = name.split_once('.').unwrap_or_default();
        for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
            let path = format!(
                "/apis/{group}/{}/{plural}",
                version["name"].as_str().unwrap_or_default()
            );
            let mut tries = 0;
            while client.ask("GET", &path, None).await?.0 != 200 {
                tries += 1;
                if tries == 200 {
                    return Err(format!("{path} is not served").into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Upstream's discovery comes after its handlers.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(())
}

async fn held(client: &mut Client, resource: &Resource) -> Result<BTreeSet<String>, Failure> {
    let (_, list) = client
        .ask("GET", &format!("{}/{}", resource.base(), resource.plural), None)
        .await?;
    let items = list["items"].as_array().into_iter().flatten();
    Ok(items
        .map(|item| {
            let text = |key: &str| item["metadata"][key].as_str().unwrap_or_default();
            format!("{}/{}", text("namespace"), text("name"))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_is_no_longer_refused_is_named() {
        let resource = |plural: &str, object: Value| Resource {
            group: String::new(),
            version: "v1".into(),
            plural: plural.into(),
            is_namespaced: true,
            verbs: vec!["create".into(), "delete".into()],
            subresources: Vec::new(),
            name: "a".into(),
            object,
        };
        let all = [
            resource("pods", json!({})),
            resource("limitranges", json!({})),
            resource("networkpolicies", Value::Null),
        ];
        assert_eq!(taken(&all), BTreeSet::from(["limitranges"]));
    }
}
