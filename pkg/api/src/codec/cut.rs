//! A text without what its reader does not want of it: making a type's field of a text, and letting it go again, costs many
//! times what passing it by does.

use std::borrow::Cow;

/// A field that is not wanted. With fields `below` it is those that are not wanted; of a list, of each of its items.
pub struct Cut {
    pub field: &'static str,
    pub below: &'static [Cut],
}

impl Cut {
    /// The field with all that is in it.
    pub const fn all(field: &'static str) -> Cut {
        Cut { field, below: &[] }
    }
}

/// A JSON text with `null` in the place of each value that is not wanted. It is taken for JSON: of what is none whoever decodes
/// the rest finds the fault, unless it was in a value that is cut.
///
/// ```
/// use mk8s_api::codec::cut::{Cut, cut};
/// const CUTS: &[Cut] = &[Cut { field: "items", below: &[Cut::all("b")] }];
/// let left = cut(br#"{"items":[{"a":1,"b":[2]}],"b":3}"#, CUTS);
/// assert_eq!(&*left, br#"{"items":[{"a":1,"b":null}],"b":3}"#);
/// ```
pub fn cut<'a>(text: &'a [u8], cuts: &[Cut]) -> Cow<'a, [u8]> {
    if cuts.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut reader = Reader {
        text,
        at: 0,
        taken: 0,
        left: Vec::new(),
    };
    reader.value(cuts);
    if reader.taken == 0 {
        return Cow::Borrowed(text);
    }
    reader.left.extend_from_slice(&text[reader.taken..]);
    Cow::Owned(reader.left)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Up to here everything is in `left`, or cut.
    taken: usize,
    left: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// As deep as `cuts` are, and lists in lists.
    fn value(&mut self, cuts: &[Cut]) {
        match self.peek() {
            Some(b'{') if !cuts.is_empty() => self.fields(cuts),
            Some(b'[') if !cuts.is_empty() => self.items(cuts),
            _ => self.pass(),
        }
    }

    fn items(&mut self, cuts: &[Cut]) {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.at += 1,
                Some(b'}' | b':') | None => return self.give_up(),
                Some(_) => self.value(cuts),
            }
        }
    }

    fn fields(&mut self, cuts: &[Cut]) {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.at += 1,
                Some(b'"') => {
                    let key = self.string();
                    if self.peek() != Some(b':') {
                        return self.give_up();
                    }
                    self.at += 1;
                    match cuts.iter().find(|cut| cut.field.as_bytes() == key) {
                        Some(cut) if cut.below.is_empty() => self.leave_out(),
                        Some(cut) => self.value(cut.below),
                        None => self.pass(),
                    }
                }
                _ => return self.give_up(),
            }
        }
    }

    fn leave_out(&mut self) {
        self.peek();
        if self.left.is_empty() {
            self.left.reserve(self.text.len());
        }
        self.left.extend_from_slice(&self.text[self.taken..self.at]);
        self.left.extend_from_slice(b"null");
        self.pass();
        self.taken = self.at;
    }

    /// Passes one value by.
    fn pass(&mut self) {
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string();
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b'}' | b']' | b',' | b':' => return,
                _ => self.word(),
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// A number, or `true`, `false`, `null`.
    fn word(&mut self) {
        let rest = &self.text[self.at..];
        let ends =
            |byte: &u8| matches!(byte, b',' | b':' | b'}' | b']' | b'"' | b'{' | b'[') || byte.is_ascii_whitespace();
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    /// What stands between the quotes, at the first of which the reader is.
    fn string(&mut self) -> &'a [u8] {
        let from = self.at + 1;
        self.at = from;
        while let Some(found) = memchr::memchr2(b'"', b'\\', self.text.get(self.at..).unwrap_or_default()) {
            let end = self.at + found;
            if self.text[end] == b'"' {
                self.at = end + 1;
                return &self.text[from..end];
            }
            // Whatever is escaped, it is no end.
            self.at = end + 2;
        }
        self.give_up();
        &[]
    }

    fn give_up(&mut self) {
        self.at = self.text.len();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const CUTS: &[Cut] = &[
        Cut {
            field: "spec",
            below: &[
                Cut {
                    field: "list",
                    below: &[Cut::all("a")],
                },
                Cut::all("gone"),
            ],
        },
        Cut::all("status"),
    ];

    fn left(text: &str) -> String {
        String::from_utf8_lossy(&cut(text.as_bytes(), CUTS)).into_owned()
    }

    #[test]
    fn what_is_not_wanted_is_null_and_the_rest_is_as_it_was() {
        for (text, expected) in [
            (r#"{"status":{"a":[1,{"b":"}"}]},"z":1}"#, r#"{"status":null,"z":1}"#),
            (
                r#"{"spec":{"status":1,"gone":"x"},"status":true}"#,
                r#"{"spec":{"status":1,"gone":null},"status":null}"#,
            ),
            (
                r#"{"spec":{"list":[{"a":1},{"b":2,"a":"\"]},{"},3,[{"a":{}}]]}}"#,
                r#"{"spec":{"list":[{"a":null},{"b":2,"a":null},3,[{"a":null}]]}}"#,
            ),
            (
                " { \"status\" :\n-1.5e3 , \"z\" : [ ] } ",
                " { \"status\" :\nnull , \"z\" : [ ] } ",
            ),
            // Where something else stands than what the cuts are of.
            (
                r#"{"spec":"status","list":{"a":1}}"#,
                r#"{"spec":"status","list":{"a":1}}"#,
            ),
            (r#"[{"status":1}]"#, r#"[{"status":null}]"#),
            (r#"{"a":"\\","status":"\\\""}"#, r#"{"a":"\\","status":null}"#),
            ("7", "7"),
            ("", ""),
        ] {
            assert_eq!(left(text), expected, "{text}");
            if !text.is_empty() {
                serde_json::from_str::<Value>(&left(text)).expect("JSON");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_none_afterwards() {
        let whole = r#"{"spec":{"list":[{"a":[1,"\u00e9"]}],"gone":{"x":null}},"status":{"b":-0.1}}"#;
        let texts = (0..whole.len()).map(|end| whole[..end].to_string());
        let odd = [
            "{]",
            "[}",
            r#"{"spec":}"#,
            r#"{"status"}"#,
            r#"{"spec":[:]}"#,
            "{\"status\":\"\\",
            "]",
            "{:1}",
        ];
        for text in texts.chain(odd.map(String::from)) {
            assert!(
                serde_json::from_str::<Value>(&left(&text)).is_err(),
                "{text}: {}",
                left(&text)
            );
        }
    }
}
