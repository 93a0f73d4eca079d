//! The scheduler's configuration: kubescheduler.config.k8s.io/v1, KubeSchedulerConfiguration, as upstream reads, completes and checks it
//! (<https://kubernetes.io/docs/reference/scheduling/config/>).
//!
//! text → [`document`] (strict) → defaults and checks → profiles of plugins. Nothing is accepted and passed over in silence: what mk8s
//! can't do is refused, and what has no meaning here is warned of.

mod args;
mod decode;
mod document;
mod extenders;
mod plugins;
mod points;
mod profiles;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mk8s_api::status::FieldError;

use self::document::Document;
pub use self::document::{Extender as ExtenderConfig, ExtenderTls};
use self::profiles::Common;
use crate::extender::Extender;
use crate::profile::{Profile, Profiles};
use crate::queue::Backoff;

/// Why a document is not taken, in upstream's words where it has any.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    fn new(text: String) -> Self {
        ConfigError(text)
    }
}

/// What the scheduler goes by.
#[derive(Clone)]
pub struct Config {
    pub profiles: Arc<Profiles>,
    pub backoff: Backoff,
    /// In the order in which they are asked.
    pub extenders: Arc<[Arc<Extender>]>,
}

/// What there is to say of a document.
#[derive(Default)]
struct Told {
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Told {
    fn error(&mut self, error: impl ToString) {
        self.errors.push(error.to_string());
    }
}

impl Config {
    /// Reads a document, YAML or JSON; and what of it has no effect here, and why.
    ///
    /// # Errors
    /// It is none, or asks for what can't be.
    pub fn read(text: &str) -> Result<(Config, Vec<String>), ConfigError> {
        let document = decode::document(text)?;
        let mut told = Told::default();
        let config = Config::of(document, &mut told);
        match told.errors.as_mut_slice() {
            [] => Ok((config, told.warnings)),
            [one] => Err(ConfigError::new(std::mem::take(one))),
            many => Err(ConfigError::new(format!("[{}]", many.join(", ")))),
        }
    }

    fn of(document: Document, told: &mut Told) -> Config {
        unused(&document, told);
        check_percentage("", document.percentage_of_nodes_to_score, told);
        let extenders = document.extenders.unwrap_or_default();
        extenders::check(&extenders, told);
        let ignored = extenders::ignored_resources(&extenders);
        let common = Common {
            percentage_of_nodes_to_score: document.percentage_of_nodes_to_score,
            ignored_resources: &ignored,
        };
        let made = extenders::make(&extenders, told);
        let profiles = profiles(document.profiles.unwrap_or_default(), &common, told);
        Config {
            profiles: Arc::new(Profiles::new(profiles)),
            backoff: backoff(
                document.pod_initial_backoff_seconds,
                document.pod_max_backoff_seconds,
                told,
            ),
            extenders: made,
        }
    }
}

impl Default for Config {
    /// That of a document that says nothing.
    fn default() -> Self {
        Config::of(Document::default(), &mut Told::default())
    }
}

/// The profile of a document that says nothing.
pub(crate) fn default_profile() -> Profile {
    let common = Common {
        percentage_of_nodes_to_score: None,
        ignored_resources: &[],
    };
    let own = document::Profile {
        scheduler_name: Some(crate::NAME.to_owned()),
        ..document::Profile::default()
    };
    profiles::profile(&own, "profiles[0]", &common, &mut Told::default())
}

fn profiles(mut all: Vec<document::Profile>, common: &Common<'_>, told: &mut Told) -> Vec<Profile> {
    if all.is_empty() {
        all.push(document::Profile::default());
    }
    if let [only] = all.as_mut_slice() {
        only.scheduler_name.get_or_insert_with(|| crate::NAME.to_owned());
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut made = Vec::new();
    for (index, profile) in all.iter().enumerate() {
        let path = format!("profiles[{index}]");
        let name = profile.scheduler_name.clone().unwrap_or_default();
        if name.is_empty() {
            told.error(FieldError::required(format!("{path}.schedulerName"), ""));
        }
        check_percentage(&format!("{path}."), profile.percentage_of_nodes_to_score, told);
        made.push(profiles::profile(profile, &path, common, told));
        if let Some(other) = seen.insert(name, index) {
            let other = format!("profiles[{other}].schedulerName");
            told.error(FieldError::duplicate(format!("{path}.schedulerName"), other));
        }
    }
    made
}

fn check_percentage(path: &str, percentage: Option<i32>, told: &mut Told) {
    if let Some(percentage) = percentage.filter(|percentage| !(0..=100).contains(percentage)) {
        let path = format!("{path}percentageOfNodesToScore");
        told.error(FieldError::invalid(path, percentage, "not in valid range [0-100]"));
    }
}

fn backoff(first: Option<i64>, longest: Option<i64>, told: &mut Told) -> Backoff {
    let (first, longest) = (first.unwrap_or(1), longest.unwrap_or(10));
    if first <= 0 {
        let why = "must be greater than 0";
        told.error(FieldError::invalid("podInitialBackoffSeconds", first, why));
    }
    if longest < first {
        let why = "must be greater than or equal to PodInitialBackoffSeconds";
        told.error(FieldError::invalid("podMaxBackoffSeconds", longest, why));
    }
    let seconds = |number| Duration::from_secs(u64::try_from(number).unwrap_or(0));
    Backoff {
        first: seconds(first),
        longest: seconds(longest),
    }
}

/// Warns of what has no meaning here.
fn unused(document: &Document, told: &mut Told) {
    if let Some(parallelism) = document.parallelism.filter(|own| *own <= 0) {
        let why = "should be an integer value greater than zero";
        told.error(FieldError::invalid("parallelism", parallelism, why));
    }
    for (field, given, why) in [
        (
            "parallelism",
            document.parallelism.is_some(),
            "one task makes all decisions",
        ),
        (
            "leaderElection",
            document.leader_election.is_some(),
            "the scheduler runs with its control plane, which is elected as a whole",
        ),
        (
            "clientConnection",
            document.client_connection.is_some(),
            "the API server is in the same process, and no limit lies between",
        ),
        (
            "enableProfiling",
            document.enable_profiling.is_some(),
            "there is no profiler of Go's",
        ),
        (
            "enableContentionProfiling",
            document.enable_contention_profiling.is_some(),
            "there is no profiler of Go's",
        ),
        (
            "delayCacheUntilActive",
            document.delay_cache_until_active.is_some(),
            "nothing is read before the control plane leads",
        ),
    ] {
        if given {
            told.warnings.push(format!("{field}: not used: {why}"));
        }
    }
}

#[cfg(test)]
mod tests;
