//! The checks of the standards as a table: id, level, from which minor version on, what of baseline they replace.

use std::collections::{BTreeSet, HashSet};

use mk8s_api::meta::{bool_at, i64_at, items, str_at, string};
use mk8s_api::validation::volume_sources;
use serde_json::Value;

use super::{Level, LevelVersion, Violation};

/// The newest version that changed a check.
const NEWEST: u32 = 35;

struct Check {
    id: &'static str,
    level: Level,
    since: u32,
    replaces: Option<&'static str>,
    run: fn(&Value, u32) -> Option<Violation>,
}

const fn check(id: &'static str, level: Level, since: u32, run: fn(&Value, u32) -> Option<Violation>) -> Check {
    Check {
        id,
        level,
        since,
        replaces: None,
        run,
    }
}

const fn instead_of(replaced: &'static str, check: Check) -> Check {
    Check {
        replaces: Some(replaced),
        ..check
    }
}

/// In the order in which upstream names violations: baseline by id, then restricted by id.
const CHECKS: [Check; 19] = {
    use Level::{Baseline, Restricted};
    [
        check("appArmorProfile", Baseline, 0, app_armor),
        check("capabilities_baseline", Baseline, 0, capabilities_baseline),
        check("hostNamespaces", Baseline, 0, host_namespaces),
        check("hostPathVolumes", Baseline, 0, host_path),
        check("hostPorts", Baseline, 0, host_ports),
        check("hostProbesAndHostLifecycle", Baseline, 34, host_probes),
        check("privileged", Baseline, 0, privileged),
        check("procMount", Baseline, 0, |pod, minor| {
            if minor >= 35 && own_users(pod) {
                None
            } else {
                proc_mount(pod, minor)
            }
        }),
        check("seLinuxOptions", Baseline, 0, se_linux),
        check("seccompProfile_baseline", Baseline, 0, seccomp_baseline),
        check("sysctls", Baseline, 0, sysctls),
        check("windowsHostProcess", Baseline, 0, windows_host_process),
        check("allowPrivilegeEscalation", Restricted, 8, allow_privilege_escalation),
        instead_of(
            "capabilities_baseline",
            check("capabilities_restricted", Restricted, 22, capabilities_restricted),
        ),
        instead_of("procMount", check("procMount_restricted", Restricted, 35, proc_mount)),
        instead_of(
            "hostPathVolumes",
            check("restrictedVolumes", Restricted, 0, restricted_volumes),
        ),
        check("runAsNonRoot", Restricted, 0, run_as_non_root),
        check("runAsUser", Restricted, 23, run_as_user),
        instead_of(
            "seccompProfile_baseline",
            check("seccompProfile_restricted", Restricted, 19, seccomp_restricted),
        ),
    ]
};

/// What in a pod (or pod template) the level at its version does not allow.
pub fn evaluate(policy: LevelVersion, pod: &Value) -> Vec<Violation> {
    if policy.level == Level::Privileged {
        return Vec::new();
    }
    let minor = policy.minor.unwrap_or(NEWEST).min(NEWEST);
    let applies = |check: &&Check| check.level <= policy.level && check.since <= minor;
    let replaced = |id: &str| CHECKS.iter().filter(applies).any(|check| check.replaces == Some(id));
    CHECKS
        .iter()
        .filter(applies)
        .filter(|check| !replaced(check.id))
        .filter_map(|check| (check.run)(pod, minor))
        .collect()
}

fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation {
        reason: reason.into(),
        detail: detail.into(),
    })
}

/// init containers, containers, ephemeral containers
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| items(pod, &["spec", list]))
}

fn name(item: &Value) -> String {
    string(item, &["name"]).to_string()
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let list: Vec<String> = names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    list.join(", ")
}

/// `container "a"`, `containers "a", "b"`
fn named(names: &[String]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn failing(pod: &Value, fails: impl Fn(&Value) -> bool) -> Vec<String> {
    containers(pod).filter(|container| fails(container)).map(name).collect()
}

/// hostUsers: false gives a pod users of its own, of which some checks ask less.
fn own_users(pod: &Value) -> bool {
    bool_at(pod, &["spec", "hostUsers"]) == Some(false)
}

fn is_windows(pod: &Value) -> bool {
    str_at(pod, &["spec", "os", "name"]) == Some("windows")
}

fn annotations(pod: &Value) -> impl Iterator<Item = (&String, &str)> {
    let all = mk8s_api::meta::annotations(pod);
    all.into_iter()
        .flatten()
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}

/// `pod`, `container "a"`, joined by `and`: who set it.
fn setters(pod: bool, names: &[String]) -> Vec<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_string());
    }
    if !names.is_empty() {
        setters.push(named(names));
    }
    setters
}

