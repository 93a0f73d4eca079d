//! containerd's configuration file: found by the daemon's own command line, read with what it imports.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::Deserialize;

use super::Section;
use crate::error::{Error, Result};

const DEFAULT: &str = "/etc/containerd/config.toml";
/// The CRI plugin's name in versions 3, 2 and 1 of the file.
const PLUGINS: [&str; 3] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    imports: Vec<String>,
    plugins: toml::Table,
}

/// What the file of the containerd that listens on the socket says about runtimes.
pub(super) fn section(socket: &Path) -> Result<Section> {
    section_of(&path(socket))
}

fn section_of(file: &Path) -> Result<Section> {
    let plugins = read(file, &mut HashSet::new())?;
    let Some(plugin) = PLUGINS.iter().find_map(|name| plugins.get(*name)) else {
        return Ok(Section::default());
    };
    match plugin.get("containerd") {
        None => Ok(Section::default()),
        Some(section) => section
            .clone()
            .try_into()
            .map_err(|e| Error::malformed(format!("read {}", file.display()), e)),
    }
}

/// The file's plugins, each replaced whole by that of a file it imports, as containerd does it. No file is an empty one.
fn read(file: &Path, seen: &mut HashSet<PathBuf>) -> Result<toml::Table> {
    if !seen.insert(file.to_owned()) {
        return Ok(toml::Table::new());
    }
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(toml::Table::new()),
        Err(error) => return Err(Error::path("read", file, error)),
    };
    let parsed: File = toml::from_str(&text).map_err(|e| Error::malformed(format!("read {}", file.display()), e))?;
    let mut plugins = parsed.plugins;
    let directory = file.parent().unwrap_or(Path::new("/"));
    for pattern in parsed.imports {
        for import in matching(&directory.join(pattern))? {
            plugins.extend(read(&import, seen)?);
        }
    }
    Ok(plugins)
}

/// Files that a pattern stands for, in order; wildcards are in the last part of the path.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.contains(['*', '?']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let directory = pattern.parent().unwrap_or(Path::new("/"));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::path("read", directory, error)),
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut found: Vec<PathBuf> = names
        .filter(|found| fits(name.as_bytes(), found.to_string_lossy().as_bytes()))
        .map(|found| directory.join(found))
        .collect();
    found.sort();
    Ok(found)
}

/// `*` and `?` as a shell has them.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
        (Some((b'?', rest)), Some((_, name))) => fits(rest, name),
        (Some((wanted, rest)), Some((found, name))) => wanted == found && fits(rest, name),
        _ => false,
    }
}

/// From the command line of the process behind the socket; where that can't be seen, the usual place.
fn path(socket: &Path) -> PathBuf {
    let default = PathBuf::from(DEFAULT);
    let Ok(connection) = UnixStream::connect(socket) else {
        return default;
    };
    let Ok(peer) = getsockopt(&connection, PeerCredentials) else {
        return default;
    };
    let process = Path::new("/proc").join(peer.pid().to_string());
    let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
    match named(&arguments) {
        Some(file) => fs::read_link(process.join("cwd")).unwrap_or_default().join(file),
        None => default,
    }
}

/// The value of `--config` (or `-c`) in a command line whose arguments end with NUL.
fn named(arguments: &[u8]) -> Option<PathBuf> {
    let mut arguments = arguments.split(|byte| *byte == 0);
    while let Some(argument) = arguments.next() {
        let value = match argument {
            b"--config" | b"-config" | b"-c" | b"--c" => arguments.next(),
            other => [&b"--config="[..], b"-config=", b"-c=", b"--c="]
                .iter()
                .find_map(|flag| other.strip_prefix(*flag)),
        };
        if let Some(value) = value {
            return Some(PathBuf::from(std::ffi::OsString::from_vec(value.to_vec())));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtimes::Runtimes;

    #[test]
    fn each_version_of_the_file_is_read_with_its_imports() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("config.toml");
        let names = |text: &str| {
            fs::write(&main, text).unwrap();
            let runtimes = Runtimes::from(section_of(&main).unwrap());
            runtimes.names().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(""), "runc");
        for plugin in [
            "\"io.containerd.cri.v1.runtime\"",
            "\"io.containerd.grpc.v1.cri\"",
            "cri",
        ] {
            let text = format!("[plugins.{plugin}.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n");
            assert_eq!(names(&text), "kata runc", "{plugin}");
        }
        fs::create_dir(directory.path().join("conf.d")).unwrap();
        let import = "imports = ['config.toml']\n[plugins.cri.containerd.runtimes.gvisor]\nruntime_type = 'io.containerd.runsc.v1'\n";
        fs::write(directory.path().join("conf.d/10-gvisor.toml"), import).unwrap();
        fs::write(directory.path().join("conf.d/10-other.txt"), "this is no toml").unwrap();
        assert_eq!(names("imports = ['conf.d/*.toml', 'gone/*.toml']\n"), "gvisor runc");
        fs::write(&main, "[plugins").unwrap();
        assert!(section_of(&main).is_err());
        assert!(
            section_of(&directory.path().join("none.toml"))
                .unwrap()
                .runtimes
                .is_empty()
        );
    }

    #[test]
    fn the_file_is_the_one_that_the_daemon_was_given() {
        assert_eq!(named(b"/usr/bin/containerd\0"), None);
        assert_eq!(named(b"containerd\0-l\0debug\0-c\0/a.toml\0"), Some("/a.toml".into()));
        assert_eq!(named(b"containerd\0--config=b.toml\0"), Some("b.toml".into()));
    }
}
