//! Volumes whose content comes from the API: fetched and written at first, and again whenever it changes or a token ages.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection, Volume};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::atomic::{self, File, Payload};
use super::payload::{self, DEFAULT_MODE};
use super::{Error, Paths, fs_group, is_live, prepare};
use crate::agent::{Agent, HeldObjects};
use crate::downward::Surroundings;
use crate::pod;

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
    held: &Arc<HeldObjects>,
    tokens: &Arc<Tokens>,
) -> Result<Paths, Error> {
    let dir = agent.pod_dir(pod::uid(pod));
    dir.create()?;
    let around = agent.surroundings(Vec::new());
    let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
    let one = |volume: &Volume| {
        let (pod, dir, volume) = (pod.clone(), dir.clone(), volume.clone());
        let (agent, held, tokens, around) = (agent.clone(), held.clone(), tokens.clone(), around.clone());
        async move {
            let (for_prepare, volume_spec) = (pod.clone(), volume.clone());
            let path = tokio::task::spawn_blocking(move || prepare(&for_prepare, &dir, &volume_spec))
                .await
                .map_err(|e| Error::Io {
                    what: "prepare",
                    path: volume.name.clone().into(),
                    source: e.into(),
                })??;
            if is_live(&volume) {
                fill(&agent, &pod, &held, &tokens, &volume, &path, &around)
                    .await
                    .map_err(|error| named(&volume.name, error))?;
            }
            Ok::<_, Error>((volume.name, path))
        }
    };
    let made = futures::future::try_join_all(volumes.iter().map(one)).await?;
    Ok(made.into_iter().collect())
}

fn named(volume: &str, error: Error) -> Error {
    Error::SetUp {
        volume: volume.to_owned(),
        message: error.to_string(),
    }
}

/// Writes the volume's content as it should be now.
async fn fill(
    agent: &Agent,
    pod: &Pod,
    held: &HeldObjects,
    tokens: &Tokens,
    volume: &Volume,
    path: &Path,
    around: &Surroundings,
) -> Result<(), Error> {
    let payload = content(agent, pod, held, tokens, volume, around).await?;
    let (path, group) = (path.to_owned(), fs_group(pod));
    let written = tokio::task::spawn_blocking(move || atomic::write(&path, &payload, group)).await;
    written.map_err(|e| Error::Io {
        what: "write",
        path: volume.name.clone().into(),
        source: e.into(),
    })??;
    Ok(())
}

async fn content(
    agent: &Agent,
    pod: &Pod,
    held: &HeldObjects,
    tokens: &Tokens,
    volume: &Volume,
    around: &Surroundings,
) -> Result<Payload, Error> {
    if let Some(source) = &volume.config_map {
        let found = match held.config_maps.get(&source.name) {
            Some(held) => held.get().await,
            None => None,
        };
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        let payload = payload::config_map(&source.name, found.as_deref(), source.items.as_ref(), mode, optional)?;
        return Ok(payload);
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let found = match held.secrets.get(&name) {
            Some(held) => held.get().await,
            None => None,
        };
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        return Ok(payload::secret(
            &name,
            found.as_deref(),
            source.items.as_ref(),
            mode,
            optional,
        )?);
    }
    if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return Ok(payload::downward(pod, items, mode, around)?);
    }
    let Some(projected) = &volume.projected else {
        return Ok(Payload::new());
    };
    let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
    let mut all = Payload::new();
    for source in projected.sources.iter().flatten() {
        if let Some(s) = &source.config_map {
            let found = match held.config_maps.get(&s.name) {
                Some(held) => held.get().await,
                None => None,
            };
            let optional = s.optional.unwrap_or(false);
            all.extend(payload::config_map(
                &s.name,
                found.as_deref(),
                s.items.as_ref(),
                mode,
                optional,
            )?);
        }
        if let Some(s) = &source.secret {
            let found = match held.secrets.get(&s.name) {
                Some(held) => held.get().await,
                None => None,
            };
            let optional = s.optional.unwrap_or(false);
            all.extend(payload::secret(
                &s.name,
                found.as_deref(),
                s.items.as_ref(),
                mode,
                optional,
            )?);
        }
        if let Some(s) = &source.downward_api {
            all.extend(payload::downward(
                pod,
                s.items.as_deref().unwrap_or_default(),
                mode,
                around,
            )?);
        }
        if let Some(s) = &source.service_account_token {
            let file = match tokens.valid(&volume.name, &s.path) {
                Some(file) => file,
                None => {
                    let (file, renew_at) = token(agent, pod, s, mode).await?;
                    tokens.remember(&volume.name, &s.path, file.clone(), renew_at);
                    file
                }
            };
            all.insert(s.path.clone(), file);
        }
    }
    Ok(all)
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
    let now = Timestamp::now();
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
    held: Arc<HeldObjects>,
    tokens: Arc<Tokens>,
    paths: Arc<Paths>,
    ips: Vec<String>,
) {
    let around = agent.surroundings(ips);
    let mut watched = held.changes();
    loop {
        let now = pod.borrow_and_update().clone();
        for receiver in &mut watched {
            receiver.mark_unchanged();
        }
        let mut again: Option<Timestamp> = None;
        for volume in pod::spec(&now).volumes.iter().flatten().filter(|v| is_live(v)) {
            let Some(path) = paths.get(&volume.name) else { continue };
            if let Err(error) = fill(&agent, &now, &held, &tokens, volume, path, &around).await {
                tracing::debug!(pod = pod::display(&now), volume = volume.name, %error, "a volume keeps its old content");
                again = Timestamp::now().checked_add(RETRY).ok();
            }
        }
        let at = [again, tokens.next_renewal()].into_iter().flatten().min();
        let delay = at.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        let timer = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = pod.changed() => if changed.is_err() { return },
            () = any_change(&mut watched) => {}
            () = timer => {}
        }
    }
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
        (*renew_at > Timestamp::now()).then(|| file.clone())
    }

    fn remember(&self, volume: &str, path: &str, file: File, renew_at: Timestamp) {
        self.0
            .lock()
            .insert((volume.to_owned(), path.to_owned()), (file, renew_at));
    }

    fn next_renewal(&self) -> Option<Timestamp> {
        self.0.lock().values().map(|(_, at)| *at).min()
    }
}
