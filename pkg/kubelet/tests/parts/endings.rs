//! A pod's end while containerd is gone, and a pod that containerd can't run.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams, PostParams};
use mk8s_supervisor::Supervisor;
use serde_json::{Value, json};

use super::{Cluster, IMAGE, NODE, condition, containerd, eventually};

/// Whether a process of the machine was started with this.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok())
        .any(|line| line.split('\0').any(|a| a == argument))
}

impl Cluster {
    /// Told when it happens, not when somebody looks.
    async fn node_says(&self, ready: bool, limit: Duration) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let wanted = if ready { "True" } else { "False" };
        eventually(&format!("Ready to be {wanted}"), limit, async || {
            let node = serde_json::to_value(nodes.get(NODE).await.unwrap()).unwrap();
            (condition(&node, "Ready") == wanted).then_some(())
        })
        .await;
    }

    /// A RuntimeClass whose handler the node does not have: nothing is run by another runtime, and people are told which.
    pub async fn a_class_needs_its_runtime(&self) {
        let class: RuntimeClass =
            serde_json::from_value(json!({"metadata": {"name": "sandboxed"}, "handler": "gvisor"})).unwrap();
        let classes: Api<RuntimeClass> = Api::all(self.admin.clone());
        classes.create(&PostParams::default(), &class).await.unwrap();
        let container = json!({"name": "c", "image": IMAGE, "command": ["sleep", "1000"]});
        let spec =
            json!({"runtimeClassName": "sandboxed", "terminationGracePeriodSeconds": 0, "containers": [container]});
        self.create("classy", spec).await;
        self.said("classy", "FailedCreatePodSandBox", "\"gvisor\"").await;
        self.until("classy", "waiting container", |p| {
            p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
        })
        .await;
        self.pods().delete("classy", &DeleteParams::default()).await.unwrap();
        self.until("classy", "deletion", Value::is_null).await;
    }

    /// As long as containerd can't say that a pod's processes are gone the pod stays in the API, and what others removed
    /// there keeps what it has on the node, over a restart of the agent.
    pub async fn an_end_is_confirmed(&self, node: &mut containerd::Node, supervisor: Supervisor) -> Supervisor {
        let one = |seconds: &str| {
            let container = json!({"name": "c", "image": IMAGE, "command": ["sleep", seconds]});
            json!({"terminationGracePeriodSeconds": 1, "containers": [container]})
        };
        self.create("deleted", one("98761")).await;
        let removed = self.create("removed", one("98762")).await;
        for name in ["deleted", "removed"] {
            self.until(name, "running pod", |p| p["status"]["phase"] == "Running")
                .await;
        }
        node.kill_daemon();
        self.node_says(false, Duration::from_secs(5)).await;
        self.pods().delete("deleted", &DeleteParams::default()).await.unwrap();
        let now = DeleteParams::default().grace_period(0);
        self.pods().delete("removed", &now).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(runs("98761") && runs("98762"));
        assert!(
            self.pods().get_opt("deleted").await.unwrap().is_some(),
            "it left the API while it ran"
        );
        let record = self.dir.join(format!("kubelet/pods/{removed}/pod.json"));
        assert!(record.exists(), "what is left to do is written down");
        supervisor.shutdown(Duration::from_secs(5)).await;
        drop(supervisor);
        node.start_daemon();
        let supervisor = self.start_kubelet().await;
        self.node_says(true, Duration::from_secs(20)).await;
        self.until("deleted", "deletion", Value::is_null).await;
        assert!(!runs("98761"), "it left the API before it ended");
        eventually("the end of what was removed", Duration::from_secs(30), async || {
            (!record.exists()).then_some(())
        })
        .await;
        assert!(!runs("98762"));
        supervisor
    }
}
