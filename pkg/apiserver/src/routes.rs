//! Which of the registry's rows a path is of, and what it may be asked there: known before anything else of a request is
//! looked at, so that a path that is not there is 404 whatever comes with it, and one that is there 405 for other methods.

use std::sync::Arc;

use http::{HeaderMap, Method};
use mk8s_api::registry::{Handler, Subresource, Verbs};
use mk8s_api::status::Status;

use crate::negotiate::{self, Shapes};
use crate::request::RequestInfo;
use crate::rows::{Row, Rows};

/// A served path.
#[derive(Clone)]
pub struct Route {
    pub row: Arc<Row>,
    pub place: Place,
}

/// What of a resource a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The objects of all namespaces.
    Everywhere,
    /// Those of one namespace, or of a resource that has none.
    Collection,
    Item,
    /// A subresource of an item.
    Part(String),
    /// Both with the old prefix that makes every request a watch.
    WatchedCollection,
    WatchedItem,
}

const EVERYWHERE: [(Method, Verbs); 1] = [(Method::GET, Verbs::LIST)];
const COLLECTION: [(Method, Verbs); 3] = [
    (Method::GET, Verbs::LIST),
    (Method::POST, Verbs::CREATE),
    (Method::DELETE, Verbs::DELETECOLLECTION),
];
const ITEM: [(Method, Verbs); 4] = [
    (Method::GET, Verbs::GET),
    (Method::PUT, Verbs::UPDATE),
    (Method::PATCH, Verbs::PATCH),
    (Method::DELETE, Verbs::DELETE),
];
const WATCHED_COLLECTION: [(Method, Verbs); 1] = [(Method::GET, Verbs::LIST.union(Verbs::WATCH))];
const WATCHED_ITEM: [(Method, Verbs); 1] = [(Method::GET, Verbs::WATCH)];
const PART: [(Method, Verbs); 5] = [
    (Method::GET, Verbs::GET),
    (Method::POST, Verbs::CREATE),
    (Method::PUT, Verbs::UPDATE),
    (Method::PATCH, Verbs::PATCH),
    (Method::DELETE, Verbs::DELETE),
];
const PROXIED: [(Method, Verbs); 7] = [
    (Method::GET, Verbs::GET),
    (Method::HEAD, Verbs::GET),
    (Method::OPTIONS, Verbs::GET),
    (Method::POST, Verbs::CREATE),
    (Method::PUT, Verbs::UPDATE),
    (Method::PATCH, Verbs::PATCH),
    (Method::DELETE, Verbs::DELETE),
];

/// The route of a request; None where nothing is served at its path.
///
/// # Errors
/// 405 where the path is served for other methods, 404 where a custom object has no such subresource.
pub fn find(rows: &Rows, method: &Method, info: &RequestInfo) -> Result<Option<Route>, Status> {
    let route = match locate(rows, &info.path) {
        Some(route) if route.row.schema.is_some() => route,
        _ => return of_custom(rows, info),
    };
    let mut is_served = false;
    for (own, verbs) in route.methods() {
        is_served |= route.allows(verbs);
        if own == method && route.allows(verbs) {
            return Ok(Some(route));
        }
    }
    if is_served { Err(not_allowed()) } else { Ok(None) }
}

/// The route to a custom kind, which upstream finds by what it understood of a request: paths and methods that mean the same
/// are served alike.
fn of_custom(rows: &Rows, info: &RequestInfo) -> Result<Option<Route>, Status> {
    let row = rows.get(&info.group, &info.version, &info.resource);
    let Some(row) = row.filter(|row| info.path.starts_with("/apis/") && info.is_resource && row.schema.is_none())
    else {
        return Ok(None);
    };
    let is_listed = matches!(info.verb, "list" | "watch");
    let fits = match row.resource.is_namespaced() {
        true => !info.namespace.is_empty() || is_listed,
        false => info.namespace.is_empty(),
    };
    if !fits {
        return Ok(None);
    }
    let (place, served) = match &*info.subresource {
        "" if matches!(info.verb, "get" | "update" | "patch" | "delete") => (Place::Item, true),
        "" => (
            Place::Collection,
            is_listed || matches!(info.verb, "create" | "deletecollection"),
        ),
        part if row.subresource(part).is_some() => (
            Place::Part(part.to_string()),
            matches!(info.verb, "get" | "update" | "patch"),
        ),
        _ => return Err(Status::not_found(row.group(), row.plural(), info.path_name())),
    };
    if !served {
        let mut status = Status::method_not_allowed(format!(
            "{} is not supported on resources of kind {:?}",
            info.verb,
            row.resource.qualified()
        ));
        status.details = Some(serde_json::json!({"group": row.group(), "kind": row.plural()}));
        return Err(status);
    }
    let row = row.clone();
    Ok(Some(Route { row, place }))
}

