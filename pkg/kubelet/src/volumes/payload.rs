//! The content of volumes that come from the API: which file holds what. Pure; `live` fetches and writes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::atomic::{File, Payload};
use crate::downward::{self, RuntimeValues};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("references non-existent {kind} key: {key}")]
    Key { kind: &'static str, key: String },
    #[error(transparent)]
    Downward(#[from] downward::Error),
    #[error("cannot get a token of service account {account}: {message}")]
    Token { account: String, message: String },
}

pub const DEFAULT_MODE: i32 = 0o644;

fn file(data: Vec<u8>, mode: Option<i32>, default: i32) -> File {
    File {
        data,
        mode: mode.unwrap_or(default) as u32 & 0o7777,
        owner: None,
    }
}

fn keyed(
    kind: &'static str,
    data: BTreeMap<&str, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
) -> Result<Payload, Error> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data
            .into_iter()
            .map(|(key, data)| (key.to_owned(), file(data, None, mode)))
            .collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(data) => {
                payload.insert(item.path.clone(), file(data.clone(), item.mode, mode));
            }
            None if optional => {}
            None => {
                return Err(Error::Key {
                    kind,
                    key: item.key.clone(),
                });
            }
        }
    }
    Ok(payload)
}

pub fn config_map(
    name: &str,
    found: Option<&ConfigMap>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
) -> Result<Payload, Error> {
    let Some(found) = found else {
        return if optional {
            Ok(Payload::new())
        } else {
            Err(Error::Missing {
                kind: "configmap",
                name: name.into(),
            })
        };
    };
    let text = found
        .data
        .iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v.clone().into_bytes()));
    let binary = found
        .binary_data
        .iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v.0.clone()));
    keyed("config", text.chain(binary).collect(), items, mode, optional)
}

pub fn secret(
    name: &str,
    found: Option<&Secret>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
) -> Result<Payload, Error> {
    let Some(found) = found else {
        return if optional {
            Ok(Payload::new())
        } else {
            Err(Error::Missing {
                kind: "secret",
                name: name.into(),
            })
        };
    };
    let data = found
        .data
        .iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v.0.clone()))
        .collect();
    keyed("secret", data, items, mode, optional)
}

pub fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    values: &RuntimeValues,
) -> Result<Payload, Error> {
    // resourceFieldRef names its container here, so which one stands in for it doesn't matter.
    static NONE: std::sync::LazyLock<Container> = std::sync::LazyLock::new(Container::default);
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => downward::field(pod, selector, values)?,
            (None, Some(selector)) => downward::resource(pod, &NONE, selector, values)?,
            (None, None) => continue,
        };
        payload.insert(item.path.clone(), file(text.into_bytes(), item.mode, mode));
    }
    Ok(payload)
}

/// A token is for its user: the pod's fsGroup if there is one, else the user all containers run as, else root.
pub fn token(token: &str, mode: i32, run_as_user: Option<u32>, has_group: bool) -> File {
    let mut file = file(token.as_bytes().to_vec(), None, mode);
    if has_group {
        file.mode = 0o600;
    } else if let Some(user) = run_as_user {
        file.mode = 0o600;
        file.owner = Some(user);
    }
    file
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn config_maps() {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "binaryData": {"b": "Mg=="}}))
                .unwrap();
        let item = |key: &str, mode: Option<i32>| {
            vec![KeyToPath {
                key: key.into(),
                path: "x/y".into(),
                mode,
            }]
        };
        let files = |p: Payload| -> Vec<(String, String, u32)> {
            p.into_iter()
                .map(|(k, f)| (k, String::from_utf8(f.data).unwrap(), f.mode))
                .collect()
        };
        let all = config_map("m", Some(&map), None, 0o640, false).unwrap();
        assert_eq!(
            files(all),
            vec![("a".into(), "1".into(), 0o640), ("b".into(), "2".into(), 0o640)]
        );
        let one = config_map("m", Some(&map), Some(&item("b", Some(0o400))), 0o644, false).unwrap();
        assert_eq!(files(one), vec![("x/y".into(), "2".into(), 0o400)]);
        for (found, key, optional, expected) in [
            (Some(&map), "no", false, Some("references non-existent config key: no")),
            (Some(&map), "no", true, None),
            (None, "a", false, Some("configmap \"m\" not found")),
            (None, "a", true, None),
        ] {
            let got = config_map("m", found, Some(&item(key, None)), 0o644, optional);
            assert_eq!(got.err().map(|e| e.to_string()).as_deref(), expected);
        }
    }
}
