//! May this user do this? system:masters may all; nodes are asked of the node authorizer first, then everyone of RBAC.

pub mod escalation;
pub mod node;
pub mod rbac;
pub mod rules;

use std::sync::Arc;

use mk8s_api::selectors::FieldSelector;
use mk8s_api::status::Status;

use crate::identity::User;
use crate::lookup::Lookup;
use crate::request::RequestInfo;

pub use rules::{Rule, RuleSet};

/// What is asked (authorizer.Attributes of upstream), borrowed from the request or from a review's spec.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub is_resource: bool,
    pub namespace: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    /// Of a non-resource request.
    pub path: &'a str,
    pub field_selector: &'a FieldSelector,
}

impl<'a> Attributes<'a> {
    pub fn of_request(user: &'a User, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: info.verb,
            is_resource: info.is_resource,
            namespace: &info.namespace,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            path: &info.path,
            field_selector: info.field_selector(),
        }
    }

    /// A question about a resource that no request carries: impersonation, `bind`, `approve`, …
    pub fn of_resource(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Attributes {
            user,
            verb,
            is_resource: true,
            namespace: "",
            group,
            resource,
            subresource: "",
            name: "",
            path: "",
            field_selector: FieldSelector::EVERYTHING,
        }
    }
}

/// The answer, with what a review shows as its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    NoOpinion(String),
}

impl Decision {
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(reason) | Decision::NoOpinion(reason) => reason,
        }
    }
}

/// The chain of authorizers.
pub struct Authorizer {
    lookup: Arc<dyn Lookup>,
    rbac: rbac::Rbac,
}

impl Authorizer {
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Authorizer {
            rbac: rbac::Rbac::new(lookup.clone()),
            lookup,
        }
    }

    /// The filter: passes, or the 403 that the client gets.
    pub fn authorize(&self, user: &User, info: &RequestInfo) -> Result<(), Status> {
        let attributes = Attributes::of_request(user, info);
        self.check(&attributes)
    }

    /// Passes, or upstream's 403.
    pub fn check(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if attributes.user.in_group(MASTERS) {
            return Ok(());
        }
        let node_reason = match node::decide(&*self.lookup, attributes) {
            Decision::Allow(_) => return Ok(()),
            Decision::NoOpinion(reason) => reason,
        };
        if self.rbac.allows(attributes) {
            return Ok(());
        }
        let reason = join(node_reason, self.rbac.problems(attributes.user));
        Err(forbidden(attributes, &reason))
    }

    /// The same with reasons, for reviews.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::Allow(String::new());
        }
        let node_reason = match node::decide(&*self.lookup, attributes) {
            Decision::NoOpinion(reason) => reason,
            allow => return allow,
        };
        match self.rbac.decide(attributes) {
            Decision::NoOpinion(reason) => Decision::NoOpinion(join(node_reason, reason)),
            allow => allow,
        }
    }

    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        self.check(attributes).is_ok()
    }

    pub fn rbac(&self) -> &rbac::Rbac {
        &self.rbac
    }
}

/// The group that no authorizer is asked about.
pub const MASTERS: &str = "system:masters";

fn join(one: String, other: String) -> String {
    match (one.is_empty(), other.is_empty()) {
        (_, true) => one,
        (true, _) => other,
        _ => format!("{one}\n{other}"),
    }
}

/// Upstream's 403 (responsewriters.Forbidden), its HTML escapes included.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let user = &attributes.user.name;
    let verb = attributes.verb;
    let mut text = if !attributes.is_resource {
        format!("User {user:?} cannot {verb} path {:?}", attributes.path)
    } else {
        let resource = match attributes.subresource {
            "" => attributes.resource.to_string(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let scope = match attributes.namespace {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!(
            "User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
            attributes.group
        )
    };
    if text.contains(['&', '<', '>']) {
        text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    }
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    let resource = if attributes.is_resource {
        attributes.resource
    } else {
        ""
    };
    let name = if attributes.is_resource { attributes.name } else { "" };
    Status::forbidden(attributes.group, resource, name, &text)
}
