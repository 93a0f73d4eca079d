//! /etc/mk8s/registries.yaml, in k3s's format: mirrors with rewrites, and per-registry credentials and TLS.
//!
//! The file is read again when it changed; a broken one keeps the last good reading and says so.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use regex::Regex;
use serde::Deserialize;

use super::keychain::Credential;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    pub(crate) configs: BTreeMap<String, RegistryConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Mirror {
    #[serde(alias = "endpoints")]
    endpoint: Vec<String>,
    /// Regular expression of a repository to what the mirror calls it ($1 … refer to groups).
    rewrite: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RegistryConfig {
    auth: Option<Auth>,
    pub(crate) tls: Option<TlsFiles>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
    auth: String,
    #[serde(alias = "identity_token")]
    token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct TlsFiles {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) insecure_skip_verify: bool,
}

/// One place where an image may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `https://host:port/v2`
    pub(crate) base: String,
    /// `host:port`, the key of its configuration.
    pub(crate) host: String,
    /// The repository's name there.
    pub(crate) path: String,
    /// Of a mirror: the registry that it stands for.
    pub(crate) mirror_of: Option<String>,
}

impl Registries {
    /// Mirrors first, in order, then the registry itself.
    pub(crate) fn endpoints(&self, host: &str, path: &str) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(host).or_else(|| self.mirrors.get("*"));
        let mut list: Vec<Endpoint> = Vec::new();
        for address in mirror.iter().flat_map(|mirror| &mirror.endpoint) {
            let rewritten = mirror.map_or_else(|| path.to_owned(), |mirror| rewrite(&mirror.rewrite, path));
            list.push(self.endpoint(address, rewritten, Some(host.to_owned())));
        }
        let own = self.endpoint(api_host(host), path.to_owned(), None);
        // A mirror that is the registry itself, as people write it to say "plain http" or to rewrite.
        if !list
            .iter()
            .any(|endpoint| endpoint.host == own.host && endpoint.path == own.path)
        {
            list.push(own);
        }
        list
    }

    fn endpoint(&self, address: &str, path: String, mirror_of: Option<String>) -> Endpoint {
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme, rest)) => (scheme.to_owned(), rest),
            None => (self.default_scheme(address).to_owned(), address),
        };
        let (host, prefix) = rest.split_once('/').map_or((rest, ""), |(host, prefix)| (host, prefix));
        let prefix = prefix.trim_matches('/');
        let prefix = match prefix {
            "" => "v2".to_owned(),
            prefix if prefix == "v2" || prefix.ends_with("/v2") => prefix.to_owned(),
            prefix => format!("v2/{prefix}"),
        };
        let mirror_of = mirror_of.filter(|own| api_host(own) != host);
        Endpoint {
            base: format!("{scheme}://{host}/{prefix}"),
            host: host.to_owned(),
            path,
            mirror_of,
        }
    }

    /// Plain http on the loopback, unless TLS is configured for it.
    fn default_scheme(&self, address: &str) -> &'static str {
        let host = address.split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let loopback = name == "localhost" || name == "[::1]" || name.starts_with("127.");
        let tls = self.configs.get(host).is_some_and(|config| config.tls.is_some());
        if loopback && !tls { "http" } else { "https" }
    }

    /// The credentials configured for a host.
    pub(crate) fn credential(&self, host: &str) -> Option<Credential> {
        let aliases: &[&str] = if host == "registry-1.docker.io" {
            &["registry-1.docker.io", "docker.io"]
        } else {
            &[]
        };
        let names = std::iter::once(host).chain(aliases.iter().copied());
        let auth = names
            .into_iter()
            .find_map(|name| self.configs.get(name).and_then(|config| config.auth.as_ref()))?;
        let mut credential = Credential {
            username: auth.username.clone(),
            password: auth.password.clone(),
            identity_token: auth.token.clone(),
            registry_token: String::new(),
        };
        if !auth.auth.is_empty()
            && let Some((username, password)) = super::keychain::decode_auth(&auth.auth)
        {
            (credential.username, credential.password) = (username, password);
        }
        Some(credential)
    }
}

/// Docker Hub's registry has another name than its images.
fn api_host(host: &str) -> &str {
    if host == "docker.io" {
        "registry-1.docker.io"
    } else {
        host
    }
}

