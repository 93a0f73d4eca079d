//! `mk8s join`: finds and verifies the cluster by a token and the CA's hash, gets a certificate, and starts the node.

use std::net::{SocketAddr, ToSocketAddrs};

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use mk8s_client::Api;
use mk8s_client::Remote;
use mk8s_pki::bootstrap::Token;
use mk8s_pki::kubeconfig::Kubeconfig;
use mk8s_pki::{ca, issue, jws};

use crate::cli;
use crate::failure::{Failure, Result};
use crate::init::{CLUSTER_CONFIG, CLUSTER_KEY};
use crate::settings::{self, Cluster, Role, Settings};
use crate::{host, preflight, remote, setup, status};

pub async fn join(arguments: Box<cli::Join>) -> Result<()> {
    let standing = || standing(&arguments);
    if let Some(settings) = standing()? {
        return again(settings, &arguments).await;
    }
    let (server, token) = asked(&arguments)?;
    let address = resolve(server)?;
    let mut settings = plan(&arguments, server, address)?;
    crate::node::check(&settings)?;

    println!("[preflight] Running pre-flight checks");
    let ignored = &arguments.node.ignore_preflight_errors;
    let judged = preflight::judge(preflight::node(&settings).await, ignored);
    let Some(_turn) = setup::begin(judged, standing).await? else {
        return again(Settings::require(arguments.node.data_dir.as_deref())?, &arguments).await;
    };
    let ca_pem = discover(&settings, &token, &arguments).await?;
    println!("[preflight] Reading configuration from the cluster...");
    let client = token_client(&settings, &ca_pem, &token)?;
    settings.cluster = cluster(&client).await?;
    preflight::judge(preflight::routes(&settings.cluster).await, ignored)?;
    refuse_taken_name(&client, &settings).await?;

    println!("[kubelet-start] Getting a certificate for node {}", settings.node_name);
    // Before anything else: what is made from here on is this host's to finish or to reset.
    settings.save()?;
    remote::write_ca(&settings, &ca_pem)?;
    remote::new_client_certificate(&settings, &client).await?;
    finish(settings).await
}

/// The settings of an earlier join that got as far as the node's certificate, which is all that the token is asked for.
fn standing(arguments: &cli::Join) -> Result<Option<Settings>> {
    let settings = Settings::load(arguments.node.data_dir.as_deref())?;
    let is_begun =
        |settings: &Settings| settings.role == Role::Worker && settings.unfinished && !remote::has_identity(settings);
    Ok(settings.filter(|settings| !is_begun(settings)))
}

/// What a first join has to be told: the server and the token.
fn asked(arguments: &cli::Join) -> Result<(&str, Token)> {
    let Some(server) = &arguments.server else {
        return Err(Failure::new(
            "this host has not joined before: give the master's ADDRESS:PORT, --token and --discovery-token-ca-cert-hash",
        ));
    };
    let Some(token) = &arguments.token else {
        return Err(Failure::new(
            "--token is missing: `mk8s token create --print-join-command` on the master",
        ));
    };
    if arguments.discovery_token_ca_cert_hash.is_empty() && !arguments.discovery_token_unsafe_skip_ca_verification {
        return Err(Failure::new(
            "--discovery-token-ca-cert-hash is missing: `mk8s token create --print-join-command` on the master prints it",
        ));
    }
    Ok((server, token.parse()?))
}

/// From the certificate to the closing text.
async fn finish(settings: Settings) -> Result<()> {
    println!("[kubelet-start] Starting the node agent");
    let mut started = setup::start(&settings)?;
    status::wait_ready(&settings, &mut started).await?;
    settings.finish()?;
    println!("\nThis node has joined the cluster:");
    println!("* Certificate signing request was sent to apiserver and a response was received.");
    println!("* The Kubelet was informed of the new secure connection details.\n");
    println!("Run 'kubectl get nodes' on the control-plane to see this node join the cluster.");
    Ok(())
}

async fn again(settings: Settings, arguments: &cli::Join) -> Result<()> {
    if settings.role == Role::Master {
        return Err(Failure::new("this host holds a cluster of its own: `mk8s reset` first"));
    }
    if let Some(server) = &arguments.server
        && !settings.endpoints.contains(&format!("https://{server}"))
    {
        return Err(Failure::new(format!(
            "this host is a node of {}, which {server} contradicts: `mk8s reset` first",
            settings.server()
        )));
    }
    setup::node_contradictions(&settings, &arguments.node)?;
    let turn = crate::lifecycle::turn().await?;
    let settings = Settings::require(Some(settings.data_dir()))?;
    if settings.unfinished {
        println!("An earlier join did not come to its end on this host; finishing it");
        // Whole: the earlier one may have ended between the files of the settings.
        settings.save()?;
        return finish(settings).await;
    }
    drop(turn);
    setup::start_again(&settings).await
}

