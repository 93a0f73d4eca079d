//! Volumes whose content comes from the API: fetched and written at first, and again whenever it changes or a token ages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, Pod, SecretProjection, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeProjection,
};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::atomic::{File, Payload};
use super::payload::{self, DEFAULT_MODE};
use super::{Error, Paths, fs_group, is_live};
use crate::agent::{Agent, ReferencedObjects};
use crate::downward::RuntimeValues;
use crate::{clock, pod};

const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// Upstream renews a token at this part of its life …
const RENEW_AT: f64 = 0.8;
/// … and in any case after this long.
const RENEW_MAX: Duration = Duration::from_secs(24 * 3600);
const RETRY: Duration = Duration::from_secs(10);

/// Makes all volumes of the pod, side by side.
pub async fn prepare_all(
    agent: &Arc<Agent>,
    pod: &Arc<Pod>,
    held: &Arc<ReferencedObjects>,
    tokens: &Arc<Tokens>,
) -> Result<Paths, Error> {
    let values = agent.runtime_values(Vec::new());
    let content = Content {
        agent,
        held,
        tokens,
        values: &values,
        sizes: tokio::sync::Mutex::default(),
    };
    let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
    let one = async |volume: &Volume| {
        let path = agent.volumes.ensure(pod, volume).await?;
        if is_live(volume) {
            content
                .fill(pod, volume)
                .await
                .map_err(|error| named(&volume.name, error))?;
        }
        Ok::<_, Error>((volume.name.clone(), path))
    };
    let made = futures::future::try_join_all(volumes.iter().map(one)).await?;
    Ok(made.into_iter().collect())
}

fn named(volume: &str, error: Error) -> Error {
    Error::SetUp {
        volume: volume.to_owned(),
        source: Box::new(error),
    }
}

/// Where the content of a pod's volumes comes from.
struct Content<'a> {
    agent: &'a Agent,
    held: &'a ReferencedObjects,
    tokens: &'a Tokens,
    values: &'a RuntimeValues,
    /// One volume is filled after the other, so that what is in memory at a time is bounded with it.
    sizes: tokio::sync::Mutex<payload::Sizes>,
}

impl Content<'_> {
    /// Writes the volume's content as it should be now.
    async fn fill(&self, pod: &Pod, volume: &Volume) -> Result<(), Error> {
        let mut sizes = self.sizes.lock().await;
        let mut room = sizes.room(&volume.name);
        let mut payload = Payload::new();
        let (mode, sources) = sources(volume);
        for source in &sources {
            payload.extend(self.of_source(pod, &volume.name, source, (mode, &mut room)).await?);
        }
        sizes.set(&volume.name, payload.values().map(|file| file.data.len()).sum());
        self.agent.volumes.fill(pod, volume, payload).await
    }

    /// `room`: what it may come to, and less what it came to.
    async fn of_source(
        &self,
        pod: &Pod,
        volume: &str,
        source: &VolumeProjection,
        (mode, room): (i32, &mut usize),
    ) -> Result<Payload, Error> {
        let mut all = Payload::new();
        if let Some(s) = &source.config_map {
            let found = match self.held.config_maps.get(&s.name) {
                Some(held) => held.get().await,
                None => None,
            };
            let optional = s.optional.unwrap_or(false);
            let payload = payload::config_map(&s.name, found.as_deref(), s.items.as_ref(), mode, optional, room)?;
            all.extend(payload);
        }
        if let Some(s) = &source.secret {
            let found = match self.held.secrets.get(&s.name) {
                Some(held) => held.get().await,
                None => None,
            };
            let optional = s.optional.unwrap_or(false);
            let payload = payload::secret(&s.name, found.as_deref(), s.items.as_ref(), mode, optional, room)?;
            all.extend(payload);
        }
        if let Some(s) = &source.downward_api {
            let items = s.items.as_deref().unwrap_or_default();
            all.extend(payload::downward(pod, items, mode, self.values, room)?);
        }
        if let Some(s) = &source.service_account_token {
            let file = match self.tokens.valid(volume, &s.path) {
                Some(file) => file,
                None => {
                    let (file, renew_at) = token(self.agent, pod, s, mode).await?;
                    self.tokens.remember(volume, &s.path, file.clone(), renew_at);
                    file
                }
            };
            all.insert(s.path.clone(), file);
        }
        Ok(all)
    }
}

