//! The labels by which a pod's containers are found in containerd, and the ids and file names that people look for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::{Config, pod};
use mk8s_dirfd::{Dir, found};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const KIND: &str = "mk8s.io/kind";
pub const SANDBOX: &str = "sandbox";
pub const CONTAINER: &str = "container";
pub const ATTEMPT: &str = "mk8s.io/attempt";
pub const SANDBOX_ID: &str = "mk8s.io/sandbox-id";
/// The image as the pod named it.
pub const IMAGE: &str = "mk8s.io/image";

/// containerd's ids have been 64 hexadecimal digits for as long as log shippers have parsed them.
pub fn fresh_id() -> String {
    (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect()
}

pub fn pod_labels(pod: &Pod, kind: &str, attempt: u32) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.to_owned(), pod::name(pod).to_owned()),
        (POD_NAMESPACE.to_owned(), pod::namespace(pod).to_owned()),
        (POD_UID.to_owned(), pod::uid(pod).to_owned()),
        (KIND.to_owned(), kind.to_owned()),
        (ATTEMPT.to_owned(), attempt.to_string()),
    ])
}

/// /var/log/pods/NAMESPACE_NAME_UID
pub fn pod_log_dir(config: &Config, namespace: &str, name: &str, uid: &str) -> PathBuf {
    config.pod_log_dir.join(pod_logs(namespace, name, uid))
}

pub fn pod_logs(namespace: &str, name: &str, uid: &str) -> String {
    format!("{namespace}_{name}_{uid}")
}

pub fn log_file(config: &Config, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    let dir = pod_log_dir(config, pod::namespace(pod), pod::name(pod), pod::uid(pod));
    dir.join(container).join(format!("{attempt}.log"))
}

/// Opens a log file to read. A pod to which the host lent its log directory can put a link in place of the file, or of a
/// directory on the way from `pod_log_dir`: none is followed, since whoever may read the log may not read what it names.
pub fn open_log(file: &Path) -> std::io::Result<std::fs::File> {
    let top = file.ancestors().nth(3).unwrap_or(Path::new("/"));
    let below = file.strip_prefix(top).unwrap_or(file);
    Ok(Dir::open(top)?.file(below)?)
}

/// Removes the logs of a pod, by the name of its directory; what is mounted there is not deleted, and says so.
pub fn remove_logs(pod_log_dir: &Path, pod: &str) -> mk8s_dirfd::Result<()> {
    let Some(all) = found(Dir::open(pod_log_dir))? else {
        return Ok(());
    };
    found(all.remove_tree(pod)).map(drop)
}

/// Whether a name in /var/log/containers is a link to a pod's log: other runtimes have theirs beside ours.
pub fn is_log_link(pod_log_dir: &Path, link: &Path) -> bool {
    std::fs::read_link(link).is_ok_and(|target| target.starts_with(pod_log_dir))
}

/// /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log, which log shippers follow.
pub fn log_link(config: &Config, pod: &Pod, container: &str, id: &str) -> PathBuf {
    let mut stem = format!("{}_{}_{container}", pod::name(pod), pod::namespace(pod));
    let mut end = 251 - id.len() - 1;
    while !stem.is_char_boundary(end.min(stem.len())) {
        end -= 1;
    }
    stem.truncate(end);
    config.container_log_dir.join(format!("{stem}-{id}.log"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn logs_go_and_what_is_others_stays() {
        mk8s_dirfd::testing::with_shared_mounts(|root| {
            let (logs, other) = (root.join("pods"), root.join("other"));
            let links = root.join("containers");
            for dir in [&logs.join("n_p_uid/c"), &logs.join("n_q_uid/mounted"), &other, &links] {
                fs::create_dir_all(dir).unwrap();
            }
            fs::write(logs.join("n_p_uid/c/0.log"), "").unwrap();
            symlink(logs.join("n_p_uid/c/0.log"), links.join("ours.log")).unwrap();
            symlink(other.join("gone"), links.join("theirs.log")).unwrap();
            symlink(&other, logs.join("n_r_uid")).unwrap();
            mk8s_dirfd::testing::tmpfs(&logs.join("n_q_uid/mounted"));
            fs::write(logs.join("n_q_uid/mounted/kept"), "kept").unwrap();
            for pod in ["n_p_uid", "n_p_uid", "n_r_uid"] {
                remove_logs(&logs, pod).unwrap();
            }
            assert!(remove_logs(&logs, "n_q_uid").is_err());
            assert!(logs.join("n_q_uid/mounted/kept").exists() && other.exists());
            assert!(!logs.join("n_p_uid").exists() && !logs.join("n_r_uid").is_symlink());
            assert!(is_log_link(&logs, &links.join("ours.log")));
            assert!(!is_log_link(&logs, &links.join("theirs.log")) && !is_log_link(&logs, &other));
            remove_logs(&root.join("none"), "n_p_uid").unwrap();
        });
    }

    #[test]
    fn a_log_is_no_link() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("0.log"), "the host's").unwrap();
        let logs = tempfile::tempdir().unwrap();
        let pod = logs.path().join("n_p_uid");
        fs::create_dir_all(pod.join("plain")).unwrap();
        fs::create_dir_all(pod.join("linked")).unwrap();
        fs::write(pod.join("plain/0.log"), "").unwrap();
        symlink(host.path().join("0.log"), pod.join("linked/0.log")).unwrap();
        symlink(host.path(), pod.join("directory")).unwrap();
        symlink(host.path(), logs.path().join("n_q_uid")).unwrap();
        open_log(&pod.join("plain/0.log")).unwrap();
        let missing = open_log(&pod.join("plain/1.log")).unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        for link in ["n_p_uid/linked/0.log", "n_p_uid/directory/0.log"] {
            assert!(open_log(&logs.path().join(link)).is_err(), "{link}");
        }
        fs::create_dir(host.path().join("c")).unwrap();
        fs::write(host.path().join("c/0.log"), "").unwrap();
        assert!(open_log(&logs.path().join("n_q_uid/c/0.log")).is_err());
    }
}
