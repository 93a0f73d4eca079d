//! The builder itself: a config.json written down with the container's values in their places.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    AppArmor, ContainerConfig, Host, Mount, Namespaces, PidNamespace, Propagation, Resources, SandboxConfig, Security,
    SpecError, capabilities, devices, seccomp,
};

const OCI_VERSION: &str = "1.0.2";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHIM_GROUP: &str = "io.containerd.runc.v2.group";
const APPARMOR_DEFAULT: &str = "cri-containerd.apparmor.d";
/// What CRI gives the pause container: it does nothing.
const SANDBOX_CPU_SHARES: u64 = 2;

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The spec of a pod's container.
pub fn container(config: &ContainerConfig, host: &Host) -> Result<Value, SpecError> {
    let security = &config.security;
    let set = capabilities::resolve(security, host.capabilities)?;
    let identity = config.identity()?;
    let caps = capabilities::names(set);
    let mut process = json!({
        "terminal": config.tty,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.additional_gids},
        "args": process_args(config)?,
        "env": environment(config),
        "cwd": working_dir(config),
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "noNewPrivileges": security.no_new_privileges,
    });
    if let Some(adjustment) = host.oom_score_adj(config.resources.oom_score_adj) {
        process["oomScoreAdj"] = json!(adjustment);
    }
    if let Some(profile) = apparmor(security, host)? {
        process["apparmorProfile"] = json!(profile);
    }

    let (mut nodes, mut rules) = devices::listed(&config.devices)?;
    let (mut masked, mut readonly) = (MASKED_PATHS.to_vec(), READONLY_PATHS.to_vec());
    if security.privileged {
        nodes.extend(devices::of_host());
        rules = vec![json!({"allow": true, "access": "rwm"})];
    } else {
        rules.insert(0, json!({"allow": false, "access": "rwm"}));
    }
    if security.privileged || security.unmasked_proc {
        masked.clear();
        readonly.clear();
    }
    let mut resources = limits(&config.resources, host);
    resources.insert("devices".to_owned(), Value::Array(rules));

    let mut linux = json!({
        "cgroupsPath": config.cgroups_path,
        "namespaces": namespaces(&config.namespaces, host.cgroup_v2 && !security.privileged),
        "devices": nodes,
        "resources": resources,
        "maskedPaths": masked,
        "readonlyPaths": readonly,
    });
    if let Some(propagation) = rootfs_propagation(&config.mounts) {
        linux["rootfsPropagation"] = json!(propagation);
    }
    // A privileged container has no filter, whatever was asked for.
    if !security.privileged
        && let Some(filter) = seccomp::filter(&security.seccomp, set)?
    {
        linux["seccomp"] = filter;
    }
    Ok(json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": "rootfs", "readonly": security.readonly_rootfs},
        "process": process,
        "mounts": mounts(config),
        "annotations": annotations(&config.annotations, &config.shim_group),
        "linux": linux,
    }))
}

