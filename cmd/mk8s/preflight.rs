//! What must hold before anything is changed: each check has kubeadm's way of a name, a cause and a cure.

use std::net::Ipv4Addr;
use std::path::Path;

use mk8s_network::overlap;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use tokio::net::TcpSocket;

use crate::failure::{Failure, Result};
use crate::lifecycle;
use crate::settings::{ADMIN_CONF, Cluster, Settings};

/// A check that failed.
pub struct Problem {
    /// What `--ignore-preflight-errors` names.
    pub check: String,
    pub text: String,
}

fn problem(check: impl Into<String>, text: impl Into<String>) -> Option<Problem> {
    Some(Problem {
        check: check.into(),
        text: text.into(),
    })
}

/// Fails with all problems that are not ignored, and tells of those that are.
pub fn judge(problems: Vec<Problem>, ignored: &[String]) -> Result<()> {
    let is_ignored = |problem: &Problem| {
        ignored
            .iter()
            .any(|name| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case(&problem.check))
    };
    let (warnings, fatal): (Vec<Problem>, Vec<Problem>) = problems.into_iter().partition(is_ignored);
    for warning in warnings {
        eprintln!("\t[WARNING {}]: {}", warning.check, warning.text);
    }
    if fatal.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = fatal
        .iter()
        .map(|problem| format!("\t[ERROR {}]: {}", problem.check, problem.text))
        .collect();
    Err(Failure::preflight(format!(
        "[preflight] Some fatal errors occurred:\n{}\n[preflight] If you know what you are doing, you can make a check \
         non-fatal with `--ignore-preflight-errors=...`",
        lines.join("\n")
    )))
}

/// What every node needs.
pub async fn node(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(failure) = crate::node::containerd(settings).await {
        let cure = "install and start containerd (`apt-get install containerd`), or name its socket with --cri-socket";
        problems.extend(problem("CRI", format!("{failure}; {cure}")));
    }
    problems.extend(kernel(opens_beneath()));
    for (program, package) in [("nft", "nftables"), ("runc", "runc")] {
        if !on_path(program) {
            problems.extend(problem(
                format!("FileExisting-{program}"),
                format!("{program} is not found in PATH: `apt-get install {package}`"),
            ));
        }
    }
    problems.extend(port_in_use(settings.node_ip, 10250));
    if !crate::host::has_address(settings.node_ip) {
        problems.extend(problem(
            "NodeIP",
            format!("{} is not an address of this host: see --node-ip", settings.node_ip),
        ));
    }
    let name_errors = mk8s_api::names::dns_subdomain(&settings.node_name);
    if let Some(error) = name_errors.first() {
        problems.extend(problem(
            "NodeName",
            format!(
                "{:?} cannot be a node's name: {error}; see --node-name",
                settings.node_name
            ),
        ));
    }
    problems.extend(foreign_data_dir(settings.data_dir()));
    problems
}

/// mk8s has one version of Kubernetes, which scripts of kubeadm's time may name otherwise.
pub fn kubernetes_version(asked: Option<&str>) -> Option<Problem> {
    let built_in = mk8s_apiserver::config::VERSION.split('+').next().unwrap_or_default();
    let other = asked.filter(|asked| asked.trim_start_matches('v') != built_in.trim_start_matches('v'))?;
    problem(
        "KubernetesVersion",
        format!("mk8s has Kubernetes {built_in} built in and cannot run {other}: leave --kubernetes-version out"),
    )
}

/// What a master needs beside.
pub async fn master(settings: &Settings, version: Option<&str>) -> Vec<Problem> {
    let mut problems = Vec::from_iter(kubernetes_version(version));
    if Path::new(ADMIN_CONF).exists() {
        problems.extend(problem(
            "FileAvailable--etc-kubernetes-admin.conf",
            format!("{ADMIN_CONF} exists and is another cluster's: move it away"),
        ));
    }
    if let Some(own) = &settings.master {
        problems.extend(port_in_use(Ipv4Addr::UNSPECIFIED, own.bind_port));
    }
    let cluster = &settings.cluster;
    if overlap(&cluster.pod_cidr, &cluster.service_cidr) {
        problems.extend(problem(
            "CIDROverlap",
            format!(
                "the pod network {} and the service network {} overlap",
                cluster.pod_cidr, cluster.service_cidr
            ),
        ));
    }
    if cluster.pod_cidr.prefix_len() > 24 {
        problems.extend(problem(
            "PodCIDR",
            format!(
                "the pod network {} is smaller than one node's share, a /24",
                cluster.pod_cidr
            ),
        ));
    }
    if !(12..=28).contains(&cluster.service_cidr.prefix_len()) {
        problems.extend(problem(
            "ServiceCIDR",
            format!("the service network {} must be a /12 to a /28", cluster.service_cidr),
        ));
    }
    problems.extend(routes(cluster).await);
    problems
}