/// (mode of its files, sources) of a live volume: the plain kinds are projections of one source.
fn sources(volume: &Volume) -> (i32, Vec<VolumeProjection>) {
    let one = |source: VolumeProjection| vec![source];
    let (mode, sources) = if let Some(s) = &volume.config_map {
        let config_map = Some(ConfigMapProjection {
            name: s.name.clone(),
            items: s.items.clone(),
            optional: s.optional,
        });
        let source = VolumeProjection {
            config_map,
            ..VolumeProjection::default()
        };
        (s.default_mode, one(source))
    } else if let Some(s) = &volume.secret {
        let secret = Some(SecretProjection {
            name: s.secret_name.clone().unwrap_or_default(),
            items: s.items.clone(),
            optional: s.optional,
        });
        let source = VolumeProjection {
            secret,
            ..VolumeProjection::default()
        };
        (s.default_mode, one(source))
    } else if let Some(s) = &volume.downward_api {
        let downward_api = Some(DownwardAPIProjection { items: s.items.clone() });
        let source = VolumeProjection {
            downward_api,
            ..VolumeProjection::default()
        };
        (s.default_mode, one(source))
    } else {
        let projected = volume.projected.as_ref();
        let sources = projected.and_then(|p| p.sources.clone()).unwrap_or_default();
        (projected.and_then(|p| p.default_mode), sources)
    };
    (mode.unwrap_or(DEFAULT_MODE), sources)
}

/// A token bound to the pod, and when to fetch the next.
async fn token(
    agent: &Agent,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    mode: i32,
) -> Result<(File, Timestamp), Error> {
    let account = pod::spec(pod)
        .service_account_name
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let seconds = source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().filter(|a| !a.is_empty()).cloned().collect(),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let failed = |message: String| payload::Error::Token {
        account: account.clone(),
        message,
    };
    let api: Api<ServiceAccount> = Api::namespaced(agent.client.clone(), pod::namespace(pod));
    let params = PostParams::default();
    let answer = api
        .create_token_request(&account, &params, &request)
        .await
        .map_err(|e| failed(e.to_string()))?;
    let status = answer
        .status
        .ok_or_else(|| failed("the API server answered no token".to_owned()))?;
    let now = clock::now();
    let life = Duration::try_from(status.expiration_timestamp.0.duration_since(now)).unwrap_or_default();
    let until_renewal = life.mul_f64(RENEW_AT).clamp(RETRY, RENEW_MAX);
    let file = payload::token(&status.token, mode, common_user(pod), fs_group(pod).is_some());
    Ok((file, now.checked_add(until_renewal).unwrap_or(now)))
}

/// The user that all containers run as, where they agree on one.
fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod::spec(pod).security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = pod::all_containers(pod).map(|c| {
        c.security_context
            .as_ref()
            .and_then(|s| s.run_as_user)
            .or(of_pod)
            .and_then(|u| u32::try_from(u).ok())
    });
    let first = users.next()??;
    users.all(|u| u == Some(first)).then_some(first)
}

/// Follows the objects behind the pod's volumes and writes what changed, until it is aborted.
pub async fn keep_fresh(
    agent: Arc<Agent>,
    mut pod: watch::Receiver<Arc<Pod>>,
    held: Arc<ReferencedObjects>,
    tokens: Arc<Tokens>,
    ips: Vec<String>,
) {
    let values = agent.runtime_values(ips);
    let content = Content {
        agent: &agent,
        held: &held,
        tokens: &tokens,
        values: &values,
        sizes: tokio::sync::Mutex::default(),
    };
    let mut watched = held.changes();
    loop {
        let now = pod.borrow_and_update().clone();
        for receiver in &mut watched {
            receiver.mark_unchanged();
        }
        let mut again: Option<Timestamp> = None;
        for volume in pod::spec(&now).volumes.iter().flatten().filter(|v| is_live(v)) {
            match content.fill(&now, volume).await {
                Ok(()) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::debug!(pod = pod::display(&now), volume = volume.name, %error, "a volume keeps its old content");
                    again = clock::now().checked_add(RETRY).ok();
                }
            }
        }
        // The renewal that failed stays due: by it the next try would be at once.
        let at = again.or_else(|| tokens.next_renewal());
        let delay = at.map(|at| Duration::try_from(at.duration_since(clock::now())).unwrap_or_default());
        let timer = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = content_changed(&mut pod, &now) => if ended.is_err() { return },
            () = any_change(&mut watched) => {}
            () = timer => {}
        }
    }
}

