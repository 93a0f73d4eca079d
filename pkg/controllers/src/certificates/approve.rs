//! Approves what nodes ask for: a client certificate for a node's own name (by a bootstrap token, or to renew its own), and a serving
//! certificate for a node's own name and addresses.
//!
//! Watches certificate requests, nodes and ServiceCIDRs; writes condition Approved. What is not approved stays open for a person, and the
//! reason is told by an event: to the node that waits, else to the request. Whoever may ask is decided by RBAC, through access reviews.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use mk8s_client::{Event, EventRecorder, Informer, Partial};
use mk8s_pki::csr::{self, Request};

use super::{NODE_CLIENT, NODE_PREFIX, NODE_SERVING, NODES, Unfit, holds, is_issued, recognise};
use crate::context::{Context, Settings};
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const WORKERS: usize = 2;
const NAME: &str = "csrapproving";

struct Controller {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
    ranges: Informer<Partial>,
    recorder: EventRecorder,
}

/// Why a request is not approved; the text goes into an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Request(#[from] csr::CsrError),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("{0:?} may not ask for it")]
    Requester(String),
    #[error("{0} is no name of the node")]
    Name(String),
    #[error("{0} is no address of the node")]
    Address(IpAddr),
    #[error("{0} is an address of another node, too")]
    Shared(IpAddr),
    #[error("{0} is a name or an address of the API server")]
    Server(String),
    #[error("{0} is a name or an address of the cluster's Services or pods")]
    Cluster(String),
}

enum Verdict {
    Approve(&'static str),
    /// The node has not said who it is: its event brings the request back.
    Wait,
    Refuse(Refusal),
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (requests, nodes) = (
        ctx.informers.of::<CertificateSigningRequest>(),
        ctx.informers.of::<Node>(),
    );
    let mut driver = Driver::new(NAME, &ctx.scope);
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
    let ranges = Partial::service_cidrs(&ctx.informers);
    driver.watch(&ranges, |_| Vec::new());
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        requests,
        nodes,
        ranges,
        recorder,
    };
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
        match self.judge(&csr.spec).await? {
            Verdict::Approve(message) => return self.approve(&key, &csr, message).await,
            Verdict::Wait => {}
            Verdict::Refuse(why) => self.tell(&csr, &why),
        }
        Ok(Next::Done)
    }
}

impl Controller {
    async fn judge(&self, spec: &CertificateSigningRequestSpec) -> Result<Verdict, Error> {
        let request = match csr::parse(&spec.request.0) {
            Ok(request) => request,
            Err(error) => return Ok(Verdict::Refuse(error.into())),
        };
        let usages = spec.usages.as_deref().unwrap_or_default();
        if let Err(unfit) = recognise(&spec.signer_name, &request, usages) {
            return Ok(Verdict::Refuse(unfit.into()));
        }
        if spec.signer_name == NODE_SERVING {
            Ok(self.serving(spec, &request))
        } else {
            self.client(spec, &request).await
        }
    }

    /// The node's own agent asks anew as long as it has no certificate: told of the node, all its requests are one event.
    fn tell(&self, csr: &CertificateSigningRequest, why: &Refusal) {
        let user = csr.spec.username.as_deref().unwrap_or_default();
        tracing::warn!(csr = meta::name(csr), user, reason = %why, "certificate request is left to a person");
        let node = user
            .strip_prefix(NODE_PREFIX)
            .and_then(|name| self.nodes.get(None, name));
        let about = node.map_or_else(|| meta::reference(csr), |node| meta::reference(&*node));
        let text = format!("No certificate of {} is approved: {why}", csr.spec.signer_name);
        self.recorder.event(&about, "Warning", "CertificateNotApproved", text);
    }

