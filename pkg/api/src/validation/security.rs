//! Security contexts of pods and containers, and what an operating system forbids in them.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::{
    Rules, Scope, call, check, format_if_set, numbers, object, one_of_if_set, one_of_unless_empty, range,
    required_saying, whole,
};
use super::{Errors, Path, each, flag, has, list, says, text, volumes};
use crate::meta as object_at;
use crate::names;
use crate::status::FieldError;

const MAX_ID: i64 = i32::MAX as i64;
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

pub(super) const POD: Rules = &[
    range("fsGroup", 0, MAX_ID),
    range("runAsUser", 0, MAX_ID),
    range("runAsGroup", 0, MAX_ID),
    numbers("supplementalGroups", 0, MAX_ID),
    whole(shared_processes),
    call("sysctls", sysctls),
    one_of_if_set("fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
    object("seccompProfile", SECCOMP),
    object("windowsOptions", WINDOWS),
    object("appArmorProfile", APP_ARMOR),
    one_of_if_set("supplementalGroupsPolicy", &["Merge", "Strict"]),
    whole(change_policy),
];

/// A pod that mounts with its label may have been let in when that could be done.
fn change_policy(context: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const NEW: Rules = &[one_of_if_set("seLinuxChangePolicy", &["Recursive"])];
    const ANY: Rules = &[one_of_if_set("seLinuxChangePolicy", &["MountOption", "Recursive"])];
    let new = object_at::resource_version(scope.object).is_empty();
    check(if new { NEW } else { ANY }, context, scope, path, errors);
}

pub(super) const CONTAINER: Rules = &[
    range("runAsUser", 0, MAX_ID),
    range("runAsGroup", 0, MAX_ID),
    one_of_if_set("procMount", &["Default", "Unmasked"]),
    call("procMount", unmasked),
    object("seccompProfile", SECCOMP),
    whole(escalation),
    object("windowsOptions", WINDOWS),
    object("appArmorProfile", APP_ARMOR),
];

const SECCOMP: Rules = &[
    required_saying("type", "type is required when seccompProfile is set"),
    one_of_unless_empty("type", &PROFILES),
    whole(seccomp_file),
];

const APP_ARMOR: Rules = &[whole(app_armor)];

const WINDOWS: Rules = &[
    format_if_set("gmsaCredentialSpecName", names::dns_subdomain),
    call("gmsaCredentialSpec", credential_spec),
    call("runAsUserName", windows_user),
];

fn spec<'a>(scope: &Scope<'a>) -> &'a Value {
    scope.pod.map_or(&Value::Null, |pod| pod.spec)
}

fn shared_processes(_: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if flag(spec(scope), "shareProcessNamespace") && flag(spec(scope), "hostPID") {
        errors.push(FieldError::invalid(
            path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
}

fn sysctls(sysctls: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    const IPC: [&str; 4] = ["kernel.sem", "kernel.msg", "kernel.shm", "fs.mqueue."];
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, sysctl) in sysctls.as_array().into_iter().flatten().enumerate() {
        let path = path.index(index);
        let path = path.child("name");
        let name = text(sysctl, "name");
        let repeated = !seen.insert(name);
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !is_sysctl(name) {
            errors.push(FieldError::invalid(path, name, FORM));
        } else if repeated {
            errors.push(FieldError::duplicate(path, name));
        }
        let dotted = name.replace('/', ".");
        if flag(spec(scope), "hostNetwork") && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(
                path,
                name,
                "may not be specified when 'hostNetwork' is true",
            ));
        } else if flag(spec(scope), "hostIPC") && IPC.iter().any(|prefix| dotted.starts_with(prefix)) {
            errors.push(FieldError::invalid(
                path,
                name,
                "may not be specified when 'hostIPC' is true",
            ));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if edge(first) && edge(last))
                && bytes.iter().all(|&byte| edge(byte) || byte == b'-' || byte == b'_')
        })
}

