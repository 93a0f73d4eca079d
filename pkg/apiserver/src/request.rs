//! URL → verb and resource, parsed once per request and read by every filter and handler.

use http::Method;
use mk8s_api::selectors::{FieldSelector, SelectorError};
use percent_encoding::percent_decode_str;

/// What upstream's RequestInfo holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource (else only `path` and `verb` mean something).
    pub is_resource: bool,
    /// Decoded.
    pub path: String,
    /// `get list watch create update patch delete deletecollection`; for non-resource paths the lower-cased method.
    pub verb: &'static str,
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Plural; empty on discovery paths.
    pub resource: String,
    pub subresource: String,
    /// What follows `/proxy/`.
    pub subpath: String,
    pub namespace: String,
    /// In a collection's request without a name in its path the one that its field selector demands: it is authorized as
    /// a request for that name.
    pub name: String,
    /// Whether the path itself holds the name.
    pub is_named: bool,
    /// A collection's request for some of its objects, by the query.
    pub fields: Option<Result<FieldSelector, SelectorError>>,
}

impl RequestInfo {
    /// Reads method, path and query as upstream's RequestInfoFactory does.
    pub fn parse(method: &Method, path: &str, query: &Query) -> RequestInfo {
        let path = decode(path);
        let mut info = RequestInfo {
            verb: method_verb(method),
            ..RequestInfo::default()
        };
        let trimmed = path.trim_matches('/');
        let mut parts: Vec<&str> = trimmed.split('/').collect();
        let before = match parts[0] {
            "api" => 2,
            "apis" => 3,
            _ => usize::MAX,
        };
        if parts.len() <= before {
            info.path = path;
            return info;
        }
        if before == 3 {
            info.group = parts[1].to_string();
        }
        info.version = parts[before - 1].to_string();
        parts.drain(..before);
        info.is_resource = true;
        info.verb = resource_verb(method);
        // The old /watch/ prefix: still in client libraries. As upstream it makes the verb, whatever the method.
        let prefixed_watch = parts[0] == "watch" && parts.len() > 1;
        if parts.len() > 1
            && let Some(verb) = ["watch", "proxy"].into_iter().find(|verb| *verb == parts[0])
        {
            parts.remove(0);
            info.verb = verb;
        }
        if parts[0] == "namespaces" {
            if let Some(namespace) = parts.get(1) {
                info.namespace = (*namespace).to_string();
            }
            if parts.len() > 2 && !matches!(parts[2], "finalize" | "status") {
                parts.drain(..2);
            }
        }
        info.resource = parts[0].to_string();
        if let Some(name) = parts.get(1) {
            info.name = (*name).to_string();
        }
        // An old proxy's paths are the proxied's own from there on.
        if let Some(subresource) = parts.get(2).filter(|_| info.verb != "proxy") {
            info.subresource = (*subresource).to_string();
        }
        if parts.len() > 3 {
            info.subpath = parts[3..].join("/");
        }
        info.is_named = !info.name.is_empty();
        info.refine_verb(query);
        info.select(prefixed_watch, query);
        info.path = path;
        info
    }

    fn refine_verb(&mut self, query: &Query) {
        match self.verb {
            "get" if !self.is_named => self.verb = if query.flag("watch") { "watch" } else { "list" },
            "delete" if !self.is_named => self.verb = "deletecollection",
            _ => {}
        }
    }

    /// Reads the field selector, once for authorization and the handler.
    fn select(&mut self, prefixed_watch: bool, query: &Query) {
        if !matches!(self.verb, "list" | "watch" | "deletecollection") {
            return;
        }
        let text = query.text("fieldSelector");
        self.fields = text.map(FieldSelector::parse);
        if !prefixed_watch
            && self.verb != "deletecollection"
            && let Some(name) = self.field_selector().required("metadata.name")
            && is_path_segment(name)
        {
            self.name = name.to_string();
        }
    }

    /// The field selector of a collection's request; everything where there is none that can be read, which its handler
    /// refuses.
    pub fn field_selector(&self) -> &FieldSelector {
        match &self.fields {
            Some(Ok(fields)) => fields,
            _ => FieldSelector::EVERYTHING,
        }
    }

    /// The name in the path.
    pub fn path_name(&self) -> &str {
        if self.is_named { &self.name } else { "" }
    }
}

/// Whether a text can be an object's name in a path, as upstream asks.
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

fn resource_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        // Another's name in small letters, which is what is asked of a path that names no resource.
        _ => VERBS
            .into_iter()
            .find(|verb| method.as_str().eq_ignore_ascii_case(verb))
            .unwrap_or_default(),
    }
}

const VERBS: [&str; 9] = [
    "get", "head", "post", "put", "patch", "delete", "options", "trace", "connect",
];

