//! What a cluster begins with beside upstream's table: namespaces, kubeadm's and mk8s's own roles, the API's own
//! Service, the Service of the cluster DNS, and what clients and joins find the cluster's trust by.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

/// What the objects depend on.
#[derive(Clone, Debug)]
pub struct Facts {
    pub service_cidr: IpNet,
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    /// PEM
    pub ca: String,
    /// PEM
    pub front_proxy_ca: String,
    /// How joins reach the API: `https://10.0.0.1:6443`.
    pub server_url: String,
}

/// The n-th address of the service range.
pub fn service_address(cidr: &IpNet, offset: u32) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network).wrapping_add(offset)).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network).wrapping_add(u128::from(offset))).into()),
    }
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

const RBAC: &str = "rbac.authorization.k8s.io";

fn cluster_binding(name: &str, role: &str, group: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group}],
    })
}

/// Created when missing and left alone from then on.
pub fn once(facts: &Facts) -> Vec<Value> {
    let mut objects = kept(facts);
    objects.extend(roles());
    objects
}

/// Of those, what is made again whenever it is gone.
pub fn kept(facts: &Facts) -> Vec<Value> {
    let mut objects = namespaces();
    objects.extend(addresses(facts));
    objects.push(tracking());
    objects
}

/// Since when the use of tokens that are kept in Secrets is noted: the cleaner of unused ones asks.
fn tracking() -> Value {
    let today = now().split('T').next().unwrap_or_default().to_owned();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": today},
    })
}

fn namespaces() -> Vec<Value> {
    const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
    let mut objects: Vec<Value> = NAMESPACES
        .iter()
        .map(|name| {
            json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        })
        .collect();
    // The controller would make them too; so the first pod need not wait for it.
    objects.extend(NAMESPACES.iter().map(|namespace| {
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
        })
    }));
    objects
}

/// kubeadm's roles and mk8s's own, beside upstream's table.
#[expect(clippy::too_many_lines, reason = "a table: one row an object")]
fn roles() -> Vec<Value> {
    let joining = mk8s_pki::bootstrap::NODE_GROUP;
    vec![
        cluster_binding("kubeadm:cluster-admins", "cluster-admin", "kubeadm:cluster-admins"),
        cluster_binding("kubeadm:get-nodes", "kubeadm:get-nodes", joining),
        cluster_binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", joining),
        cluster_binding(
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            joining,
        ),
        cluster_binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "system:nodes",
        ),
        // Proxy, DNS and network of a joined host act as its node.
        cluster_binding("mk8s:node-proxier", "system:node-proxier", "system:nodes"),
        // What the control plane's own informers read as.
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "mk8s:informers"},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["list", "watch"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "mk8s:informers"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "mk8s:informers"},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": "system:mk8s:informers"}],
        }),
        // Upstream leaves serving certificates to an administrator; mk8s approves those for a node's own name and address.
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "mk8s:kubelet-serving-approver"},
            "rules": [{
                "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
                "resourceNames": ["kubernetes.io/kubelet-serving"], "verbs": ["approve"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "mk8s:kubelet-serving-approver"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "mk8s:kubelet-serving-approver"},
            "subjects": [{"kind": "ServiceAccount", "name": "certificate-controller", "namespace": "kube-system"}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "kubeadm:get-nodes"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "kubeadm:bootstrap-signer-clusterinfo", "namespace": "kube-public"},
            "rules": [{
                "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "kubeadm:bootstrap-signer-clusterinfo", "namespace": "kube-public"},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "kubeadm:bootstrap-signer-clusterinfo"},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": "system:anonymous"}],
        }),
    ]
}

/// The Services that a cluster has from the first moment, and the range that their addresses are of.
fn addresses(facts: &Facts) -> Vec<Value> {
    vec![
        service(
            "default",
            "kubernetes",
            json!({"component": "apiserver", "provider": "kubernetes"}),
            service_address(&facts.service_cidr, 1),
            json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": facts.secure_port}]),
        ),
        service(
            "kube-system",
            "kube-dns",
            json!({
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
            }),
            service_address(&facts.service_cidr, 10),
            json!([
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ]),
        ),
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [facts.service_cidr.trunc().to_string()]},
            "status": {"conditions": [{
                "type": "Ready", "status": "True", "reason": "",
                "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": now(),
            }]},
        }),
    ]
}

/// Without a selector: nobody's EndpointSlices but the API server's own (kubernetes), and none at all for the DNS, which
/// each node answers itself at this address.
fn service(namespace: &str, name: &str, labels: Value, address: IpAddr, ports: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "clusterIP": address.to_string(),
            "clusterIPs": [address.to_string()],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": [family(&address)],
            "ipFamilyPolicy": "SingleStack",
            "ports": ports,
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    })
}

/// Kept as they must be at every start: the given fields are put over what is stored.
pub fn always(facts: &Facts) -> Vec<Value> {
    let address = facts.advertise_address.to_string();
    let cluster_info = mk8s_pki::kubeconfig::Kubeconfig::cluster_info(&facts.server_url, &facts.ca);
    let mut objects = vec![
        json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{
                "addresses": [{"ip": address}],
                "ports": [{"name": "https", "port": facts.secure_port, "protocol": "TCP"}],
            }],
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family(&facts.advertise_address),
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": facts.secure_port, "protocol": "TCP"}],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
            "data": {
                "client-ca-file": facts.ca,
                "requestheader-allowed-names": "[\"front-proxy-client\"]",
                "requestheader-client-ca-file": facts.front_proxy_ca,
                "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
                "requestheader-group-headers": "[\"X-Remote-Group\"]",
                "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
                "requestheader-username-headers": "[\"X-Remote-User\"]",
            },
        }),
    ];
    // The token signer puts its signatures beside this key.
    if let Ok(kubeconfig) = cluster_info.to_yaml() {
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": kubeconfig},
        }));
    }
    objects
}

pub(crate) fn now() -> String {
    jiff::Timestamp::from_second(mk8s_pki::unix_now())
        .unwrap_or_default()
        .to_string()
}
