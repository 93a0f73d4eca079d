//! Approves what nodes ask for: a client certificate for a node's own name (by a bootstrap token, or to renew its own), and a serving
//! certificate for a node's own name and addresses.
//!
//! Watches certificate requests and nodes; writes condition Approved. Whoever may ask is decided by RBAC, through access reviews.

use std::net::IpAddr;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use mk8s_client::{Event, Informer};
use mk8s_pki::csr::{self, Request};

use super::{NODE_CLIENT, NODE_PREFIX, NODE_SERVING, NODES, holds, is_issued, recognise};
use crate::context::{Context, Settings};
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const WORKERS: usize = 2;
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

struct Controller {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (requests, nodes) = (
        ctx.informers.of::<CertificateSigningRequest>(),
        ctx.informers.of::<Node>(),
    );
    let mut driver = Driver::new("csrapproving", &ctx.scope);
    driver.watch(&requests, |event| match event {
        Event::Applied { new, .. } if is_open(new) => vec![Key::of(&**new)],
        _ => Vec::new(),
    });
    driver.watch(&nodes, {
        let requests = requests.clone();
        move |event| {
            let addresses = |n: &Node| n.status.as_ref().and_then(|s| s.addresses.clone());
            match event {
                Event::Applied { old, new } if old.as_deref().and_then(addresses) != addresses(new) => {
                    let user = format!("{NODE_PREFIX}{}", meta::name(&**new));
                    let waiting = requests.filter(|r| is_open(r) && r.spec.username.as_ref() == Some(&user));
                    waiting.iter().map(|r| Key::of(&**r)).collect()
                }
                _ => Vec::new(),
            }
        }
    });
    let controller = Controller { ctx, requests, nodes };
    driver.run(WORKERS, controller).await
}

fn is_open(csr: &CertificateSigningRequest) -> bool {
    let ours = matches!(csr.spec.signer_name.as_str(), NODE_CLIENT | NODE_SERVING);
    ours && !is_issued(csr) && !holds(csr, "Approved") && !holds(csr, "Denied")
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(csr) = self.requests.get(None, &key.name).filter(|csr| is_open(csr)) else {
            return Ok(Next::Done);
        };
        let usages = csr.spec.usages.clone().unwrap_or_default();
        let request = match csr::parse(&csr.spec.request.0) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(csr = key.name, %error, "certificate request can't be read");
                return Ok(Next::Done);
            }
        };
        if let Err(unfit) = recognise(&csr.spec.signer_name, &request, &usages) {
            tracing::info!(csr = key.name, reason = %unfit, "certificate request is left to a person");
            return Ok(Next::Done);
        }
        let approved = if csr.spec.signer_name == NODE_SERVING {
            self.serving(&csr.spec, &request)
        } else {
            self.client(&csr.spec, &request).await?
        };
        match approved {
            Some(message) => self.approve(&key, &csr, message).await,
            None => Ok(Next::Done),
        }
    }
}

impl Controller {
    async fn client(
        &self,
        spec: &CertificateSigningRequestSpec,
        request: &Request,
    ) -> Result<Option<&'static str>, Error> {
        let own = spec.username.as_deref() == Some(request.subject.common_name.as_str());
        if own && self.may(spec, "selfnodeclient").await? {
            return Ok(Some(
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ));
        }
        // Who holds a join token could stand as the master's node, which may serve as the API server.
        let name = request.subject.common_name.strip_prefix(NODE_PREFIX);
        if name
            .and_then(|name| self.nodes.get(None, name))
            .is_some_and(|node| is_master(&node))
        {
            return Ok(None);
        }
        if self.may(spec, "nodeclient").await? {
            return Ok(Some(
                "Auto approving kubelet client certificate after SubjectAccessReview.",
            ));
        }
        Ok(None)
    }

    async fn may(&self, spec: &CertificateSigningRequestSpec, subresource: &str) -> Result<bool, Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    verb: Some("create".to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let api = self.ctx.all::<SubjectAccessReview>();
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.tried(|| format!("review whether {:?} may create {subresource}", spec.username))?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    fn serving(&self, spec: &CertificateSigningRequestSpec, request: &Request) -> Option<&'static str> {
        let user = spec.username.as_deref().unwrap_or_default();
        let in_group = spec.groups.iter().flatten().any(|g| g == NODES);
        if !in_group || user != request.subject.common_name {
            return None;
        }
        // Without the node, or before it has told its addresses: the node's event brings the request back.
        let node = self.nodes.get(None, user.strip_prefix(NODE_PREFIX)?)?;
        let others: Vec<IpAddr> = self
            .nodes
            .filter(|n| meta::name(n) != meta::name(&*node))
            .iter()
            .flat_map(|n| addresses(n))
            .collect();
        may_serve(&node, &others, &self.ctx.settings, request)
            .then_some("Auto approving kubelet serving certificate for the node's own name and addresses.")
    }

    async fn approve(&self, key: &Key, csr: &CertificateSigningRequest, message: &str) -> Result<Next, Error> {
        let mut approved = csr.clone();
        let now = meta::now();
        approved
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default()
            .push(CertificateSigningRequestCondition {
                type_: "Approved".to_owned(),
                status: "True".to_owned(),
                reason: Some("AutoApproved".to_owned()),
                message: Some(message.to_owned()),
                last_update_time: Some(now.clone()),
                last_transition_time: Some(now),
            });
        let api = self.ctx.all::<CertificateSigningRequest>();
        let done = api
            .replace_subresource("approval", &key.name, &PostParams::default(), &approved)
            .await;
        done.tried_if_exists(|| format!("approve certificate request {key}"))?;
        Ok(Next::Done)
    }
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> + '_ {
    let all = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    all.filter(|a| matches!(a.type_.as_str(), "InternalIP" | "ExternalIP"))
        .filter_map(|a| a.address.parse().ok())
}

