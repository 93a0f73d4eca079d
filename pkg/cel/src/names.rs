//! Names of properties as expressions can write them: what is no identifier, or a word of the language, is escaped.

use crate::parse::RESERVED;

/// The language's words besides those that no variable can have.
const WORDS: [&str; 4] = ["true", "false", "null", "in"];

/// What stands for what inside of a name.
const ESCAPES: [(&str, &str); 4] = [
    ("__", "__underscores__"),
    (".", "__dot__"),
    ("-", "__dash__"),
    ("/", "__slash__"),
];

fn is_word(name: &str) -> bool {
    WORDS.contains(&name) || RESERVED.contains(&name)
}

/// The name of a property in expressions; `None` where it has none.
pub fn escape(property: &str) -> Option<String> {
    if property.is_empty() || property.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_word(property) {
        return Some(format!("__{property}__"));
    }
    let mut escaped = String::with_capacity(property.len());
    let mut rest = property;
    while let Some(c) = rest.chars().next() {
        if let Some((plain, stands)) = ESCAPES.iter().find(|(plain, _)| rest.starts_with(plain)) {
            escaped.push_str(stands);
            rest = &rest[plain.len()..];
        } else if c.is_ascii_alphanumeric() || c == '_' {
            escaped.push(c);
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(escaped)
}

/// The property that a name stands for; `None` where it stands for none.
pub fn unescape(name: &str) -> Option<String> {
    let mut property = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(start) = rest.find("__") {
        let inside = &rest[start + 2..];
        let word = inside
            .find('_')
            .map(|end| &inside[..end])
            .filter(|word| !word.is_empty());
        match word.filter(|word| inside[word.len()..].starts_with("__")) {
            None => {
                // No escape begins here; one may begin a character later.
                property.push_str(&rest[..=start]);
                rest = &rest[start + 1..];
            }
            Some(word) => {
                property.push_str(&rest[..start]);
                match ESCAPES.iter().find(|(_, stands)| stands.trim_matches('_') == word) {
                    Some((plain, _)) => property.push_str(plain),
                    None if is_word(word) && name.len() == word.len() + 4 => property.push_str(word),
                    None => return None,
                }
                rest = &inside[word.len() + 2..];
            }
        }
    }
    property.push_str(rest);
    Some(property)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for (property, name) in [
            ("a", "a"),
            ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
            ("namespace", "__namespace__"),
            ("a__b", "a__underscores__b"),
            ("a_b", "a_b"),
            ("___", "__underscores___"),
            ("_true_", "_true_"),
        ] {
            assert_eq!(escape(property).as_deref(), Some(name));
            assert_eq!(unescape(name).as_deref(), Some(property), "{name}");
        }
        for property in ["", "1a", "a b", "ä", "a:b", "a$"] {
            assert_eq!(escape(property), None, "{property}");
        }
        assert_eq!(unescape("__foo__"), None);
        assert_eq!(unescape("a__true__"), None);
    }
}
