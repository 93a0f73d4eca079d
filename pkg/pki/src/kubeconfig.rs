//! kubeconfig files: typed reading and writing of the fields mk8s uses; everything else in a file that we read is kept out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::PkiError;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion", default)]
    pub api_version: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub clusters: Vec<NamedCluster>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub contexts: Vec<NamedContext>,
    #[serde(rename = "current-context", default)]
    pub current_context: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferences: Option<Preferences>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub users: Vec<NamedUser>,
}

/// `preferences: {}` as older kubectls write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preferences {}

/// Go writes an empty list as null.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedCluster {
    pub cluster: Cluster,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// base64 of PEM
    #[serde(
        rename = "certificate-authority-data",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub certificate_authority_data: Option<String>,
    #[serde(rename = "certificate-authority", default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    pub server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedContext {
    pub context: Context,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub cluster: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub user: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedUser {
    pub name: String,
    pub user: AuthInfo,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthInfo {
    #[serde(rename = "client-certificate-data", default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    #[serde(rename = "client-key-data", default, skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<String>,
    #[serde(rename = "client-certificate", default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    #[serde(rename = "client-key", default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Keys and tokens stay out of logs.
impl std::fmt::Debug for AuthInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthInfo(<redacted>)")
    }
}

/// How a user shows who it is.
pub enum Credential<'a> {
    Certificate { certificate_pem: &'a str, key_pem: &'a str },
    Token(&'a str),
}

/// The file with another certificate for its current context's user; all else that it says stays.
pub fn with_certificate(text: &str, certificate_pem: &str, key_pem: &str) -> Result<String, PkiError> {
    let wrong = |cause: String| PkiError::Kubeconfig {
        what: "can't be renewed".into(),
        cause,
    };
    let mut tree: Value = serde_saphyr::from_str(text).map_err(|cause| wrong(cause.to_string()))?;
    let named = |list: &Value, name: &Value| {
        let items = list.as_array()?;
        items.iter().position(|item| item["name"] == *name)
    };
    let context = named(&tree["contexts"], &tree["current-context"])
        .map(|at| tree["contexts"][at]["context"]["user"].clone())
        .ok_or_else(|| wrong("it has no current context".into()))?;
    let user = named(&tree["users"], &context).ok_or_else(|| wrong(format!("it has no user {context}")))?;
    let user = &mut tree["users"][user]["user"];
    user["client-certificate-data"] = STANDARD.encode(certificate_pem).into();
    user["client-key-data"] = STANDARD.encode(key_pem).into();
    print(&tree)
}

/// Certificates in one line each, as kubeadm writes them: scripts cut them out with grep and awk.
fn print(tree: &Value) -> Result<String, PkiError> {
    let one_line = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(tree, one_line).map_err(|cause| PkiError::Kubeconfig {
        what: "can't be written".into(),
        cause: cause.to_string(),
    })
}

impl Kubeconfig {
    /// One cluster, one user, one context `user@cluster`, as kubeadm lays its files out.
    pub fn new(server: &str, ca_pem: &str, cluster: &str, user: &str, credential: Credential<'_>) -> Self {
        let auth = match credential {
            Credential::Certificate {
                certificate_pem,
                key_pem,
            } => AuthInfo {
                client_certificate_data: Some(STANDARD.encode(certificate_pem)),
                client_key_data: Some(STANDARD.encode(key_pem)),
                ..AuthInfo::default()
            },
            Credential::Token(token) => AuthInfo {
                token: Some(token.into()),
                ..AuthInfo::default()
            },
        };
        let context = format!("{user}@{cluster}");
        Kubeconfig {
            api_version: "v1".into(),
            clusters: vec![NamedCluster {
                cluster: Cluster {
                    certificate_authority_data: Some(STANDARD.encode(ca_pem)),
                    certificate_authority: None,
                    server: server.into(),
                },
                name: cluster.into(),
            }],
            contexts: vec![NamedContext {
                context: Context {
                    cluster: cluster.into(),
                    namespace: None,
                    user: user.into(),
                },
                name: context.clone(),
            }],
            current_context: context,
            kind: "Config".into(),
            preferences: Some(Preferences::default()),
            users: vec![NamedUser {
                name: user.into(),
                user: auth,
            }],
        }
    }

    /// What ConfigMap kube-public/cluster-info holds under `kubeconfig`: the server and its CA, no user, no names.
    pub fn cluster_info(server: &str, ca_pem: &str) -> Self {
        Kubeconfig {
            clusters: vec![NamedCluster {
                cluster: Cluster {
                    certificate_authority_data: Some(STANDARD.encode(ca_pem)),
                    certificate_authority: None,
                    server: server.into(),
                },
                name: String::new(),
            }],
            api_version: "v1".into(),
            contexts: Vec::new(),
            current_context: String::new(),
            kind: "Config".into(),
            preferences: Some(Preferences::default()),
            users: Vec::new(),
        }
    }

    pub fn to_yaml(&self) -> Result<String, PkiError> {
        // By way of the tree: YAML's reader and writer for each of these types would be a fifth of a MiB.
        let tree = serde_json::to_value(self).map_err(|cause| PkiError::Kubeconfig {
            what: "can't be written".into(),
            cause: cause.to_string(),
        })?;
        print(&tree)
    }

    pub fn from_yaml(text: &str, what: &str) -> Result<Self, PkiError> {
        let tree = serde_saphyr::from_str::<serde_json::Value>(text).map_err(|cause| cause.to_string());
        tree.and_then(|tree| serde_json::from_value(tree).map_err(|cause| cause.to_string()))
            .map_err(|cause| PkiError::Kubeconfig {
                what: what.into(),
                cause,
            })
    }