    async fn client(&self, spec: &CertificateSigningRequestSpec, request: &Request) -> Result<Verdict, Error> {
        let user = &request.subject.common_name;
        if spec.username.as_ref() == Some(user) && self.may(spec, "selfnodeclient").await? {
            return Ok(Verdict::Approve(
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ));
        }
        // Who holds a join token could stand as the control plane's node, and read the Secrets of its pods. By the name that
        // the API server's certificate has: a Node and its labels come and go.
        let name = user.strip_prefix(NODE_PREFIX).unwrap_or_default();
        if of_server(&self.ctx.settings, name) {
            return Ok(Verdict::Refuse(Refusal::Server(name.to_owned())));
        }
        if self.may(spec, "nodeclient").await? {
            return Ok(Verdict::Approve(
                "Auto approving kubelet client certificate after SubjectAccessReview.",
            ));
        }
        let requester = spec.username.clone().unwrap_or_default();
        Ok(Verdict::Refuse(Refusal::Requester(requester)))
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
        let answer = answer.and_then(|answer| answer.object());
        let answer = answer.tried(|| format!("review whether {:?} may create {subresource}", spec.username))?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    fn serving(&self, spec: &CertificateSigningRequestSpec, request: &Request) -> Verdict {
        let user = spec.username.as_deref().unwrap_or_default();
        let in_group = spec.groups.iter().flatten().any(|g| g == NODES);
        if !in_group || user != request.subject.common_name {
            return Verdict::Refuse(Refusal::Requester(user.to_owned()));
        }
        let name = user.strip_prefix(NODE_PREFIX).unwrap_or_default();
        let Some(node) = self.nodes.get(None, name).filter(|n| addresses(n).next().is_some()) else {
            return Verdict::Wait;
        };
        let others: Vec<IpAddr> = self
            .nodes
            .filter(|n| meta::name(n) != meta::name(&*node))
            .iter()
            .flat_map(|n| addresses(n))
            .collect();
        let settings = &self.ctx.settings;
        let ranges = self.ranges.list();
        let ranges = ranges.iter().flat_map(|range| range.cidrs());
        let own = settings.cluster_cidrs.iter().copied().chain(settings.service_cidr);
        let networks: Vec<IpNet> = own.chain(ranges).collect();
        match may_serve(&node, &others, &networks, settings, request) {
            Ok(()) => {
                Verdict::Approve("Auto approving kubelet serving certificate for the node's own name and addresses.")
            }
            Err(why) => Verdict::Refuse(why),
        }
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

/// In their usual form: an IPv4 address in IPv6's is the IPv4 address to whoever dials or checks it.
fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> + '_ {
    let all = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    all.filter(|a| matches!(a.type_.as_str(), "InternalIP" | "ExternalIP"))
        .filter_map(|a| Some(a.address.parse::<IpAddr>().ok()?.to_canonical()))
}

/// Whether the API server's certificate is for this name or address.
fn of_server(settings: &Settings, text: &str) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let same = |api: &String| match (address(api), address(text)) {
        (None, None) => api.eq_ignore_ascii_case(text),
        (api, text) => api == text,
    };
    settings.api_names.iter().any(same)
}

/// Whether DNS answers for this name with a Service or a pod. A host may have another name in the same domain.
fn of_cluster(settings: &Settings, dns: &str) -> bool {
    let dns = dns.trim_end_matches('.').to_ascii_lowercase();
    let domain = settings.cluster_domain.trim_end_matches('.').to_ascii_lowercase();
    let kinds = ["svc", "pod"].map(|kind| format!(".{kind}.{domain}"));
    dns == domain || dns.ends_with(".svc") || kinds.iter().any(|kind| dns.ends_with(kind))
}

/// Only the node's own name and addresses: none that another node has, none of the API server's, no Service's and no pod's.
/// A node tells its addresses and hostnames itself, and every pod trusts this CA.
fn may_serve(
    node: &Node,
    others: &[IpAddr],
    networks: &[IpNet],
    settings: &Settings,
    request: &Request,
) -> Result<(), Refusal> {
    let own: Vec<IpAddr> = addresses(node).collect();
    let name = meta::name(node);
    let hostnames = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    let hostnames: Vec<&str> = hostnames
        .filter(|a| a.type_ == "Hostname")
        .map(|a| a.address.as_str())
        .collect();
    for dns in &request.names.dns {
        // A hostname that differs from the node's name could be any name.
        if dns != name && !(hostnames.contains(&dns.as_str()) && dns.split('.').next() == Some(name)) {
            return Err(Refusal::Name(dns.clone()));
        }
        if of_server(settings, dns) {
            return Err(Refusal::Server(dns.clone()));
        }
        if of_cluster(settings, dns) {
            return Err(Refusal::Cluster(dns.clone()));
        }
    }
    for ip in request.names.addresses.iter().map(IpAddr::to_canonical) {
        if !own.contains(&ip) {
            return Err(Refusal::Address(ip));
        }
        if others.contains(&ip) {
            return Err(Refusal::Shared(ip));
        }
        if of_server(settings, &ip.to_string()) {
            return Err(Refusal::Server(ip.to_string()));
        }
        if networks.iter().any(|network| network.contains(&ip)) {
            return Err(Refusal::Cluster(ip.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_pki::{csr, issue};
    use serde_json::json;

    use super::*;

    /// What it tells of itself: everything that it asks for below.
    fn node(name: &str) -> Node {
        let internal = [
            "10.0.0.2",
            "::ffff:10.0.0.3",
            "10.96.0.1",
            "::ffff:10.96.0.7",
            "10.244.0.9",
            "fd00::1",
        ]
        .map(|ip| json!({"type": "InternalIP", "address": ip}));
        let hostnames = [
            name,
            "n1.lan",
            "web.shop.svc",
            "web.shop.svc.corp.example.com",
            "kubernetes.default",
        ]
        .into_iter()
        .chain([
            "corp.example.com",
            "n1.corp.example.com",
            "n1.svc.corp.example.com",
            "n1.a.pod.Corp.Example.com.",
        ])
        .map(|host| json!({"type": "Hostname", "address": host}));
        let all: Vec<_> = internal.into_iter().chain(hostnames).collect();
        // No label makes a node the control plane's.
        let labels = json!({"node-role.kubernetes.io/control-plane": ""});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": {"addresses": all}}))
            .unwrap()
    }

    fn request(names: &[&str]) -> Request {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let (_, pem) = issue::request("system:node:n1", Some("system:nodes"), &names).unwrap();
        csr::parse(pem.as_bytes()).unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table: one row a request")]
    fn node_serves_only_its_own_name_and_addresses() {
        let serving = ["digital signature", "server auth"].map(str::to_owned);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (address, shared) = (
            |text| Err(Refusal::Address(ip(text))),
            |text| Err(Refusal::Shared(ip(text))),
        );
        let name = |text: &str| Err(Refusal::Name(text.to_owned()));
        let server = |text: &str| Err(Refusal::Server(text.to_owned()));
        let cluster = |text: &str| Err(Refusal::Cluster(text.to_owned()));
        for (node_name, names, others, api, expected) in [
            ("n1", vec!["n1", "n1.lan", "10.0.0.2", "fd00::1"], vec![], "", Ok(())),
            ("n1", vec!["n2"], vec![], "", name("n2")),
            ("n1", vec!["10.0.0.4"], vec![], "", address("10.0.0.4")),
            ("n1", vec!["10.0.0.2"], vec![ip("10.0.0.2")], "", shared("10.0.0.2")),
            // The API server's, a Service's, a pod's, whatever the node says it is.
            ("n1", vec!["10.0.0.2"], vec![], "10.0.0.2", server("10.0.0.2")),
            ("n1", vec!["10.0.0.2"], vec![], "::ffff:10.0.0.2", server("10.0.0.2")),
            ("n1", vec!["10.0.0.3"], vec![], "10.0.0.3", server("10.0.0.3")),
            ("n1", vec!["fd00::1"], vec![], "fd00:0:0::1", server("fd00::1")),
            ("n1", vec!["n1", "10.0.0.2"], vec![], "N1", server("n1")),
            (
                "kubernetes",
                vec!["kubernetes"],
                vec![],
                "kubernetes",
                server("kubernetes"),
            ),
            ("web", vec!["web.shop.svc"], vec![], "", cluster("web.shop.svc")),
            (
                "web",
                vec!["web.shop.svc.corp.example.com"],
                vec![],
                "",
                cluster("web.shop.svc.corp.example.com"),
            ),
            (
                "n1",
                vec!["n1.svc.corp.example.com"],
                vec![],
                "",
                cluster("n1.svc.corp.example.com"),
            ),
            (
                "n1",
                vec!["n1.a.pod.Corp.Example.com."],
                vec![],
                "",
                cluster("n1.a.pod.Corp.Example.com."),
            ),
            (
                "corp",
                vec!["corp.example.com"],
                vec![],
                "",
                cluster("corp.example.com"),
            ),
            // Hosts of the domain that the cluster's is, too.
            ("n1", vec!["n1.corp.example.com"], vec![], "", Ok(())),
            ("n1", vec!["10.96.0.1"], vec![], "", cluster("10.96.0.1")),
            ("n1", vec!["10.96.0.7"], vec![], "", cluster("10.96.0.7")),
            ("n1", vec!["10.244.0.9"], vec![], "", cluster("10.244.0.9")),
        ] {
            let settings = Settings {
                api_names: vec![api.to_owned()],
                cluster_domain: "Corp.Example.COM".to_owned(),
                ..Settings::default()
            };
            let networks = ["10.96.0.0/16", "10.244.0.0/16"].map(|network| network.parse().unwrap());
            let found = may_serve(&node(node_name), &others, &networks, &settings, &request(&names));
            assert_eq!(found, expected, "{names:?} {others:?} {api:?}");
            assert!(recognise(NODE_SERVING, &request(&names), &serving).is_ok());
        }
        // Clients take it for the API server's address.
        let mapped = request(&["n1", "::ffff:10.96.0.1"]);
        let refused = recognise(NODE_SERVING, &mapped, &serving);
        assert_eq!(refused, Err(Unfit::OtherNames));
    }
}
