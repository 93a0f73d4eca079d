//! The node agent with a real containerd, a real pod network and the API server in process, in network and mount namespaces
//! of the test's own. Needs root, containerd, runc and a static busybox.
#![allow(clippy::unwrap_used)]

#[path = "../../containerd/tests/harness/mod.rs"]
mod containerd;
#[path = "parts/endings.rs"]
mod endings;
#[path = "parts/resolver.rs"]
mod resolver;
#[path = "parts/volumes.rs"]
mod volumes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use mk8s_apiserver::{ApiServer, User, bootstrap::Facts};
use mk8s_client::{Informers, in_process};
use mk8s_containerd::{Containerd, Options};
use mk8s_kubelet::{Config, Kubelet, NetworkMode, NetworkSettings};
use mk8s_supervisor::Supervisor;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NODE: &str = "node-a";
const IMAGE: &str = containerd::BUSYBOX;

fn main() -> ExitCode {
    if let Some(code) = mk8s_containerd::logs::run_if_writer() {
        return code;
    }
    // The harness's flags (`--list`, a filter) mean nothing here.
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::Level::WARN))
        .init();
    isolate();
    let mut node = containerd::Node::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(all(&mut node));
    // The daemon goes before the mounts that it holds.
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(node);
    ExitCode::SUCCESS
}

/// Nothing of the machine's network and of /run is seen, and no mount gets out. Inside, mounts are shared as on a host with
/// systemd.
fn isolate() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(none, "/", none, MsFlags::MS_REC | propagation, none).unwrap();
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let script = "ip link set lo up; ip link add eth0 type veth peer name far; ip addr add 10.0.0.1/24 dev eth0;
                  ip link set eth0 up; ip link set far up";
    assert!(Command::new("sh").args(["-ec", script]).status().unwrap().success());
}

struct Cluster {
    admin: kube::Client,
    server: Arc<ApiServer>,
    containerd: Containerd,
    ca: mk8s_pki::ca::Authority,
    dir: std::path::PathBuf,
}

async fn all(node: &mut containerd::Node) {
    let cluster = Cluster::open(node).await;
    let supervisor = cluster.start_kubelet().await;
    cluster.node_becomes_ready().await;
    eprintln!("node is ready");
    let uid = cluster.a_pod_runs().await;
    eprintln!("a pod runs");
    cluster.restarts_and_ends().await;
    eprintln!("pods end and restart");
    cluster.a_pod_is_not_sent_to_the_hosts_loopback().await;
    cluster.bad_images_and_missing_objects().await;
    eprintln!("what is missing is waited for");
    cluster.probes_decide().await;
    eprintln!("probes decide");
    let supervisor = cluster.a_restarted_agent_adopts(supervisor, &uid).await;
    eprintln!("a restarted agent adopts");
    let supervisor = cluster.a_rebooted_host_runs_the_same_pods(supervisor).await;
    eprintln!("a rebooted host runs the same pods");
    cluster.a_live_volume_follows().await;
    let supervisor = cluster.volumes_are_safe(supervisor).await;
    eprintln!("volumes are safe");
    cluster.a_class_needs_its_runtime().await;
    let supervisor = cluster.an_end_is_confirmed(node, supervisor).await;
    eprintln!("an end is confirmed");
    cluster.deletion_is_graceful().await;
    eprintln!("deletion is graceful");
    supervisor.shutdown(Duration::from_secs(5)).await;
    cluster.nothing_is_left(node).await;
    cluster.server.close().await;
}

