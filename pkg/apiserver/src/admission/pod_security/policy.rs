//! What a namespace's labels ask of its pods: a level and a version for each of enforce, audit and warn.

use mk8s_api::status::FieldError;
use mk8s_api::validation::Errors;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a minor version of Kubernetes; none is `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub minor: Option<u32>,
}

impl std::fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What a namespace's labels ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    /// The policy, and what is wrong with the labels; what is wrong is taken strictly for enforce and not at all else.
    pub fn of_labels(labels: &Value) -> (Policy, Errors) {
        const OPEN: LevelVersion = LevelVersion {
            level: Level::Privileged,
            minor: None,
        };
        let mut policy = Policy {
            enforce: OPEN,
            audit: OPEN,
            warn: OPEN,
        };
        let mut errors = Errors::new();
        let label = |name: &str| labels.get(format!("{PREFIX}{name}")).and_then(Value::as_str);
        let path = |name: &str| format!("metadata.labels[{PREFIX}{name}]");
        let mut level = |name: &str, otherwise: Level| {
            let text = label(name)?;
            Some(match text {
                "privileged" => (Level::Privileged, true),
                "baseline" => (Level::Baseline, true),
                "restricted" => (Level::Restricted, true),
                _ => {
                    let words = "must be one of privileged, baseline, restricted";
                    errors.push(FieldError::invalid(path(name), text, words));
                    (otherwise, false)
                }
            })
        };
        let enforce = level("enforce", Level::Restricted);
        let audit = level("audit", Level::Privileged);
        let warn = level("warn", Level::Privileged);
        let mut version = |name: &str| {
            let text = label(name)?;
            Some(match minor(text) {
                Some(minor) => minor,
                None => {
                    errors.push(FieldError::invalid(path(name), text, "must be \"latest\" or \"v1.x\""));
                    None
                }
            })
        };
        policy.enforce.minor = version("enforce-version").flatten();
        policy.audit.minor = version("audit-version").flatten();
        let warn_version = version("warn-version");
        policy.warn.minor = warn_version.flatten();
        policy.enforce.level = enforce.map_or(Level::Privileged, |(level, _)| level);
        policy.audit.level = audit.map_or(Level::Privileged, |(level, _)| level);
        policy.warn.level = warn.map_or(Level::Privileged, |(level, _)| level);
        // Who enforces and says nothing of warnings is warned of the same, for workloads whose pods come later.
        if let (None, Some((level, true))) = (warn, enforce)
            && level > policy.warn.level
        {
            policy.warn.level = level;
            if warn_version.is_none() {
                policy.warn.minor = policy.enforce.minor;
            }
        }
        (policy, errors)
    }

    pub fn is_open(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|one| one.level == Level::Privileged)
    }
}

/// `latest` is Some(None), `v1.x` Some(Some(x)), anything else None.
fn minor(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let digits = text.strip_prefix("v1.")?;
    let canonical = digits == "0" || !digits.starts_with('0');
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && all).then(|| digits.parse().ok()).flatten().map(Some)
}