/// Resolves when the pod changes in what its volumes may show: most of its changes are our own writes of its status.
async fn content_changed(pod: &mut watch::Receiver<Arc<Pod>>, shown: &Pod) -> Result<(), watch::error::RecvError> {
    let changed = |now: &Arc<Pod>| {
        now.metadata.labels != shown.metadata.labels || now.metadata.annotations != shown.metadata.annotations
    };
    pod.wait_for(changed).await.map(drop)
}

/// Resolves with the next change of any of them; never, where there are none.
pub async fn any_change(watched: &mut [watch::Receiver<u64>]) {
    if watched.is_empty() {
        return std::future::pending().await;
    }
    let changes = watched.iter_mut().map(|r| Box::pin(r.changed()));
    let _ = futures::future::select_all(changes).await;
}

/// The tokens that a pod's volumes hold, each with the time to fetch the next.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<(String, String), (File, Timestamp)>>);

impl Tokens {
    fn valid(&self, volume: &str, path: &str) -> Option<File> {
        let known = self.0.lock();
        let (file, renew_at) = known.get(&(volume.to_owned(), path.to_owned()))?;
        (*renew_at > clock::now()).then(|| file.clone())
    }

    pub(crate) fn remember(&self, volume: &str, path: &str, file: File, renew_at: Timestamp) {
        self.0
            .lock()
            .insert((volume.to_owned(), path.to_owned()), (file, renew_at));
    }

    fn next_renewal(&self) -> Option<Timestamp> {
        self.0.lock().values().map(|(_, at)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt as _;
    use serde_json::{Value, json};

    /// A pod in which one value is another.
    fn pod(change: Option<(&str, Value)>) -> Arc<Pod> {
        let mut pod =
            json!({"metadata": {"name": "p", "labels": {"a": "1"}, "annotations": {}}, "status": {"phase": "Pending"}});
        if let Some((place, value)) = change {
            *pod.pointer_mut(place).unwrap() = value;
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_what_a_volume_may_show_is_a_change_of_its_content() {
        for (place, value, shows) in [
            ("/status/phase", json!("Running"), false),
            ("/metadata/name", json!("q"), false),
            ("/metadata/labels", json!({"a": "2"}), true),
            ("/metadata/annotations", json!({"b": "1"}), true),
        ] {
            let shown = pod(None);
            let (sender, mut receiver) = watch::channel(shown.clone());
            sender.send_replace(pod(Some((place, value))));
            let seen = content_changed(&mut receiver, &shown).now_or_never();
            assert_eq!(seen.is_some(), shows, "{place}");
        }
    }

    #[test]
    fn plain_kinds_are_projections_of_one_source() {
        let items = json!([{"key": "k", "path": "p"}]);
        for (volume, expected, mode) in [
            (
                json!({"configMap": {"name": "m", "items": items, "optional": true, "defaultMode": 256}}),
                json!([{"configMap": {"name": "m", "items": items, "optional": true}}]),
                256,
            ),
            (
                json!({"secret": {"secretName": "s", "items": items, "optional": false}}),
                json!([{"secret": {"name": "s", "items": items, "optional": false}}]),
                DEFAULT_MODE,
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p"}]}}),
                json!([{"downwardAPI": {"items": [{"path": "p"}]}}]),
                DEFAULT_MODE,
            ),
            (
                json!({"projected": {"sources": [{"secret": {"name": "s"}}, {"configMap": {"name": "m"}}], "defaultMode": 292}}),
                json!([{"secret": {"name": "s"}}, {"configMap": {"name": "m"}}]),
                292,
            ),
        ] {
            let mut named = volume.clone();
            named["name"] = json!("v");
            let (of_files, found) = sources(&serde_json::from_value(named).unwrap());
            assert_eq!(
                (serde_json::to_value(found).unwrap(), of_files),
                (expected, mode),
                "{volume}"
            );
        }
    }
}
