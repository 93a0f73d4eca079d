//! Files of the API's own that are put into a volume, and the paths that may be asked for.

use std::collections::HashSet;

use serde_json::Value;

use crate::status::FieldError;
use crate::validation::rules::{Rule, Rules, Scope, call, check, format_if_set, required};
use crate::validation::{Errors, Path, each as each_of, has, int, invalid_each, list, numbered, refs, text};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
pub(super) const MODE: Rule = call("defaultMode", file_mode);

pub(super) const KEY_TO_PATH: Rules = &[
    required("key"),
    required("path"),
    format_if_set("path", local_path),
    call("mode", file_mode),
];

fn file_mode(mode: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(FieldError::invalid(path, mode, FILE_MODE));
    }
}

/// Told of the volume source, without the file's index.
pub(super) fn downward_files(files: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (_, file) in numbered(files) {
        downward_file(file, scope, path.parent(), errors);
    }
}

fn downward_file(file: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const FILE: Rules = &[required("path"), format_if_set("path", local_path)];
    const FILE_MODE: Rules = &[call("mode", file_mode)];
    check(FILE, file, scope, path, errors);
    match (has(file, "fieldRef"), has(file, "resourceFieldRef")) {
        (Some(field), other) => {
            refs::file_field(field, &path.child("fieldRef"), errors);
            if other.is_some() {
                errors.push(FieldError::invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                ));
            }
        }
        (None, Some(resource)) => refs::resource_ref(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.push(FieldError::required(
            path,
            "one of fieldRef and resourceFieldRef is required",
        )),
    }
    check(FILE_MODE, file, scope, path, errors);
}

pub(super) fn projected(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut paths: HashSet<&str> = HashSet::new();
    let sources = path.child("sources");
    for (index, own) in each_of(source, "sources") {
        let source_path = sources.index(index);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            if let Some(source) = has(own, kind) {
                count += 1;
                projected_keys(source, scope, &mut paths, (path, &source_path.child(kind)), errors);
            }
        }
        if let Some(downward) = has(own, "downwardAPI") {
            count += 1;
            for file in list(downward, "items") {
                downward_file(file, scope, &source_path.child("downwardAPI"), errors);
                unique_path(&mut paths, text(file, "path"), None, path, errors);
            }
        }
        if let Some(token) = has(own, "serviceAccountToken") {
            count += 1;
            projected_token(token, path, &source_path.child("serviceAccountToken"), errors);
        }
        if count > 1 {
            errors.push(FieldError::forbidden(
                source_path,
                "may not specify more than 1 volume type per source",
            ));
        }
    }
}

/// A Secret or ConfigMap in a projection. The paths are the projection's, where clashes are told, and its own.
fn projected_keys<'a>(
    source: &'a Value,
    scope: &Scope<'_>,
    paths: &mut HashSet<&'a str>,
    (volume, own): (&Path<'_>, &Path<'_>),
    errors: &mut Errors,
) {
    if text(source, "name").is_empty() {
        errors.push(FieldError::required(own.child("name"), ""));
    }
    let items = own.child("items");
    for (index, item) in each_of(source, "items") {
        check(KEY_TO_PATH, item, scope, &items.index(index), errors);
        unique_path(paths, text(item, "path"), Some(text(source, "name")), volume, errors);
    }
}

/// Its file's path is told of the projection itself.
fn projected_token(token: &Value, volume: &Path<'_>, path: &Path<'_>, errors: &mut Errors) {
    let seconds = int(token, "expirationSeconds").unwrap_or(0);
    token_lifetime(seconds, &path.child("expirationSeconds"), errors);
    let file = volume.child("path");
    match text(token, "path") {
        "" => errors.push(FieldError::required(file, "")),
        target => invalid_each(errors, &file, target, local_path(target)),
    }
}

/// How long a token asks to live, in seconds.
pub(in crate::validation) fn token_lifetime(seconds: i64, path: &Path<'_>, errors: &mut Errors) {
    let why = match seconds {
        ..600 => "may not specify a duration less than 10 minutes",
        4_294_967_297.. => "may not specify a duration larger than 2^32 seconds",
        _ => return,
    };
    errors.push(FieldError::invalid(path, seconds, why));
}

fn unique_path<'a>(
    paths: &mut HashSet<&'a str>,
    target: &'a str,
    shown: Option<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if !target.is_empty() && !paths.insert(target) {
        errors.push(FieldError::invalid(
            path,
            shown.unwrap_or(target),
            "conflicting duplicate paths",
        ));
    }
}

const UP: &str = "must not contain '..'";

/// Whether a path goes up.
pub(in crate::validation) fn backsteps(target: &str) -> bool {
    target.split('/').any(|part| part == "..")
}

fn told<'a>(problems: impl IntoIterator<Item = (bool, &'a str)>) -> Vec<String> {
    let found = problems.into_iter().filter(|(is, _)| *is);
    found.map(|(_, problem)| problem.to_string()).collect()
}

pub(in crate::validation) fn no_backsteps(target: &str) -> Vec<String> {
    told([(backsteps(target), UP)])
}

/// A path below something.
pub(in crate::validation) fn descending(target: &str) -> Vec<String> {
    told([
        (target.starts_with('/'), "must be a relative path"),
        (backsteps(target), UP),
    ])
}

/// A file of the volume, of which none begins as the volume's own links do.
fn local_path(target: &str) -> Vec<String> {
    let mut problems = descending(target);
    if target.starts_with("..") && !target.starts_with("../") {
        problems.push("must not start with '..'".to_string());
    }
    problems
}