/// What a path that is served says to another method.
pub fn not_allowed() -> Status {
    let mut status = Status::method_not_allowed("the server does not allow this method on the requested resource");
    status.details = Some(serde_json::json!({}));
    status
}

/// The row and the place that a path names. Slashes after it are none of it; others stand for empty names.
fn locate(rows: &Rows, path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["", "api", version, rest @ ..] => ("", *version, rest),
        ["", "apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (is_watched, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        _ => (false, rest),
    };
    let namespaced = |plural: &str| {
        let row = rows.get(group, version, plural);
        row.filter(|row| row.resource.is_namespaced())
    };
    let (row, of, is_within) = match rest {
        ["namespaces", _, plural, of @ ..] if namespaced(plural).is_some() => (namespaced(plural), of, true),
        [plural, of @ ..] => (rows.get(group, version, plural), of, false),
        [] => return None,
    };
    let row = row?;
    let place = match (row.resource.is_namespaced() && !is_within, of) {
        (true, []) => Some(Place::Everywhere),
        (true, _) => None,
        (false, of) => Place::within(row, of),
    };
    let place = match (is_watched, place) {
        (false, place) => place,
        (true, Some(Place::Everywhere | Place::Collection)) => Some(Place::WatchedCollection),
        (true, Some(Place::Item)) => Some(Place::WatchedItem),
        (true, _) => None,
    };
    let row = row.clone();
    place.map(|place| Route { row, place })
}

impl Place {
    /// By what follows the resource in a path.
    fn within(row: &Row, of: &[&str]) -> Option<Place> {
        match of {
            [] => Some(Place::Collection),
            [_] => Some(Place::Item),
            [_, name, rest @ ..] => {
                let part = row.subresource(name)?;
                (rest.is_empty() || part.handler == Handler::Proxy).then(|| Place::Part((*name).to_string()))
            }
        }
    }
}

