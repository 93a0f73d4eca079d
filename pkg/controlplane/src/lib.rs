//! The control plane, wired once: API server, controllers and scheduler, each acting under an identity of its own. The binary
//! starts it, and so do the tests.

mod components;
mod identity;
mod serving;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use mk8s_apiserver::bootstrap::Facts;
use mk8s_apiserver::tokens::TokenAuthority;
use mk8s_apiserver::{ApiServer, OpenError};
use mk8s_client::Informers;
use mk8s_client::lease::Election;
use mk8s_controllers::context::{ClientFor, Settings};
use mk8s_pki::PkiError;
use mk8s_pki::layout::{Master, ServerNames};
use mk8s_pki::rotation::{self, Holder};
use mk8s_store::{SledStore, Store, Terms};
use mk8s_supervisor::Supervisor;

use crate::components::Components;

pub use identity::{READER, user};
pub use mk8s_controllers::context::Settings as ControllerSettings;
pub use mk8s_scheduler::config::Config as SchedulerConfig;

/// What a control plane is told.
pub struct Config {
    /// The embedded store is in `db` below it.
    pub data_dir: PathBuf,
    /// One that is open, and that other control planes may share. None: the embedded one.
    pub store: Option<Arc<dyn Store>>,
    /// Whether the cluster may begin here: only then is an embedded store made that is not there.
    pub begins: bool,
    pub pki: Arc<Master>,
    /// What the API server's certificate is renewed for.
    pub names: ServerNames,
    /// Port 0: one that is free.
    pub listen: SocketAddr,
    pub advertise_address: IpAddr,
    /// How joins reach the API; none: at the advertised address and the port listened on.
    pub server_url: Option<String>,
    pub service_cidr: IpNet,
    pub cluster_domain: String,
    /// What controllers act on. The CA, the service network and the masters' addresses are filled in.
    pub controllers: Settings,
    pub scheduler: SchedulerConfig,
    pub lead: Lead,
}

/// When controllers and scheduler run.
pub enum Lead {
    /// From the start: nobody else can be at this store, and no Lease is written.
    Always,
    /// Whenever the election is won.
    Elected(Election),
    /// When whoever started the control plane says so, see [`ControlPlane::run_components`].
    WhenTold,
}

impl Lead {
    fn begin(self, server: &Arc<ApiServer>, components: &Components, supervisor: &Supervisor) {
        match self {
            Lead::Always => components::start(server, components, identity::clients(server), supervisor),
            Lead::Elected(election) => components::elect(server, components.clone(), election, supervisor),
            Lead::WhenTold => {}
        }
    }
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("set up TLS: {0}")]
    Tls(#[from] PkiError),
    #[error("write what a cluster begins with: {0}")]
    Bootstrap(String),
    /// The supervisor was told to end before the control plane stood.
    #[error("it was told to stop")]
    Stopped,
    #[error("listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// A running control plane. Its tasks are the supervisor's; [`ControlPlane::close`] comes after their end.
pub struct ControlPlane {
    pub server: Arc<ApiServer>,
    pub pki: Arc<Master>,
    /// Where it listens.
    pub address: SocketAddr,
    components: Components,
}

impl ControlPlane {
    /// Opens the store, serves the API, and has controllers and scheduler run: at once, or whenever the election is won.
    ///
    /// # Errors
    /// What was opened is closed again; nothing runs. Do not drop the future: have the supervisor end, which it minds.
    pub async fn start(config: Config, supervisor: &Supervisor) -> Result<ControlPlane, StartError> {
        let listener = tokio::net::TcpListener::bind(config.listen).await;
        let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let pki = config.pki;
        let (serving, kubelet_client) = (Holder::new(pki.server.clone()), Holder::new(pki.kubelet_client.clone()));
        let ca = pki.ca.certificate_pem();
        let mut api =
            mk8s_apiserver::Config::new(config.data_dir, config.advertise_address, pki.service_accounts.clone());
        api.service_cidr = config.service_cidr;
        api.secure_port = address.port();
        api.tokens = TokenAuthority::new(pki.service_accounts.clone(), &config.cluster_domain);
        let cluster_domain = config.cluster_domain.clone();
        api.cluster_domain = config.cluster_domain;
        api.kubelet_client = Some(rotation::client_config(ca, Some(kubelet_client.clone()))?);
        let tls = Arc::new(rotation::server_config(serving.clone(), ca)?);
        let store = match config.store {
            Some(store) => store,
            None => embedded(&api.data_dir, config.begins, pki.ca.hash()?)?,
        };
        let server = ApiServer::open_on(api, store)?;
        let own = || format!("https://{}", SocketAddr::new(config.advertise_address, address.port()));
        let facts = Facts {
            service_cidr: config.service_cidr,
            advertise_address: config.advertise_address,
            secure_port: address.port(),
            ca: ca.into(),
            front_proxy_ca: pki.front_proxy_ca.certificate_pem().into(),
            server_url: config.server_url.unwrap_or_else(own),
        };
        begin(&server, &facts, supervisor).await?;

        let api_names = config.names.names();
        serving::serve(&server, tls, listener, supervisor);
        serving::keep_certificates(&pki, config.names, serving, kubelet_client, supervisor);
        let components = Components {
            controllers: Settings {
                service_cidr: Some(config.service_cidr),
                root_ca: ca.into(),
                api_names,
                api_port: address.port(),
                cluster_domain,
                signer: Some(pki.ca.clone()),
                account_keys: Some(pki.service_accounts.clone()),
                ..config.controllers
            },
            scheduler: config.scheduler,
        };
        config.lead.begin(&server, &components, supervisor);
        Ok(ControlPlane {
            server,
            pki,
            address,
            components,
        })
    }

    /// Runs controllers and scheduler in a scope, each by the client that is made for its user.
    pub fn run_components(&self, clients: ClientFor, scope: &Supervisor) {
        components::start(&self.server, &self.components, clients, scope);
    }

    /// What makes clients in this process, see [`ControlPlane::client`].
    pub fn clients(&self) -> ClientFor {
        identity::clients(&self.server)
    }

    /// A client in this process that acts as a component, a node or a service account of kube-system ([`user`]).
    pub fn client(&self, name: &str) -> kube::Client {
        identity::client(&self.server, name)
    }

    /// Informers fed by the watch cache, as far as this user may see it.
    pub fn informers(&self, name: &str, owner: &Supervisor) -> Informers {
        Informers::fed(self.server.feed(user(name)), owner)
    }

    /// Ends what the API server still does, and closes the store.
    pub async fn close(&self) {
        self.server.close().await;
    }
}

/// The store in the data directory. Its owner is the cluster whose CA has this hash: with another cluster's objects no
/// identity that was given out would fit.
fn embedded(data_dir: &Path, begins: bool, owner: String) -> Result<Arc<dyn Store>, OpenError> {
    let dir = data_dir.join("db");
    let terms = Terms {
        begins,
        owner,
        ..Terms::default()
    };
    match SledStore::open_on(&dir, terms) {
        Ok(store) => Ok(Arc::new(store)),
        Err(source) => Err(OpenError::Store { dir, source }),
    }
}

/// Writes what a cluster begins with; where that fails, or is told to stop, the server is closed.
async fn begin(server: &ApiServer, facts: &Facts, supervisor: &Supervisor) -> Result<(), StartError> {
    let begun = tokio::select! {
        begun = server.bootstrap(facts) => begun.map(drop).map_err(|status| StartError::Bootstrap(status.message)),
        () = supervisor.token().cancelled() => Err(StartError::Stopped),
    };
    if begun.is_err() {
        server.close().await;
    }
    begun
}
