//! ConfigMap and Secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::rules::{Cases, Rules, Scope, by, call, check_object, entries, keys, present, required, whole};
use super::{Errors, Path, flag, has, immutable, invalid_each, same, strings_of};
use crate::status::FieldError;
use crate::{meta as object, names};

const CONFIG_MAP: Rules = &[
    call("data", texts),
    keys("binaryData", names::config_key),
    whole(config_size),
];

const SECRET: Rules = &[
    keys("data", names::config_key),
    whole(secret_size),
    by("type", &BY_TYPE),
];

const BY_TYPE: Cases = Cases {
    of: &[
        (&["kubernetes.io/service-account-token"], &[whole(account)]),
        (
            &["kubernetes.io/dockercfg"],
            &[entries(
                "data",
                &[present(".dockercfg"), call(".dockercfg", json_object)],
            )],
        ),
        (
            &["kubernetes.io/dockerconfigjson"],
            &[entries(
                "data",
                &[present(".dockerconfigjson"), call(".dockerconfigjson", json_object)],
            )],
        ),
        (&["kubernetes.io/basic-auth"], &[whole(user_or_password)]),
        (
            &["kubernetes.io/ssh-auth"],
            &[entries("data", &[required("ssh-privatekey")])],
        ),
        (
            &["kubernetes.io/tls"],
            &[entries("data", &[present("tls.crt"), present("tls.key")])],
        ),
    ],
    otherwise: &[],
};

const MAX_DATA: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub fn config_map(config: &Value, errors: &mut Errors) {
    check_object(CONFIG_MAP, config, errors);
}

pub fn config_map_update(new: &Value, old: &Value, errors: &mut Errors) {
    frozen(new, old, &["data", "binaryData"], errors);
}

pub fn secret(secret: &Value, errors: &mut Errors) {
    check_object(SECRET, secret, errors);
}

pub fn secret_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["type"], "type");
    frozen(new, old, &["data"], errors);
}

/// No key may stand among the bytes too.
fn texts(data: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let binary = object::map_at(scope.object, &["binaryData"]);
    for (key, _) in data.as_object().into_iter().flatten() {
        let path = path.key(key);
        invalid_each(errors, &path, key, names::config_key(key));
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            let why = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(path, key.as_str(), why));
        }
    }
}

/// The length of all the bytes behind a map's base64 texts.
fn decoded(map: &Value, key: &str) -> usize {
    strings_of(map, key).map(|(_, text)| decoded_len(text)).sum()
}

fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|&byte| byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn config_size(config: &Value, _: &Scope<'_>, _: &Path<'_>, errors: &mut Errors) {
    let texts: usize = strings_of(config, "data").map(|(_, text)| text.len()).sum();
    if texts + decoded(config, "binaryData") > MAX_DATA {
        errors.push(FieldError::too_long("[]", MAX_DATA));
    }
}

fn secret_size(secret: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if decoded(secret, "data") > MAX_DATA {
        errors.push(FieldError::too_long(path.child("data"), MAX_DATA));
    }
}

fn account(secret: &Value, _: &Scope<'_>, _: &Path<'_>, errors: &mut Errors) {
    const NAME: &str = "kubernetes.io/service-account.name";
    if object::annotation(secret, NAME).is_none_or(str::is_empty) {
        errors.push(FieldError::required(format!("metadata.annotations[{NAME}]"), ""));
    }
}

fn user_or_password(secret: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const EITHER: [&str; 2] = ["username", "password"];
    let data = object::map_at(secret, &["data"]);
    if EITHER
        .iter()
        .any(|key| data.is_some_and(|data| data.contains_key(*key)))
    {
        return;
    }
    for key in EITHER {
        errors.push(FieldError::required(path.child("data").key(key), ""));
    }
}

fn json_object(encoded: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let bytes = STANDARD.decode(encoded.as_str().unwrap_or("")).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        // The parser's words may quote the content: only the position is told.
        let why = format!("not a JSON object (line {}, column {})", error.line(), error.column());
        errors.push(FieldError::invalid(path, "<secret contents redacted>", why));
    }
}

fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.push(FieldError::forbidden("immutable", FROZEN));
    }
    for field in fields {
        if !same(has(new, field), has(old, field)) {
            errors.push(FieldError::forbidden(*field, FROZEN));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn immutable_maps() {
        let old = json!({"immutable": true, "data": {"a": "b"}, "metadata": {"labels": {}}});
        let check = |new: &Value| {
            let mut errors = Errors::new();
            config_map_update(new, &old, &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            check(&json!({"immutable": true, "data": {"a": "b"}, "metadata": {"labels": {"x": "y"}}})),
            Vec::<String>::new()
        );
        assert_eq!(check(&json!({"immutable": true, "data": {"a": "c"}})), ["data"]);
        assert_eq!(check(&json!({"data": {"a": "b"}})), ["immutable"]);
    }

    #[test]
    fn secrets_by_type() {
        let check = |object: Value| {
            let mut errors = Errors::new();
            secret(&object, &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            check(json!({"type": "kubernetes.io/tls"})),
            ["data[tls.crt]", "data[tls.key]"]
        );
        assert_eq!(
            check(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}})),
            Vec::<String>::new()
        );
        assert_eq!(
            check(json!({"type": "kubernetes.io/ssh-auth", "data": {"ssh-privatekey": ""}})),
            ["data[ssh-privatekey]"]
        );
        assert_eq!(
            check(json!({"type": "kubernetes.io/basic-auth"})),
            ["data[username]", "data[password]"]
        );
        assert_eq!(check(json!({"type": "Opaque", "data": {"a b": ""}})), ["data[a b]"]);
        let config = STANDARD.encode("{}");
        assert_eq!(
            check(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}})),
            Vec::<String>::new()
        );
        assert_eq!(decoded_len("eA=="), 1);
    }
}
