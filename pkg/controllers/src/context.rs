//! What every controller gets: a client under its own identity, the shared informers, and the cluster's settings.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::NamespaceResourceScope;
use kube::Client;
use kube::api::PostParams;
use mk8s_client::{Answer, Api, EventRecorder, Feed, Informers};
use mk8s_pki::ca::Authority;
use mk8s_pki::serviceaccount::Keys;
use mk8s_supervisor::{Clock, Supervisor};
use serde::Serialize;

use crate::autoscaler::metrics::Metrics;
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use crate::monitor::Hub;

/// Who a controller is before it has an account of its own.
const MANAGER: &str = "system:kube-controller-manager";

/// Whom informers read as.
pub const READER: &str = "system:mk8s:informers";

/// Makes a client that acts as the given user.
pub type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Makes a feed of what the given user may see.
pub type FeedFor = Arc<dyn Fn(&str) -> Arc<dyn Feed> + Send + Sync>;

/// The cluster's settings that controllers act on.
#[derive(Clone)]
pub struct Settings {
    /// The pod networks, one for each family, the more important first: each node gets a share of each. None: addresses are handed
    /// out by someone else.
    pub cluster_cidrs: Vec<IpNet>,
    /// The prefix lengths of a node's shares, of IPv4 and IPv6.
    pub node_masks: (u8, u8),
    /// The service network, never handed to a node.
    pub service_cidr: Option<IpNet>,
    /// The CA's certificate (PEM), published to every namespace.
    pub root_ca: String,
    /// The CA that signs certificate requests.
    pub signer: Option<Arc<Authority>>,
    /// The keys that service accounts' tokens are signed with.
    pub account_keys: Option<Arc<Keys>>,
    /// A token that was made for an account, is kept in a Secret and is not used for so long becomes invalid, and after as long
    /// again it is deleted.
    pub unused_token_period: Duration,
    /// Names and addresses that the API server's certificate is for. The control plane issues it itself, so no request gets one
    /// for such; the name of the control plane's node is one of them.
    pub api_names: Vec<String>,
    /// The port that API servers listen on: no Service gets it on a node's address.
    pub api_port: u16,
    /// Whether Services of type LoadBalancer get the nodes' addresses. Not where somebody else balances.
    pub service_lb: bool,
    /// The DNS domain of the cluster's Services.
    pub cluster_domain: String,
    /// How many finished pods may stay before the oldest go.
    pub terminated_pod_threshold: usize,
    /// Without a heartbeat for this time a node is not ready.
    pub node_grace_period: Duration,
    /// Where autoscalers get their measurements from; None: from the APIs of metrics, where they are served.
    pub metrics: Option<Arc<dyn Metrics>>,
    /// What CronJobs go by.
    pub clock: Clock,
}

/// Upstream's numbers; no network to share out, nothing to sign with.
impl Default for Settings {
    fn default() -> Self {
        Settings {
            cluster_cidrs: Vec::new(),
            node_masks: (24, 64),
            service_cidr: None,
            root_ca: String::new(),
            signer: None,
            account_keys: None,
            unused_token_period: Duration::from_secs(365 * 24 * 3600),
            api_names: Vec::new(),
            api_port: 6443,
            service_lb: true,
            cluster_domain: "cluster.local".to_owned(),
            terminated_pod_threshold: 12_500,
            node_grace_period: Duration::from_secs(50),
            metrics: None,
            clock: Clock::default(),
        }
    }
}

/// The surroundings of a controller.
#[derive(Clone)]
pub struct Context {
    clients: ClientFor,
    feeds: FeedFor,
    /// A client with the controller's own identity.
    pub client: Client,
    /// For kinds that only discovery tells of; with the controller's own identity too.
    pub feed: Arc<dyn Feed>,
    /// Shared by all components of the process.
    pub informers: Informers,
    /// What all controllers are part of, and end with.
    pub scope: Supervisor,
    /// The kinds there are, and the namespaces that objects disappear from.
    pub hub: Arc<Hub>,
    /// See [`Settings`].
    pub settings: Arc<Settings>,
}

impl Context {
    /// The context that [`crate::run`] derives each controller's own from.
    pub fn new(
        clients: ClientFor,
        feeds: FeedFor,
        informers: Informers,
        settings: Settings,
        scope: &Supervisor,
    ) -> Self {
        let (client, feed) = (clients(MANAGER), feeds(MANAGER));
        Context {
            clients,
            feeds,
            client,
            feed,
            informers,
            scope: scope.clone(),
            hub: Arc::default(),
            settings: Arc::new(settings),
        }
    }

    /// The same, acting as service account `account` of kube-system; empty: as the controller manager.
    pub fn for_controller(&self, account: &str) -> Self {
        if account.is_empty() {
            return self.clone();
        }
        let user = format!("system:serviceaccount:kube-system:{account}");
        Context {
            client: (self.clients)(&user),
            feed: (self.feeds)(&user),
            ..self.clone()
        }
    }

    /// Lists what informers do not keep whole: it may read everything, and write nothing.
    pub fn reader(&self) -> Client {
        (self.clients)(READER)
    }

    /// The objects of one namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The objects of the cluster.
    pub fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Writes an object's status; None where there is no such object any more.
    pub async fn write_status<K>(&self, object: &K) -> Result<Option<Answer<K>>, Error>
    where
        K: Serialize + kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let api = self.api::<K>(meta::namespace(object));
        let written = api
            .replace_status(meta::name(object), &PostParams::default(), object)
            .await;
        written.tried_if_exists(|| format!("update status of {} {}", K::kind(&()), Key::of(object)))
    }

    /// Writes Events under the controller's name.
    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "", &self.scope)
    }
}
