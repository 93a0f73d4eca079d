//! Which kinds there are, asked for all groups at once: one whose server does not answer hides no other, and is told of.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;

use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::discovery::ApiResource;
use mk8s_api::meta;
use serde_json::Value;

use super::Kind;

/// The kinds there are, as far as could be learned.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// Monitored or not, each in its group's preferred version, or in the one that has it. Where the last try failed: as before.
    pub kinds: Vec<Arc<Kind>>,
    /// What could not be asked, and why. Of what is there, `kinds` may know nothing.
    pub failures: Vec<String>,
}

/// What all groups have in one document (<https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery>).
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Asks which kinds there are. What has not changed since it was heard last is not sent again.
#[derive(Default)]
pub(super) struct Discovery {
    /// Of the answers that told of no failure, by their paths.
    tags: HashMap<&'static str, HeaderValue>,
}

/// What is there at a path; nothing where it is as before.
struct Answer {
    list: Option<Value>,
    tag: Option<HeaderValue>,
}

impl Discovery {
    /// Asks for all kinds. Those `known` stay where asking fails: that is no word of their end.
    pub(super) async fn discover(&mut self, client: &Client, known: &[Arc<Kind>]) -> Discovered {
        let mut finding = Finding::default();
        for path in ["/api", "/apis"] {
            let failed = finding.found.failures.len();
            let of_path = |kind: &Kind| kind.api.group.is_empty() == (path == "/api");
            let tag = match ask(client, path, self.tags.get(path)).await {
                Ok(Answer { list: None, tag }) => {
                    finding.keep(known, of_path);
                    tag
                }
                Ok(Answer { list: Some(list), tag }) => {
                    finding.add_groups(&list, known);
                    tag
                }
                Err(error) => {
                    finding.keep(known, of_path);
                    finding.found.failures.push(format!("{path}: {error}"));
                    None
                }
            };
            match tag.filter(|_| finding.found.failures.len() == failed) {
                Some(tag) => drop(self.tags.insert(path, tag)),
                None => drop(self.tags.remove(path)),
            }
        }
        finding.found
    }
}

async fn ask(client: &Client, path: &str, known: Option<&HeaderValue>) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let mut request = http::Request::get(path)
        .header(ACCEPT, AGGREGATED)
        .body(Body::empty())?;
    if let Some(tag) = known {
        request.headers_mut().insert(IF_NONE_MATCH, tag.clone());
    }
    let response = client.send(request).await?;
    let (status, tag) = (response.status(), response.headers().get(ETAG).cloned());
    if status == StatusCode::NOT_MODIFIED && known.is_some() {
        let tag = known.cloned();
        return Ok(Answer { list: None, tag });
    }
    let body = response.into_body().collect_bytes().await?;
    if !status.is_success() {
        // Which is a Status, where an API server says it.
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = meta::string(&told, &["message"]);
        return Err(format!("{status}: {message}").trim_end_matches(": ").into());
    }
    let list = serde_json::from_slice(&body)?;
    Ok(Answer { list: Some(list), tag })
}

#[derive(Default)]
struct Finding {
    found: Discovered,
    /// Groups and plurals of what was found.
    names: HashSet<(String, String)>,
}

impl Finding {
    /// All groups of a document, and of each its versions, the preferred one first.
    fn add_groups(&mut self, list: &Value, known: &[Arc<Kind>]) {
        for group in meta::items(list, &["items"]) {
            let name = meta::name(group);
            for version in meta::items(group, &["versions"]) {
                self.add_version(name, version, known);
            }
        }
    }

    fn add_version(&mut self, group: &str, version: &Value, known: &[Arc<Kind>]) {
        let name = meta::string(version, &["version"]);
        let api_version = meta::join_api_version(group, name);
        if meta::string(version, &["freshness"]) == "Stale" {
            self.keep(known, |kind| kind.api.api_version == api_version);
            let why = "stale GroupVersion discovery";
            self.found.failures.push(format!("{api_version}: {why}: {api_version}"));
            return;
        }
        for resource in meta::items(version, &["resources"]) {
            let api = ApiResource {
                group: group.to_string(),
                version: name.to_string(),
                api_version: api_version.clone(),
                kind: meta::string(resource, &["responseKind", "kind"]).to_string(),
                plural: meta::string(resource, &["resource"]).to_string(),
            };
            if !is_shown_elsewhere(&api) {
                let verbs = meta::items(resource, &["verbs"]).iter().filter_map(Value::as_str);
                self.add(Arc::new(Kind {
                    namespaced: meta::string(resource, &["scope"]) == "Namespaced",
                    verbs: verbs.map(str::to_string).collect(),
                    api,
                }));
            }
        }
    }

    fn keep(&mut self, known: &[Arc<Kind>], which: impl Fn(&Kind) -> bool) {
        known
            .iter()
            .filter(|kind| which(kind))
            .for_each(|kind| self.add(kind.clone()));
    }

    /// Once, in the first version that has it.
    fn add(&mut self, kind: Arc<Kind>) {
        if self.names.insert((kind.api.group.clone(), kind.api.plural.clone())) {
            self.found.kinds.push(kind);
        }
    }
}

/// Whether the objects are another group's, which this one shows too.
fn is_shown_elsewhere(api: &ApiResource) -> bool {
    let known = mk8s_api::registry::find_kind(&api.group, &api.version, &api.kind);
    known.is_some_and(|resource| resource.group != api.group)
}
