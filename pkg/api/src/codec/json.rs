//! JSON in: one pass from bytes to the tree of a type.

use serde::de::DeserializeSeed as _;

use super::typed::{Context, Decoded, Validation};
use crate::schema::TypeRef;

/// Decodes a body. Without a type any JSON passes as it is (patches), and only keys that come twice are noted.
///
/// ```
/// use mk8s_api::codec::{json, Validation};
/// let decoded = json::decode(br#"{"a":1,"a":2}"#, None, Validation::Strict).expect("JSON");
/// assert_eq!(decoded.problems, [r#"duplicate field "a""#]);
/// ```
pub fn decode(bytes: &[u8], ty: Option<TypeRef>, validation: Validation) -> Result<Decoded, String> {
    // Checked as a whole it is cheaper than string by string. Damaged text is mended as Go mends it.
    let text = String::from_utf8_lossy(bytes);
    let mut context = Context::new(validation);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let value = context
        .seed(ty)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(value) => Ok(context.finish(value)),
        Err(error) => Err(context.error(&error)),
    }
}