fn unmasked(mount: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if mount == "Unmasked" && object_at::bool_at(spec(scope), &["hostUsers"]) != Some(false) {
        errors.push(FieldError::invalid(
            path,
            "Unmasked",
            "`hostUsers` must be false to use `Unmasked`",
        ));
    }
}

fn escalation(context: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if has(context, "allowPrivilegeEscalation").is_none() || flag(context, "allowPrivilegeEscalation") {
        return;
    }
    if flag(context, "privileged") {
        errors.push(FieldError::invalid(
            path,
            context.clone(),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ));
    }
    let adds = has(context, "capabilities").map_or(&[][..], |capabilities| list(capabilities, "add"));
    if adds.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
        errors.push(FieldError::invalid(
            path,
            context.clone(),
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        ));
    }
}

fn seccomp_file(profile: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("localhostProfile");
    match (
        text(profile, "type"),
        has(profile, "localhostProfile").and_then(Value::as_str),
    ) {
        ("Localhost", None) => errors.push(FieldError::required(path, "must be set when seccomp type is Localhost")),
        ("Localhost", Some(target)) => super::invalid_each(errors, &path, target, volumes::descending(target)),
        (_, Some(_)) => errors.push(FieldError::invalid(
            path,
            profile.clone(),
            "can only be set when seccomp type is Localhost",
        )),
        (_, None) => {}
    }
}

fn app_armor(profile: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    /// The longest path there is.
    const MAX_PATH: usize = 4095;
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let target = has(profile, "localhostProfile").and_then(Value::as_str);
    let file = path.child("localhostProfile");
    match (text(profile, "type"), target) {
        ("Localhost", None) => errors.push(FieldError::required(file, NEEDED)),
        ("Localhost", Some(target)) => {
            if target.trim() != target {
                errors.push(FieldError::invalid(file, target, "must not be padded with whitespace"));
            } else if target.is_empty() {
                errors.push(FieldError::required(file, NEEDED));
            }
            if target.len() > MAX_PATH {
                errors.push(FieldError::too_long(file, MAX_PATH));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(target)) => errors.push(FieldError::invalid(
            file,
            target,
            "can only be set when AppArmor type is Localhost",
        )),
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.push(FieldError::required(
            path.child("type"),
            "type is required when appArmorProfile is set",
        )),
        (other, _) => errors.push(FieldError::not_supported(path.child("type"), other, &PROFILES)),
    }
}

fn credential_spec(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    if own.is_empty() {
        errors.push(FieldError::invalid(
            path,
            own,
            "gmsaCredentialSpec cannot be an empty string",
        ));
    } else if own.len() > 64 * 1024 {
        errors.push(FieldError::invalid(
            path,
            own,
            "gmsaCredentialSpec size must be under 64 KiB",
        ));
    }
}

/// `DOMAIN\user` or a user alone.
fn windows_user(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    let mut wrong = |why: &str| errors.push(FieldError::invalid(path, own, format!("runAsUserName{why}")));
    if own.is_empty() {
        return wrong(" cannot be an empty string");
    }
    if own.chars().any(|letter| letter.is_ascii_control()) {
        return wrong(" cannot contain control characters");
    }
    if own.matches('\\').count() > 1 {
        return wrong(" cannot contain more than one backslash");
    }
    let (domain, user) = match own.split_once('\\') {
        Some((domain, user)) => (Some(domain), user),
        None => (None, own),
    };
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            wrong("'s Domain length must be under 256 characters");
        }
        if !is_net_bios(domain) && !is_windows_domain(domain) {
            wrong("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        wrong("'s User cannot be empty");
    } else if user.len() > 104 {
        wrong("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|letter| matches!(letter, '.' | ' ')) {
        wrong("'s User cannot contain only periods or spaces");
    }
    if user.contains([
        '"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']',
    ]) {
        wrong("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_windows_domain(domain: &str) -> bool {
    domain.split('.').all(|part| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    })
}

/// Every container of a pod with its path, as upstream visits them.
pub(super) fn visit_containers<'a>(spec: &'a Value, path: &Path<'_>, mut visit: impl FnMut(&'a Value, &Path<'_>)) {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(kind);
        for (index, container) in each(spec, kind) {
            visit(container, &path.index(index));
        }
    }
}