fn is_master(node: &Node) -> bool {
    meta::labels(node).contains_key(CONTROL_PLANE)
}

/// Only the node's own name and addresses: none that another node has; none of the API server's, unless the node is of the
/// control plane; no Service's and no pod's. A node tells its addresses and hostnames itself, and every pod trusts this CA.
fn may_serve(node: &Node, others: &[IpAddr], settings: &Settings, request: &Request) -> bool {
    let own: Vec<IpAddr> = addresses(node).collect();
    let name = meta::name(node);
    let hostnames = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    let hostnames: Vec<&str> = hostnames
        .filter(|a| a.type_ == "Hostname")
        .map(|a| a.address.as_str())
        .collect();
    // A hostname that differs from the node's name could be any name.
    let named =
        |dns: &String| dns == name || (hostnames.contains(&dns.as_str()) && dns.split('.').next() == Some(name));
    let of_server =
        |text: &str| !is_master(node) && settings.api_names.iter().any(|api| api.eq_ignore_ascii_case(text));
    let of_cluster = |dns: &String| {
        let dns = dns.trim_end_matches('.').to_ascii_lowercase();
        let domain = dns.strip_suffix(&settings.cluster_domain);
        dns.ends_with(".svc") || domain.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let networks = [settings.service_cidr, settings.cluster_cidr];
    let in_cluster = |ip: &IpAddr| networks.iter().flatten().any(|network| network.contains(ip));
    let names = &request.names;
    names
        .dns
        .iter()
        .all(|dns| named(dns) && !of_server(dns) && !of_cluster(dns))
        && names
            .addresses
            .iter()
            .all(|ip| own.contains(ip) && !others.contains(ip) && !of_server(&ip.to_string()) && !in_cluster(ip))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_pki::{ca, csr, issue};
    use serde_json::json;

    use super::*;

    #[test]
    fn node_serves_only_its_own_name_and_addresses() {
        // What it tells of itself: everything that it asks for below.
        let node = |name: &str, master: bool| -> Node {
            let labels = if master { json!({CONTROL_PLANE: ""}) } else { json!({}) };
            let internal = ["10.0.0.2", "10.96.0.1", "10.96.0.7", "10.244.0.9"]
                .map(|ip| json!({"type": "InternalIP", "address": ip}));
            let hostnames = [
                name,
                "n1.lan",
                "web.shop.svc",
                "web.shop.svc.cluster.local",
                "kubernetes.default",
            ]
            .map(|host| json!({"type": "Hostname", "address": host}));
            let all: Vec<_> = internal.into_iter().chain(hostnames).collect();
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": {"addresses": all}}))
                .unwrap()
        };
        let request = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let (_, pem) = issue::request("system:node:n1", Some("system:nodes"), &names).unwrap();
            csr::parse(pem.as_bytes()).unwrap()
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (name, names, others, api, master, expected) in [
            ("n1", vec!["n1", "n1.lan", "10.0.0.2"], vec![], "", false, true),
            ("n1", vec!["n2"], vec![], "", false, false),
            ("n1", vec!["10.0.0.3"], vec![], "", false, false),
            ("n1", vec!["10.0.0.2"], vec![ip("10.0.0.2")], "", false, false),
            ("n1", vec!["10.0.0.2"], vec![], "10.0.0.2", false, false),
            ("n1", vec!["n1", "10.0.0.2"], vec![], "10.0.0.2", true, true),
            ("n1", vec!["n1"], vec![], "n1", true, true),
            // The API server's, a Service's, a pod's, whatever the node says it is.
            ("kubernetes", vec!["kubernetes"], vec![], "kubernetes", false, false),
            (
                "kubernetes",
                vec!["kubernetes.default"],
                vec![],
                "kubernetes.default",
                false,
                false,
            ),
            ("web", vec!["web.shop.svc"], vec![], "", false, false),
            ("web", vec!["web.shop.svc.cluster.local"], vec![], "", false, false),
            ("n1", vec!["10.96.0.1"], vec![], "10.96.0.1", false, false),
            ("n1", vec!["10.96.0.7"], vec![], "", false, false),
            ("n1", vec!["10.244.0.9"], vec![], "", false, false),
        ] {
            let settings = Settings {
                api_names: vec![api.to_owned()],
                service_cidr: Some("10.96.0.0/16".parse().unwrap()),
                cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
                ..Settings::default()
            };
            let found = may_serve(&node(name, master), &others, &settings, &request(&names));
            assert_eq!(found, expected, "{names:?} {others:?} {api:?} {master}");
            assert!(recognise(NODE_SERVING, &request(&names), &["server auth".to_owned()]).is_ok());
        }
        assert!(ca::create("x").is_ok());
    }
}