/// The spec of a pod's sandbox: the pause process that holds its namespaces.
pub fn sandbox(config: &SandboxConfig, host: &Host) -> Result<Value, SpecError> {
    let security = Security {
        run_as_user: config.run_as_user,
        run_as_group: config.run_as_group,
        supplemental_groups: config.supplemental_groups.clone(),
        ..Default::default()
    };
    let identity = super::accounts::Accounts::default().identity(&config.image.user, &security)?;
    let set = capabilities::resolve(&security, host.capabilities)?;
    let caps = capabilities::names(set);
    let mut process = json!({
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.additional_gids},
        "args": config.image.entrypoint.iter().chain(&config.image.cmd).collect::<Vec<_>>(),
        "env": with_path(config.image.env.clone()),
        "cwd": "/",
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "noNewPrivileges": true,
    });
    if let Some(adjustment) = host.oom_score_adj(config.oom_score_adj) {
        process["oomScoreAdj"] = json!(adjustment);
    }
    let mut mounts = default_mounts();
    mounts.retain(|mount| mount["destination"] != "/dev/shm" && mount["destination"] != "/sys/fs/cgroup");
    if let Some(shm) = &config.shm {
        let options = ["rbind", "ro", "nosuid", "nodev", "noexec"];
        mounts.push(json!({"destination": "/dev/shm", "type": "bind", "source": shm, "options": options}));
    }
    let mut linux = json!({
        "cgroupsPath": config.cgroups_path,
        "namespaces": sandbox_namespaces(config),
        "sysctl": config.sysctls,
        "resources": {
            "devices": [{"allow": false, "access": "rwm"}],
            "cpu": {"shares": SANDBOX_CPU_SHARES},
        },
        "maskedPaths": MASKED_PATHS,
        "readonlyPaths": READONLY_PATHS,
    });
    if !config.privileged
        && let Some(filter) = seccomp::filter(&config.seccomp, set)?
    {
        linux["seccomp"] = filter;
    }
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": "rootfs", "readonly": true},
        "process": process,
        "mounts": mounts,
        "annotations": annotations(&config.annotations, &config.shim_group),
        "linux": linux,
    });
    if let Some(hostname) = &config.hostname {
        spec["hostname"] = json!(hostname);
    }
    Ok(spec)
}

fn sandbox_namespaces(config: &SandboxConfig) -> Vec<Value> {
    let mut namespaces = vec![json!({"type": "mount"})];
    if let Some(path) = &config.network {
        namespaces.push(json!({"type": "network", "path": path}));
    }
    let own = [
        ("uts", config.hostname.is_some()),
        ("ipc", !config.host_ipc),
        ("pid", !config.host_pid),
    ];
    let own = own.iter().filter(|(_, own)| *own);
    namespaces.extend(own.map(|(kind, _)| json!({"type": kind})));
    namespaces
}

fn process_args(config: &ContainerConfig) -> Result<Vec<String>, SpecError> {
    let image = &config.image;
    // A command of the pod's drops the image's cmd too, as docker's --entrypoint does.
    let (command, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    let args: Vec<String> = command.iter().chain(args).cloned().collect();
    if args.is_empty() {
        Err(SpecError::NoCommand)
    } else {
        Ok(args)
    }
}

fn working_dir(config: &ContainerConfig) -> &str {
    let asked = config.working_dir.as_deref().filter(|dir| !dir.is_empty());
    let of_image = Some(config.image.working_dir.as_str()).filter(|dir| !dir.is_empty());
    asked.or(of_image).unwrap_or("/")
}

/// PATH, TERM with a terminal, HOSTNAME, the image's, the pod's: a later one of the same name replaces the earlier in
/// its place.
fn environment(config: &ContainerConfig) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    // Where each name stands: images and pods have as many as they like.
    let mut places: HashMap<String, usize> = HashMap::new();
    let hostname = format!("HOSTNAME={}", config.hostname);
    let term = config.tty.then(|| "TERM=xterm".to_owned());
    let own = config.env.iter().map(|(name, value)| format!("{name}={value}"));
    let given = [PATH.to_owned()].into_iter().chain(term).chain([hostname]);
    for entry in given.chain(config.image.env.iter().cloned()).chain(own) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        let place = *places.entry(name).or_insert(env.len());
        match env.get_mut(place) {
            Some(known) => *known = entry,
            None => env.push(entry),
        }
    }
    env
}

fn with_path(mut env: Vec<String>) -> Vec<String> {
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.insert(0, PATH.to_owned());
    }
    env
}

fn annotations(given: &BTreeMap<String, String>, shim_group: &str) -> BTreeMap<String, String> {
    let mut annotations = given.clone();
    if !shim_group.is_empty() {
        annotations.insert(SHIM_GROUP.to_owned(), shim_group.to_owned());
    }
    annotations
}

