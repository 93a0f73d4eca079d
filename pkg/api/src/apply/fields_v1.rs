//! FieldsV1: a set as the JSON that objects carry, and questions that are answered from that text without a tree.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::element::{Element, ElementError};
use super::set::{Node, Set};

/// The text of a set that is empty.
pub const EMPTY: &str = "{}";

/// What says of a step that has others below it that it is one itself.
pub(super) const MEMBER: &str = r#"".":{}"#;

/// The canonical text of a set: what upstream prints, byte for byte.
pub fn print(set: &Set) -> String {
    let mut text = String::with_capacity(512);
    let mut scratch = String::with_capacity(64);
    print_level(set, false, &mut text, &mut scratch);
    text
}

fn print_level(set: &Set, member: bool, text: &mut String, scratch: &mut String) {
    text.push('{');
    if member && !set.is_empty() {
        text.push_str(MEMBER);
    }
    for (at, node) in set.nodes().iter().enumerate() {
        if at > 0 || member {
            text.push(',');
        }
        scratch.clear();
        node.element.print(scratch);
        print_key(scratch, text);
        print_level(&node.below, node.member, text, scratch);
    }
    text.push('}');
}

/// Appends a step as a key, with its colon.
pub(super) fn print_key(key: &str, text: &mut String) {
    if key.bytes().any(|byte| byte < 0x20) {
        text.push_str(&serde_json::Value::from(key).to_string());
    } else {
        text.push('"');
        for part in key.split_inclusive(['"', '\\']) {
            // What is escaped ends its part.
            match part.strip_suffix(['"', '\\']) {
                Some(before) => {
                    text.push_str(before);
                    text.push('\\');
                    text.push_str(&part[before.len()..]);
                }
                None => text.push_str(part),
            }
        }
        text.push('"');
    }
    text.push(':');
}

/// The text is no set.
#[derive(Debug, thiserror::Error)]
#[error("FieldsV1: {0}")]
pub struct FieldsError(#[from] serde_json::Error);

/// Deeper ones than objects are refused, as objects are.
const MAX_DEPTH: u8 = 100;

/// Reads a set from JSON in any order; steps of an unknown kind are left out.
///
/// # Errors
/// It is no JSON object of JSON objects, or a step cannot be read.
pub fn parse(text: &str) -> Result<Set, FieldsError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (set, _) = deserializer.deserialize_map(Level(MAX_DEPTH))?;
    deserializer.end()?;
    Ok(set)
}

/// Reads a set from a tree.
///
/// # Errors
/// As [`parse`].
pub fn parse_value(value: &serde_json::Value) -> Result<Set, FieldsError> {
    Ok(value.deserialize_map(Level(MAX_DEPTH))?.0)
}

/// What lies below a step, and whether the step is a member itself.
struct Level(u8);

impl<'de> serde::de::DeserializeSeed<'de> for Level {
    type Value = (Set, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = (Set, bool);

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use serde::de::Error as _;
        let (mut nodes, mut member) = (Vec::new(), false);
        let deeper = self.0.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        while let Some(Key(key)) = map.next_key()? {
            if key == "." {
                member = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match Element::parse(&key) {
                Ok(element) => {
                    let (below, member) = map.next_value_seed(Level(deeper))?;
                    nodes.push(Node { element, member, below });
                }
                Err(ElementError::Unknown) => drop(map.next_value::<IgnoredAny>()?),
                Err(error) => return Err(A::Error::custom(error)),
            }
        }
        let set = Set::of(nodes);
        let member = member || set.is_empty();
        Ok((set, member))
    }
}

/// A key, borrowed where the text has it as it is.
struct Key<'a>(std::borrow::Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(text.to_string().into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// How much of a set another one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    None,
    Some,
    All,
}

/// How much of `set` a canonical text holds. Most writes change what their manager owns already, and nothing that another
/// one owns: this tells so at the price of a scan.
pub fn overlap(text: &str, set: &Set) -> Overlap {
    let mut scan = Scan {
        text: text.as_bytes(),
        at: 0,
    };
    match scan.level(set, false) {
        0 => Overlap::None,
        held if set.has_more_than(held) => Overlap::Some,
        _ => Overlap::All,
    }
}

