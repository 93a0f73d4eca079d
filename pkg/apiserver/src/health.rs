//! `/livez`, `/readyz` and `/healthz`: a table of checks, each a question to what it is about. Paths, `verbose` and
//! `exclude` are upstream's; the cause of a failure is told, since whoever runs the host is the one to mend it.

use axum::body::Body;
use http::{Response, StatusCode};

use crate::request::Query;
use crate::respond;
use crate::state::State;

struct Check {
    name: &'static str,
    /// The paths under which it counts.
    roots: &'static [&'static str],
    run: fn(&State) -> Result<(), String>,
}

const ALL: &[&str] = &["healthz", "livez", "readyz"];

const CHECKS: &[Check] = &[
    // That there is an answer is the answer.
    Check {
        name: "ping",
        roots: ALL,
        run: |_| Ok(()),
    },
    Check {
        name: "store",
        roots: ALL,
        run: |state| state.store().health().map_err(|cause| cause.to_string()),
    },
    Check {
        name: "watch-cache",
        roots: ALL,
        run: |state| {
            // In this order: what is durable was handed to the cache before the store shows it.
            let stored = state.store().current_revision();
            let shown = state.cache().revision();
            if shown >= stored {
                return Ok(());
            }
            Err(format!("it shows revision {shown} of {stored}"))
        },
    },
    Check {
        name: "shutdown",
        roots: &["readyz"],
        run: |state| {
            if state.shutdown_token().is_cancelled() {
                return Err("the server stops".into());
            }
            Ok(())
        },
    },
];

fn checks(root: &str) -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(move |check| check.roots.contains(&root))
}

/// The answer to a path of health; none where it is another.
pub fn answer(state: &State, path: &str, query: &Query) -> Option<Response<Body>> {
    let mut parts = path.strip_prefix('/')?.splitn(2, '/');
    let root = parts.next().filter(|root| ALL.contains(root))?;
    match parts.next() {
        None => Some(all(state, root, query)),
        Some(name) => {
            let check = checks(root).find(|check| check.name == name)?;
            Some(match (check.run)(state) {
                Ok(()) => text(StatusCode::OK, "ok".into()),
                Err(cause) => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {cause}\n"),
                ),
            })
        }
    }
}

/// Every path that there is.
pub fn paths() -> impl Iterator<Item = String> {
    ALL.iter().flat_map(|root| {
        let single = checks(root).map(move |check| format!("/{root}/{}", check.name));
        std::iter::once(format!("/{root}")).chain(single)
    })
}

fn all(state: &State, root: &str, query: &Query) -> Response<Body> {
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), false);
    for check in checks(root) {
        let name = check.name;
        if excluded.contains(&name) {
            excluded.retain(|excluded| *excluded != name);
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match (check.run)(state) {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(cause) => {
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {cause}\n"));
            }
        }
    }
    if !excluded.is_empty() {
        excluded.sort_unstable();
        excluded.dedup();
        let quoted: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = quoted.join(", ");
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {names}\n"
        ));
    }
    if failed {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{lines}{root} check failed\n"),
        );
    }
    if query.get("verbose").is_none() {
        return text(StatusCode::OK, "ok".into());
    }
    text(StatusCode::OK, format!("{lines}{root} check passed\n"))
}

fn text(code: StatusCode, body: String) -> Response<Body> {
    let mut response = respond::bytes(code, "text/plain; charset=utf-8", body);
    let nosniff = http::HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(http::header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