fn app_armor(pod: &Value, _: u32) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |holder: &Value, path: &[&str]| {
        let Some(profile) = mk8s_api::meta::at(holder, path) else {
            return false;
        };
        let type_ = string(profile, &["type"]);
        let bad = !profile.is_null() && !matches!(type_, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(type_.to_string());
        }
        bad
    };
    let pod_sets = bad(pod, &["spec", "securityContext", "appArmorProfile"]);
    let names: Vec<String> = containers(pod)
        .filter(|container| bad(container, &["securityContext", "appArmorProfile"]))
        .map(name)
        .collect();
    let mut who = setters(pod_sets, &names);
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let mut forbidden: Vec<String> = annotations(pod)
        .filter(|(key, value)| key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    forbidden.sort();
    let mut list: Vec<String> = values.into_iter().collect();
    if !forbidden.is_empty() {
        who.push(plural("annotation", "annotations", forbidden.len()).to_string());
        list.extend(forbidden);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", list.len());
    violation(
        reason,
        format!(
            "{} must not set AppArmor profile type to {}",
            who.join(" and "),
            quoted(&list)
        ),
    )
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add a capability which is not allowed, and those capabilities.
fn added(pod: &Value, allowed: impl Fn(&str) -> bool) -> (Vec<String>, BTreeSet<String>) {
    let mut forbidden = BTreeSet::new();
    let names = containers(pod)
        .filter(|container| {
            let mut bad = false;
            for capability in items(container, &["securityContext", "capabilities", "add"]) {
                let capability = capability.as_str().unwrap_or_default();
                if !allowed(capability) {
                    forbidden.insert(capability.to_string());
                    bad = true;
                }
            }
            bad
        })
        .map(name)
        .collect();
    (names, forbidden)
}

fn must_not_add(names: &[String], capabilities: &BTreeSet<String>) -> String {
    format!(
        "{} must not include {} in securityContext.capabilities.add",
        named(names),
        quoted(capabilities)
    )
}

fn capabilities_baseline(pod: &Value, _: u32) -> Option<Violation> {
    let (names, forbidden) = added(pod, |capability| DEFAULT_CAPABILITIES.contains(&capability));
    if names.is_empty() {
        return None;
    }
    violation("non-default capabilities", must_not_add(&names, &forbidden))
}

fn capabilities_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 25 && is_windows(pod) {
        return None;
    }
    let keeping = failing(pod, |container| {
        !items(container, &["securityContext", "capabilities", "drop"])
            .iter()
            .any(|dropped| dropped == "ALL")
    });
    let (adding, forbidden) = added(pod, |capability| capability == "NET_BIND_SERVICE");
    let mut texts = Vec::new();
    if !keeping.is_empty() {
        texts.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            named(&keeping)
        ));
    }
    if !adding.is_empty() {
        texts.push(must_not_add(&adding, &forbidden));
    }
    if texts.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", texts.join("; "))
}

fn host_namespaces(pod: &Value, _: u32) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| bool_at(pod, &["spec", field]) == Some(true))
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() {
        return None;
    }
    violation("host namespaces", set.join(", "))
}

fn volumes(pod: &Value) -> &[Value] {
    items(pod, &["spec", "volumes"])
}

fn has(volume: &Value, kind: &str) -> bool {
    volume.get(kind).is_some_and(|source| !source.is_null())
}

fn host_path(pod: &Value, _: u32) -> Option<Violation> {
    let names: Vec<String> = volumes(pod)
        .iter()
        .filter(|volume| has(volume, "hostPath"))
        .map(name)
        .collect();
    if names.is_empty() {
        return None;
    }
    violation(
        "hostPath volumes",
        format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)),
    )
}

fn host_ports(pod: &Value, _: u32) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let mut names = Vec::new();
    for container in containers(pod) {
        let used = items(container, &["ports"])
            .iter()
            .filter_map(|port| i64_at(port, &["hostPort"]));
        let used: Vec<String> = used.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        if !used.is_empty() {
            names.push(name(container));
            ports.extend(used);
        }
    }
    if names.is_empty() {
        return None;
    }
    let list: Vec<&str> = ports.iter().map(String::as_str).collect();
    violation(
        "hostPort",
        format!(
            "{} {} {} {}",
            named(&names),
            plural("uses", "use", names.len()),
            plural("hostPort", "hostPorts", ports.len()),
            list.join(", ")
        ),
    )
}

