//! `mk8s reset`: ends everything of mk8s's on this host and removes all it made; what others made stays.

use std::io::BufRead;
use std::path::Path;

use nix::mount::{MntFlags, umount2};

use crate::cli;
use crate::failure::{Failure, Result};
use crate::settings::{ADMIN_CONF, CRI_SOCKET, LOG_FILE, Role, Settings, find};
use crate::{kubeconfig, lifecycle, node};

pub async fn reset(arguments: &cli::Reset) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(Failure::new("mk8s reset has to run as root: use sudo"));
    }
    let settings = Settings::load(arguments.data_dir.as_deref())?;
    if !arguments.force {
        confirm()?;
    }
    println!("[reset] Stopping mk8s");
    let _turn = lifecycle::turn().await?;
    lifecycle::halt().await?;
    let socket = settings
        .as_ref()
        .map_or(CRI_SOCKET.into(), |settings| settings.cri_socket.clone());
    println!("[reset] Removing pods and pulled images");
    if let Err(failure) = remove_containers(settings.as_ref(), &socket).await {
        eprintln!("[reset] {failure}; what containerd still holds stays");
    }
    println!("[reset] Removing the pod network and service rules");
    mk8s_network::teardown()
        .await
        .map_err(|error| Failure::of("remove the network", error))?;
    let data_dir = find(arguments.data_dir.as_deref());
    for directory in ["/var/lib/kubelet".as_ref(), "/run/mk8s".as_ref(), data_dir.as_path()] {
        unmount_below(directory)?;
    }
    mk8s_kubelet::remove_cgroups();
    println!(
        "[reset] Deleting contents of directories: [/var/lib/kubelet {} /run/mk8s]",
        data_dir.display()
    );
    for directory in [
        "/var/lib/kubelet".as_ref(),
        data_dir.as_path(),
        "/run/mk8s".as_ref(),
        "/var/log/pods".as_ref(),
    ] {
        empty(directory)?;
    }
    remove_log_links();
    kubeconfig::remove_for_users();
    let _ = std::fs::remove_file(ADMIN_CONF);
    let _ = std::fs::remove_file(LOG_FILE);
    lifecycle::remove_unit();
    let _ = std::fs::remove_dir("/etc/kubernetes");
    if let Some(settings) = settings.filter(|settings| settings.role == Role::Worker) {
        println!(
            "\nTo take the node out of its cluster, run there:\n\n  kubectl delete node {}",
            settings.node_name
        );
    }
    Ok(())
}

fn confirm() -> Result<()> {
    eprintln!("[reset] WARNING: Changes made to this host by 'mk8s init' or 'mk8s join' will be reverted.");
    eprint!("[reset] Are you sure you want to proceed? [y/N]: ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer).unwrap_or(0);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ if read == 0 => Err(Failure::new("nobody answered; `mk8s reset --force` does not ask")),
        _ => Err(Failure::new("aborted; nothing was changed (`--force` does not ask)")),
    }
}

async fn remove_containers(settings: Option<&Settings>, socket: &Path) -> Result<()> {
    if !socket.exists() {
        return Ok(());
    }
    let Some(settings) = settings else { return Ok(()) };
    let containerd = node::containerd(settings).await?;
    let failed = |error: mk8s_containerd::Error| Failure::of("remove what runs in containerd", error);
    let sweeper = mk8s_kubelet::remove_all_pods(&containerd);
    sweeper.await.map_err(failed)?;
    containerd.remove_pulled_images().await.map_err(failed)?;
    Ok(())
}

/// Unmounts everything below a directory, deepest first.
fn unmount_below(directory: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Failure::of("read the table of mounts", error))?;
    let below = format!("{}/", directory.display());
    let mut points: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "))
        .filter(|point| point.starts_with(&below))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        umount2(point.as_str(), MntFlags::MNT_DETACH)
            .map_err(|error| Failure::of(format!("unmount {point}"), error))?;
    }
    Ok(())
}

/// Removes a directory; one that is a mount point is emptied instead.
fn empty(directory: &Path) -> Result<()> {
    let what = format!("remove {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::of(what, error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| Failure::of(&what, error))?.path();
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(|error| Failure::of(format!("remove {}", path.display()), error))?;
    }
    // A mount point refuses to go, and stays empty.
    let _ = std::fs::remove_dir(directory);
    Ok(())
}

/// Links in /var/log/containers that lead to pod logs of ours, which are gone.
fn remove_log_links() {
    let directory = Path::new("/var/log/containers");
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_symlink() && !path.exists() {
            let _ = std::fs::remove_file(&path);
        }
    }
    let _ = std::fs::remove_dir(directory);
}
