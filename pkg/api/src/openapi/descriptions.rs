//! What `kubectl explain` shows: compressed in the program, unpacked while a document is made, and dropped with it.

use std::collections::HashMap;
use std::io::Read as _;

use flate2::read::DeflateDecoder;

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));

/// The unpacked text and where each type's part of it is.
pub(super) struct Descriptions {
    text: String,
    /// Type → the range of its lines: its own description, then those of its fields.
    parts: HashMap<String, (usize, usize)>,
}

impl Descriptions {
    pub(super) fn unpack() -> Self {
        let mut text = String::new();
        // What the build packed unpacks; if it does not, documents are without descriptions.
        if DeflateDecoder::new(PACKED).read_to_string(&mut text).is_err() {
            text.clear();
        }
        let mut parts = HashMap::with_capacity(1024);
        let (mut at, mut open) = (0, None::<(String, usize)>);
        for line in text.split_inclusive('\n') {
            if let Some(rest) = line.strip_prefix('=') {
                if let Some((name, start)) = open.take() {
                    parts.insert(name, (start, at));
                }
                let name = rest.split('\t').next().unwrap_or_default();
                open = Some((name.to_string(), at + 1 + name.len() + 1));
            }
            at += line.len();
        }
        if let Some((name, start)) = open {
            parts.insert(name, (start, at));
        }
        Descriptions { text, parts }
    }

    /// Types of removed versions are described as those that they became.
    fn lines(&self, type_name: &str) -> impl Iterator<Item = &str> {
        let own = || self.parts.get(type_name);
        let part = own().or_else(|| successors(type_name).find_map(|name| self.parts.get(&name)));
        let (start, end) = part.copied().unwrap_or((0, 0));
        self.text[start..end].lines()
    }

    pub(super) fn of_type(&self, type_name: &str) -> Option<String> {
        self.lines(type_name)
            .next()
            .map(unescape)
            .filter(|text| !text.is_empty())
    }

    pub(super) fn of_fields<'d>(&'d self, type_name: &str) -> HashMap<&'d str, &'d str> {
        self.lines(type_name)
            .skip(1)
            .filter_map(|line| line.split_once('\t'))
            .collect()
    }
}

/// `io.k8s.api.extensions.v1beta1.Ingress` → `io.k8s.api.networking.v1.Ingress`, and what else it may be.
fn successors(type_name: &str) -> impl Iterator<Item = String> {
    const MOVES: [(&str, &str); 5] = [
        (".extensions.v1beta1.", ".apps.v1."),
        (".extensions.v1beta1.", ".networking.v1."),
        (".v1beta1.", ".v1."),
        (".v1beta2.", ".v1."),
        (".v2beta", ".v2."),
    ];
    MOVES.into_iter().filter_map(move |(old, new)| {
        let (head, tail) = type_name.split_once(old)?;
        // v2beta1, v2beta2
        let tail = if old == ".v2beta" {
            tail.split_once('.')?.1
        } else {
            tail
        };
        Some(format!("{head}{new}{tail}"))
    })
}

pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                other => out.extend(other),
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_words_are_there() {
        let descriptions = Descriptions::unpack();
        let fields = descriptions.of_fields("io.k8s.api.core.v1.ContainerPort");
        assert!(fields["containerPort"].starts_with("Number of port to expose on the pod's IP address."));
        let pod = descriptions.of_type("io.k8s.api.core.v1.Pod").unwrap_or_default();
        assert!(pod.starts_with("Pod is a collection of containers"), "{pod}");
        assert!(descriptions.of_fields("io.k8s.api.core.v1.Pod").contains_key("spec"));
        for old in [
            "apps.v1beta2.DeploymentSpec",
            "autoscaling.v2beta1.HorizontalPodAutoscalerSpec",
            "extensions.v1beta1.DaemonSet",
            "extensions.v1beta1.IngressSpec",
        ] {
            let name = format!("io.k8s.api.{old}");
            assert!(descriptions.of_type(&name).is_some(), "{name}");
        }
    }
}
