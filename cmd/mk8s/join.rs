//! `mk8s join`: finds and verifies the cluster by a token and the CA's hash, gets a certificate, and starts the node.

use std::net::{SocketAddr, ToSocketAddrs};

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use mk8s_client::Remote;
use mk8s_pki::bootstrap::Token;
use mk8s_pki::kubeconfig::Kubeconfig;
use mk8s_pki::{ca, issue, jws};

use crate::cli::{self, Network};
use crate::failure::{Failure, Result};
use crate::init::{CLUSTER_CONFIG, CLUSTER_KEY, cri_socket, node_contradictions, start_again};
use crate::settings::{Cluster, Role, Settings};
use crate::{host, lifecycle, preflight, remote, status};

pub async fn join(arguments: Box<cli::Join>) -> Result<()> {
    if let Some(settings) = Settings::load(arguments.node.data_dir.as_deref())? {
        return again(settings, &arguments).await;
    }
    let Some(server) = &arguments.server else {
        return Err(Failure::new(
            "this host has not joined before: give the master's ADDRESS:PORT, --token and --discovery-token-ca-cert-hash",
        ));
    };
    let token: Token = match &arguments.token {
        Some(text) => text
            .parse()
            .map_err(|error: mk8s_pki::bootstrap::Malformed| Failure::new(error.to_string()))?,
        None => {
            return Err(Failure::new(
                "--token is missing: `mk8s token create --print-join-command` on the master",
            ));
        }
    };
    if arguments.discovery_token_ca_cert_hash.is_empty() && !arguments.discovery_token_unsafe_skip_ca_verification {
        return Err(Failure::new(
            "--discovery-token-ca-cert-hash is missing: `mk8s token create --print-join-command` on the master prints it",
        ));
    }
    let address = resolve(server)?;
    let mut settings = plan(&arguments, server, address)?;
    crate::node::check(&settings)?;

    println!("[preflight] Running pre-flight checks");
    let ignored = &arguments.node.ignore_preflight_errors;
    let judged = preflight::judge(preflight::node(&settings).await, ignored).and_then(|()| preflight::not_running());
    // As in init: another join may be at work here.
    if judged.is_err() && !lifecycle::someone_sets_up() {
        return judged;
    }
    let turn = lifecycle::turn().await?;
    if let Some(settings) = Settings::load(arguments.node.data_dir.as_deref())? {
        drop(turn);
        return again(settings, &arguments).await;
    }
    judged?;
    let ca_pem = discover(&settings, &token, &arguments).await?;
    println!("[preflight] Reading configuration from the cluster...");
    let client = token_client(&settings, &ca_pem, &token)?;
    settings.cluster = cluster(&client).await?;
    preflight::judge(preflight::routes(&settings.cluster).await, ignored)?;
    refuse_taken_name(&client, &settings).await?;

    println!("[kubelet-start] Getting a certificate for node {}", settings.node_name);
    let path = remote::ca_file(&settings);
    mk8s_pki::files::write(&path, ca_pem.as_bytes(), 0o644).map_err(|error| Failure::new(error.to_string()))?;
    remote::new_client_certificate(&settings, &client).await?;
    settings.save()?;
    println!("[kubelet-start] Starting the node agent");
    lifecycle::install()?;
    let mut started = lifecycle::launch(&settings)?;
    status::wait_ready(&settings, &mut started).await?;
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
        && settings.server != format!("https://{server}")
    {
        return Err(Failure::new(format!(
            "this host is a node of {}, which {server} contradicts: `mk8s reset` first",
            settings.server
        )));
    }
    node_contradictions(&settings, &arguments.node)?;
    start_again(&settings).await
}

fn resolve(server: &str) -> Result<SocketAddr> {
    let wrong = |cause: String| Failure::of(format!("find the master at {server:?} (ADDRESS:PORT)"), cause);
    let mut addresses = server.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| wrong("it has no IPv4 address".into()))
}

fn plan(arguments: &cli::Join, server: &str, address: SocketAddr) -> Result<Settings> {
    Ok(Settings {
        role: Role::Worker,
        node_name: arguments.node.node_name.clone().map_or_else(host::name, Ok)?,
        node_ip: arguments
            .node
            .node_ip
            .map_or_else(|| host::source_address(address), Ok)?,
        server: format!("https://{server}"),
        cri_socket: cri_socket(arguments.node.cri_socket.as_deref()),
        register_with_taints: arguments.node.register_with_taints.clone(),
        eviction_hard: arguments.node.eviction_hard.clone(),
        // Replaced by the cluster's own before anything is made of it.
        cluster: Cluster {
            pod_cidr: ipnet::Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
            service_cidr: ipnet::Ipv4Net::new_assert([10, 96, 0, 0].into(), 16),
            dns_domain: "cluster.local".into(),
            network: Network::Vxlan,
            image_repository: None,
        },
        master: None,
        unfinished: false,
        data_dir: crate::settings::find(arguments.node.data_dir.as_deref()),
    })
}

/// kubeadm's token discovery: read cluster-info without trust, verify it by the token's signature, pin its CA by the
/// hash, and read it again over TLS that trusts this CA alone. Returns the CA (PEM).
async fn discover(settings: &Settings, token: &Token, arguments: &cli::Join) -> Result<String> {
    let shown = &settings.server;
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
    let broken = |error: mk8s_pki::PkiError| Failure::new(error.to_string());
    let ca_pem = Kubeconfig::from_yaml(text, "cluster-info")
        .and_then(|file| file.ca_pem())
        .map_err(broken)?;
    if !arguments.discovery_token_unsafe_skip_ca_verification {
        let found = ca::hashes_of_pem(&ca_pem).map_err(broken)?;
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
        server: settings.server.clone(),
        ca: issue::certificates(ca_pem).map_err(|error| Failure::new(error.to_string()))?,
        certificate: None,
        token: Some(token.to_string()),
        user_agent: format!("mk8s/{}", mk8s_apiserver::config::VERSION),
    };
    mk8s_client::remote(remote).map_err(|error| Failure::new(error.to_string()))
}

async fn cluster(client: &kube::Client) -> Result<Cluster> {
    let what = format!("read ConfigMap kube-system/{CLUSTER_CONFIG}");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let config = api
        .get(CLUSTER_CONFIG)
        .await
        .map_err(|error| Failure::of(&what, error))?;
    let text = config.data.unwrap_or_default().remove(CLUSTER_KEY).unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| Failure::of(&what, error))
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
