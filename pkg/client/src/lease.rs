//! Leader election over a coordination.k8s.io Lease, as client-go's: of several processes, one at a time runs a scope of
//! tasks. Nobody's clock is compared with another's: a holder that is not seen to renew for its own duration has lost.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::PostParams;
use mk8s_supervisor::{Supervisor, TaskError};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Api;

/// What is held, by whom, and for how long.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Unique among those who might hold it.
    pub identity: String,
    /// Others wait so long after a holder's last renewal; whole seconds.
    pub lease_duration: Duration,
    /// A holder that could not renew for this time stops; less than `lease_duration`, by what its tasks need to end.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry_period: Duration,
}

impl Election {
    /// With upstream's times: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Election {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Whenever the lease is held, starts tasks in a scope of `supervisor`'s; ends them before anybody else may hold it. Returns
/// when `token` is cancelled, with the tasks ended and the lease given back.
///
/// An error means that tasks did not end in time: two may be at work, and the process has to end.
pub async fn lead(
    client: Client,
    election: Election,
    supervisor: Supervisor,
    token: CancellationToken,
    start: impl Fn(&Supervisor),
) -> Result<(), TaskError> {
    let mut elector = Elector {
        api: Api::namespaced(client, &election.namespace),
        election,
        observed: None,
    };
    while let Some(held_since) = elector.acquire(&token).await {
        let name = &elector.election.name;
        tracing::info!(lease = name, "leading");
        let scope = supervisor.scope();
        start(&scope);
        let last = elector.renew(held_since, &token).await;
        let end = last + elector.election.lease_duration;
        if !scope.shutdown(end.saturating_duration_since(Instant::now())).await {
            return Err("tasks went on after the lease was lost".into());
        }
        tracing::info!(lease = elector.election.name, "no longer leading");
        if token.is_cancelled() {
            elector.release(end).await;
        }
    }
    Ok(())
}

/// Who held the lease when it was looked at, and when that was first seen, by the clock here.
struct Observed {
    spec: LeaseSpec,
    at: Instant,
}

/// How a try ended.
enum Tried {
    Held,
    /// By another, or somebody else was faster.
    Lost,
    /// Nobody knows: the API server did not answer.
    Failed(kube::Error),
}

struct Elector {
    api: Api<Lease>,
    election: Election,
    observed: Option<Observed>,
}

impl Elector {
    /// Waits until the lease is held; since when. None: cancelled.
    async fn acquire(&mut self, token: &CancellationToken) -> Option<Instant> {
        loop {
            let began = Instant::now();
            // A request that is never answered must not be waited for: the next one may be.
            let patience = began + self.election.renew_deadline;
            let tried = tokio::select! {
                tried = timeout_at(patience, self.try_once()) => tried,
                () = token.cancelled() => return None,
            };
            match tried {
                Ok(Tried::Held) => return Some(began),
                Ok(Tried::Lost) => {}
                Ok(Tried::Failed(error)) => tracing::warn!(lease = self.election.name, %error, "cannot be asked for"),
                Err(_) => tracing::warn!(lease = self.election.name, "cannot be asked for: no answer"),
            }
            tokio::select! {
                () = sleep(self.election.retry_period) => {}
                () = token.cancelled() => return None,
            }
        }
    }

    /// Renews until that fails for too long, another has the lease, or it is cancelled; the last time it was surely held.
    async fn renew(&mut self, held: Instant, token: &CancellationToken) -> Instant {
        let mut last = held;
        loop {
            tokio::select! {
                () = sleep(self.election.retry_period) => {}
                () = token.cancelled() => return last,
            }
            let began = Instant::now();
            let deadline = last + self.election.renew_deadline;
            let tried = tokio::select! {
                tried = timeout_at(deadline, self.try_once()) => tried,
                () = token.cancelled() => return last,
            };
            match tried {
                Ok(Tried::Held) => last = began,
                Ok(Tried::Failed(error)) if Instant::now() < deadline => {
                    tracing::debug!(lease = self.election.name, %error, "not renewed, tried again");
                }
                // A conflict may be an update of ours whose answer was lost: then the next look says so.
                Ok(Tried::Lost) if self.is_mine() => {}
                Ok(Tried::Lost | Tried::Failed(_)) | Err(_) => {
                    tracing::warn!(lease = self.election.name, "lost");
                    return last;
                }
            }
        }
    }

    fn is_mine(&self) -> bool {
        let holder = self
            .observed
            .as_ref()
            .and_then(|seen| seen.spec.holder_identity.as_deref());
        holder == Some(&self.election.identity)
    }

