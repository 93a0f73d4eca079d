//! What holds data stays while it is used, and goes when it is not.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};

async fn create<K: Clone + Debug + Serialize + DeserializeOwned>(api: &Api<K>, object: Value) -> K {
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "", "volumeAttributesClassName": "fast"}})
}

async fn is_gone<K>(cluster: &Cluster, api: &Api<K>, name: &str)
where
    K: Clone + Debug + DeserializeOwned,
{
    let what = format!("{name} is gone");
    let gone = || async {
        let found = api.get_opt(name).await.unwrap();
        holds(found.is_none(), found)
    };
    cluster.until(&what, gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_stay_while_a_pod_uses_them() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    create(&namespaces, json!({"metadata": {"name": "ns"}})).await;
    cluster.takes_pods("ns").await;
    let (claims, pods) = (cluster.api::<PersistentVolumeClaim>("ns"), cluster.api::<Pod>("ns"));
    for name in ["used", "unused", "left"] {
        let made = create(&claims, claim(name)).await;
        assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/pvc-protection"]);
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}]}});
    create(&pods, pod).await;

    for name in ["used", "unused"] {
        claims.delete(name, &DeleteParams::default()).await.unwrap();
    }
    is_gone(&cluster, &claims, "unused").await;
    let held = claims.get("used").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    is_gone(&cluster, &claims, "used").await;

    // A namespace takes its claims with it.
    namespaces.delete("ns", &DeleteParams::default()).await.unwrap();
    is_gone(&cluster, &namespaces, "ns").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_their_classes_stay_while_they_are_used() {
    let cluster = Cluster::start().await;
    let classes: Api<VolumeAttributesClass> = Api::all(cluster.admin.clone());
    let volumes: Api<PersistentVolume> = Api::all(cluster.admin.clone());
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    for name in ["fast", "unused"] {
        let class = json!({"metadata": {"name": name}, "driverName": "example.org", "parameters": {"a": "b"}});
        let made = create(&classes, class).await;
        assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/vac-protection"]);
        let volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "csi": {"driver": "example.org", "volumeHandle": name},
            "volumeAttributesClassName": name}});
        let made = create(&volumes, volume).await;
        assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/pv-protection"]);
    }
    create(&claims, claim("c")).await;
    let bound = || async {
        let volume = volumes.get("fast").await.unwrap();
        holds(
            volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"),
            volume,
        )
    };
    cluster.until("the claim has its volume", bound).await;
    // Each controller has one worker: it has looked at the used one when it lets go what was deleted after it.
    for name in ["fast", "unused"] {
        volumes.delete(name, &DeleteParams::default()).await.unwrap();
        classes.delete(name, &DeleteParams::default()).await.unwrap();
    }
    is_gone(&cluster, &volumes, "unused").await;
    is_gone(&cluster, &classes, "unused").await;
    assert!(volumes.get("fast").await.unwrap().metadata.deletion_timestamp.is_some());
    assert!(classes.get("fast").await.unwrap().metadata.deletion_timestamp.is_some());

    claims.delete("c", &DeleteParams::default()).await.unwrap();
    is_gone(&cluster, &volumes, "fast").await;
    is_gone(&cluster, &classes, "fast").await;
    cluster.stop().await;
}

/// An administrator gives the cluster a second range of addresses, and takes it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_stays_while_an_address_is_of_it_alone() {
    let cluster = Cluster::start().await;
    let ranges: Api<ServiceCIDR> = Api::all(cluster.admin.clone());
    let services = cluster.api::<Service>("default");
    let range = |name: &str, cidr: &str| json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
    let says = async |name: &'static str, status: &'static str, reason: &'static str| {
        let said = || async {
            let range = ranges.get(name).await.unwrap();
            let held = range.metadata.finalizers == Some(vec!["networking.k8s.io/service-cidr-finalizer".into()]);
            let conditions = range.status.clone().unwrap_or_default().conditions.unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            let said = ready.is_some_and(|ready| ready.status == status && ready.reason == reason);
            holds(held && said, range)
        };
        cluster.until(&format!("{name} is Ready={status}"), said).await;
    };
    says("kubernetes", "True", "").await;
    create(&ranges, range("second", "10.97.0.0/24")).await;
    says("second", "True", "").await;
    let service = |name: &str, address: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    create(&services, service("a", "10.97.0.7")).await;

    // Held, though a part of it will be there.
    create(&ranges, range("part", "10.97.0.0/29")).await;
    ranges.delete("second", &DeleteParams::default()).await.unwrap();
    says("second", "False", "Terminating").await;
    // The last address of the part is the broadcast address there, and no Service's.
    ranges.delete("part", &DeleteParams::default()).await.unwrap();
    is_gone(&cluster, &ranges, "part").await;
    says("second", "False", "Terminating").await;
    let refused: Service = serde_json::from_value(service("b", "10.97.0.8")).unwrap();
    let refused = services.create(&PostParams::default(), &refused).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 422),
        "{refused}"
    );

    services.delete("a", &DeleteParams::default()).await.unwrap();
    is_gone(&cluster, &ranges, "second").await;

    // Another that has all of its addresses takes over.
    create(&ranges, range("third", "10.98.0.0/24")).await;
    create(&services, service("c", "10.98.0.7")).await;
    create(&ranges, range("larger", "10.98.0.0/16")).await;
    ranges.delete("third", &DeleteParams::default()).await.unwrap();
    is_gone(&cluster, &ranges, "third").await;
    ranges.delete("larger", &DeleteParams::default()).await.unwrap();
    says("larger", "False", "Terminating").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_no_service_has_is_given_back() {
    let cluster = Cluster::start().await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let service: Service = cluster.create("default", service).await;
    let own = service.spec.unwrap().cluster_ip.unwrap();
    let addresses: Api<IPAddress> = Api::all(cluster.admin.clone());
    let labels = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io", "ipaddress.kubernetes.io/ip-family": "IPv4"});
    let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
    let leaked = json!({"metadata": {"name": "10.96.200.7", "labels": labels}, "spec": {"parentRef": parent}});
    let leaked: IPAddress = serde_json::from_value(leaked).unwrap();
    addresses.create(&PostParams::default(), &leaked).await.unwrap();
    cluster
        .until("it goes, and the Service's own stays", || async {
            let (leaked, own) = (
                addresses.get_opt("10.96.200.7").await.unwrap(),
                addresses.get_opt(&own).await.unwrap(),
            );
            holds(leaked.is_none() && own.is_some(), (leaked.is_some(), own.is_some()))
        })
        .await;
    let told = ListParams::default().fields("reason=IPAddressWrongReference");
    let told = cluster.api::<Event>("default").list(&told).await.unwrap();
    let messages: Vec<_> = told.items.into_iter().filter_map(|event| event.message).collect();
    assert_eq!(
        messages,
        ["IPAddress: 10.96.200.7 for Service default/web has a wrong reference; cleaning up"]
    );
    cluster.stop().await;
}
