//! Image manifests, indexes and configs, in Docker's schema 2 and OCI's form (which differ in media types alone).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use containerd_client::types as wire;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

pub(crate) const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// In the order that the registry is asked for.
pub(crate) const ACCEPTED: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    MEDIA_MANIFEST,
    MEDIA_INDEX,
];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl From<wire::Descriptor> for Descriptor {
    fn from(wire: wire::Descriptor) -> Self {
        let wire::Descriptor {
            media_type,
            digest,
            size,
            annotations,
        } = wire;
        Descriptor {
            media_type,
            digest,
            size,
            annotations,
            platform: None,
        }
    }
}

impl From<Descriptor> for wire::Descriptor {
    fn from(own: Descriptor) -> Self {
        let Descriptor {
            media_type,
            digest,
            size,
            annotations,
            ..
        } = own;
        wire::Descriptor {
            media_type,
            digest,
            size,
            annotations,
        }
    }
}

impl Descriptor {
    pub(crate) fn of(media_type: &str, blob: &[u8]) -> Descriptor {
        let size = i64::try_from(blob.len()).unwrap_or(i64::MAX);
        Descriptor {
            media_type: media_type.to_owned(),
            digest: sha256(blob),
            size,
            ..Default::default()
        }
    }
}

pub(crate) fn sha256(blob: &[u8]) -> String {
    let hash = digest(&SHA256, blob);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[expect(clippy::large_enum_variant, reason = "one at a time, and most are manifests")]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Told apart by what is in it: the media type is often missing, and sometimes wrong.
pub(crate) fn parse(blob: &[u8]) -> Result<Document, String> {
    let value: serde_json::Value = serde_json::from_slice(blob).map_err(|e| format!("not a manifest: {e}"))?;
    if value.get("manifests").is_some() {
        return serde_json::from_value(value)
            .map(Document::Index)
            .map_err(|e| format!("malformed index: {e}"));
    }
    if value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
        return Err("manifest schema 1 is not supported".to_owned());
    }
    serde_json::from_value(value)
        .map(Document::Manifest)
        .map_err(|e| format!("malformed manifest: {e}"))
}

/// Rust's name of this machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn own_platform() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture().to_owned(),
        variant: None,
    }
}

/// The manifest for this platform: the plainest variant wins (amd64 before amd64/v3), then the first listed. An
/// index of one entry that names no platform means that entry.
pub(crate) fn choose(index: &Index) -> Option<&Descriptor> {
    let own = own_platform();
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_some_and(|p| p.os == own.os && p.architecture == own.architecture)
    };
    let rank = |descriptor: &&Descriptor| {
        let variant = descriptor
            .platform
            .as_ref()
            .and_then(|p| p.variant.clone())
            .unwrap_or_default();
        match variant.as_str() {
            "" | "v1" => 0,
            "v8" if own.architecture == "arm64" => 0,
            other => other.trim_start_matches('v').parse::<u32>().unwrap_or(u32::MAX),
        }
    };
    let nameless = || match index.manifests.as_slice() {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    };
    index.manifests.iter().filter(fits).min_by_key(rank).or_else(nameless)
}

pub(crate) fn no_match(index: &Index) -> String {
    let of = |p: &Platform| format!("{}/{}", p.os, p.architecture);
    let there: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|d| d.platform.as_ref())
        .map(of)
        .collect();
    format!(
        "no match for platform in manifest: {} wanted, {} there",
        of(&own_platform()),
        there.join(", ")
    )
}

/// The part of an image's config that running it needs. Missing and null are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    #[serde(deserialize_with = "nullable")]
    pub stop_signal: String,
    /// Paths that the image declares as volumes.
    #[serde(deserialize_with = "nullable")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default, deserialize_with = "nullable")]
    config: ImageConfig,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<String>,
}

/// Manifest and config, put together.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) id: String,
    pub(crate) size: u64,
    pub(crate) config: Arc<ImageConfig>,
    pub(crate) layers: Arc<Vec<Descriptor>>,
    pub(crate) diff_ids: Arc<Vec<String>>,
}

pub(crate) fn resolved(manifest: &Manifest, config: &[u8]) -> Result<Resolved, String> {
    let file: ConfigFile = serde_json::from_slice(config).map_err(|e| format!("malformed image config: {e}"))?;
    if file.rootfs.diff_ids.len() != manifest.layers.len() {
        let (ids, layers) = (file.rootfs.diff_ids.len(), manifest.layers.len());
        return Err(format!(
            "mismatched image rootfs and manifest layers: {ids} diff ids, {layers} layers"
        ));
    }
    let size = manifest.layers.iter().map(|layer| layer.size).sum::<i64>() + manifest.config.size;
    Ok(Resolved {
        id: manifest.config.digest.clone(),
        size: u64::try_from(size).unwrap_or_default(),
        config: Arc::new(file.config),
        layers: Arc::new(manifest.layers.clone()),
        diff_ids: Arc::new(file.rootfs.diff_ids),
    })
}

/// The name of each layer's snapshot: the first diff id, then the hash of the chain so far and the next.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = match chain.last() {
            None => id.clone(),
            Some(parent) => sha256(format!("{parent} {id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The labels by which a manifest or index keeps its children from being collected, as containerd's own client sets.
pub(crate) fn child_labels(document: &Document) -> HashMap<String, String> {
    let label = |suffix: String, digest: &str| (format!("containerd.io/gc.ref.content.{suffix}"), digest.to_owned());
    match document {
        Document::Manifest(manifest) => {
            let layers = manifest.layers.iter().enumerate();
            let layers = layers.map(|(index, layer)| label(format!("l.{index}"), &layer.digest));
            std::iter::once(label("config".to_owned(), &manifest.config.digest))
                .chain(layers)
                .collect()
        }
        // Only the platform that is pulled: the others' manifests are not there.
        Document::Index(index) => {
            let chosen = choose(index).map(|manifest| label("m.0".to_owned(), &manifest.digest));
            chosen.into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn chain_ids_follow_the_image_spec() {
        let ids = chain_ids(&["sha256:a".to_owned(), "sha256:b".to_owned()]);
        assert_eq!(ids, ["sha256:a".to_owned(), sha256(b"sha256:a sha256:b")]);
        assert_eq!(
            sha256(b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn chooses_this_platform_and_the_plainest_variant() {
        let entry = |digest: &str, os: &str, arch: &str, variant: Option<&str>| Descriptor {
            digest: digest.to_owned(),
            platform: Some(Platform {
                os: os.into(),
                architecture: arch.into(),
                variant: variant.map(str::to_owned),
            }),
            ..Default::default()
        };
        let own = architecture();
        let index = Index {
            manifests: vec![
                entry("win", "windows", own, None),
                entry("v3", "linux", own, Some("v3")),
                entry("plain", "linux", own, None),
                entry("other", "linux", "s390x", None),
                entry("unknown", "unknown", "unknown", None),
            ],
        };
        assert_eq!(choose(&index).unwrap().digest, "plain");
        assert!(
            choose(&Index {
                manifests: vec![entry("other", "linux", "s390x", None)]
            })
            .is_none()
        );
    }

    #[test]
    fn config_with_nulls_is_read() {
        let manifest = Manifest {
            schema_version: 2,
            media_type: String::new(),
            config: Descriptor::default(),
            layers: Vec::new(),
        };
        let text =
            br#"{"config":{"Cmd":null,"Entrypoint":["/x"],"Env":null},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let resolved = resolved(&manifest, text).unwrap();
        assert_eq!(resolved.config.entrypoint, ["/x"]);
        assert!(resolved.config.cmd.is_empty());
    }
}