pub(super) fn windows_host_process(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const FIELD: [&str; 3] = ["securityContext", "windowsOptions", "hostProcess"];
    let of_pod = object_at::bool_at(spec, &FIELD);
    let (mut all, mut host) = (0, 0);
    visit_containers(spec, path, |container, path| {
        let own = object_at::bool_at(container, &FIELD);
        all += 1;
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            errors.push(FieldError::invalid(
                format!("{path}.securityContext.windowsOptions.hostProcess"),
                own,
                format!("pod hostProcess value must be identical if both are specified, was {pod}"),
            ));
        }
        host += usize::from(own.or(of_pod) == Some(true));
    });
    if host == 0 {
        return;
    }
    if host != all {
        errors.push(FieldError::invalid(
            path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        ));
    }
    if !flag(spec, "hostNetwork") {
        errors.push(FieldError::invalid(
            path.child("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        ));
    }
}

/// A pod in a user namespace of its own shares no other namespace with the host.
pub(super) fn host_users(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const WHY: &str = "when `hostUsers` is false";
    if object_at::bool_at(spec, &["hostUsers"]) != Some(false) {
        return;
    }
    // Two of them are told in upstream's own spelling.
    for (field, told) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if flag(spec, field) {
            errors.push(FieldError::forbidden(path.child(told), WHY));
        }
    }
    visit_containers(spec, path, |container, path| {
        if !list(container, "volumeDevices").is_empty() {
            errors.push(FieldError::forbidden(path.child("volumeDevices"), WHY));
        }
    });
}

/// `os`, and what the operating system that it names forbids.
pub(super) fn operating_system(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(os) = has(spec, "os") else { return };
    match text(os, "name") {
        "linux" => without_windows(spec, path, errors),
        "windows" => without_linux(spec, path, errors),
        "" => errors.push(FieldError::required(path.child("os").child("name"), "")),
        other => errors.push(FieldError::not_supported(
            path.child("os"),
            other,
            &["linux", "windows"],
        )),
    }
}

fn without_windows(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    let context = |holder: &Value, path: &Path<'_>, errors: &mut Errors| {
        if object_at::at(holder, &["securityContext", "windowsOptions"]).is_some() {
            errors.push(FieldError::forbidden(
                path.child("securityContext").child("windowsOptions"),
                WHY,
            ));
        }
    };
    context(spec, path, errors);
    visit_containers(spec, path, |container, path| context(container, path, errors));
}

fn without_linux(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const WHY: &str = "cannot be set for a windows pod";
    const OF_POD: [&str; 15] = [
        "securityContext.appArmorProfile",
        "securityContext.seLinuxOptions",
        "hostUsers",
        "hostPID",
        "hostIPC",
        "securityContext.seccompProfile",
        "securityContext.fsGroup",
        "securityContext.fsGroupChangePolicy",
        "securityContext.sysctls",
        "shareProcessNamespace",
        "securityContext.runAsUser",
        "securityContext.runAsGroup",
        "securityContext.supplementalGroups",
        "securityContext.supplementalGroupsPolicy",
        "securityContext.seLinuxChangePolicy",
    ];
    const OF_CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for field in OF_POD {
        let value = match field.split_once('.') {
            Some((outer, inner)) => object_at::at(spec, &[outer, inner]),
            None => has(spec, field),
        };
        // Those of the host's namespaces are plain flags, of which false is no value.
        let set = match field {
            "hostPID" | "hostIPC" => says(value),
            _ => value.is_some_and(|value| value.as_array().is_none_or(|items| !items.is_empty())),
        };
        if set {
            errors.push(FieldError::forbidden(path.child(field), WHY));
        }
    }
    visit_containers(spec, path, |container, path| {
        let path = path.child("securityContext");
        let Some(context) = has(container, "securityContext") else {
            return;
        };
        for field in OF_CONTAINER {
            if has(context, field).is_some() {
                errors.push(FieldError::forbidden(path.child(field), WHY));
            }
        }
    });
}