fn resolve(server: &str) -> Result<SocketAddr> {
    let wrong = |cause: String| Failure::of(format!("find the master at {server:?} (ADDRESS:PORT)"), cause);
    let mut addresses = server.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| wrong("it has no IPv4 address".into()))
}

fn plan(arguments: &cli::Join, server: &str, address: SocketAddr) -> Result<Settings> {
    let given = &arguments.node;
    let node = settings::Node {
        name: given.node_name.clone().map_or_else(host::name, Ok)?,
        ip: given.node_ip.map_or_else(|| host::source_address(address), Ok)?,
        endpoint: format!("https://{server}"),
        flags: given.clone(),
    };
    // The cluster's own settings replace the defaults before anything is made of them.
    let mut settings = Settings::plan(Role::Worker, node, Cluster::default(), None)?;
    if let Some(earlier) = Settings::load(given.data_dir.as_deref())? {
        settings.before = earlier.before;
    }
    Ok(settings)
}

/// kubeadm's token discovery: read cluster-info without trust, verify it by the token's signature, pin its CA by the
/// hash, and read it again over TLS that trusts this CA alone. Returns the CA (PEM).
async fn discover(settings: &Settings, token: &Token, arguments: &cli::Join) -> Result<String> {
    let shown = settings.server();
    let info = untrusted_cluster_info(shown).await?;
    let data = info.data.unwrap_or_default();
    let text = data
        .get("kubeconfig")
        .ok_or_else(|| Failure::new(format!("{shown} publishes no cluster-info")))?;
    let signature = data.get(&format!("jws-kubeconfig-{}", token.id)).ok_or_else(|| {
        Failure::new(format!(
            "token {} is unknown to {shown}, or expired: `mk8s token create --print-join-command` on the master",
            token.id
        ))
    })?;
    if !jws::verify(text, signature, token) {
        return Err(Failure::new(format!(
            "the token's secret does not fit the one that {shown} knows as {}",
            token.id
        )));
    }
    let ca_pem = Kubeconfig::from_yaml(text, "cluster-info")?.ca_pem()?;
    if !arguments.discovery_token_unsafe_skip_ca_verification {
        let found = ca::hashes_of_pem(&ca_pem)?;
        let pinned = &arguments.discovery_token_ca_cert_hash;
        if !found
            .iter()
            .any(|hash| pinned.iter().any(|pin| pin.eq_ignore_ascii_case(hash)))
        {
            return Err(Failure::new(format!(
                "the CA of {shown} has the hash {}, none of --discovery-token-ca-cert-hash: this is another cluster, or \
                 someone is in between",
                found.join(", ")
            )));
        }
    }
    let trusted = remote::client(settings, &ca_pem, None)?;
    let again: Api<ConfigMap> = Api::namespaced(trusted, "kube-public");
    let again = again.get("cluster-info").await;
    again.map_err(|error| Failure::of(format!("reach {shown} over TLS with the CA it published"), error))?;
    Ok(ca_pem)
}

/// cluster-info over TLS that verifies nothing: what it says is believed only after its signature.
async fn untrusted_cluster_info(server: &str) -> Result<ConfigMap> {
    let what = format!("read cluster-info from {server}");
    let client = mk8s_client::untrusted(server).map_err(|error| Failure::of(&what, error))?;
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    api.get("cluster-info").await.map_err(|error| Failure::of(&what, error))
}

fn token_client(settings: &Settings, ca_pem: &str, token: &Token) -> Result<kube::Client> {
    let remote = Remote {
        servers: settings.endpoints.clone(),
        ca: issue::certificates(ca_pem)?,
        certificate: None,
        token: Some(token.to_string()),
        user_agent: format!("mk8s/{}", mk8s_apiserver::config::VERSION),
    };
    Ok(mk8s_client::remote(remote)?)
}

async fn cluster(client: &kube::Client) -> Result<Cluster> {
    let what = format!("ConfigMap kube-system/{CLUSTER_CONFIG}");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let config = api.get(CLUSTER_CONFIG).await;
    let config = config.map_err(|error| Failure::of(format!("read {what}"), error))?;
    let text = config.data.unwrap_or_default().remove(CLUSTER_KEY).unwrap_or_default();
    Cluster::from_json(&text, &what)
}

/// Another host that is alive under this name would lose its pods to this one.
async fn refuse_taken_name(client: &kube::Client, settings: &Settings) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let name = &settings.node_name;
    let node = nodes
        .get_opt(name)
        .await
        .map_err(|error| Failure::of(format!("ask for node {name}"), error))?;
    match node {
        Some(node) if status::is_ready(&node) => Err(Failure::new(format!(
            "a node with name {name:?} and status \"Ready\" already exists in the cluster: choose another with --node-name, \
             or delete it first"
        ))),
        _ => Ok(()),
    }
}
