//! `mk8s reset`: ends everything of mk8s's on this host and removes all it made; what others made stays. Without settings
//! that say that this host was set up by mk8s, with this data directory, it touches nothing.

use std::io::BufRead;

use crate::cli;
use crate::failure::{Failure, Result};
use crate::settings::{ADMIN_CONF, Role, Settings};
use crate::{footprint, kubeconfig, lifecycle, log, node};

pub async fn reset(arguments: &cli::Reset) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(Failure::new("mk8s reset has to run as root: use sudo"));
    }
    let settings = Settings::require(arguments.place.data_dir.as_deref())
        .map_err(|failure| Failure::new(format!("{failure}; nothing was changed")))?;
    if !arguments.force {
        confirm()?;
    }
    println!("[reset] Stopping mk8s");
    let _turn = lifecycle::turn().await?;
    lifecycle::halt().await?;
    println!("[reset] Removing pods and pulled images");
    if let Err(failure) = remove_containers(&settings).await {
        eprintln!("[reset] {failure}; what containerd still holds stays");
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
    let data_dir = settings.data_dir();
    println!(
        "[reset] Deleting contents of directories: [/var/lib/kubelet {} /run/mk8s]",
        data_dir.display()
    );
    footprint::clear(data_dir, &settings.before)?;
    kubeconfig::remove_for_users(&settings.kubeconfigs);
    let _ = std::fs::remove_file(ADMIN_CONF);
    log::remove();
    lifecycle::remove_unit();
    // Last of all: until then a reset that was interrupted can be done again.
    footprint::clear_settings(data_dir, &settings.before)?;
    if settings.role == Role::Worker {
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

async fn remove_containers(settings: &Settings) -> Result<()> {
    if !settings.cri_socket.exists() {
        return Ok(());
    }
    let containerd = node::containerd(settings).await?;
    let failed = |error: mk8s_containerd::Error| Failure::of("remove what runs in containerd", error);
    mk8s_kubelet::remove_all_pods(&containerd).await.map_err(failed)?;
    containerd.remove_pulled_images().await.map_err(failed)?;
    Ok(())
}
