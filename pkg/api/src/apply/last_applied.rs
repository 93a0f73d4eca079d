//! The annotation of client-side apply. Who goes from there to server-side apply takes his own fields along; and who goes
//! back finds the annotation up to date (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>).

use serde_json::Value;

use super::configuration::{Applied, ApplyError, Configuration, of_last_applied};
use super::set::Set;
use super::update::Versions;
use crate::codec::json;
use crate::meta;

/// Where kubectl keeps what it applied.
pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager that the annotation belongs to.
const KUBECTL: &str = "kubectl";

/// All annotations of an object together are no longer.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Applies a configuration as the server does for every client; for kubectl it minds the annotation.
///
/// # Errors
/// As [`Configuration::apply`].
pub fn apply(configuration: &Configuration<'_>, versions: &dyn Versions) -> Result<Applied, ApplyError> {
    let applied = configuration.apply(versions);
    if &*configuration.writer.owner.manager != KUBECTL {
        return applied;
    }
    let mut applied = match applied {
        Err(ApplyError::Conflicts(conflicts)) => {
            let own = own_fields(configuration, versions).unwrap_or_default();
            if let Some(others) = conflicts.outside(&own) {
                return Err(ApplyError::Conflicts(others));
            }
            let forced = Configuration {
                force: true,
                ..*configuration
            };
            forced.apply(versions)?
        }
        applied => applied?,
    };
    let object = applied.object.as_ref().unwrap_or(configuration.live);
    if meta::annotation(object, ANNOTATION).is_some_and(|last| !last.is_empty()) {
        let noted = noted(object.clone(), configuration.applied);
        if noted != *configuration.live {
            applied.object = Some(noted);
        }
    }
    Ok(applied)
}

/// What the annotation says and the object still says too; none where the annotation is of another version, or nothing.
fn own_fields(configuration: &Configuration<'_>, versions: &dyn Versions) -> Option<Set> {
    let version = &*configuration.writer.owner.api_version;
    let last = meta::annotation(configuration.live, ANNOTATION)?;
    let last: Value = serde_json::from_str(last).ok()?;
    if meta::api_version(&last) != version {
        return None;
    }
    let node = versions.node(version)?;
    if !super::check::check(node, &last).is_empty() {
        return None;
    }
    of_last_applied(node, &last, configuration.live).ok()
}

/// An object whose annotation says what was applied.
fn noted(mut object: Value, applied: &Value) -> Value {
    let mut last = applied.clone();
    if meta::annotation(&last, ANNOTATION).is_some() {
        meta::remove(&mut last, &["metadata", "annotations", ANNOTATION]);
    }
    let mut text = Vec::new();
    json::print(&last, &mut text);
    text.push(b'\n');
    let text = String::from_utf8_lossy(&text).into_owned();
    let annotations = meta::object_mut(&mut object, &["metadata", "annotations"]);
    annotations.insert(ANNOTATION.into(), text.into());
    let length: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if length > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
    object
}