fn host_probes(pod: &Value, _: u32) -> Option<Violation> {
    let handlers: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let mut hosts = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in containers(pod) {
        for handler in handlers.iter().filter_map(|path| mk8s_api::meta::at(container, path)) {
            for kind in ["httpGet", "tcpSocket"] {
                let host = string(handler, &[kind, "host"]);
                if !host.is_empty() {
                    hosts.insert(host.to_string());
                    names.insert(name(container));
                }
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let names: Vec<String> = names.into_iter().collect();
    violation(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            named(&names),
            plural("uses", "use", names.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
            quoted(&hosts)
        ),
    )
}

fn privileged(pod: &Value, _: u32) -> Option<Violation> {
    let names = failing(pod, |container| {
        bool_at(container, &["securityContext", "privileged"]) == Some(true)
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "privileged",
        format!("{} must not set securityContext.privileged=true", named(&names)),
    )
}

fn proc_mount(pod: &Value, _: u32) -> Option<Violation> {
    let of = |container: &Value| {
        str_at(container, &["securityContext", "procMount"])
            .filter(|mount| *mount != "Default")
            .map(str::to_string)
    };
    let names = failing(pod, |container| of(container).is_some());
    if names.is_empty() {
        return None;
    }
    let types: BTreeSet<String> = containers(pod).filter_map(of).collect();
    violation(
        "procMount",
        format!(
            "{} must not set securityContext.procMount to {}",
            named(&names),
            quoted(&types)
        ),
    )
}

fn se_linux(pod: &Value, minor: u32) -> Option<Violation> {
    let allowed = |type_: &str| {
        matches!(type_, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (minor >= 31 && type_ == "container_engine_t")
    };
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |holder: &Value, path: &[&str]| {
        let Some(options) = mk8s_api::meta::at(holder, path) else {
            return false;
        };
        let type_ = string(options, &["type"]);
        let mut bad = false;
        if !allowed(type_) {
            types.insert(type_.to_string());
            bad = true;
        }
        for (field, set) in [("user", &mut user), ("role", &mut role)] {
            if !string(options, &[field]).is_empty() {
                *set = true;
                bad = true;
            }
        }
        bad
    };
    let pod_sets = bad(pod, &["spec", "securityContext", "seLinuxOptions"]);
    let names: Vec<String> = containers(pod)
        .filter(|container| bad(container, &["securityContext", "seLinuxOptions"]))
        .map(name)
        .collect();
    let who = setters(pod_sets, &names);
    if who.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        what.push("user may not be set".into());
    }
    if role {
        what.push("role may not be set".into());
    }
    violation(
        "seLinuxOptions",
        format!(
            "{} set forbidden securityContext.seLinuxOptions: {}",
            who.join(" and "),
            what.join("; ")
        ),
    )
}

/// Some(type) where a profile is set.
fn seccomp<'a>(holder: &'a Value, path: &[&str]) -> Option<&'a str> {
    let profile = mk8s_api::meta::at(holder, path).filter(|profile| !profile.is_null())?;
    Some(string(profile, &["type"]))
}

const POD_SECCOMP: [&str; 3] = ["spec", "securityContext", "seccompProfile"];
const CONTAINER_SECCOMP: [&str; 2] = ["securityContext", "seccompProfile"];

fn good_seccomp(type_: &str) -> bool {
    matches!(type_, "Localhost" | "RuntimeDefault")
}

/// Profiles of forbidden types, whoever sets them.
fn bad_seccomp(pod: &Value) -> Option<Violation> {
    let bad = |type_: Option<&str>| type_.filter(|type_| !good_seccomp(type_)).map(str::to_string);
    let pod_value = bad(seccomp(pod, &POD_SECCOMP));
    let names = failing(pod, |container| bad(seccomp(container, &CONTAINER_SECCOMP)).is_some());
    let who = setters(pod_value.is_some(), &names);
    if who.is_empty() {
        return None;
    }
    let values: BTreeSet<String> = pod_value
        .into_iter()
        .chain(containers(pod).filter_map(|container| bad(seccomp(container, &CONTAINER_SECCOMP))))
        .collect();
    violation(
        "seccompProfile",
        format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            who.join(" and "),
            quoted(&values)
        ),
    )
}

fn seccomp_baseline(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 19 {
        return bad_seccomp(pod);
    }
    let good = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let of_pod = "seccomp.security.alpha.kubernetes.io/pod".to_string();
    let keys: HashSet<String> = std::iter::once(of_pod)
        .chain(containers(pod).map(|container| {
            format!(
                "container.seccomp.security.alpha.kubernetes.io/{}",
                string(container, &["name"])
            )
        }))
        .collect();
    let forbidden: BTreeSet<String> = annotations(pod)
        .filter(|(key, value)| keys.contains(*key) && !good(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let list: Vec<&str> = forbidden.iter().map(String::as_str).collect();
    let word = plural("annotation", "annotations", list.len());
    violation("seccompProfile", format!("forbidden {word} {}", list.join(", ")))
}

fn seccomp_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 25 && is_windows(pod) {
        return None;
    }
    if let Some(found) = bad_seccomp(pod) {
        return Some(found);
    }
    if seccomp(pod, &POD_SECCOMP).is_some_and(good_seccomp) {
        return None;
    }
    let names = failing(pod, |container| seccomp(container, &CONTAINER_SECCOMP).is_none());
    if names.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&names)
        ),
    )
}