fn namespaces(wanted: &Namespaces, own_cgroup: bool) -> Vec<Value> {
    let of = |pid: u32, file: &str| format!("/proc/{pid}/ns/{file}");
    let sandbox = wanted.sandbox_pid;
    // Joining the host's through the sandbox's pid would do as well; leaving the entry out needs no setns.
    let mut list = vec![json!({"type": "mount"})];
    if !wanted.host_network {
        list.push(json!({"type": "network", "path": of(sandbox, "net")}));
        list.push(json!({"type": "uts", "path": of(sandbox, "uts")}));
    }
    if !wanted.host_ipc {
        list.push(json!({"type": "ipc", "path": of(sandbox, "ipc")}));
    }
    match wanted.pid {
        PidNamespace::Container => list.push(json!({"type": "pid"})),
        PidNamespace::Of(pid) => list.push(json!({"type": "pid", "path": of(pid, "pid")})),
        PidNamespace::Host => {}
    }
    if own_cgroup {
        list.push(json!({"type": "cgroup"}));
    }
    list
}

fn limits(resources: &Resources, host: &Host) -> Map<String, Value> {
    let mut out = Map::new();
    let mut cpu = Map::new();
    let mut put = |key: &str, set: bool, value: Value| {
        if set {
            cpu.insert(key.to_owned(), value);
        }
    };
    put("shares", resources.cpu_shares != 0, json!(resources.cpu_shares));
    put("quota", resources.cpu_quota != 0, json!(resources.cpu_quota));
    put("period", resources.cpu_period != 0, json!(resources.cpu_period));
    put("cpus", !resources.cpuset_cpus.is_empty(), json!(resources.cpuset_cpus));
    put("mems", !resources.cpuset_mems.is_empty(), json!(resources.cpuset_mems));
    if !cpu.is_empty() {
        out.insert("cpu".to_owned(), Value::Object(cpu));
    }
    if resources.memory_limit > 0 {
        // Swap counts into the same limit: a container does not swap its way around it.
        let limit = resources.memory_limit;
        let memory = if host.swap_limit {
            json!({"limit": limit, "swap": limit})
        } else {
            json!({"limit": limit})
        };
        out.insert("memory".to_owned(), memory);
    }
    if resources.pids_limit > 0 {
        out.insert("pids".to_owned(), json!({"limit": resources.pids_limit}));
    }
    if host.cgroup_v2 && !resources.unified.is_empty() {
        out.insert("unified".to_owned(), json!(resources.unified));
    }
    out
}

fn apparmor(security: &Security, host: &Host) -> Result<Option<String>, SpecError> {
    let loaded = |profile: &str| {
        let profiles = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
        profiles.lines().any(|line| line.starts_with(&format!("{profile} (")))
    };
    match (&security.apparmor, host.apparmor) {
        (AppArmor::Unset | AppArmor::Unconfined, false) | (AppArmor::Unconfined, true) => Ok(None),
        (AppArmor::RuntimeDefault | AppArmor::Localhost(_), false) => Err(SpecError::AppArmorMissing),
        (_, true) if security.privileged && !matches!(security.apparmor, AppArmor::Localhost(_)) => Ok(None),
        (AppArmor::Unset, true) => Ok(loaded(APPARMOR_DEFAULT).then(|| APPARMOR_DEFAULT.to_owned())),
        (AppArmor::RuntimeDefault, true) => named_profile(APPARMOR_DEFAULT, loaded),
        (AppArmor::Localhost(name), true) => named_profile(name, loaded),
    }
}

fn named_profile(name: &str, loaded: impl Fn(&str) -> bool) -> Result<Option<String>, SpecError> {
    if loaded(name) {
        Ok(Some(name.to_owned()))
    } else {
        Err(SpecError::AppArmorProfile(name.to_owned()))
    }
}

fn default_mounts() -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ]
}

