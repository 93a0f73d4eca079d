//! A list's text in pieces: what is around its items, and each of them as far in as it stands. So a list is never whole in
//! memory, whichever way it is printed.

use mk8s_api::codec::json;
use mk8s_api::status::Status;
use serde_json::Value;

/// How the text of a list is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Compact,
    /// With an indentation of two, in the order of the names.
    Pretty,
    /// In the order of the names.
    Yaml,
    Protobuf,
}

impl Layout {
    /// What stands before and after the items of a list: its other fields, and the name of that of the items.
    pub fn around(self, fields: Vec<(&str, Value)>, items: &str) -> Result<(Vec<u8>, Vec<u8>), Status> {
        let of = |fields: Vec<(&str, Value)>| -> Value {
            let fields = fields.into_iter().map(|(name, value)| (name.to_string(), value));
            Value::Object(fields.collect())
        };
        if self == Layout::Compact {
            let fields: String = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value},"))
                .collect();
            return Ok((format!("{{{fields}\"{items}\":").into_bytes(), b"}\n".to_vec()));
        }
        let (before, after): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(name, _)| *name < items);
        let before = self.text(&of(before))?;
        let after = if after.is_empty() {
            String::new()
        } else {
            self.text(&of(after))?
        };
        let (head, tail) = match self {
            Layout::Yaml => (format!("{before}{items}:"), format!("\n{after}")),
            _ => {
                let open = before.strip_suffix("\n}").unwrap_or(&before);
                let rest = after.strip_prefix('{');
                let comma = if rest.is_some() { "," } else { "" };
                (
                    format!("{open},\n  \"{items}\": "),
                    format!("{comma}{}", rest.unwrap_or("\n}")),
                )
            }
        };
        Ok((head.into_bytes(), tail.into_bytes()))
    }

    pub fn before_item(self, first: bool) -> &'static str {
        match (self, first) {
            (Layout::Protobuf, _) => "",
            (Layout::Compact, true) => "[",
            (Layout::Compact, false) => ",",
            (Layout::Pretty, true) => "[\n    ",
            (Layout::Pretty, false) => ",\n    ",
            (Layout::Yaml, _) => "\n- ",
        }
    }

    /// `empty` is what stands for none at all.
    pub fn after_items(self, none: bool, empty: &'static str) -> &'static str {
        match (self, none) {
            (Layout::Protobuf, _) | (Layout::Yaml, false) => "",
            (_, true) => empty,
            (Layout::Compact, false) => "]",
            (Layout::Pretty, false) => "\n  ]",
        }
    }

    /// An item, as far in as it stands.
    pub fn print(self, value: &Value, into: &mut Vec<u8>) -> Result<(), Status> {
        let indent = match self {
            Layout::Compact | Layout::Protobuf => {
                json::print(value, into);
                return Ok(());
            }
            Layout::Pretty => "    ",
            Layout::Yaml => "  ",
        };
        let text = self.text(value)?;
        for (index, line) in text.strip_suffix('\n').unwrap_or(&text).split('\n').enumerate() {
            if index > 0 {
                into.push(b'\n');
                // A line that is empty may be text of a block, which begins where the block does.
                into.extend_from_slice(if line.is_empty() { b"" } else { indent.as_bytes() });
            }
            into.extend_from_slice(line.as_bytes());
        }
        Ok(())
    }

    fn text(self, value: &Value) -> Result<String, Status> {
        let failed = |why: String| Status::internal(format!("encoding the answer: {why}"));
        match self {
            Layout::Yaml => serde_saphyr::to_string(value).map_err(|error| failed(error.to_string())),
            _ => serde_json::to_string_pretty(value).map_err(|error| failed(error.to_string())),
        }
    }
}
