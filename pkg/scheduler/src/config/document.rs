//! The document as it is written: kubescheduler.config.k8s.io/v1, field by field. What is absent or null has its default.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::decode::Span;

/// KubeSchedulerConfiguration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Document {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub parallelism: Option<i32>,
    pub leader_election: Option<LeaderElection>,
    pub client_connection: Option<ClientConnection>,
    pub enable_profiling: Option<bool>,
    pub enable_contention_profiling: Option<bool>,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub pod_initial_backoff_seconds: Option<i64>,
    pub pod_max_backoff_seconds: Option<i64>,
    pub profiles: Option<Vec<Profile>>,
    pub extenders: Option<Vec<Extender>>,
    pub delay_cache_until_active: Option<bool>,
}

/// Nothing here goes by it; its form is known all the same, as that of [`ClientConnection`] is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaderElection {
    pub leader_elect: Option<bool>,
    pub lease_duration: Option<Span>,
    pub renew_deadline: Option<Span>,
    pub retry_period: Option<Span>,
    pub resource_lock: Option<String>,
    pub resource_name: Option<String>,
    pub resource_namespace: Option<String>,
}

/// See [`LeaderElection`].
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    pub kubeconfig: Option<String>,
    pub accept_content_types: Option<String>,
    pub content_type: Option<String>,
    pub qps: Option<f32>,
    pub burst: Option<i32>,
}

/// KubeSchedulerProfile.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<i32>,
    /// By the extension point's name, or `multiPoint`.
    pub plugins: Option<BTreeMap<String, Option<PluginSet>>>,
    pub plugin_config: Option<Vec<PluginConfig>>,
}

/// Plugins of one extension point, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PluginSet {
    #[serde(deserialize_with = "or_empty")]
    pub enabled: Vec<Plugin>,
    #[serde(deserialize_with = "or_empty")]
    pub disabled: Vec<Plugin>,
}

/// A plugin by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Plugin {
    pub name: String,
    /// Of its score; none or 0: 1.
    pub weight: Option<i32>,
}

/// A plugin's arguments, which its name gives a form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PluginConfig {
    pub name: String,
    pub args: Option<Value>,
}

/// An HTTP service that is asked beside the plugins.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Extender {
    pub url_prefix: String,
    #[serde(deserialize_with = "or_empty")]
    pub filter_verb: String,
    #[serde(deserialize_with = "or_empty")]
    pub preempt_verb: String,
    #[serde(deserialize_with = "or_empty")]
    pub prioritize_verb: String,
    #[serde(deserialize_with = "or_empty")]
    pub weight: i64,
    #[serde(deserialize_with = "or_empty")]
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS", deserialize_with = "or_empty")]
    pub enable_https: bool,
    pub tls_config: Option<ExtenderTls>,
    pub http_timeout: Option<super::decode::Span>,
    #[serde(deserialize_with = "or_empty")]
    pub node_cache_capable: bool,
    #[serde(deserialize_with = "or_empty")]
    pub managed_resources: Vec<ManagedResource>,
    #[serde(deserialize_with = "or_empty")]
    pub ignorable: bool,
}

/// An extended resource: the extender is asked only about pods that ask for one of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedResource {
    pub name: String,
    #[serde(deserialize_with = "or_empty")]
    pub ignored_by_scheduler: bool,
}

/// How an extender is reached over TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtenderTls {
    #[serde(deserialize_with = "or_empty")]
    pub insecure: bool,
    #[serde(deserialize_with = "or_empty")]
    pub server_name: String,
    #[serde(deserialize_with = "or_empty")]
    pub cert_file: String,
    #[serde(deserialize_with = "or_empty")]
    pub key_file: String,
    #[serde(rename = "caFile", deserialize_with = "or_empty")]
    pub ca_file: String,
    pub cert_data: Option<ByteString>,
    pub key_data: Option<ByteString>,
    #[serde(rename = "caData")]
    pub ca_data: Option<ByteString>,
}

/// null is Go's zero.
pub(super) fn or_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
