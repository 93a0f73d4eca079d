//! Text → document, as strict as upstream: what no field has the name of is refused, and named by its path.

use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_ignored::Path;
use serde_json::Value;

use super::ConfigError;
use super::document::Document;
use super::points::{MULTI_POINT, Point};

/// The version of the document, and of the arguments in it.
pub const VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// Reads a document, YAML or JSON.
pub fn document(text: &str) -> Result<Document, ConfigError> {
    let tree: Value = serde_saphyr::from_str(text).map_err(|error| unread(&error))?;
    check(&tree)?;
    let mut unknown = Vec::new();
    let document: Document =
        typed(tree, &mut unknown).map_err(|error| ConfigError::new(format!("couldn't decode as {KIND}: {error}")))?;
    unknown.extend(document.unknown());
    strict(unknown)?;
    Ok(document)
}

/// Reads what has the form of a type, and names the paths that it has no field for. An error names its own.
fn typed<T: DeserializeOwned>(
    tree: Value,
    unknown: &mut Vec<String>,
) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let mut ignored = |path: Path<'_>| unknown.push(told(&path));
    serde_path_to_error::deserialize(serde_ignored::Deserializer::new(tree, &mut ignored))
}

/// What YAML's reader says, without advice for who calls it.
fn unread(error: &serde_saphyr::Error) -> ConfigError {
    let why = match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey {
            key: Some(key),
            location,
        } => {
            let (line, column) = (location.line(), location.column());
            format!("key {key:?} already set in map at line {line}, column {column}")
        }
        error => error.to_string(),
    };
    ConfigError::new(format!("couldn't decode as {KIND}: {why}"))
}

/// Whether it is a document of this kind.
fn check(tree: &Value) -> Result<(), ConfigError> {
    let said = |field: &str| tree[field].as_str().unwrap_or_default();
    match (said("apiVersion"), said("kind")) {
        (VERSION, KIND) => Ok(()),
        ("", _) => Err(ConfigError::new("Object 'apiVersion' is missing".into())),
        (_, "") => Err(ConfigError::new("Object 'Kind' is missing".into())),
        (version, kind) => Err(ConfigError::new(format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme: mk8s reads {KIND} of {VERSION}"
        ))),
    }
}

impl Document {
    /// Keys that are no fields where the form leaves them open.
    fn unknown(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        for (index, profile) in self.profiles.iter().flatten().enumerate() {
            let points = profile.plugins.iter().flat_map(|plugins| plugins.keys());
            let known = |key: &str| key == MULTI_POINT || Point::ALL.iter().any(|point| point.field() == key);
            let strange = points.filter(|key| !known(key));
            unknown.extend(strange.map(|key| format!("profiles[{index}].plugins.{key}")));
        }
        unknown
    }
}

fn strict(mut unknown: Vec<String>) -> Result<(), ConfigError> {
    if unknown.is_empty() {
        return Ok(());
    }
    unknown
        .iter_mut()
        .for_each(|path| *path = format!("unknown field {path:?}"));
    Err(ConfigError::new(format!(
        "strict decoding error: {}",
        unknown.join(", ")
    )))
}

/// A path as upstream writes it.
fn told(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", told(parent)),
        Path::Map { parent, key } => match told(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => told(parent),
    }
}

/// Reads the arguments of a plugin.
pub fn args<A: Default + DeserializeOwned>(plugin: &str, args: Option<&Value>) -> Result<A, ConfigError> {
    let Some(Value::Object(fields)) = args.filter(|args| !args.is_null()) else {
        return match args {
            None | Some(Value::Null) => Ok(A::default()),
            Some(_) => Err(ConfigError::new("args is no object".into())),
        };
    };
    let mut fields = fields.clone();
    let mut header = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (version, kind) = (header("apiVersion"), header("kind"));
    let wanted = format!("{plugin}Args");
    if let Some(version) = version.filter(|version| version != VERSION) {
        let kind = kind.as_deref().unwrap_or(&wanted);
        return Err(ConfigError::new(format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme"
        )));
    }
    if let Some(kind) = kind.filter(|kind| *kind != wanted) {
        let group = "kubescheduler.config.k8s.io";
        return Err(ConfigError::new(format!(
            "args for plugin {plugin} were not of type {wanted}.{group}, got {kind}.{group}"
        )));
    }
    let mut unknown = Vec::new();
    let args = typed(Value::Object(fields), &mut unknown).map_err(|error| ConfigError::new(error.to_string()))?;
    strict(unknown)?;
    Ok(args)
}

/// Go's duration, which may be negative: whoever takes it says whether it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub length: Duration,
    pub negative: bool,
}

impl Span {
    /// As it was written, or about so.
    pub fn text(self) -> String {
        format!("{}{:?}", if self.negative { "-" } else { "" }, self.length)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (negative, length) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.as_str()),
        };
        let length = mk8s_api::time::parse_go_duration(length);
        let length = length.ok_or_else(|| D::Error::custom(format!("time: invalid duration {text:?}")))?;
        Ok(Span {
            length,
            negative: negative && !length.is_zero(),
        })
    }
}
