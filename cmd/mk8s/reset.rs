//! `mk8s reset`: ends everything of mk8s's on this host and removes all it made; what others made stays. Without settings
//! that say that this host was set up by mk8s, with this data directory, it touches nothing.
//!
//! What fails ends it, and the settings are the last to go, so that it can be done again from wherever it stopped. The
//! containers are the first: containerd alone knows which of them are mk8s's, and they use all the rest.

use std::io::BufRead;
use std::path::Path;

use crate::cli;
use crate::failure::{Failure, Result};
use crate::settings::{ADMIN_CONF, Role, Settings};
use crate::{footprint, kubeconfig, lifecycle, log, node, preflight};

pub async fn reset(arguments: &cli::Reset) -> Result<()> {
    let settings = Settings::require_to_end(arguments.place.data_dir.as_deref())
        .map_err(|failure| Failure::new(format!("{failure}; nothing was changed")))?;
    if !arguments.force {
        confirm()?;
    }
    println!("[reset] Stopping mk8s");
    let _turn = lifecycle::turn().await?;
    lifecycle::halt().await?;
    println!("[reset] Removing pods and pulled images");
    if is_gone(&settings.cri_socket) {
        println!(
            "[reset] containerd is not on this host any more: what it kept of pods and images stays in its directory"
        );
    } else {
        remove_containers(&settings).await?;
    }
    println!("[reset] Removing the pod network and service rules");
    let stays = mk8s_network::teardown()
        .await
        .map_err(|error| Failure::of("remove the network", error))?;
    for line in stays {
        println!("[reset] {line}");
    }
    if let Err(error) = mk8s_kubelet::remove_cgroups() {
        eprintln!("[reset] {error}: something still runs there");
    }
    remove_files(&settings)?;
    if settings.role == Role::Worker {
        println!(
            "\nTo take the node out of its cluster, run there:\n\n  kubectl delete node {}",
            settings.node_name
        );
    }
    Ok(())
}

fn remove_files(settings: &Settings) -> Result<()> {
    let data_dir = settings.data_dir();
    println!(
        "[reset] Deleting contents of directories: [/var/lib/kubelet {} /run/mk8s]",
        data_dir.display()
    );
    lifecycle::remove_unit()?;
    footprint::clear(data_dir, &settings.before)?;
    kubeconfig::remove_for_users(&settings.kubeconfigs);
    mk8s_pki::files::remove(ADMIN_CONF.as_ref())?;
    log::remove()?;
    lifecycle::remove_file(&lifecycle::half_installed())?;
    settings.remove()?;
    footprint::remove_directories(data_dir, &settings.before);
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

/// Whether containerd was removed from this host, and is not only down: neither its socket nor its program is there.
fn is_gone(socket: &Path) -> bool {
    !socket.exists() && !preflight::on_path("containerd")
}

async fn remove_containers(settings: &Settings) -> Result<()> {
    let again = |failure: Failure, cure: &str| {
        Failure::new(format!(
            "{failure}; the rest is left as it is: {cure}, then `mk8s reset` again"
        ))
    };
    let containerd = node::containerd(settings).await;
    let containerd = containerd.map_err(|failure| again(failure, "start containerd"))?;
    let removed = mk8s_kubelet::remove_all_pods(&containerd).await;
    let what = "remove what runs in containerd";
    removed.map_err(|error| again(Failure::of(what, error), "see what holds them"))?;
    let removed = containerd.remove_pulled_images().await;
    removed.map_err(|error| {
        again(
            Failure::of("remove the pulled images", error),
            "see what containerd says",
        )
    })?;
    Ok(())
}