impl Route {
    fn methods(&self) -> impl Iterator<Item = (&'static Method, Verbs)> + use<> {
        let of_place: &'static [(Method, Verbs)] = match &self.place {
            Place::Everywhere => &EVERYWHERE,
            Place::Collection => &COLLECTION,
            Place::Item => &ITEM,
            Place::WatchedCollection => &WATCHED_COLLECTION,
            Place::WatchedItem => &WATCHED_ITEM,
            Place::Part(_) if self.handler() == Some(Handler::Proxy) => &PROXIED,
            Place::Part(_) => &PART,
        };
        of_place.iter().map(|(method, verbs)| (method, *verbs))
    }

    /// Whether the content types of a request are some of those that its route has.
    ///
    /// # Errors
    /// 415 and 406, in this order.
    pub fn negotiate(&self, method: &Method, headers: &HeaderMap) -> Result<(), Status> {
        let is_log = self.handler() == Some(Handler::Log);
        if self.relays() && !is_log {
            return Ok(());
        }
        let is_built_in = self.row.schema.is_some();
        // A custom collection is patched by none: what is asked for there is a watch, as the path says.
        if method == Method::PATCH && self.place != Place::Collection {
            negotiate::takes_patch(headers, is_built_in)?;
        }
        if !is_built_in {
            return Ok(());
        }
        let kinds = match &self.place {
            _ if is_log => negotiate::LOG,
            Place::Everywhere | Place::WatchedCollection | Place::WatchedItem => negotiate::LISTED,
            Place::Collection if method == Method::GET => negotiate::LISTED,
            _ => negotiate::KINDS,
        };
        negotiate::offers(headers, kinds)
    }

    /// Whether somebody else answers.
    pub fn relays(&self) -> bool {
        self.handler().is_some_and(Handler::relays)
    }

    /// Whether what he answers is a body: what an upgrade opens is counted nowhere.
    pub fn relays_bodies(&self) -> bool {
        self.relays() && !matches!(self.handler(), Some(Handler::Connect))
    }

    /// Upstream prints no table of a part that is not the status, of what is only asked, and of some kinds' status.
    pub fn shapes(&self) -> Shapes {
        let resource = &self.row.resource;
        let is_printed_whole = || matches!(&*resource.kind, "ResourceClaim" | "CustomResourceDefinition");
        match self.handler() {
            Some(Handler::Strategy(_) | Handler::Token) => Shapes::Metadata,
            Some(Handler::Status) if self.row.schema.is_some() && is_printed_whole() => Shapes::Metadata,
            None if !resource.verbs.contains(Verbs::GET) => Shapes::Metadata,
            _ => Shapes::All,
        }
    }

    fn handler(&self) -> Option<Handler> {
        self.subresource().map(|part| part.handler)
    }

    fn subresource(&self) -> Option<&Subresource> {
        match &self.place {
            Place::Part(name) => self.row.subresource(name),
            _ => None,
        }
    }

    fn allows(&self, verbs: Verbs) -> bool {
        let own = match &self.place {
            Place::Part(_) => self.subresource().map_or(Verbs(0), |part| part.verbs),
            _ => self.row.resource.verbs,
        };
        own.contains(verbs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_api::registry;

    use super::*;
    use crate::request::Query;
    use crate::watch_cache::Cache;

    fn rows() -> Rows {
        Rows::new(registry::builtin(), &Cache::new(registry::builtin().iter(), 0), None)
    }

    /// The place, or 404 or 405.
    fn found(rows: &Rows, method: &str, path: &str) -> String {
        let method = method.parse().unwrap();
        let info = RequestInfo::parse(&method, path, &Query::default());
        match find(rows, &method, &info) {
            Ok(Some(route)) => format!("{} {:?}", route.row.plural(), route.place),
            Ok(None) => "404".to_string(),
            Err(status) => status.code.to_string(),
        }
    }

    #[test]
    fn a_path_is_there_for_its_methods_alone() {
        let rows = rows();
        for (method, path, want) in [
            ("GET", "/api/v1/pods", "pods Everywhere"),
            ("GET", "/api/v1/pods/", "pods Everywhere"),
            ("POST", "/api/v1/pods", "405"),
            ("HEAD", "/api/v1/pods", "405"),
            ("GET", "//api/v1/pods", "404"),
            ("GET", "/api//v1/pods", "404"),
            ("GET", "/api/v1/pods/a", "404"),
            ("GET", "/api/v1/namespaces/../pods", "pods Collection"),
            ("GET", "/api/v1/namespaces//pods", "pods Collection"),
            ("DELETE", "/api/v1/namespaces/a/pods/p", "pods Item"),
            ("POST", "/api/v1/namespaces/a/pods/p", "405"),
            ("POST", "/api/v1/namespaces/a/pods/p/binding", "pods Part(\"binding\")"),
            ("GET", "/api/v1/namespaces/a/pods/p/binding", "405"),
            ("GET", "/api/v1/namespaces/a/pods/p/binding/x", "404"),
            ("GET", "/api/v1/namespaces/a/pods/p/nothing", "404"),
            (
                "OPTIONS",
                "/api/v1/namespaces/a/pods/p/proxy/x/y",
                "pods Part(\"proxy\")",
            ),
            ("GET", "/api/v1/namespaces/a", "namespaces Item"),
            ("PUT", "/api/v1/namespaces/a/finalize", "namespaces Part(\"finalize\")"),
            ("GET", "/api/v1/namespaces/a/nodes", "404"),
            ("DELETE", "/api/v1/namespaces", "405"),
            ("GET", "/api/v1/watch/namespaces/a/pods/p", "pods WatchedItem"),
            ("GET", "/api/v1/watch/namespaces/a", "namespaces WatchedItem"),
            ("POST", "/api/v1/watch/pods", "405"),
            ("GET", "/api/v1/watch/namespaces/a/pods/p/status", "404"),
            ("GET", "/api/v1", "404"),
            ("GET", "/apis/authentication.k8s.io/v1/tokenreviews", "405"),
            ("GET", "/apis/authentication.k8s.io/v1/tokenreviews/a", "404"),
            ("GET", "/apis/apps/v2/deployments", "404"),
        ] {
            assert_eq!(found(&rows, method, path), want, "{method} {path}");
        }
    }
}