/// The first rule whose expression matches rewrites the name.
fn rewrite(rules: &BTreeMap<String, String>, path: &str) -> String {
    for (pattern, replacement) in rules {
        match Regex::new(pattern) {
            Ok(expression) if expression.is_match(path) => {
                return expression.replace(path, braced(replacement).as_str()).into_owned();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(pattern, %error, "registries.yaml: a rewrite that is no regular expression"),
        }
    }
    path.to_owned()
}

/// `$1_x` is group 1 and `_x`, as in Go for digits; this regex crate would look for a group called `1_x`.
fn braced(replacement: &str) -> String {
    let mut out = String::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            out.push('$');
        } else {
            out.push_str(&format!("${{{}}}", &rest[..digits]));
        }
        rest = &rest[digits..];
    }
    out + rest
}

/// The file, and what was read when.
pub(crate) struct File {
    path: PathBuf,
    state: Mutex<(Option<Stamp>, Arc<Registries>)>,
}

/// Time and length: what tells one version of the file from the next.
type Stamp = (SystemTime, u64);

impl File {
    pub(crate) fn new(path: PathBuf) -> File {
        File {
            path,
            state: Mutex::new((None, Arc::default())),
        }
    }

    /// The current configuration: a stat, and a reading if the file is another than last time.
    pub(crate) fn current(&self) -> Arc<Registries> {
        let stamp = fs::metadata(&self.path)
            .ok()
            .map(|m| (m.modified().unwrap_or(SystemTime::UNIX_EPOCH), m.len()));
        let mut state = self.state.lock();
        if state.0 != stamp {
            state.0 = stamp;
            match self.read(stamp.is_some()) {
                Ok(registries) => state.1 = Arc::new(registries),
                Err(error) => {
                    let path = self.path.display();
                    tracing::error!(%path, error, "registries.yaml can't be read, the last good one stays in force");
                }
            }
        }
        state.1.clone()
    }

    fn read(&self, exists: bool) -> Result<Registries, String> {
        if !exists {
            return Ok(Registries::default());
        }
        let text = fs::read_to_string(&self.path).map_err(|e| e.to_string())?;
        if text.trim().is_empty() {
            return Ok(Registries::default());
        }
        serde_saphyr::from_str(&text).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.local:5000", "http://plain.local/proxy"]
    rewrite:
      "^library/(.*)": "hub/$1"
  "registry.local:5000":
    endpoint: ["http://registry.local:5000"]
  "*":
    endpoint: ["https://any.local/v2"]
configs:
  "mirror.local:5000":
    auth: {username: u, password: p}
    tls: {ca_file: /ca.pem, insecure_skip_verify: true}
"#;

    #[test]
    fn mirrors_rewrites_and_defaults() {
        let registries: Registries = serde_saphyr::from_str(TEXT).unwrap();
        let list = |host: &str, path: &str| -> Vec<(String, String, bool)> {
            let endpoints = registries.endpoints(host, path).into_iter();
            endpoints.map(|e| (e.base, e.path, e.mirror_of.is_some())).collect()
        };
        let row = |base: &str, path: &str, mirror| (base.to_owned(), path.to_owned(), mirror);
        assert_eq!(
            list("docker.io", "library/x"),
            [
                row("https://mirror.local:5000/v2", "hub/x", true),
                row("http://plain.local/v2/proxy", "hub/x", true),
                row("https://registry-1.docker.io/v2", "library/x", false),
            ]
        );
        assert_eq!(
            list("registry.local:5000", "a"),
            [row("http://registry.local:5000/v2", "a", false)]
        );
        assert_eq!(
            list("q.io", "a"),
            [
                row("https://any.local/v2", "a", true),
                row("https://q.io/v2", "a", false)
            ]
        );
        let none = Registries::default();
        assert_eq!(
            none.endpoints("127.0.0.1:5000", "a")[0].base,
            "http://127.0.0.1:5000/v2"
        );
        assert_eq!(
            none.endpoints("localhost:5000", "a")[0].base,
            "http://localhost:5000/v2"
        );
        assert_eq!(registries.credential("mirror.local:5000").unwrap().username, "u");
        assert!(!format!("{registries:?}").contains("\"p\""));
        assert_eq!(braced("$1_x/$2"), "${1}_x/${2}");
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.yaml");
        let file = File::new(path.clone());
        assert_eq!(file.current().endpoints("q.io", "a").len(), 1);
        fs::write(&path, TEXT).unwrap();
        assert_eq!(file.current().endpoints("q.io", "a").len(), 2);
        fs::write(&path, "mirrors: [").unwrap();
        assert_eq!(file.current().endpoints("q.io", "a").len(), 2);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.current().endpoints("q.io", "a").len(), 1);
    }
}
