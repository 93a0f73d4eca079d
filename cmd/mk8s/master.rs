//! The control plane in this process: API server, controllers, scheduler, each acting under an identity of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use mk8s_apiserver::bootstrap::Facts;
use mk8s_apiserver::{ApiServer, Config, User};
use mk8s_client::{Event, EventRecorder, Informers};
use mk8s_pki::layout::{self, ServerNames};
use mk8s_pki::rotation::{self, Holder};
use mk8s_supervisor::{OnExit, Supervisor};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::settings::{Master, Settings};

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// The running control plane, as the node agent beside it and the shutdown need it.
pub struct ControlPlane {
    pub server: Arc<ApiServer>,
    pub pki: Arc<layout::Master>,
    pub informers: Informers,
}

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

/// A component's user; service accounts of kube-system get their groups.
pub fn user(name: &str) -> User {
    let groups: &[&str] = if name.starts_with("system:serviceaccount:kube-system:") {
        &["system:serviceaccounts", "system:serviceaccounts:kube-system"]
    } else if name.starts_with("system:node:") {
        &["system:nodes"]
    } else if name == "system:apiserver" {
        &["system:masters"]
    } else {
        &[]
    };
    User::authenticated(name, groups.iter().map(|group| group.to_string()))
}

/// A client of `server` that acts as `name`.
pub fn client_of(server: &Arc<ApiServer>, name: &str) -> kube::Client {
    mk8s_client::in_process(server.router_as(user(name)), &format!("mk8s/{name}"))
}

pub async fn start(settings: &Settings, master: &Master, supervisor: &Supervisor) -> Result<ControlPlane> {
    let names = server_names(settings, master);
    let pki = Arc::new(layout::open(&settings.pki_dir(), &names).map_err(|error| Failure::new(error.to_string()))?);
    let broken = |error: mk8s_pki::PkiError| Failure::new(error.to_string());

    let kubelet_client = Holder::new(pki.kubelet_client.clone());
    let serving = Holder::new(pki.server.clone());
    let ca_pem = pki.ca.certificate_pem();
    let mut config = Config::new(
        settings.data_dir(),
        IpAddr::V4(master.advertise_address),
        pki.service_accounts.clone(),
    );
    config.service_cidr = IpNet::V4(settings.cluster.service_cidr);
    config.cluster_domain = settings.cluster.dns_domain.clone();
    config.secure_port = master.bind_port;
    config.tokens =
        mk8s_apiserver::tokens::TokenAuthority::new(pki.service_accounts.clone(), &settings.cluster.dns_domain);
    config.kubelet_client = Some(rotation::client_config(ca_pem, Some(kubelet_client.clone())).map_err(broken)?);
    let tls = Arc::new(rotation::server_config(serving.clone(), ca_pem).map_err(broken)?);
    if mk8s_containerd::spec::Host::detect().apparmor {
        mk8s_api::validation::allow_app_armor();
    }
    let server = ApiServer::open(config).map_err(|error| Failure::new(error.to_string()))?;
    let facts = Facts {
        service_cidr: IpNet::V4(settings.cluster.service_cidr),
        advertise_address: IpAddr::V4(master.advertise_address),
        secure_port: master.bind_port,
        ca: ca_pem.into(),
        front_proxy_ca: pki.front_proxy_ca.certificate_pem().into(),
        server_url: settings.server().into(),
    };
    server
        .bootstrap(&facts)
        .await
        .map_err(|status| Failure::of("write what a cluster begins with", status.message))?;

    serve(&server, tls, master.bind_port, supervisor).await?;
    keep_certificates(&pki, names, serving, kubelet_client, supervisor);

    let informers = Informers::new(client_of(&server, "system:apiserver"), supervisor.token().clone());
    controllers(settings, master, &server, &pki, &informers.packed(), supervisor);
    let scheduler = client_of(&server, "system:kube-scheduler");
    let recorder = EventRecorder::new(scheduler.clone(), mk8s_scheduler::NAME, "");
    mk8s_scheduler::run(scheduler, informers.packed(), recorder, supervisor);
    Ok(ControlPlane { server, pki, informers })
}

