//! Each of upstream's controllers (cmd/kube-controller-manager/names of v1.35), and where it is here, or why it is not.

/// Where one of upstream's is.
enum Here {
    /// These rows of [`crate::CONTROLLERS`].
    Rows(&'static [&'static str]),
    /// Nothing does, for this reason.
    Nowhere(&'static str),
}

use Here::{Nowhere, Rows};

const UPSTREAM: &[(&str, Here)] = &[
    ("serviceaccount-token-controller", Rows(&["serviceaccount-token"])),
    ("endpoints-controller", Rows(&["endpoints"])),
    ("endpointslice-controller", Rows(&["endpointslice"])),
    ("endpointslice-mirroring-controller", Rows(&["endpointslice-mirroring"])),
    ("replicationcontroller-controller", Rows(&["replicationcontroller"])),
    ("pod-garbage-collector-controller", Rows(&["pod-garbage-collector"])),
    ("resourcequota-controller", Nowhere("quotas are not in this version")),
    ("namespace-controller", Rows(&["namespace"])),
    ("serviceaccount-controller", Rows(&["serviceaccount"])),
    ("garbage-collector-controller", Rows(&["garbage-collector"])),
    ("daemonset-controller", Rows(&["daemonset"])),
    ("job-controller", Rows(&["job"])),
    ("deployment-controller", Rows(&["deployment"])),
    ("replicaset-controller", Rows(&["replicaset"])),
    (
        "horizontal-pod-autoscaler-controller",
        Rows(&["horizontal-pod-autoscaler"]),
    ),
    ("disruption-controller", Rows(&["disruption", "stale-disruption"])),
    ("statefulset-controller", Rows(&["statefulset"])),
    ("cronjob-controller", Rows(&["cronjob"])),
    (
        "certificatesigningrequest-signing-controller",
        Rows(&["certificate-signer"]),
    ),
    (
        "certificatesigningrequest-approving-controller",
        Rows(&["certificate-approver"]),
    ),
    (
        "certificatesigningrequest-cleaner-controller",
        Rows(&["certificate-cleaner"]),
    ),
    (
        "podcertificaterequest-cleaner-controller",
        Nowhere("its gate PodCertificateRequest is off"),
    ),
    ("ttl-controller", Rows(&["node-ttl"])),
    ("bootstrap-signer-controller", Rows(&["bootstrap-signer"])),
    ("token-cleaner-controller", Rows(&["token-cleaner"])),
    ("node-ipam-controller", Rows(&["node-ipam"])),
    ("node-lifecycle-controller", Rows(&["node-lifecycle"])),
    ("taint-eviction-controller", Rows(&["taint-eviction"])),
    (
        "device-taint-eviction-controller",
        Nowhere("its gate DRADeviceTaints is off"),
    ),
    ("persistentvolume-binder-controller", Rows(&["persistentvolume-binder"])),
    ("persistentvolume-attach-detach-controller", Rows(&["attachdetach"])),
    ("persistentvolume-expander-controller", Rows(&["volume-expand"])),
    ("clusterrole-aggregation-controller", Rows(&["clusterrole-aggregation"])),
    ("persistentvolumeclaim-protection-controller", Rows(&["pvc-protection"])),
    ("persistentvolume-protection-controller", Rows(&["pv-protection"])),
    ("ttl-after-finished-controller", Rows(&["ttl-after-finished"])),
    ("root-ca-certificate-publisher-controller", Rows(&["root-ca-publisher"])),
    (
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        Nowhere("its gate ClusterTrustBundle is off"),
    ),
    ("ephemeral-volume-controller", Rows(&["ephemeral-volume"])),
    (
        "storageversion-garbage-collector-controller",
        Nowhere("its gate StorageVersionAPI is off"),
    ),
    ("resourceclaim-controller", Rows(&["resource-claim"])),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        Rows(&["legacy-service-account-token-cleaner"]),
    ),
    (
        "validatingadmissionpolicy-status-controller",
        Nowhere("admission policies are not in this version"),
    ),
    ("volumeattributesclass-protection-controller", Rows(&["vac-protection"])),
    ("service-cidr-controller", Rows(&["service-cidrs"])),
    (
        "storage-version-migrator-controller",
        Nowhere("its gate StorageVersionMigrator is off"),
    ),
    (
        "selinux-warning-controller",
        Nowhere("upstream does not start it either, unless asked to"),
    ),
];

/// Those that upstream has nothing of.
const OWN: &[(&str, &str)] = &[
    ("local-path-provisioner", "volumes on the nodes' own disks"),
    (
        "service-lb",
        "Services at the nodes' own addresses; upstream's is the cloud's",
    ),
];

#[test]
fn every_row_is_one_of_upstreams_or_its_own() {
    let mut rows: Vec<&str> = crate::CONTROLLERS.iter().map(|row| row.name).collect();
    let named = UPSTREAM.iter().flat_map(|(_, here)| match here {
        Rows(rows) => *rows,
        Nowhere(why) => {
            assert!(!why.is_empty());
            &[]
        }
    });
    let mut named: Vec<&str> = named.copied().chain(OWN.iter().map(|(row, _)| *row)).collect();
    rows.sort_unstable();
    named.sort_unstable();
    assert_eq!(rows, named);
}
