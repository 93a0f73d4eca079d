//! What the host is: read once at start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::sys::statvfs::statvfs;

use super::thresholds::Signal;
use crate::Config;

#[derive(Clone, Debug)]
pub struct Machine {
    pub hostname: String,
    pub architecture: &'static str,
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the file system that pods live on.
    pub storage: i64,
    pub max_pods: i64,
    /// Bytes below the eviction thresholds, which are for no pod.
    kept_memory: i64,
    kept_storage: i64,
    machine_id: String,
    system_uuid: String,
    boot_id: String,
    kernel: String,
    os_image: String,
    swap: Option<i64>,
    /// Bytes set aside as huge pages, by the resource's name; each size that the kernel has is here.
    huge_pages: BTreeMap<String, i64>,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Bytes of a /proc/meminfo line.
pub fn meminfo(name: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// How much there is of something, and how much of that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    pub size: i64,
    pub left: i64,
}

/// Bytes and inodes of the file system at `path`.
pub fn file_system(path: &Path) -> Option<(Supply, Supply)> {
    let stat = statvfs(path).ok()?;
    let unit = stat.fragment_size() as i64;
    let bytes = Supply {
        size: stat.blocks() as i64 * unit,
        left: stat.blocks_available() as i64 * unit,
    };
    let inodes = Supply {
        size: stat.files() as i64,
        left: stat.files_available() as i64,
    };
    Some((bytes, inodes))
}

pub fn memory() -> Option<Supply> {
    Some(Supply {
        size: meminfo("MemTotal")?,
        left: meminfo("MemAvailable")?,
    })
}

pub fn pids() -> Option<Supply> {
    let size: i64 = read("/proc/sys/kernel/pid_max").parse().ok()?;
    let used: i64 = read("/proc/loadavg")
        .split(' ')
        .nth(3)?
        .split('/')
        .nth(1)?
        .parse()
        .ok()?;
    Some(Supply {
        size,
        left: size - used,
    })
}

/// From a directory like /sys/kernel/mm/hugepages, with its `hugepages-2048kB/nr_hugepages`.
fn huge_pages(sizes: &Path) -> BTreeMap<String, i64> {
    let entries = fs::read_dir(sizes).into_iter().flatten().flatten();
    let pages = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kib: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let size = kib.checked_mul(1024)?;
        let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        Some((format!("hugepages-{}", binary(size)), size.checked_mul(count)?))
    });
    pages.collect()
}

/// As Kubernetes writes powers of 1024: 2097152 is `2Mi`.
fn binary(bytes: i64) -> String {
    let mut rest = bytes;
    for unit in ["", "Ki", "Mi", "Gi"] {
        if rest == 0 || rest % 1024 != 0 {
            return format!("{rest}{unit}");
        }
        rest /= 1024;
    }
    format!("{rest}Ti")
}

fn os_image(os_release: &str) -> String {
    let pretty = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

impl Machine {
    pub fn detect(config: &Config) -> Self {
        let uuid = read("/sys/class/dmi/id/product_uuid");
        let machine_id = read("/etc/machine-id");
        let memory = meminfo("MemTotal").unwrap_or(0);
        let storage = file_system(&config.root_dir).map_or(0, |(bytes, _)| bytes.size);
        let kept = |signal, size| config.eviction_hard.least(signal, size);
        Self {
            hostname: nix::unistd::gethostname()
                .ok()
                .and_then(|h| h.into_string().ok())
                .unwrap_or_else(|| config.node_name.clone()),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
            kept_memory: kept(Signal::MemoryAvailable, memory),
            kept_storage: kept(Signal::NodefsAvailable, storage),
            memory,
            storage,
            max_pods: i64::from(config.max_pods),
            system_uuid: if uuid.is_empty() {
                machine_id.clone()
            } else {
                uuid.to_lowercase()
            },
            machine_id: machine_id.replace('-', ""),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image: os_image(&read("/etc/os-release")),
            swap: meminfo("SwapTotal"),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        }
    }

    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        let zero = |q: i64| Quantity(format!("{}Ki", q / 1024));
        let huge = self.huge_pages.iter();
        let huge = huge.map(|(name, bytes)| (name.clone(), Quantity(binary(*bytes))));
        let own = [
            ("cpu".to_owned(), Quantity(self.cpus.to_string())),
            ("memory".to_owned(), zero(self.memory)),
            ("ephemeral-storage".to_owned(), zero(self.storage)),
            ("pods".to_owned(), Quantity(self.max_pods.to_string())),
        ];
        own.into_iter().chain(huge).collect()
    }

    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let mut all = self.capacity();
        // Memory that is set aside as huge pages is none for anything else.
        let huge: i64 = self.huge_pages.values().sum();
        let memory = (self.memory - self.kept_memory - huge).max(0);
        all.insert("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024)));
        let storage = (self.storage - self.kept_storage).max(0);
        all.insert("ephemeral-storage".to_owned(), Quantity(storage.to_string()));
        all
    }

    /// The same, counted as `resources::amount` counts.
    pub fn allocatable_amounts(&self) -> BTreeMap<String, i64> {
        let all = self.allocatable();
        all.iter()
            .map(|(name, q)| (name.clone(), crate::resources::amount(name, q)))
            .collect()
    }

    pub fn info(&self, version: &str, containerd: &str) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: self.architecture.to_owned(),
            boot_id: self.boot_id.clone(),
            container_runtime_version: format!("containerd://{}", containerd.trim_start_matches('v')),
            kernel_version: self.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: version.to_owned(),
            machine_id: self.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: self.os_image.clone(),
            system_uuid: self.system_uuid.clone(),
            swap: self.swap.map(|capacity| k8s_openapi::api::core::v1::NodeSwapStatus {
                capacity: Some(capacity),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn huge_pages_are_those_of_the_kernel() {
        let sizes = tempfile::tempdir().unwrap();
        for (size, count) in [("2048kB", "300\n"), ("1048576kB", "0\n"), ("64kB", "1\n")] {
            let dir = sizes.path().join(format!("hugepages-{size}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("nr_hugepages"), count).unwrap();
        }
        let found = huge_pages(sizes.path());
        let found = found.iter().map(|(name, bytes)| (name.as_str(), binary(*bytes)));
        let expected = [
            ("hugepages-1Gi", "0"),
            ("hugepages-2Mi", "600Mi"),
            ("hugepages-64Ki", "64Ki"),
        ];
        assert_eq!(
            found.collect::<Vec<_>>(),
            expected.map(|(name, amount)| (name, amount.to_owned()))
        );
        assert_eq!(huge_pages(&sizes.path().join("none")), BTreeMap::new());
    }

    #[test]
    fn os_names() {
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(os_image(""), "Linux");
    }
}