/// Labels this master's own Node when it registers, as kubeadm does at init: NodeRestriction lets no node give itself such
/// labels, nor should it.
pub fn mark_own_node(settings: &Settings, plane: &ControlPlane, supervisor: &Supervisor) {
    let own = settings.node_name.clone();
    let informers = plane.informers.clone();
    let nodes: Api<Node> = Api::all(client_of(&plane.server, "system:apiserver"));
    supervisor.spawn("mark-control-plane", OnExit::Restart, move |token| {
        let (own, nodes) = (own.clone(), nodes.clone());
        let mut events = informers.of::<Node>().subscribe();
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
                if new.metadata.name.as_deref() != Some(own.as_str()) || marked {
                    continue;
                }
                let labels = json!({CONTROL_PLANE: "", "node.kubernetes.io/exclude-from-external-load-balancers": ""});
                let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
                nodes.patch(&own, &PatchParams::default(), &patch).await?;
            }
        }
    });
}

async fn serve(
    server: &Arc<ApiServer>,
    tls: Arc<rustls::ServerConfig>,
    port: u16,
    supervisor: &Supervisor,
) -> Result<()> {
    let address = (Ipv4Addr::UNSPECIFIED, port);
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|error| Failure::of(format!("listen on port {port}"), error))?;
    let once = std::sync::Mutex::new(Some(listener));
    let server = server.clone();
    supervisor.spawn("apiserver", OnExit::Fatal, move |token| {
        let listener = once.lock().ok().and_then(|mut listener| listener.take());
        let (server, tls) = (server.clone(), tls.clone());
        async move {
            let listener = listener.ok_or("the listener is gone")?;
            server.serve(listener, tls, token).await?;
            Ok(())
        }
    });
    Ok(())
}

/// Renews the API server's two certificates in the running process.
fn keep_certificates(
    pki: &Arc<layout::Master>,
    names: ServerNames,
    serving: Holder,
    kubelet_client: Holder,
    supervisor: &Supervisor,
) {
    let held = pki.clone();
    supervisor.spawn("renew-apiserver-certificate", OnExit::Restart, move |token| {
        let (pki, names, holder) = (held.clone(), names.clone(), serving.clone());
        let renew = move || {
            let renewed = layout::server_certificate(&pki.directory, &pki.ca, &names);
            async move { renewed }
        };
        until(token, rotation::keep_fresh("apiserver", holder, renew))
    });
    let pki = pki.clone();
    supervisor.spawn("renew-kubelet-client-certificate", OnExit::Restart, move |token| {
        let (pki, holder) = (pki.clone(), kubelet_client.clone());
        let renew = move || {
            let renewed = layout::kubelet_client_certificate(&pki.directory, &pki.ca);
            async move { renewed }
        };
        until(token, rotation::keep_fresh("apiserver-kubelet-client", holder, renew))
    });
}

/// Work that has no end of its own, ended by the token.
pub async fn until(
    token: tokio_util::sync::CancellationToken,
    work: impl Future<Output = ()>,
) -> std::result::Result<(), mk8s_supervisor::TaskError> {
    tokio::select! {
        () = work => {}
        () = token.cancelled() => {}
    }
    Ok(())
}

fn controllers(
    settings: &Settings,
    master: &Master,
    server: &Arc<ApiServer>,
    pki: &Arc<layout::Master>,
    informers: &Informers,
    supervisor: &Supervisor,
) {
    let clients = server.clone();
    let settings = mk8s_controllers::context::Settings {
        cluster_cidr: Some(IpNet::V4(settings.cluster.pod_cidr)),
        service_cidr: Some(IpNet::V4(settings.cluster.service_cidr)),
        root_ca: pki.ca.certificate_pem().into(),
        api_addresses: vec![IpAddr::V4(master.advertise_address)],
        signer: Some(pki.ca.clone()),
        ..mk8s_controllers::context::Settings::default()
    };
    let context = mk8s_controllers::Context::new(
        Arc::new(move |name| client_of(&clients, name)),
        informers.clone(),
        settings,
        supervisor.token().clone(),
    );
    mk8s_controllers::run(&context, supervisor);
}

/// How long connections and tasks may take to end.
pub const SHUTDOWN: Duration = Duration::from_secs(20);
