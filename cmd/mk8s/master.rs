//! This master's control plane: what its settings make of `mk8s_controlplane`, and what it does to its own Node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use mk8s_client::Api;
use mk8s_controlplane::{Config, ControlPlane, ControllerSettings, Lead, SchedulerConfig};
use mk8s_pki::layout::{self, ServerNames};
use mk8s_supervisor::Supervisor;
use serde_json::json;

use crate::cli::Part;
use crate::failure::{Failure, Result};
use crate::settings::{Master, Settings};

const OWN_LABELS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node.kubernetes.io/exclude-from-external-load-balancers",
];

pub fn server_names(settings: &Settings, master: &Master) -> ServerNames {
    let mut extra = master.cert_extra_sans.clone();
    if settings.node_ip != master.advertise_address {
        extra.push(settings.node_ip.to_string());
    }
    ServerNames {
        node_name: settings.node_name.clone(),
        cluster_domain: settings.cluster.dns_domain.clone(),
        advertise_address: IpAddr::V4(master.advertise_address),
        service_address: IpAddr::V4(settings.cluster.service_address(1)),
        extra,
    }
}

/// The scheduler's configuration, and what of its file is not used.
pub fn scheduler(master: &Master) -> Result<(SchedulerConfig, Vec<String>)> {
    let Some(path) = &master.scheduler_config else {
        return Ok((SchedulerConfig::default(), Vec::new()));
    };
    let at = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Failure::of(format!("read {at}"), error))?;
    SchedulerConfig::read(&text)
        .map_err(|error| Failure::of(format!("use {at} as the scheduler's configuration"), error))
}

pub async fn start(settings: &Settings, master: &Master, supervisor: &Supervisor) -> Result<ControlPlane> {
    let (scheduler, unused) = scheduler(master)?;
    for warning in unused {
        tracing::warn!(warning, "the scheduler's configuration");
    }
    let names = server_names(settings, master);
    let pki = Arc::new(layout::open(&settings.pki_dir(), &names)?);
    let config = Config {
        data_dir: settings.data_dir().into(),
        store: None,
        begins: settings.unfinished,
        pki,
        names,
        listen: (Ipv4Addr::UNSPECIFIED, master.bind_port).into(),
        advertise_address: IpAddr::V4(master.advertise_address),
        server_url: Some(settings.server().into()),
        service_cidr: IpNet::V4(settings.cluster.service_cidr),
        cluster_domain: settings.cluster.dns_domain.clone(),
        controllers: ControllerSettings {
            cluster_cidrs: vec![IpNet::V4(settings.cluster.pod_cidr)],
            service_lb: !master.disable.contains(&Part::Servicelb),
            ..ControllerSettings::default()
        },
        scheduler,
        // sled has one owner: nobody else can be at this store.
        lead: Lead::Always,
    };
    let started = ControlPlane::start(config, supervisor).await;
    started.map_err(|error| Failure::of("start the control plane", error))
}

/// Labels this master's own Node, once: at init, as kubeadm does. NodeRestriction lets no node give itself such labels, nor
/// should it, and one that somebody takes away later stays away.
pub async fn mark_own_node(settings: &Settings, client: &kube::Client) -> Result<()> {
    println!(
        "[mark-control-plane] Marking the node {} as control-plane by adding the labels: [{}]",
        settings.node_name,
        OWN_LABELS.join(" ")
    );
    let labels: BTreeMap<&str, &str> = OWN_LABELS.iter().map(|label| (*label, "")).collect();
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    let nodes: Api<Node> = Api::all(client.clone());
    let marked = nodes.patch(&settings.node_name, &PatchParams::default(), &patch).await;
    marked
        .map(drop)
        .map_err(|error| Failure::of(format!("label node {}", settings.node_name), error))
}

/// How long connections and tasks may take to end.
pub const SHUTDOWN: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_schedulers_configuration_is_its_files_or_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scheduler.yaml");
        let mut own = Master {
            advertise_address: Ipv4Addr::LOCALHOST,
            bind_port: 6443,
            cert_extra_sans: Vec::new(),
            disable: Vec::new(),
            scheduler_config: None,
        };
        assert!(scheduler(&own).unwrap().1.is_empty());
        own.scheduler_config = Some(path.clone());
        let missing = scheduler(&own).err().unwrap().to_string();
        assert!(missing.contains("scheduler.yaml"), "{missing}");
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        std::fs::write(
            &path,
            format!("{head}parallelism: 2\nprofiles: [{{schedulerName: own}}]"),
        )
        .unwrap();
        let (config, unused) = scheduler(&own).unwrap();
        assert_eq!(
            config.profiles.iter().map(|profile| &*profile.name).collect::<Vec<_>>(),
            ["own"]
        );
        assert!(unused[0].starts_with("parallelism: not used"), "{unused:?}");
        std::fs::write(&path, format!("{head}profile: []")).unwrap();
        let wrong = scheduler(&own).err().unwrap().to_string();
        assert!(
            wrong.contains("scheduler.yaml") && wrong.contains("unknown field \"profile\""),
            "{wrong}"
        );
    }
}
