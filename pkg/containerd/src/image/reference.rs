//! Image references as people write them, and the full form that registries and containerd's records use.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {0:?}: {1}")]
pub struct InvalidReference(pub String, pub &'static str);

/// `host/path[:tag][@digest]`, with docker.io and latest filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    pub host: String,
    /// Repository inside the registry.
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Reference, InvalidReference> {
        let error = |why| InvalidReference(text.to_owned(), why);
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(error("malformed digest"));
        }
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[last..].split_once(':') {
            Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
            None => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error("malformed tag"));
        }
        let (host, path) = split_host(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(error("repository name must be lowercase"));
        }
        if path.is_empty() || !path.split('/').all(is_path_part) {
            return Err(error("malformed repository name"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Reference {
            host,
            path,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// `host/path`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The record's name: a digest makes the tag meaningless, as the CRI plugin sees it.
    pub fn canonical(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository()),
            (None, Some(tag)) => format!("{}:{tag}", self.repository()),
            (None, None) => self.repository(),
        }
    }

    /// What the manifest is asked for by.
    pub fn object(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// The first part is a host if it looks like one; else it belongs to Docker Hub, library/ for a bare name.
fn split_host(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            let host = if first == "index.docker.io" { "docker.io" } else { first };
            let path = if host == "docker.io" && !rest.contains('/') {
                format!("library/{rest}")
            } else {
                rest.to_owned()
            };
            (host.to_owned(), path)
        }
        Some(_) => ("docker.io".to_owned(), name.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{name}")),
    }
}

fn is_digest(text: &str) -> bool {
    let hex = |hex: &str, length| {
        hex.len() == length && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match text.split_once(':') {
        Some(("sha256", digest)) => hex(digest, 64),
        Some(("sha512", digest)) => hex(digest, 128),
        _ => false,
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    bytes.next().is_some_and(word) && text.len() <= 128 && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_path_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edges = part.bytes().next().is_some_and(plain) && part.bytes().last().is_some_and(plain);
    edges && part.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-')) && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_people_leave_out() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let table = [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
            ("user/app", "docker.io/user/app:latest".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            (
                "index.docker.io/library/nginx:1",
                "docker.io/library/nginx:1".to_owned(),
            ),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t".to_owned()),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10".to_owned()),
            (&format!("q.io/a/b:v1@{digest}"), format!("q.io/a/b@{digest}")),
        ];
        for (text, want) in table {
            assert_eq!(Reference::parse(text).map(|r| r.canonical()), Ok(want), "{text}");
        }
        for bad in [
            "",
            "Busybox",
            "a//b",
            "a:",
            "a@sha256:12",
            "a:b:c",
            "-x",
            "host.io/",
            "a b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
