//! The pod's volumes: made before its containers, kept up to date while they run, removed after them.

pub mod atomic;
pub mod hostpath;
pub mod live;
pub mod payload;
pub mod subpath;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::pod;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Atomic(#[from] atomic::Error),
    #[error(transparent)]
    HostPath(#[from] hostpath::Error),
    #[error(transparent)]
    Payload(#[from] payload::Error),
    #[error("volume {0:?} is of a kind that is not in this version of mk8s")]
    Kind(String),
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
    SetUp { volume: String, message: String },
}

impl Error {
    fn io(what: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Error::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// Where a pod keeps its things below the agent's root.
#[derive(Clone, Debug)]
pub struct PodDir(PathBuf);

impl PodDir {
    pub fn new(root: &Path, uid: &str) -> Self {
        Self(root.join("pods").join(uid))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.0
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"))
            .join(name)
    }

    pub fn etc_hosts(&self) -> PathBuf {
        self.0.join("etc-hosts")
    }

    pub fn container(&self, name: &str) -> PathBuf {
        self.0.join("containers").join(name)
    }

    pub fn subpaths(&self) -> PathBuf {
        self.0.join("volume-subpaths")
    }

    /// The directories that exist whatever the pod mounts.
    pub fn create(&self) -> Result<(), Error> {
        for dir in [
            self.0.clone(),
            self.0.join("volumes"),
            self.0.join("plugins"),
            self.0.join("containers"),
        ] {
            fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).map_err(|e| Error::io("chmod", &dir, e))?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    EmptyDir,
    HostPath,
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
}

fn plugin(volume: &Volume) -> Option<Plugin> {
    if volume.host_path.is_some() {
        Some(Plugin::HostPath)
    } else if volume.config_map.is_some() {
        Some(Plugin::ConfigMap)
    } else if volume.secret.is_some() {
        Some(Plugin::Secret)
    } else if volume.downward_api.is_some() {
        Some(Plugin::DownwardApi)
    } else if volume.projected.is_some() {
        Some(Plugin::Projected)
    } else if volume.empty_dir.is_some() {
        Some(Plugin::EmptyDir)
    } else {
        None
    }
}

fn dir_name(plugin: Plugin) -> &'static str {
    match plugin {
        Plugin::EmptyDir => "empty-dir",
        Plugin::HostPath => "host-path",
        Plugin::ConfigMap => "configmap",
        Plugin::Secret => "secret",
        Plugin::DownwardApi => "downward-api",
        Plugin::Projected => "projected",
    }
}

/// Volumes whose content comes from the API and so may change while the pod runs.
pub fn is_live(volume: &Volume) -> bool {
    matches!(
        plugin(volume),
        Some(Plugin::ConfigMap | Plugin::Secret | Plugin::DownwardApi | Plugin::Projected)
    )
}

/// Name of the volume → path on the host.
pub type Paths = BTreeMap<String, PathBuf>;

pub fn fs_group(pod: &Pod) -> Option<u32> {
    pod::spec(pod)
        .security_context
        .as_ref()
        .and_then(|s| s.fs_group)
        .and_then(|g| u32::try_from(g).ok())
}

/// Makes one volume ready, except for the content of live ones. Answers its path. Blocking.
pub fn prepare(pod: &Pod, dir: &PodDir, volume: &Volume) -> Result<PathBuf, Error> {
    let plugin = plugin(volume).ok_or_else(|| Error::Kind(volume.name.clone()))?;
    if let (Plugin::HostPath, Some(source)) = (plugin, &volume.host_path) {
        hostpath::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default())?;
        return Ok(PathBuf::from(&source.path));
    }
    let path = dir.volume(dir_name(plugin), &volume.name);
    let fresh = !path.exists();
    fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
    let memory = match plugin {
        // Nothing secret reaches a disk.
        Plugin::Secret | Plugin::DownwardApi | Plugin::Projected => Some(None),
        Plugin::EmptyDir => volume
            .empty_dir
            .as_ref()
            .filter(|e| e.medium.as_deref() == Some("Memory"))
            .map(|e| {
                let limit = e.size_limit.as_ref().map(crate::resources::value).filter(|v| *v > 0);
                limit.or_else(|| memory_limit(pod))
            }),
        _ => None,
    };
    if let Some(size) = memory
        && !is_mount_point(&path)
    {
        let options = size.map(|s| format!("size={s}"));
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            options.as_deref(),
        )
        .map_err(|e| Error::io("mount a tmpfs on", &path, e))?;
    }
    if plugin == Plugin::EmptyDir {
        // 0777 whatever our umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(|e| Error::io("chmod", &path, e))?;
        if let (Some(group), true) = (fs_group(pod), fresh) {
            chown(&path, None, Some(group)).map_err(|e| Error::io("chown", &path, e))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o2777)).map_err(|e| Error::io("chmod", &path, e))?;
        }
    } else {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|e| Error::io("chmod", &path, e))?;
    }
    Ok(path)
}

/// A memory volume can't hold more than the pod may use: the sum of its containers' limits, if all have one.
fn memory_limit(pod: &Pod) -> Option<i64> {
    let limits: Option<Vec<i64>> = pod::containers(pod)
        .iter()
        .map(|c| crate::resources::limit(c, "memory").filter(|m| *m > 0))
        .collect();
    Some(limits?.iter().sum())
}

fn mount_points() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(|p| PathBuf::from(unescape(p)));
    points.collect()
}

/// mountinfo writes space, tab, newline and backslash as octal numbers.
fn unescape(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\').then(|| path.get(i + 1..i + 4)).flatten();
        match octal.and_then(|o| u8::from_str_radix(o, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub fn is_mount_point(path: &Path) -> bool {
    mount_points().iter().any(|p| p == path)
}

/// Unmounts everything at or below `dir`, the innermost first. Blocking.
pub fn unmount_below(dir: &Path) -> Result<(), Error> {
    let points = mount_points();
    for point in points.iter().rev().filter(|p| p.starts_with(dir)) {
        match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            // Somebody on the host still looks at it; it goes when they do.
            Err(nix::errno::Errno::EBUSY) => umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .map_err(|e| Error::io("unmount", point, e))?,
            Err(error) => return Err(Error::io("unmount", point, error)),
        }
    }
    Ok(())
}

/// The pod's volumes go, with what is in them; what the host lent stays. Blocking.
pub fn tear_down(dir: &PodDir) -> Result<(), Error> {
    unmount_below(dir.path())?;
    for below in [dir.path().join("volumes"), dir.subpaths()] {
        match fs::remove_dir_all(&below) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove", &below, e)),
        }
    }
    Ok(())
}

/// All that is left of the pod on disk. Blocking.
pub fn remove(dir: &PodDir) -> Result<(), Error> {
    unmount_below(dir.path())?;
    match fs::remove_dir_all(dir.path()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", dir.path(), e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_names() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(unescape("/plain"), "/plain");
    }
}
