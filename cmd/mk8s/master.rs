//! This master's control plane: what its settings make of `mk8s_controlplane`, and what it does to its own Node.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use mk8s_client::Event;
use mk8s_controlplane::{Config, ControlPlane, ControllerSettings, READER};
use mk8s_pki::layout::{self, ServerNames};
use mk8s_supervisor::{OnExit, Supervisor};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::settings::{Master, Settings};

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

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

pub async fn start(settings: &Settings, master: &Master, supervisor: &Supervisor) -> Result<ControlPlane> {
    let names = server_names(settings, master);
    let pki = Arc::new(layout::open(&settings.pki_dir(), &names)?);
    if mk8s_containerd::spec::Host::detect().apparmor {
        mk8s_api::validation::allow_app_armor();
    }
    let config = Config {
        data_dir: settings.data_dir().into(),
        store: None,
        pki,
        names,
        listen: (Ipv4Addr::UNSPECIFIED, master.bind_port).into(),
        advertise_address: IpAddr::V4(master.advertise_address),
        server_url: Some(settings.server().into()),
        service_cidr: IpNet::V4(settings.cluster.service_cidr),
        cluster_domain: settings.cluster.dns_domain.clone(),
        controllers: ControllerSettings {
            cluster_cidr: Some(IpNet::V4(settings.cluster.pod_cidr)),
            ..ControllerSettings::default()
        },
        // sled has one owner: nobody else can be at this store.
        election: None,
    };
    let started = ControlPlane::start(config, supervisor).await;
    started.map_err(|error| Failure::of("start the control plane", error))
}

/// Labels this master's own Node when it registers, as kubeadm does at init: NodeRestriction lets no node give itself such
/// labels, nor should it.
pub fn mark_own_node(settings: &Settings, plane: &ControlPlane, supervisor: &Supervisor) {
    let own = settings.node_name.clone();
    let informers = plane.informers(READER, supervisor);
    let informer = informers.of_where::<Node>(&format!("metadata.name={own}"));
    let nodes: Api<Node> = Api::all(plane.client("system:apiserver"));
    supervisor.spawn("mark-control-plane", OnExit::Restart, move |token| {
        let (own, nodes) = (own.clone(), nodes.clone());
        let mut events = informer.subscribe();
        async move {
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = token.cancelled() => return Ok(()),
                };
                // Once per registration: a label that somebody takes away later stays away.
                let Event::Applied { old: None, new } = event else {
                    continue;
                };
                let marked = new
                    .metadata
                    .labels
                    .as_ref()
                    .is_some_and(|labels| labels.contains_key(CONTROL_PLANE));
                if marked {
                    continue;
                }
                let labels = json!({CONTROL_PLANE: "", "node.kubernetes.io/exclude-from-external-load-balancers": ""});
                let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
                nodes.patch(&own, &PatchParams::default(), &patch).await?;
            }
        }
    });
}

/// How long connections and tasks may take to end.
pub const SHUTDOWN: Duration = Duration::from_secs(20);