/// (sysctl, allowed since)
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Value, minor: u32) -> Option<Violation> {
    let forbidden: Vec<&str> = items(pod, &["spec", "securityContext", "sysctls"])
        .iter()
        .map(|sysctl| string(sysctl, &["name"]))
        .filter(|name| {
            !SYSCTLS
                .iter()
                .any(|(allowed, since)| allowed == name && *since <= minor)
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    violation("forbidden sysctls", forbidden.join(", "))
}

fn windows_host_process(pod: &Value, _: u32) -> Option<Violation> {
    let set = |holder: &Value, path: &[&str]| bool_at(holder, path) == Some(true);
    let pod_sets = set(pod, &["spec", "securityContext", "windowsOptions", "hostProcess"]);
    let names = failing(pod, |container| {
        set(container, &["securityContext", "windowsOptions", "hostProcess"])
    });
    let who = setters(pod_sets, &names);
    if who.is_empty() {
        return None;
    }
    violation(
        "hostProcess",
        format!(
            "{} must not set securityContext.windowsOptions.hostProcess=true",
            who.join(" and ")
        ),
    )
}

fn allow_privilege_escalation(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 25 && is_windows(pod) {
        return None;
    }
    let path = ["securityContext", "allowPrivilegeEscalation"];
    let names = failing(pod, |container| bool_at(container, &path) != Some(false));
    if names.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            named(&names)
        ),
    )
}

