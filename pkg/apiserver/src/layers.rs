//! What every request passes before its handler: layers in a fixed order, over one context of what is known of it by then.
//! A layer refuses the request or adds to the context; what is to last as long as the answer it hangs on the guard.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Response;
use http::request::Parts;
use http_body::Body as _;
use mk8s_api::status::Status;
use mk8s_api::time;
use tokio::time::Instant;

use crate::filters::impersonation;
use crate::guarded::Guarded;
use crate::identity::User;
use crate::limits::Permit;
use crate::pieces;
use crate::receive;
use crate::request::{Query, RequestInfo};
use crate::state::State;
use crate::transport::Peer;
use crate::unsent::Account;

/// How long a request may take that is no watch or stream: upstream's bound.
const PATIENCE: Duration = Duration::from_secs(34);

/// What is known of a request on its way to the handler.
pub struct Request {
    pub state: Arc<State>,
    pub parts: Parts,
    pub query: Query,
    pub info: RequestInfo,
    /// Who asks: anonymous until the layers have found out.
    pub user: Arc<User>,
    /// A component of this process, whose identity was given to its router.
    inside: bool,
    /// Whether a body is still to come that says what is to be written.
    pub waits_for_body: bool,
    /// When it is answered 504.
    pub deadline: Instant,
    pub guard: Guard,
}

/// What ends with the answer's body.
#[derive(Default)]
pub struct Guard {
    permit: Option<Permit>,
}

/// One row of the table of layers.
pub struct Layer {
    pub name: &'static str,
    pass: fn(&mut Request) -> Result<(), Status>,
}

/// In the order they run. An audit log stands after authentication, since it says who asked before it was asked as somebody
/// else, and sees the answer through the guard; fairness takes the place of the limits, since it asks whose turn it is.
pub static LAYERS: &[Layer] = &[
    Layer {
        name: "deadline",
        pass: bound,
    },
    Layer {
        name: "authentication",
        pass: authenticate,
    },
    Layer {
        name: "impersonation",
        pass: impersonate,
    },
    Layer {
        name: "limits",
        pass: limit,
    },
    Layer {
        name: "authorization",
        pass: authorize,
    },
];

impl Request {
    pub fn new(state: Arc<State>, mut parts: Parts, has_body: bool) -> Request {
        let query = Query::parse(parts.uri.query());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let inside = parts.extensions.remove::<Arc<User>>();
        Request {
            state,
            query,
            waits_for_body: has_body && inside.is_none() && info.is_resource && writes(&info),
            info,
            inside: inside.is_some(),
            user: inside.unwrap_or_else(|| Arc::new(User::anonymous())),
            parts,
            deadline: Instant::now() + PATIENCE,
            guard: Guard::default(),
        }
    }

    /// What the caller has left unread is counted there; components of this process read what they ask for.
    pub fn account(&self) -> Option<Arc<Account>> {
        let flow = if self.inside {
            None
        } else {
            self.state.reading.flow(&self.user)
        };
        self.state.unsent.of(flow, &self.user.name)
    }

    /// Passes all layers.
    ///
    /// # Errors
    /// The first layer's refusal.
    pub fn pass(&mut self) -> Result<(), Status> {
        for layer in LAYERS {
            (layer.pass)(self).inspect_err(|status| {
                tracing::debug!(layer = layer.name, code = status.code, "a request was refused");
            })?;
        }
        Ok(())
    }
}

/// The time that the caller asks for, as long as it is not more than any request gets.
fn bound(request: &mut Request) -> Result<(), Status> {
    let Some(text) = request
        .query
        .text("timeout")
        .filter(|_| !is_long_running(&request.info))
    else {
        return Ok(());
    };
    // A negative one asks for nothing, as does zero.
    let amount = text.strip_prefix('-').unwrap_or(text);
    let asked = time::parse_go_duration(amount).ok_or_else(|| {
        let why = match amount.bytes().all(|byte| byte.is_ascii_digit()) && !amount.is_empty() {
            true => "missing unit in",
            false => "invalid",
        };
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - time: {why} duration {text:?}"
        ))
    })?;
    if !asked.is_zero() && !text.starts_with('-') {
        request.deadline = request.deadline.min(Instant::now() + asked);
    }
    Ok(())
}

fn authenticate(request: &mut Request) -> Result<(), Status> {
    if request.inside {
        return Ok(());
    }
    let connection = request.parts.extensions.get::<Peer>();
    let peer = connection.and_then(|peer| peer.user.as_ref());
    let authenticator = request.state.authenticator();
    request.user = authenticator.authenticate(peer, &request.parts.headers, &request.info)?;
    Ok(())
}

fn impersonate(request: &mut Request) -> Result<(), Status> {
    request.user = impersonation::apply(request.state.authorizer(), &request.user, &request.parts.headers)?;
    Ok(())
}

fn limit(request: &mut Request) -> Result<(), Status> {
    // Components of this process are few, and have no one to be protected from. A body is received first.
    if request.inside || request.waits_for_body || is_long_running(&request.info) || is_probe(&request.info) {
        return Ok(());
    }
    let state = &request.state;
    let pool = if matches!(request.info.verb, "get" | "list" | "head") {
        &state.reading
    } else {
        &state.writing
    };
    // Not until the deadline that was asked for: what is read is read to its end, however short that is.
    let full = Instant::now() + PATIENCE;
    let place = receive::place(pool, &request.user, full).inspect_err(|_| state.metrics().dropped());
    request.guard.permit = Some(place?);
    Ok(())
}

/// Whoever asks whether the server is well costs nothing, and must hear it however much others ask: upstream's flow schema
/// `probes` exempts the same.
fn is_probe(info: &RequestInfo) -> bool {
    !info.is_resource && ["/healthz", "/livez", "/readyz"].contains(&&*info.path)
}

fn writes(info: &RequestInfo) -> bool {
    !is_long_running(info) && !matches!(info.verb, "get" | "list" | "head" | "")
}

fn authorize(request: &mut Request) -> Result<(), Status> {
    request.state.authorizer().authorize(&request.user, &request.info)
}

fn is_long_running(info: &RequestInfo) -> bool {
    matches!(info.verb, "watch" | "proxy")
        || matches!(&*info.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

impl Guard {
    pub fn of(permit: Permit) -> Self {
        Self { permit: Some(permit) }
    }

    /// Hangs it on an answer of this server's own. A short one is done when it is made, whoever reads it when; of one that is
    /// made while it is read nobody knows the length.
    pub fn hang_on_own(self, response: Response<Body>) -> Response<Body> {
        let length = response.body().size_hint().exact();
        match length.is_some_and(|length| length < pieces::FROM as u64) {
            true => response,
            false => self.hang_on(response),
        }
    }

    /// Hangs it on an answer.
    pub fn hang_on(self, response: Response<Body>) -> Response<Body> {
        if self.permit.is_none() {
            return response;
        }
        response.map(|body| Body::new(Guarded { body, _guard: self }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who asks, then as whom, then whether there is room, then whether he may. To come: audit after "authentication",
    /// fairness in the place of "limits".
    #[test]
    fn the_order_is_fixed() {
        let names: Vec<&str> = LAYERS.iter().map(|layer| layer.name).collect();
        assert_eq!(
            names,
            ["deadline", "authentication", "impersonation", "limits", "authorization"]
        );
    }
}