    async fn try_once(&mut self) -> Tried {
        let found = match self.api.get_opt(&self.election.name).await {
            Ok(found) => found,
            Err(error) => return Tried::Failed(error),
        };
        let Some(mut lease) = found else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.election.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.next(None)),
            };
            let made = self.api.create(&PostParams::default(), &lease).await;
            return self.took(made.and_then(|made| made.object()));
        };
        let spec = lease.spec.take().unwrap_or_default();
        let now = Instant::now();
        if self.observed.as_ref().is_none_or(|seen| seen.spec != spec) {
            self.observed = Some(Observed {
                spec: spec.clone(),
                at: now,
            });
        }
        if !self.is_mine() && self.observed.as_ref().is_some_and(|seen| is_held(seen, now)) {
            return Tried::Lost;
        }
        // The revision that was read goes along: of two who try, one is told of a conflict.
        lease.spec = Some(self.next(Some(&spec)));
        let written = self
            .api
            .replace(&self.election.name, &PostParams::default(), &lease)
            .await;
        self.took(written.and_then(|written| written.object()))
    }

    fn took(&mut self, answer: kube::Result<Lease>) -> Tried {
        match answer {
            Ok(lease) => {
                self.observed = Some(Observed {
                    spec: lease.spec.unwrap_or_default(),
                    at: Instant::now(),
                });
                Tried::Held
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Tried::Lost,
            Err(error) => Tried::Failed(error),
        }
    }

    /// The lease as held by this one from now on.
    fn next(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.election.identity));
        let transitions = before.map_or(0, |spec| spec.lease_transitions.unwrap_or(0) + i32::from(!mine));
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: i32::try_from(self.election.lease_duration.as_secs()).ok(),
            acquire_time: before
                .filter(|_| mine)
                .and_then(|spec| spec.acquire_time.clone())
                .or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Lets the next one have it at once. Failing to changes nothing: it expires.
    async fn release(&self, until: Instant) {
        let Some(seen) = self.observed.as_ref().filter(|_| self.is_mine()) else {
            return;
        };
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..seen.spec.clone()
        };
        let released = timeout_at(until, async {
            loop {
                let mut lease = self.api.get(&self.election.name).await?;
                if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) != Some(&self.election.identity) {
                    return Ok(());
                }
                lease.spec = Some(spec.clone());
                let done = self
                    .api
                    .replace(&self.election.name, &PostParams::default(), &lease)
                    .await;
                match done {
                    // By a renewal of ours that was under way when it was cancelled.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    done => return done.map(drop),
                }
            }
        });
        if let Ok(Err(error)) = released.await {
            tracing::debug!(lease = self.election.name, %error, "not given back; it expires");
        }
    }
}

/// Whether somebody holds the lease that was seen.
fn is_held(seen: &Observed, now: Instant) -> bool {
    let spec = &seen.spec;
    if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
        return false;
    }
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    now < seen.at + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    /// The one lease there is, which a renewal that was given up still changes after it was read to be given back.
    #[derive(Default)]
    struct Server {
        lease: Mutex<Value>,
        late: Mutex<bool>,
    }

    async fn serve(server: Arc<Server>, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let (method, body) = (
            request.method().clone(),
            request.into_body().collect_bytes().await.unwrap(),
        );
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut lease = server.lease.lock();
        let gives_back = sent["spec"]["holderIdentity"] == "";
        let (code, answer) = if method == Method::GET {
            (200, lease.clone())
        } else if gives_back && std::mem::take(&mut *server.late.lock()) {
            let conflict = json!({"status": "Failure", "message": "changed", "reason": "Conflict", "code": 409});
            (409, conflict)
        } else {
            *lease = sent;
            (200, lease.clone())
        };
        let answer = Body::from(answer.to_string().into_bytes());
        Ok(Response::builder().status(code).body(answer).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_given_back_after_a_renewal_that_came_between() {
        let server = Arc::new(Server::default());
        *server.lease.lock() = json!({"metadata": {"name": "l", "namespace": "d"}, "spec": {}});
        *server.late.lock() = true;
        let served = server.clone();
        let client = Client::new(tower::service_fn(move |request| serve(served.clone(), request)), "d");
        let (owner, token) = (Supervisor::new(CancellationToken::new()), CancellationToken::new());
        let ends = token.clone();
        let election = Election::new("d", "l", "me");
        let led = lead(client, election, owner, token, move |_| ends.cancel());
        led.await.unwrap();
        assert!(!*server.late.lock());
        assert_eq!(server.lease.lock()["spec"]["holderIdentity"], "");
    }
}
