//! imagePullSecrets: docker's config.json (and the older .dockercfg), and which of its entries fit an image.
//!
//! The matching is upstream's: an entry names a host, perhaps with wildcards in its parts, a port and a path prefix;
//! more specific entries come first; all that fit are tried.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credential {
    pub username: String,
    pub password: String,
    /// Traded for an access token instead of username and password.
    pub identity_token: String,
    /// A ready access token.
    pub registry_token: String,
}

/// Never prints a secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Credentials by registry, from any number of secrets.
#[derive(Clone, Debug, Default)]
pub struct Keychain {
    entries: BTreeMap<String, Vec<Credential>>,
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, alias = "identityToken")]
    identitytoken: String,
    #[serde(default, alias = "registryToken")]
    registrytoken: String,
}

impl Keychain {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a secret of type kubernetes.io/dockerconfigjson (its `.dockerconfigjson`).
    pub fn add_config_json(&mut self, text: &[u8]) -> Result<(), String> {
        let config: ConfigJson = serde_json::from_slice(text).map_err(|e| position_only(&e))?;
        self.add(config.auths)
    }

    /// Adds a secret of type kubernetes.io/dockercfg (its `.dockercfg`).
    pub fn add_dockercfg(&mut self, text: &[u8]) -> Result<(), String> {
        self.add(serde_json::from_slice(text).map_err(|e| position_only(&e))?)
    }

    fn add(&mut self, auths: BTreeMap<String, Entry>) -> Result<(), String> {
        for (location, entry) in auths {
            let credential = credential(&entry).map_err(|why| format!("entry {location:?}: {why}"))?;
            self.entries.entry(key(&location)).or_default().push(credential);
        }
        Ok(())
    }

    /// What fits `host/path`, the most specific first.
    pub fn lookup(&self, repository: &str) -> Vec<Credential> {
        let fitting = self
            .entries
            .iter()
            .rev()
            .filter(|(pattern, _)| fits(pattern, repository));
        let mut found: Vec<Credential> = fitting
            .flat_map(|(_, credentials)| credentials.iter().cloned())
            .collect();
        if repository.starts_with("docker.io/") {
            // `docker login` writes the Hub's entry under its old address.
            found.extend(self.entries.get("index.docker.io").into_iter().flatten().cloned());
        }
        found
    }
}

/// serde's messages may quote the value: a secret's text must not reach a log.
fn position_only(error: &serde_json::Error) -> String {
    format!(
        "malformed docker config at line {} column {}",
        error.line(),
        error.column()
    )
}

fn credential(entry: &Entry) -> Result<Credential, String> {
    let mut credential = Credential {
        username: entry.username.clone(),
        password: entry.password.clone(),
        identity_token: entry.identitytoken.clone(),
        registry_token: entry.registrytoken.clone(),
    };
    if !entry.auth.is_empty() {
        let decoded = decode_auth(&entry.auth);
        (credential.username, credential.password) =
            decoded.ok_or("unable to parse auth field, must be formatted as base64(username:password)")?;
    }
    Ok(credential)
}

/// base64 of `username:password`.
pub(crate) fn decode_auth(auth: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    // docker pads with zeros.
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// `https://host/v1/` and `host` are the same entry; a path other than the API's root stays.
fn key(location: &str) -> String {
    let bare = location.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = bare.split_once('/').map_or((bare, ""), |(host, path)| (host, path));
    let path = match path.split_once('/') {
        Some(("v1" | "v2", rest)) => rest,
        None if path == "v1" || path == "v2" => "",
        _ => path,
    };
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

fn fits(pattern: &str, repository: &str) -> bool {
    let split = |text: &str| -> (String, String, String) {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (name.to_owned(), port.to_owned(), path.to_owned())
    };
    let ((glob, glob_port, prefix), (name, port, path)) = (split(pattern), split(repository));
    let (globs, names): (Vec<&str>, Vec<&str>) = (glob.split('.').collect(), name.split('.').collect());
    glob_port == port
        && path.starts_with(&prefix)
        && globs.len() == names.len()
        && globs
            .iter()
            .zip(&names)
            .all(|(glob, name)| wildcard(glob.as_bytes(), name.as_bytes()))
}

/// `*` is any number of characters, `?` is one.
fn wildcard(glob: &[u8], name: &[u8]) -> bool {
    match (glob.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => wildcard(&glob[1..], name) || (!name.is_empty() && wildcard(glob, &name[1..])),
        (Some(b'?'), Some(_)) => wildcard(&glob[1..], &name[1..]),
        (Some(a), Some(b)) if a == b => wildcard(&glob[1..], &name[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_match_as_upstreams_do() {
        let table = [
            ("registry.io", "registry.io/a/b", true),
            ("registry.io/a", "registry.io/a/b", true),
            ("registry.io/c", "registry.io/a/b", false),
            ("*.registry.io", "eu.registry.io/a", true),
            ("*.registry.io", "registry.io/a", false),
            ("reg*.io", "registry.io/a", true),
            ("registry.io", "registry.io:5000/a", false),
            ("registry.io:5000", "registry.io:5000/a", true),
        ];
        for (pattern, repository, want) in table {
            assert_eq!(fits(&key(pattern), repository), want, "{pattern} {repository}");
        }
    }

    #[test]
    fn reads_both_forms_and_keeps_order_and_secrets() {
        let mut keychain = Keychain::default();
        let auth = STANDARD.encode("bob:s3cret:x");
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"r.io/team":{{"username":"t","password":"p"}},"r.io":{{"username":"all","password":"p"}}}}}}"#
        );
        keychain.add_config_json(text.as_bytes()).unwrap();
        keychain
            .add_dockercfg(br#"{"old.io":{"username":"o","password":"p","email":"x"}}"#)
            .unwrap();
        let names = |repository: &str| -> Vec<String> {
            keychain
                .lookup(repository)
                .into_iter()
                .map(|credential| credential.username)
                .collect()
        };
        assert_eq!(names("docker.io/library/busybox"), ["bob"]);
        assert_eq!(names("r.io/team/app"), ["t", "all"]);
        assert_eq!(names("old.io/x"), ["o"]);
        assert!(names("other.io/x").is_empty());
        assert!(!format!("{keychain:?}").contains("s3cret"));
        let error = keychain
            .add_config_json(br#"{"auths":{"r.io":{"auth":5}}}"#)
            .unwrap_err();
        assert!(error.contains("line 1"), "{error}");
    }
}