/// The defaults less those that a mount of the pod's replaces, then the pod's, outer paths first.
fn mounts(config: &ContainerConfig) -> Vec<Value> {
    let clean = |path: &str| path.trim_end_matches('/').to_owned();
    let replaced: Vec<String> = config.mounts.iter().map(|mount| clean(&mount.container_path)).collect();
    let own_dev = replaced.iter().any(|path| path == "/dev");
    let mut list = default_mounts();
    list.retain(|mount| {
        let path = mount["destination"].as_str().unwrap_or_default();
        let below_own_dev = own_dev && path.starts_with("/dev/");
        !below_own_dev && !replaced.iter().any(|other| other == path)
    });
    if config.security.privileged {
        list.iter_mut().for_each(make_writable);
    }
    let mut own: Vec<&Mount> = config.mounts.iter().collect();
    own.sort_by_key(|mount| Path::new(&mount.container_path).components().count());
    list.extend(own.into_iter().map(bind));
    list
}

/// Privileged: /sys and the cgroups in it may be written.
fn make_writable(mount: &mut Value) {
    let kind = mount["type"].as_str().unwrap_or_default();
    if (kind == "sysfs" || kind == "cgroup")
        && let Some(options) = mount["options"].as_array_mut()
    {
        options
            .iter_mut()
            .filter(|option| *option == "ro")
            .for_each(|option| *option = json!("rw"));
    }
}

fn bind(mount: &Mount) -> Value {
    let propagation = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = match (mount.readonly, mount.recursive_readonly) {
        (true, true) => "rro",
        (true, false) => "ro",
        _ => "rw",
    };
    json!({
        "destination": mount.container_path,
        "type": "bind",
        "source": mount.host_path,
        "options": ["rbind", propagation, access],
    })
}