/// Reads canonical text: no blanks, objects alone.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// Reads an object: how many paths of a set it holds. `wanted`: whether the step that it stands below is one of them.
    fn level(&mut self, set: &Set, wanted: bool) -> usize {
        let mut member = self.text.get(self.at + 1) == Some(&b'}');
        let mut held = 0;
        self.at += 1;
        while self.at < self.text.len() && self.text[self.at] != b'}' {
            if self.text[self.at] == b',' {
                self.at += 1;
            }
            let key = self.key();
            if key == br#"".""# {
                member = true;
                self.skip();
                continue;
            }
            match find(set, key) {
                Some(node) => held += self.level(&node.below, node.member),
                None => self.skip(),
            }
        }
        self.at += 1;
        held + usize::from(wanted && member)
    }

    /// A key with its quotes; what follows is its value.
    fn key(&mut self) -> &'a [u8] {
        let from = self.at;
        self.string();
        let key = &self.text[from..self.at.min(self.text.len())];
        self.at += 1;
        key
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
    }

    /// Passes over an object.
    fn skip(&mut self) {
        let mut depth = 0;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }
}

/// The node of a key as it stands in a text.
fn find<'s>(set: &'s Set, key: &[u8]) -> Option<&'s Node> {
    let last = set.nodes().last()?;
    match key {
        [b'"', b'f', b':', name @ .., b'"'] if !name.contains(&b'\\') => set.field(std::str::from_utf8(name).ok()?),
        // Fields come first: there are no others.
        [b'"', b'k' | b'v' | b'i', ..] if matches!(last.element, Element::Field(_)) => None,
        _ => {
            let text: String = serde_json::from_slice(key).ok()?;
            set.get(&Element::parse(&text).ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}},"f:finalizers":{"v:\"a\\\"b\"":{}}}}"#;

    #[test]
    fn texts_are_read_and_printed_byte_for_byte() {
        for text in [TEXT, EMPTY, r#"{"f:a":{}}"#, r#"{"f:a":{".":{},"f:b":{}}}"#] {
            assert_eq!(print(&parse(text).unwrap()), text);
            let tree: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(print(&parse_value(&tree).unwrap()), text);
        }
        let unsorted = r#"{"x:?":{"a":1},"f:b":{"f:d":{},"f:c":{}},"f:a":{},"f:b":{".":{}}}"#;
        assert_eq!(
            print(&parse(unsorted).unwrap()),
            r#"{"f:a":{},"f:b":{".":{},"f:c":{},"f:d":{}}}"#
        );
        for text in ["", "[]", "1", r#"{"f:a":1}"#, r#"{"a":{}}"#, r#"{"f:a":{}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
        let deep = format!("{}{}", r#"{"f:a":"#.repeat(200), "{}".to_string() + &"}".repeat(200));
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn overlaps_are_those_of_the_sets() {
        let whole = parse(TEXT).unwrap();
        assert_eq!(overlap(TEXT, &whole), Overlap::All);
        assert_eq!(overlap(EMPTY, &whole), Overlap::None);
        assert_eq!(overlap(TEXT, &Set::default()), Overlap::None);
        let mut every = Vec::new();
        whole.each(&mut |path| every.push(path.to_vec()));
        for path in &every {
            let mut one = Set::default();
            one.insert(path.clone());
            assert_eq!(overlap(TEXT, &one), Overlap::All, "{path:?}");
            one.insert([Element::field("zz")]);
            assert_eq!(overlap(TEXT, &one), Overlap::Some, "{path:?}");
            let mut below = Set::default();
            below.insert(path.iter().cloned().chain([Element::field("zz")]));
            assert_eq!(overlap(TEXT, &below), Overlap::None, "{path:?}");
        }
        let parent = Set::of_fields(&[&["spec"], &["metadata", "labels", "app", "x"]]);
        assert_eq!(overlap(TEXT, &parent), Overlap::None);
    }
}
