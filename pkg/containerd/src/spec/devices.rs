//! Device nodes: those a container is given one by one, and all of the host's for a privileged one.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::{Device, SpecError};

/// Below /dev, but of the container's own making or nobody's business.
const SKIPPED: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];

/// `linux.devices` and `linux.resources.devices` entries for devices asked for by path; a directory gives all in it.
pub(super) fn listed(devices: &[Device]) -> Result<(Vec<Value>, Vec<Value>), SpecError> {
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    for device in devices {
        let mut found = Vec::new();
        collect(&device.host_path, &device.container_path, &mut found).map_err(|e| SpecError::Device {
            path: device.host_path.display().to_string(),
            message: e.to_string(),
        })?;
        for node in &found {
            let (kind, major, minor) = (&node["type"], &node["major"], &node["minor"]);
            let access = &device.permissions;
            rules.push(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}));
        }
        nodes.append(&mut found);
    }
    Ok((nodes, rules))
}

/// Every device node below the host's /dev.
pub(super) fn of_host() -> Vec<Value> {
    let mut found = Vec::new();
    if let Err(error) = collect(Path::new("/dev"), "/dev", &mut found) {
        tracing::warn!(%error, "list the host's devices for a privileged container");
    }
    found
}

fn collect(path: &Path, container_path: &str, found: &mut Vec<Value>) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        found.extend(node(&fs::metadata(path)?, container_path));
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file_type = entry.file_type()?;
        if SKIPPED.contains(&name.as_str()) || file_type.is_symlink() {
            continue;
        }
        let below = format!("{}/{name}", container_path.trim_end_matches('/'));
        match collect(&entry.path(), &below, found) {
            // Devices come and go while they are listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn node(metadata: &fs::Metadata, container_path: &str) -> Option<Value> {
    let file_type = metadata.file_type();
    let kind = match (file_type.is_char_device(), file_type.is_block_device()) {
        (true, _) => "c",
        (_, true) => "b",
        _ => return None,
    };
    let device = metadata.rdev();
    Some(json!({
        "path": container_path,
        "type": kind,
        "major": major(device),
        "minor": minor(device),
        "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    }))
}