fn rootfs_propagation(mounts: &[Mount]) -> Option<&'static str> {
    let any = |wanted: Propagation| mounts.iter().any(|mount| mount.propagation == wanted);
    match (any(Propagation::Bidirectional), any(Propagation::HostToContainer)) {
        (true, _) => Some("rshared"),
        (false, true) => Some("rslave"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::ImageConfig;

    fn host() -> Host {
        Host {
            capabilities: u64::MAX,
            cgroup_v2: false,
            apparmor: false,
            swap_limit: false,
            oom_score_adj: 0,
        }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn config() -> ContainerConfig {
        let image = ImageConfig {
            entrypoint: strings(&["/entry"]),
            cmd: strings(&["cmd"]),
            env: strings(&["PATH=/bin", "A=image"]),
            ..Default::default()
        };
        ContainerConfig {
            image: image.into(),
            hostname: "h".into(),
            cgroups_path: "/kubepods/x".into(),
            ..Default::default()
        }
    }

    #[test]
    fn command_and_args_combine_as_documented() {
        let table: [(&[&str], &[&str], &[&str]); 4] = [
            (&[], &[], &["/entry", "cmd"]),
            (&[], &["a"], &["/entry", "a"]),
            (&["c"], &[], &["c"]),
            (&["c"], &["a"], &["c", "a"]),
        ];
        for (command, args, want) in table {
            let config = ContainerConfig {
                command: strings(command),
                args: strings(args),
                ..config()
            };
            assert_eq!(process_args(&config).unwrap(), want, "{command:?} {args:?}");
        }
        assert_eq!(process_args(&ContainerConfig::default()), Err(SpecError::NoCommand));
    }

    #[test]
    fn later_environment_replaces_in_place() {
        let config = ContainerConfig {
            env: vec![("A".into(), "pod=1".into()), ("B".into(), "".into())],
            ..config()
        };
        assert_eq!(environment(&config), ["PATH=/bin", "HOSTNAME=h", "A=pod=1", "B="]);
    }

    /// In time that grows with it: a pod and its ConfigMaps hold some hundred thousand.
    #[test]
    fn an_environment_may_be_large() {
        let many = 300_000;
        let config = ContainerConfig {
            env: (0..many).map(|n| (format!("V{}", n / 2), String::new())).collect(),
            ..config()
        };
        assert_eq!(environment(&config).len(), 3 + many / 2);
    }

    #[test]
    fn mounts_of_the_pod_replace_defaults_and_nest() {
        let mount = |path: &str| Mount {
            container_path: path.into(),
            host_path: "/x".into(),
            ..Default::default()
        };
        let config = ContainerConfig {
            mounts: vec![mount("/a/b"), mount("/dev/shm"), mount("/a")],
            ..config()
        };
        let list = mounts(&config);
        let paths: Vec<&str> = list.iter().filter_map(|mount| mount["destination"].as_str()).collect();
        assert_eq!(paths.iter().filter(|path| **path == "/dev/shm").count(), 1);
        let at = |wanted: &str| paths.iter().position(|path| *path == wanted).unwrap();
        assert!(at("/a") < at("/a/b"));
    }

    /// What is written down has the names and shapes of OCI's own types: nothing of it gets lost in them.
    #[test]
    fn what_is_built_is_oci() {
        let resources = Resources {
            cpu_shares: 2,
            cpu_quota: 1000,
            cpu_period: 100_000,
            memory_limit: 1 << 20,
            pids_limit: 100,
            oom_score_adj: Some(7),
            unified: [("memory.high".to_owned(), "max".to_owned())].into(),
            ..Default::default()
        };
        let mount = Mount {
            container_path: "/m".into(),
            host_path: "/x".into(),
            readonly: true,
            ..Default::default()
        };
        let full = ContainerConfig {
            resources,
            mounts: vec![mount],
            security: Security {
                seccomp: crate::spec::Seccomp::RuntimeDefault,
                ..Default::default()
            },
            ..config()
        };
        let pause = SandboxConfig {
            image: config().image,
            hostname: Some("h".into()),
            network: Some("/run/netns/x".into()),
            shm: Some("/x".into()),
            sysctls: [("net.a".to_owned(), "1".to_owned())].into(),
            oom_score_adj: Some(-998),
            ..Default::default()
        };
        let v2 = Host {
            cgroup_v2: true,
            swap_limit: true,
            ..host()
        };
        for built in [
            container(&full, &host()),
            container(&full, &v2),
            sandbox(&pause, &host()),
        ] {
            let built = built.unwrap();
            let typed: oci_spec::runtime::Spec = serde_json::from_value(built.clone()).unwrap();
            let lost = lost("", &built, &serde_json::to_value(typed).unwrap());
            assert_eq!(lost, Vec::<String>::new());
        }
    }

    /// The paths whose values `whole` has and `other` has not.
    fn lost(at: &str, whole: &Value, other: &Value) -> Vec<String> {
        let children: Vec<(String, &Value)> = match whole {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(list) => list
                .iter()
                .enumerate()
                .map(|(at, value)| (at.to_string(), value))
                .collect(),
            same if same == other => return Vec::new(),
            one if other.as_array().is_some_and(|set| set.contains(one)) => return Vec::new(),
            _ => return vec![at.to_owned()],
        };
        let of = |key: &str| match other {
            // Names in a list may be a set's, in any order.
            Value::Array(list) if list.iter().all(Value::is_string) => Some(other),
            Value::Array(list) => key.parse::<usize>().ok().and_then(|at| list.get(at)),
            other => other.get(key),
        };
        let of = |key: &str| of(key).unwrap_or(&Value::Null);
        children
            .into_iter()
            .flat_map(|(key, value)| lost(&format!("{at}/{key}"), value, of(&key)))
            .collect()
    }

    #[test]
    fn privileged_is_open_and_plain_is_closed() {
        let plain = container(&config(), &host()).unwrap();
        assert_eq!(plain["linux"]["resources"]["devices"][0]["allow"], false);
        assert!(!plain["linux"]["maskedPaths"].as_array().unwrap().is_empty());
        let security = Security {
            privileged: true,
            ..Default::default()
        };
        let open = container(&ContainerConfig { security, ..config() }, &host()).unwrap();
        assert_eq!(open["linux"]["resources"]["devices"][0]["allow"], true);
        assert!(open["linux"]["maskedPaths"].as_array().is_none_or(Vec::is_empty));
        assert_eq!(
            open["process"]["capabilities"]["bounding"].as_array().unwrap().len(),
            41
        );
    }
}
