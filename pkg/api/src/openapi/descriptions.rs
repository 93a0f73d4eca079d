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

    fn lines(&self, type_name: &str) -> impl Iterator<Item = &str> {
        let (start, end) = self.parts.get(type_name).copied().unwrap_or((0, 0));
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
    }
}