    /// The current context's cluster; with no context at all the only cluster.
    pub fn cluster(&self) -> Option<&Cluster> {
        let context = self
            .contexts
            .iter()
            .find(|context| context.name == self.current_context);
        match context {
            Some(context) => self
                .clusters
                .iter()
                .find(|named| named.name == context.context.cluster)
                .map(|named| &named.cluster),
            None => self.clusters.first().map(|named| &named.cluster),
        }
    }

    /// The current context's user.
    pub fn user(&self) -> Option<&AuthInfo> {
        let context = self
            .contexts
            .iter()
            .find(|context| context.name == self.current_context)?;
        self.users
            .iter()
            .find(|named| named.name == context.context.user)
            .map(|named| &named.user)
    }

    /// The CA bundle of the current context's cluster, as PEM text.
    pub fn ca_pem(&self) -> Result<String, PkiError> {
        let cluster = self.cluster().ok_or_else(|| PkiError::Kubeconfig {
            what: "names no".into(),
            cause: "cluster".into(),
        })?;
        cluster.ca_pem()
    }

    /// The current user's (certificate, key) as PEM, where there are.
    pub fn certificate(&self) -> Result<Option<(String, String)>, PkiError> {
        self.user().map_or(Ok(None), AuthInfo::certificate)
    }
}

impl Cluster {
    /// The CA bundle as PEM text.
    pub fn ca_pem(&self) -> Result<String, PkiError> {
        match (&self.certificate_authority_data, &self.certificate_authority) {
            (Some(data), _) => decode(data, "certificate-authority-data"),
            (None, Some(path)) => crate::files::read_to_string(path.as_ref()),
            (None, None) => Err(PkiError::Kubeconfig {
                what: "names no".into(),
                cause: "certificate authority".into(),
            }),
        }
    }
}

impl AuthInfo {
    /// (certificate, key) as PEM, when the user has them.
    pub fn certificate(&self) -> Result<Option<(String, String)>, PkiError> {
        let read = |data: &Option<String>, path: &Option<String>, what: &str| match (data, path) {
            (Some(data), _) => decode(data, what).map(Some),
            (None, Some(path)) => crate::files::read_to_string(path.as_ref()).map(Some),
            (None, None) => Ok(None),
        };
        let certificate = read(
            &self.client_certificate_data,
            &self.client_certificate,
            "client-certificate-data",
        )?;
        let key = read(&self.client_key_data, &self.client_key, "client-key-data")?;
        Ok(certificate.zip(key))
    }
}

fn decode(data: &str, what: &str) -> Result<String, PkiError> {
    let broken = |cause: String| PkiError::Kubeconfig {
        what: what.into(),
        cause,
    };
    let bytes = STANDARD
        .decode(data.trim())
        .map_err(|cause| broken(cause.to_string()))?;
    String::from_utf8(bytes).map_err(|cause| broken(cause.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn round_trip() {
        let long = "CERT".repeat(100);
        let credential = Credential::Certificate {
            certificate_pem: &long,
            key_pem: "KEY",
        };
        let made = Kubeconfig::new(
            "https://10.0.0.1:6443",
            "CA",
            "kubernetes",
            "kubernetes-admin",
            credential,
        );
        let text = made.to_yaml().unwrap();
        assert!(text.contains("current-context: kubernetes-admin@kubernetes"), "{text}");
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("client-certificate-data: Q0VSV"))
            .collect();
        assert_eq!(lines.len(), 1, "{text}");
        let read = Kubeconfig::from_yaml(&text, "test").unwrap();
        assert_eq!(read, made);
        assert_eq!(read.cluster().unwrap().ca_pem().unwrap(), "CA");
        assert_eq!(
            read.user().unwrap().certificate().unwrap().unwrap(),
            (long.clone(), "KEY".into())
        );
    }

    #[test]
    fn another_certificate_changes_nothing_else() {
        let credential = Credential::Certificate {
            certificate_pem: "OLD",
            key_pem: "OLDKEY",
        };
        let made = Kubeconfig::new("https://a:1", "CA", "kubernetes", "admin", credential);
        let mut tree = serde_json::to_value(&made).unwrap();
        tree["clusters"][0]["cluster"]["tls-server-name"] = "other".into();
        let more = serde_json::json!({"name": "second", "user": {"token": "t"}});
        tree["users"].as_array_mut().unwrap().insert(0, more);
        let text = with_certificate(&print(&tree).unwrap(), "NEW", "NEWKEY").unwrap();
        let read = Kubeconfig::from_yaml(&text, "test").unwrap();
        assert_eq!(
            read.certificate().unwrap(),
            Some(("NEW".into(), "NEWKEY".into())),
            "{text}"
        );
        assert!(
            text.contains("tls-server-name: other") && text.contains("token: t"),
            "{text}"
        );
    }

    #[test]
    fn reads_what_go_writes() {
        let text = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: Q0E=\n    server: https://a:1\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n";
        let read = Kubeconfig::from_yaml(text, "test").unwrap();
        assert_eq!(read.cluster().unwrap().server, "https://a:1");
        assert!(read.user().is_none());
        let own = Kubeconfig::cluster_info("https://a:1", "CA").to_yaml().unwrap();
        assert_eq!(
            Kubeconfig::from_yaml(&own, "own").unwrap().cluster().unwrap().server,
            "https://a:1"
        );
    }
}