const ALLOWED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn restricted_volumes(pod: &Value, _: u32) -> Option<Violation> {
    let bad: Vec<&Value> = volumes(pod)
        .iter()
        .filter(|volume| !ALLOWED_VOLUMES.iter().any(|kind| has(volume, kind)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<String> = bad.iter().map(|volume| name(volume)).collect();
    let kind = |volume: &&Value| volume_sources().find(|kind| has(volume, kind)).unwrap_or("unknown");
    let types: BTreeSet<&str> = bad.iter().map(kind).collect();
    violation(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural("restricted volume type", "restricted volume types", types.len()),
            quoted(&types)
        ),
    )
}

fn run_as_non_root(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 35 && own_users(pod) {
        return None;
    }
    const REASON: &str = "runAsNonRoot != true";
    let path = ["securityContext", "runAsNonRoot"];
    let of_pod = bool_at(pod, &["spec", "securityContext", "runAsNonRoot"]);
    let explicit = failing(pod, |container| bool_at(container, &path) == Some(false));
    let who = setters(of_pod == Some(false), &explicit);
    if !who.is_empty() {
        return violation(
            REASON,
            format!("{} must not set securityContext.runAsNonRoot=false", who.join(" and ")),
        );
    }
    if of_pod == Some(true) {
        return None;
    }
    let implicit = failing(pod, |container| bool_at(container, &path).is_none());
    if implicit.is_empty() {
        return None;
    }
    violation(
        REASON,
        format!("pod or {} must set securityContext.runAsNonRoot=true", named(&implicit)),
    )
}

fn run_as_user(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 35 && own_users(pod) {
        return None;
    }
    let pod_sets = i64_at(pod, &["spec", "securityContext", "runAsUser"]) == Some(0);
    let names = failing(pod, |container| {
        i64_at(container, &["securityContext", "runAsUser"]) == Some(0)
    });
    let who = setters(pod_sets, &names);
    if who.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{} must not set runAsUser=0", who.join(" and ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::details;
    use super::*;

    /// A pod that restricted lets through, with a spec's and a container's fields put over it.
    fn pod(spec: Value, container: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "x"}, "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
        let over = |target: &mut Value, source: Value| {
            for (key, value) in source.as_object().into_iter().flatten() {
                match (target.get_mut(key), value) {
                    (Some(Value::Object(held)), Value::Object(more)) => held.extend(more.clone()),
                    _ => target[key] = value.clone(),
                }
            }
        };
        over(&mut pod["spec"], spec);
        over(&mut pod["spec"]["containers"][0], container);
        pod
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn every_check() {
        // (spec, container, baseline says, restricted says)
        let none = json!({});
        let security = |context: Value| json!({"securityContext": context});
        let table: Vec<(Value, Value, &str, &str)> = vec![
            (none.clone(), none.clone(), "", ""),
            (
                json!({"hostPID": true, "hostIPC": true}),
                none.clone(),
                "host namespaces (hostPID=true, hostIPC=true)",
                "host namespaces (hostPID=true, hostIPC=true)",
            ),
            (
                none.clone(),
                security(json!({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}})),
                "",
                "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
            ),
            (
                none.clone(),
                security(json!({"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN", "NET_RAW"]}})),
                "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
                "unrestricted capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                json!({"volumes": [{"name": "h", "hostPath": {}}, {"name": "n", "nfs": {}}]}),
                none.clone(),
                "hostPath volumes (volume \"h\")",
                "restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\")",
            ),
            (
                none.clone(),
                json!({"ports": [{"hostPort": 80}, {"hostPort": 0}]}),
                "hostPort (container \"a\" uses hostPort 80)",
                "hostPort (container \"a\" uses hostPort 80)",
            ),
            (
                none.clone(),
                json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}),
                "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
                "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
            ),
            (
                none.clone(),
                security(json!({"procMount": "Unmasked"})),
                "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
                "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                json!({"securityContext": {"seLinuxOptions": {"user": "u"}}}),
                security(json!({"seLinuxOptions": {"type": "spc_t"}})),
                "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
                "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
                none.clone(),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.msgmax"}]}}),
                none.clone(),
                "forbidden sysctls (kernel.msgmax)",
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
                none.clone(),
                "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
                "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
            ),
            (
                json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
                none.clone(),
                "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
                "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            ),
            (
                json!({"securityContext": {"runAsUser": 0}}),
                none.clone(),
                "",
                "runAsUser=0 (pod must not set runAsUser=0)",
            ),
            (
                none.clone(),
                security(json!({"runAsNonRoot": false})),
                "",
                "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
            ),
            (
                none.clone(),
                security(json!({"allowPrivilegeEscalation": null})),
                "",
                "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false)",
            ),
        ];
        for (spec, container, baseline, restricted) in table {
            let pod = pod(spec, container);
            for (level, wanted) in [
                (Level::Privileged, ""),
                (Level::Baseline, baseline),
                (Level::Restricted, restricted),
            ] {
                assert_eq!(
                    details(&evaluate(LevelVersion { level, minor: None }, &pod)),
                    wanted,
                    "{level:?} {pod}"
                );
            }
        }
    }

    #[test]
    fn versions() {
        let old = |level, minor| LevelVersion {
            level,
            minor: Some(minor),
        };
        let rmem = pod(
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}),
            json!({}),
        );
        assert_eq!(evaluate(old(Level::Baseline, 31), &rmem).len(), 1);
        assert_eq!(evaluate(old(Level::Baseline, 32), &rmem).len(), 0);
        let probe = pod(json!({}), json!({"livenessProbe": {"httpGet": {"host": "h"}}}));
        assert_eq!(evaluate(old(Level::Baseline, 33), &probe).len(), 0);
        let root = pod(
            json!({"hostUsers": false, "securityContext": {"runAsUser": 0}}),
            json!({}),
        );
        assert_eq!(evaluate(old(Level::Restricted, 34), &root).len(), 1);
        assert_eq!(evaluate(old(Level::Restricted, 35), &root).len(), 0);
    }
}