impl Cluster {
    async fn open(node: &containerd::Node) -> Self {
        let dir = node.directory.path().join("cluster");
        std::fs::create_dir_all(&dir).unwrap();
        let keys = Arc::new(mk8s_pki::serviceaccount::Keys::generate().unwrap());
        let server = ApiServer::open(mk8s_apiserver::Config::new(&dir, [10, 0, 0, 1].into(), keys)).unwrap();
        let facts = Facts {
            service_cidr: server.config().service_cidr,
            advertise_address: [10, 0, 0, 1].into(),
            secure_port: 6443,
            ca: "CA".into(),
            front_proxy_ca: "CA".into(),
            server_url: "https://10.0.0.1:6443".into(),
        };
        server.bootstrap(&facts).await.unwrap();
        let admin = User::authenticated("admin", ["system:masters".to_string()]);
        let admin = in_process(server.router_as(admin), "test");
        let options = Options {
            socket: node.path("containerd.sock"),
            io_dir: node.path("io"),
            log_writer: std::env::current_exe().unwrap(),
            registries: node.path("registries.yaml"),
            namespace: containerd::NAMESPACE.clone(),
            ..Options::default()
        };
        let containerd = Containerd::connect(options).await.unwrap();
        node.busybox(&containerd).await;
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        let api: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
        there(api.create(&PostParams::default(), &account).await);
        let root: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}}))
                .unwrap();
        let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
        there(maps.create(&PostParams::default(), &root).await);
        let ca = mk8s_pki::ca::create("kubernetes").unwrap();
        Cluster {
            admin,
            server,
            containerd,
            ca,
            dir,
        }
    }

    async fn start_kubelet(&self) -> Supervisor {
        let supervisor = Supervisor::new(CancellationToken::new());
        let user = User::authenticated(format!("system:node:{NODE}"), ["system:nodes".to_string()]);
        let client = in_process(self.server.router_as(user), "kubelet");
        let informers = Informers::new(client.clone(), &supervisor);
        let issued = mk8s_pki::issue::server(&self.ca, NODE, &["10.0.0.1".into()], 3600).unwrap();
        let holder = mk8s_pki::rotation::Holder::new(issued.certified_key().unwrap());
        let below = |name: &str| self.dir.join(name);
        let config = Config {
            node_name: NODE.into(),
            node_ip: [10, 0, 0, 1].into(),
            root_dir: below("kubelet"),
            data_dir: below("node"),
            volumes_dir: below("volumes"),
            pod_log_dir: below("logs/pods"),
            container_log_dir: below("logs/containers"),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            register_taints: vec![],
            labels: BTreeMap::new(),
            max_pods: 110,
            // A disk that is nearly full is no matter of these tests.
            eviction_hard: "memory.available<10Mi".parse().unwrap(),
            version: "v1.35.4+mk8s.1".into(),
            pause_image: None,
            network: NetworkSettings {
                mode: NetworkMode::Vxlan,
                cluster_cidr: "10.244.0.0/16".parse().unwrap(),
                service_cidr: "10.96.0.0/16".parse().unwrap(),
                dns: None,
                mtu: None,
                api: tokio::sync::watch::channel(std::collections::BTreeSet::new()).1,
                state_dir: below("node"),
            },
            listen: SocketAddr::from(([10, 0, 0, 1], 10250)),
            server_certificate: Arc::new(holder),
            client_ca: Arc::new(mk8s_pki::rotation::roots(self.ca.certificate_pem()).unwrap()),
        };
        let kubelet = Kubelet::new(config, client, informers, self.containerd.clone()).unwrap();
        kubelet.run(&supervisor).await;
        supervisor
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.admin.clone())
    }

    async fn node_becomes_ready(&self) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let range = json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}});
        nodes
            .patch(NODE, &PatchParams::default(), &Patch::Merge(range))
            .await
            .unwrap();
        let node = eventually("the node to be ready", Duration::from_secs(15), async || {
            let node = serde_json::to_value(nodes.get(NODE).await.unwrap()).unwrap();
            (condition(&node, "Ready") == "True").then_some(node)
        })
        .await;
        let info = &node["status"]["nodeInfo"];
        assert!(
            info["containerRuntimeVersion"]
                .as_str()
                .unwrap()
                .starts_with("containerd://1."),
            "{info}"
        );
        assert_eq!(info["kubeletVersion"], "v1.35.4+mk8s.1");
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], NODE);
        assert_eq!(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(self.admin.clone(), "kube-node-lease");
        eventually("the lease", Duration::from_secs(5), async || {
            leases.get_opt(NODE).await.unwrap()
        })
        .await;
    }

    async fn create(&self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap()
            .metadata
            .uid
            .unwrap()
    }

    async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let last = parking_lot::Mutex::new(Value::Null);
        let pods = self.pods();
        let search = eventually(what, Duration::from_secs(90), async || {
            let pod = serde_json::to_value(pods.get_opt(name).await.unwrap()).unwrap();
            *last.lock() = pod.clone();
            holds(&pod).then_some(pod)
        });
        match tokio::time::timeout(Duration::from_secs(60), search).await {
            Ok(pod) => pod,
            Err(_) => {
                let events = self.events(name).await;
                panic!("{name}: no {what}: {:#}\n{events:#?}", last.lock()["status"]);
            }
        }
    }

    async fn events(&self, name: &str) -> Vec<(String, String)> {
        let api: Api<Event> = Api::default_namespaced(self.admin.clone());
        let list = api.list(&Default::default()).await.unwrap();
        let ours = list
            .items
            .into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some(name));
        ours.map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default()))
            .collect()
    }

    async fn said(&self, name: &str, reason: &str, part: &str) {
        eventually(
            &format!("event {reason} of {name} with {part:?}"),
            Duration::from_secs(10),
            async || {
                let events = self.events(name).await;
                events
                    .iter()
                    .any(|(r, m)| r == reason && m.contains(part))
                    .then_some(())
            },
        )
        .await;
    }

    fn log(&self, name: &str, uid: &str, container: &str, attempt: u32) -> String {
        let file = self
            .dir
            .join(format!("logs/pods/default_{name}_{uid}/{container}/{attempt}.log"));
        std::fs::read_to_string(file).unwrap_or_default()
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one pod that has everything, and what is seen of it"
    )]
    async fn a_pod_runs(&self) -> String {
        let maps: Api<ConfigMap> = Api::default_namespaced(self.admin.clone());
        let data = json!({"metadata": {"name": "settings"}, "data": {"greeting": "hello", "file": "content"}});
        let map: ConfigMap = serde_json::from_value(data).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
        let script = "echo $GREETING from $(hostname) $POD_IP; cat /config/file; echo; cat /etc/hosts; \
                      cat /etc/resolv.conf; cd /var/run/secrets/kubernetes.io/serviceaccount; ls; head -c 3 token; echo; \
                      cat /scratch/init; id; exec sleep 1000";
        let began = Instant::now();
        let uid = self
            .create(
                "web",
                json!({
                    "initContainers": [{
                        "name": "first", "image": IMAGE,
                        "command": ["sh", "-c", "echo initialized > /scratch/init"],
                        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                    }],
                    "containers": [{
                        "name": "main", "image": IMAGE, "command": ["sh", "-c", script],
                        "env": [
                            {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}}},
                            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        ],
                        "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                        "securityContext": {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [
                            {"name": "config", "mountPath": "/config"},
                            {"name": "scratch", "mountPath": "/scratch"},
                        ],
                    }],
                    "securityContext": {"fsGroup": 2000},
                    "volumes": [
                        {"name": "config", "configMap": {"name": "settings"}},
                        {"name": "scratch", "emptyDir": {}},
                    ],
                }),
            )
            .await;
        let pod = self
            .until("web", "running pod", |p| p["status"]["phase"] == "Running")
            .await;
        eprintln!("web (with an init container) runs after {:?}", began.elapsed());
        let status = &pod["status"];
        assert_eq!(condition(&pod, "Ready"), "True", "{status:#}");
        assert_eq!(status["qosClass"], "Burstable");
        assert_eq!(status["hostIP"], "10.0.0.1");
        assert!(status["podIP"].as_str().unwrap().starts_with("10.244.1."), "{status:#}");
        let main = &status["containerStatuses"][0];
        assert!(main["containerID"].as_str().unwrap().starts_with("containerd://"));
        let told = (&main["started"], &main["ready"], &main["restartCount"]);
        assert_eq!(told, (&json!(true), &json!(true), &json!(0)));
        assert_eq!(
            status["initContainerStatuses"][0]["state"]["terminated"]["reason"],
            "Completed"
        );
        let log = eventually("the log", Duration::from_secs(5), async || {
            let log = self.log("web", &uid, "main", 0);
            log.contains("uid=").then_some(log)
        })
        .await;
        let parts = [
            "hello from web 10.244.1.",
            "content",
            "nameserver 10.96.0.10",
            "ca.crt",
            "eyJ",
            "uid=1000",
            "2000",
        ];
        for part in parts.into_iter().chain(["initialized"]) {
            assert!(log.contains(part), "no {part:?} in {log}");
        }
        for reason in ["Pulled", "Created", "Started"] {
            self.said("web", reason, "").await;
        }
        uid
    }

    async fn restarts_and_ends(&self) {
        let one = |command: Value| {
            json!([{"name": "c", "image": IMAGE, "command": command,
            "terminationMessagePolicy": "FallbackToLogsOnError"}])
        };
        let sh = |script: &str| one(json!(["sh", "-c", script]));
        let done = sh("echo bye > /dev/termination-log");
        self.create("done", json!({"restartPolicy": "Never", "containers": done}))
            .await;
        self.create(
            "failed",
            json!({"restartPolicy": "Never", "containers": sh("echo oops; exit 3")}),
        )
        .await;
        self.create("crashing", json!({"containers": sh("exit 1")})).await;
        self.create("nocommand", json!({"containers": one(json!(["/no/such"]))}))
            .await;
        let done = self
            .until("done", "success", |p| p["status"]["phase"] == "Succeeded")
            .await;
        let end = &done["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            (&end["reason"], &end["message"]),
            (&json!("Completed"), &json!("bye\n"))
        );
        assert_eq!(condition_reason(&done, "Ready"), "PodCompleted");
        let failed = self
            .until("failed", "failure", |p| p["status"]["phase"] == "Failed")
            .await;
        let end = &failed["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            (&end["exitCode"], &end["message"], &end["reason"]),
            (&json!(3), &json!("oops\n"), &json!("Error"))
        );
        let waits = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        let looping = self.until("crashing", "crash loop", waits).await;
        let c = &looping["status"]["containerStatuses"][0];
        assert!(c["restartCount"].as_i64().unwrap() >= 1, "{c:#}");
        assert_eq!(c["lastState"]["terminated"]["exitCode"], 1);
        let message = c["state"]["waiting"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("back-off 10s restarting failed container=c pod=crashing_default("),
            "{message}"
        );
        self.said(
            "crashing",
            "BackOff",
            "Back-off restarting failed container c in pod crashing_default(",
        )
        .await;
        self.until("nocommand", "start error", |p| {
            p["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"] == "StartError"
        })
        .await;
    }

    async fn bad_images_and_missing_objects(&self) {
        self.create(
            "noimage",
            json!({"containers": [{"name": "c", "image": "127.0.0.1:1/none:1"}]}),
        )
        .await;
        let never = json!({"containers": [{"name": "c", "image": "none:1", "imagePullPolicy": "Never"}]});
        self.create("never", never).await;
        let waiting = json!({"containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "1000"],
            "envFrom": [{"configMapRef": {"name": "later"}}]}]});
        self.create("waiting", waiting).await;
        let reason = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
        self.until("noimage", "back-off", |p| reason(p) == "ImagePullBackOff")
            .await;
        self.said("noimage", "Failed", "Failed to pull image \"127.0.0.1:1/none:1\"")
            .await;
        self.until("never", "refusal", |p| reason(p) == "ErrImageNeverPull")
            .await;
        self.until("waiting", "config error", |p| reason(p) == "CreateContainerConfigError")
            .await;
        let maps: Api<ConfigMap> = Api::default_namespaced(self.admin.clone());
        let data = json!({"metadata": {"name": "later"}, "data": {"A": "1"}});
        let map: ConfigMap = serde_json::from_value(data).unwrap();
        let began = Instant::now();
        maps.create(&PostParams::default(), &map).await.unwrap();
        self.until("waiting", "start once it is there", |p| {
            p["status"]["phase"] == "Running"
        })
        .await;
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "woken by the object, not by a timer"
        );
    }

    async fn probes_decide(&self) {
        let probe = |failures: i32| {
            json!({"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1,
            "timeoutSeconds": 5, "failureThreshold": failures})
        };
        let mut liveness = probe(3);
        liveness["terminationGracePeriodSeconds"] = json!(1);
        let script = "touch /tmp/ready; sleep 5; rm /tmp/ready; sleep 1000";
        let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", script],
            "readinessProbe": probe(1), "livenessProbe": liveness});
        self.create("probed", json!({"containers": [container]})).await;
        self.until("probed", "ready", |p| condition(p, "Ready") == "True").await;
        self.until("probed", "unready", |p| condition(p, "Ready") == "False")
            .await;
        self.until("probed", "restart", |p| {
            p["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
        self.said("probed", "Unhealthy", "Readiness probe failed: ").await;
        self.said(
            "probed",
            "Killing",
            "Container c failed liveness probe, will be restarted",
        )
        .await;
    }

    async fn a_restarted_agent_adopts(&self, supervisor: Supervisor, uid: &str) -> Supervisor {
        let running = |p: &Value| p["status"]["phase"] == "Running";
        let before = self.until("web", "running", running).await;
        supervisor.shutdown(Duration::from_secs(5)).await;
        drop(supervisor);
        let supervisor = self.start_kubelet().await;
        let second = json!({"containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}]});
        let began = Instant::now();
        self.create("second", second).await;
        self.until("second", "running", running).await;
        eprintln!("a plain pod runs after {:?}", began.elapsed());
        let after = self.until("web", "running", running).await;
        let main = |p: &Value| p["status"]["containerStatuses"][0].clone();
        assert_eq!(main(&before)["containerID"], main(&after)["containerID"]);
        assert_eq!(main(&after)["restartCount"], 0);
        assert_eq!(before["status"]["podIP"], after["status"]["podIP"]);
        assert_eq!(after["metadata"]["uid"], uid);
        for ended in ["done", "failed"] {
            let told = self.events(ended).await;
            assert!(!told.iter().any(|(reason, _)| reason == "FailedKillPod"), "{told:?}");
        }
        supervisor
    }

    /// After a reboot containerd has its records, but no task.
    async fn a_rebooted_host_runs_the_same_pods(&self, supervisor: Supervisor) -> Supervisor {
        let before = self
            .until("second", "running", |p| p["status"]["phase"] == "Running")
            .await;
        supervisor.shutdown(Duration::from_secs(5)).await;
        drop(supervisor);
        for task in self.containerd.tasks().await.unwrap() {
            self.containerd.delete_task(&task.id).await.unwrap();
        }
        let supervisor = self.start_kubelet().await;
        let again = |p: &Value| {
            let c = &p["status"]["containerStatuses"][0];
            c["restartCount"] == 1 && c["state"]["running"].is_object()
        };
        let after = self.until("second", "running again", again).await;
        assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
        let last = &after["status"]["containerStatuses"][0]["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(255), &json!("Unknown")));
        // The init container runs again too, in the new sandbox.
        self.until("web", "running again", again).await;
        self.until("done", "success still", |p| p["status"]["phase"] == "Succeeded")
            .await;
        supervisor
    }

    async fn a_live_volume_follows(&self) {
        let maps: Api<ConfigMap> = Api::default_namespaced(self.admin.clone());
        let change = json!({"data": {"file": "changed"}});
        maps.patch("settings", &PatchParams::default(), &Patch::Merge(change))
            .await
            .unwrap();
        let pods = self.dir.join("kubelet/pods");
        eventually("the new content", Duration::from_secs(10), async || {
            let found = std::fs::read_dir(&pods).unwrap().flatten().any(|pod| {
                let file = pod.path().join("volumes/kubernetes.io~configmap/config/file");
                std::fs::read_to_string(file).is_ok_and(|text| text == "changed")
            });
            found.then_some(())
        })
        .await;
    }

    async fn deletion_is_graceful(&self) {
        let script = "trap 'echo told; exit 0' TERM; while true; do sleep 0.1; done";
        let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", script],
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}});
        let spec = json!({"terminationGracePeriodSeconds": 20, "containers": [container]});
        let began = Instant::now();
        let uid = self.create("graceful", spec).await;
        self.until("graceful", "running", |p| p["status"]["phase"] == "Running")
            .await;
        eprintln!("a pod on a warm node runs after {:?}", began.elapsed());
        let began = Instant::now();
        self.pods().delete("graceful", &DeleteParams::default()).await.unwrap();
        let log = eventually("its last words", Duration::from_secs(10), async || {
            let log = self.log("graceful", &uid, "c", 0);
            log.contains("told").then_some(log)
        })
        .await;
        self.until("graceful", "deletion", Value::is_null).await;
        assert!(log.contains("hook"), "{log}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it ended by itself: {:?}",
            began.elapsed()
        );
        for pod in self.pods().list(&Default::default()).await.unwrap() {
            let name = pod.metadata.name.unwrap();
            self.pods()
                .delete(&name, &DeleteParams::default().grace_period(1))
                .await
                .unwrap();
        }
        eventually("all pods to go", Duration::from_secs(60), async || {
            let left = self.pods().list(&Default::default()).await.unwrap().items;
            left.is_empty().then_some(())
        })
        .await;
        eventually("all containers to go", Duration::from_secs(10), async || {
            self.containerd.containers(&[]).await.unwrap().is_empty().then_some(())
        })
        .await;
        for path in ["kubelet/pods", "logs/pods", "node/sandboxes"] {
            eventually(path, Duration::from_secs(10), async || {
                let empty = std::fs::read_dir(self.dir.join(path)).unwrap().count() == 0;
                empty.then_some(())
            })
            .await;
        }
    }

    async fn nothing_is_left(&self, node: &containerd::Node) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = node.path("cluster").display().to_string();
        assert!(!mounts.contains(&below), "{mounts}");
        assert_eq!(std::fs::read_dir(Path::new("/run/netns")).map_or(0, Iterator::count), 0);
    }
}

/// Created, or there already.
fn there<T>(result: Result<T, kube::Error>) {
    match result {
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        other => drop(other.unwrap()),
    }
}

fn condition_of(object: &Value, kind: &str, field: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|c| c["type"] == kind);
    found
        .and_then(|c| c[field].as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn condition(object: &Value, kind: &str) -> String {
    condition_of(object, kind, "status")
}

fn condition_reason(object: &Value, kind: &str) -> String {
    condition_of(object, kind, "reason")
}

async fn eventually<T>(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
