//! The content of volumes that come from the API: which file holds what. Pure; `live` fetches and writes.

use std::collections::{BTreeMap, HashMap};

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
    #[error("the pod's volumes hold more than {LIMIT} bytes of ConfigMaps, Secrets and fields")]
    TooLarge,
}

/// What all of a pod's volumes may hold, in bytes. A pod can name one object as often as its spec has room for, and each
/// time is a file of its own: here, and then on the disk.
pub const LIMIT: usize = 64 << 20;

/// What each of a pod's volumes holds.
#[derive(Default)]
pub struct Sizes {
    by_volume: HashMap<String, usize>,
    all: usize,
}

impl Sizes {
    /// What this one may hold beside the others.
    pub fn room(&self, volume: &str) -> usize {
        let own = self.by_volume.get(volume).copied().unwrap_or(0);
        LIMIT.saturating_sub(self.all - own)
    }

    pub fn set(&mut self, volume: &str, size: usize) {
        let before = self.by_volume.insert(volume.to_owned(), size);
        self.all = self.all + size - before.unwrap_or(0);
    }
}

pub const DEFAULT_MODE: i32 = 0o644;

fn file(data: &[u8], mode: Option<i32>, default: i32, room: &mut usize) -> Result<File, Error> {
    *room = room.checked_sub(data.len()).ok_or(Error::TooLarge)?;
    Ok(File {
        data: data.to_vec(),
        mode: mode.unwrap_or(default) as u32 & 0o7777,
        owner: None,
    })
}

fn keyed(
    kind: &'static str,
    data: BTreeMap<&str, &[u8]>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
    room: &mut usize,
) -> Result<Payload, Error> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        let all = data.into_iter();
        return all
            .map(|(key, data)| Ok((key.to_owned(), file(data, None, mode, room)?)))
            .collect();
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(data) => {
                payload.insert(item.path.clone(), file(data, item.mode, mode, room)?);
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
    room: &mut usize,
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
    let text = found.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = found
        .binary_data
        .iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v.0.as_slice()));
    keyed("config", text.chain(binary).collect(), items, mode, optional, room)
}

pub fn secret(
    name: &str,
    found: Option<&Secret>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
    room: &mut usize,
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
        .map(|(k, v)| (k.as_str(), v.0.as_slice()))
        .collect();
    keyed("secret", data, items, mode, optional, room)
}

pub fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    values: &RuntimeValues,
    room: &mut usize,
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
        payload.insert(item.path.clone(), file(text.as_bytes(), item.mode, mode, room)?);
    }
    Ok(payload)
}

/// A token is for its user: the pod's fsGroup if there is one, else the user all containers run as, else root.
pub fn token(token: &str, mode: i32, run_as_user: Option<u32>, has_group: bool) -> File {
    let mut file = File {
        data: token.as_bytes().to_vec(),
        mode: mode as u32 & 0o7777,
        owner: None,
    };
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
    fn an_object_that_is_named_again_and_again_is_bounded() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"a": "x".repeat(1 << 20)}})).unwrap();
        let items = |count: usize| -> Vec<KeyToPath> {
            let item = |n| KeyToPath {
                key: "a".into(),
                path: format!("{n}"),
                mode: None,
            };
            (0..count).map(item).collect()
        };
        let of = |count, room: &mut usize| config_map("m", Some(&map), Some(&items(count)), 0o644, false, room);
        let mut sizes = Sizes::default();
        let mut room = sizes.room("one");
        assert_eq!(of(40, &mut room).unwrap().len(), 40);
        assert_eq!(room, LIMIT - (40 << 20));
        assert!(matches!(of(25, &mut room), Err(Error::TooLarge)));
        sizes.set("one", 1);
        sizes.set("one", 40 << 20);
        assert_eq!((sizes.room("one"), sizes.room("two")), (LIMIT, LIMIT - (40 << 20)));
    }

    #[test]
    fn config_maps() {
        let mut room = LIMIT;
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
        let all = config_map("m", Some(&map), None, 0o640, false, &mut room).unwrap();
        assert_eq!(
            files(all),
            vec![("a".into(), "1".into(), 0o640), ("b".into(), "2".into(), 0o640)]
        );
        let one = config_map("m", Some(&map), Some(&item("b", Some(0o400))), 0o644, false, &mut room).unwrap();
        assert_eq!(files(one), vec![("x/y".into(), "2".into(), 0o400)]);
        for (found, key, optional, expected) in [
            (Some(&map), "no", false, Some("references non-existent config key: no")),
            (Some(&map), "no", true, None),
            (None, "a", false, Some("configmap \"m\" not found")),
            (None, "a", true, None),
        ] {
            let got = config_map("m", found, Some(&item(key, None)), 0o644, optional, &mut room);
            assert_eq!(got.err().map(|e| e.to_string()).as_deref(), expected);
        }
    }
}