/// Whether each `%` of a path begins two digits.
pub fn is_escaped_well(path: &str) -> bool {
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        rest = &rest[at + 1..];
        if rest.len() < 2 || !rest[..2].iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
    }
    true
}

fn decode(segment: &str) -> String {
    if segment.contains('%') {
        percent_decode_str(segment).decode_utf8_lossy().into_owned()
    } else {
        segment.to_string()
    }
}

/// The query's pairs, decoded, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Query {
        let Some(query) = query else {
            return Query::default();
        };
        // What is no pair is none of it.
        let is_pair = |pair: &&str| !pair.is_empty() && !pair.contains(';') && is_escaped_well(pair);
        let pairs = query.split('&').filter(is_pair).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decode(key), form_decode(value))
        });
        Query(pairs.collect())
    }

    /// The first value under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == key);
        found.map(|(_, value)| value.as_str())
    }

    /// The value, absent when empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(own, _)| own == key)
            .map(|(_, value)| value.as_str())
    }

    /// Upstream's reading of booleans: anything but absent, `0` and `false` is true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

fn form_decode(text: &str) -> String {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced).decode_utf8_lossy().into_owned();
    }
    decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> RequestInfo {
        let (path, query) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (uri, None),
        };
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn resource_paths() {
        // (method, uri, verb, group, version, resource, subresource, namespace, name)
        let rows = [
            ("GET", "/api/v1/pods", "list", "", "v1", "pods", "", "", ""),
            ("GET", "/api/v1/pods?watch=1", "watch", "", "v1", "pods", "", "", ""),
            ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "pods", "", "", ""),
            ("GET", "/api/v1/watch/pods", "watch", "", "v1", "pods", "", "", ""),
            ("POST", "/api/v1/watch/pods", "watch", "", "v1", "pods", "", "", ""),
            (
                "GET",
                "/api/v1/watch/namespaces/a",
                "watch",
                "",
                "v1",
                "namespaces",
                "",
                "a",
                "a",
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a/secrets/s?fieldSelector=metadata.name%3Dx",
                "watch",
                "",
                "v1",
                "secrets",
                "",
                "a",
                "s",
            ),
            (
                "DELETE",
                "/api/v1/pods?fieldSelector=metadata.name%3Dx",
                "deletecollection",
                "",
                "v1",
                "pods",
                "",
                "",
                "",
            ),
            ("GET", "/api/v1/namespaces", "list", "", "v1", "namespaces", "", "", ""),
            (
                "GET",
                "/api/v1/namespaces/a",
                "get",
                "",
                "v1",
                "namespaces",
                "",
                "a",
                "a",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update",
                "",
                "v1",
                "namespaces",
                "finalize",
                "a",
                "a",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods",
                "list",
                "",
                "v1",
                "pods",
                "",
                "a",
                "",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                "deletecollection",
                "",
                "v1",
                "pods",
                "",
                "a",
                "",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/exec",
                "create",
                "",
                "v1",
                "pods",
                "exec",
                "a",
                "p",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch",
                "apps",
                "v1",
                "deployments",
                "scale",
                "a",
                "d",
            ),
            (
                "GET",
                "/api/v1/pods?fieldSelector=metadata.name%3Dx",
                "list",
                "",
                "v1",
                "pods",
                "",
                "",
                "x",
            ),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get",
                "rbac.authorization.k8s.io",
                "v1",
                "clusterroles",
                "",
                "",
                "system:node",
            ),
        ];
        for (method, uri, verb, group, version, resource, subresource, namespace, name) in rows {
            let method = Method::from_bytes(method.as_bytes()).expect("a method of the table");
            let info = parse(method, uri);
            assert!(info.is_resource, "{uri}");
            let got = (
                info.verb,
                info.group.as_str(),
                info.version.as_str(),
                info.resource.as_str(),
                info.subresource.as_str(),
                info.namespace.as_str(),
                info.name.as_str(),
            );
            assert_eq!(
                got,
                (verb, group, version, resource, subresource, namespace, name),
                "{uri}"
            );
        }
    }

    #[test]
    fn other_paths() {
        for uri in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz",
            "/openapi/v3",
        ] {
            let info = parse(Method::GET, uri);
            assert!(!info.is_resource, "{uri}");
            assert_eq!(info.verb, "get");
            assert_eq!(info.group, "");
        }
    }

    #[test]
    fn query_values() {
        let query = Query::parse(Some("labelSelector=a+in+%28b%2Cc%29&watch&x=0"));
        assert_eq!(query.get("labelSelector"), Some("a in (b,c)"));
        assert!(query.flag("watch"));
        assert!(!query.flag("x"));
        assert!(!query.flag("y"));
    }
}