/// The cluster's ranges are no routes of this host.
pub async fn routes(cluster: &Cluster) -> Vec<Problem> {
    let mut problems = Vec::new();
    let ranges = [
        ("pod network", cluster.pod_cidr),
        ("service network", cluster.service_cidr),
    ];
    for (what, range) in ranges {
        match mk8s_network::overlapping_routes(&[range]).await {
            Ok(routes) => {
                for (route, link) in routes {
                    let link = link.map_or(String::new(), |link| format!(" of {link}"));
                    problems.extend(problem(
                        "RouteOverlap",
                        format!("the {what} {range} overlaps the route {route}{link}: remove it, or choose another range at init"),
                    ));
                }
            }
            Err(error) => problems.extend(problem(
                "RouteOverlap",
                format!("cannot read the host's routes: {error}"),
            )),
        }
    }
    problems
}

/// Opens a path through no link: the call by which containers' links are kept from leading the agent out of their volumes.
fn opens_beneath() -> nix::Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, "/", how).map(drop)
}

fn kernel(opened: nix::Result<()>) -> Option<Problem> {
    let error = opened.err()?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    problem(
        "KernelVersion",
        format!(
            "openat2 fails ({error}), by which mk8s stays within containers' volumes: Linux 5.6 or later is needed, this \
             is {}",
            release.trim()
        ),
    )
}

/// Binds without listening: what listens is found, and a check of another init at this moment is not.
fn port_in_use(address: Ipv4Addr, port: u16) -> Option<Problem> {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind((address, port).into())?;
        Ok(socket)
    });
    match bound {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => problem(
            format!("Port-{port}"),
            format!("Port {port} is in use: stop what listens there"),
        ),
        _ => None,
    }
}

pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<std::path::PathBuf> = std::env::split_paths(&path).collect();
    // sudo and cron leave these out at times.
    places.extend(["/usr/local/bin".into(), "/usr/sbin".into(), "/sbin".into()]);
    places.iter().any(|place| place.join(program).is_file())
}

/// A directory that holds something, and no set-up of mk8s's, is someone else's.
fn foreign_data_dir(data_dir: &Path) -> Option<Problem> {
    let mut entries = std::fs::read_dir(data_dir).ok()?;
    let foreign = entries.find_map(|entry| {
        let name = entry.ok()?.file_name().to_string_lossy().into_owned();
        (!crate::footprint::is_data(&name)).then_some(name)
    })?;
    problem(
        format!("DirAvailable-{}", data_dir.display().to_string().replace('/', "-")),
        format!(
            "{} is not mk8s's (it holds {foreign:?}): empty it, or name another with --data-dir",
            data_dir.display()
        ),
    )
}

/// Neither verb may set up again what runs.
pub fn not_running() -> Result<()> {
    match lifecycle::running()? {
        Some(pid) => Err(Failure::new(format!(
            "mk8s runs here already, pid {pid}: `mk8s reset` first"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_kernel_without_openat2_fails() {
        assert!(kernel(opens_beneath()).is_none());
        let problem = kernel(Err(nix::errno::Errno::ENOSYS)).unwrap();
        assert_eq!(problem.check, "KernelVersion");
        assert!(problem.text.contains("Linux 5.6"), "{}", problem.text);
    }

    #[test]
    fn a_port_is_in_use_when_somebody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            assert_eq!(port_in_use(address, port).unwrap().check, format!("Port-{port}"));
        }
        drop(listener);
        // Another init that checks the same port.
        let checked = TcpSocket::new_v4().unwrap();
        checked.set_reuseaddr(true).unwrap();
        checked.bind((Ipv4Addr::UNSPECIFIED, port).into()).unwrap();
        assert!(port_in_use(Ipv4Addr::UNSPECIFIED, port).is_none());
    }
}
