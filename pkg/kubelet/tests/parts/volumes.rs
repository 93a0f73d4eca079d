//! Volumes of real pods on a host whose mounts are shared among themselves, as systemd has them: what a container may do
//! to a volume, and what the host has mounted in one, must not become the host's loss.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use mk8s_supervisor::Supervisor;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::{Cluster, IMAGE, eventually};

fn tmpfs(at: &Path, file: &str) {
    fs::create_dir_all(at).unwrap();
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::write(at.join(file), "the host's").unwrap();
}

fn running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

impl Cluster {
    pub async fn volumes_are_safe(&self, supervisor: Supervisor) -> Supervisor {
        self.a_link_in_a_volume_leads_nowhere().await;
        self.the_hosts_mounts_below_a_subpath_stay().await;
        self.a_mount_in_a_volume_stops_its_removal().await;
        self.any_user_can_write_to_a_missing_subpath().await;
        self.a_volumes_root_stays_as_the_pod_left_it(supervisor).await
    }

    async fn deleted(&self, name: &str) {
        let now = DeleteParams::default().grace_period(1);
        self.pods().delete(name, &now).await.unwrap();
        self.until(name, "deletion", Value::is_null).await;
    }

    /// Volume `name` of kind `plugin` of a pod, on the host.
    fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.dir
            .join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~{plugin}/{name}"))
    }

    async fn a_link_in_a_volume_leads_nowhere(&self) {
        let host = self.dir.join("some-folder");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("kept"), "the host's").unwrap();
        let maps: Api<ConfigMap> = Api::default_namespaced(self.admin.clone());
        let data = json!({"metadata": {"name": "linked"}, "data": {"file": "one"}});
        let map: ConfigMap = serde_json::from_value(data).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
        let script = format!(
            "rm -f /config/..data; ln -sfn {} /config/..data; touch /config/new; echo x > /part; touch /api/x; touch /all/x; \
             echo written; exec sleep 1000",
            host.display()
        );
        let projected = json!({"sources": [{"configMap": {"name": "linked"}}]});
        let downward = json!({"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]});
        let spec = json!({
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script], "volumeMounts": [
                {"name": "config", "mountPath": "/config"},
                {"name": "config", "mountPath": "/part", "subPath": "file"},
                {"name": "api", "mountPath": "/api"},
                {"name": "all", "mountPath": "/all", "readOnly": false},
            ]}],
            "volumes": [
                {"name": "config", "configMap": {"name": "linked"}},
                {"name": "api", "downwardAPI": downward},
                {"name": "all", "projected": projected},
            ],
        });
        let uid = self.create("linker", spec).await;
        self.until("linker", "running pod", running).await;
        let log = eventually("its log", Duration::from_secs(10), async || {
            let log = self.log("linker", &uid, "c", 0);
            log.contains("written").then_some(log)
        })
        .await;
        // One way or the other, the host's folder stays what it was.
        let change = Patch::Merge(json!({"data": {"file": "two"}}));
        maps.patch("linked", &PatchParams::default(), &change).await.unwrap();
        let file = self.volume(&uid, "configmap", "config").join("file");
        eventually("the new content", Duration::from_secs(10), async || {
            fs::read_to_string(&file).is_ok_and(|text| text == "two").then_some(())
        })
        .await;
        assert_eq!(fs::read_to_string(host.join("kept")).unwrap(), "the host's");
        assert_eq!(log.matches("Read-only file system").count(), 5, "{log}");
        self.deleted("linker").await;
    }

    async fn the_hosts_mounts_below_a_subpath_stay(&self) {
        let host = self.dir.join("host-path");
        tmpfs(&host, "file");
        let before = host.join("data/before");
        tmpfs(&before, "kept");
        let script = "touch /once/begun; [ -e /data/again ] || { touch /data/again; exit 1; }; exec sleep 1000";
        let spec = json!({
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script], "volumeMounts": [
                {"name": "host", "mountPath": "/data", "subPath": "data"},
                {"name": "once", "mountPath": "/once"},
            ]}],
            "volumes": [{"name": "host", "hostPath": {"path": host}}, {"name": "once", "emptyDir": {}}],
        });
        let uid = self.create("sub", spec).await;
        let begun = self.volume(&uid, "empty-dir", "once").join("begun");
        eventually("its first life", Duration::from_secs(60), async || {
            begun.exists().then_some(())
        })
        .await;
        let after = host.join("data/after");
        tmpfs(&after, "kept");
        self.until("sub", "second life", |p| {
            let container = &p["status"]["containerStatuses"][0];
            container["restartCount"] == 1 && container["state"]["running"].is_object()
        })
        .await;
        for place in [&before, &after] {
            assert!(place.join("kept").exists(), "{} after a restart", place.display());
        }
        self.deleted("sub").await;
        for place in [&before, &after] {
            assert!(place.join("kept").exists(), "{} after the pod", place.display());
            umount2(place, MntFlags::empty()).unwrap();
        }
        umount2(&host, MntFlags::empty()).unwrap();
    }

    async fn a_mount_in_a_volume_stops_its_removal(&self) {
        let spec = json!({
            "containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "1000"],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        });
        let uid = self.create("holding", spec).await;
        self.until("holding", "running pod", running).await;
        let theirs = self.volume(&uid, "empty-dir", "scratch").join("deep/theirs");
        tmpfs(&theirs, "kept");
        let now = DeleteParams::default().grace_period(1);
        self.pods().delete("holding", &now).await.unwrap();
        self.said("holding", "FailedUnMount", &theirs.display().to_string())
            .await;
        assert!(theirs.join("kept").exists());
        assert!(self.pods().get_opt("holding").await.unwrap().is_some());
        umount2(&theirs, MntFlags::empty()).unwrap();
        self.until("holding", "deletion", Value::is_null).await;
    }

    async fn any_user_can_write_to_a_missing_subpath(&self) {
        let script = "touch /part/file && touch /deep/file && exec sleep 1000";
        let spec = json!({
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script], "volumeMounts": [
                {"name": "scratch", "mountPath": "/part", "subPath": "part"},
                {"name": "grouped", "mountPath": "/deep", "subPath": "new/deep"},
            ]}],
            "securityContext": {"runAsUser": 1001, "fsGroup": 2000},
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "grouped", "emptyDir": {}}],
        });
        let uid = self.create("parts", spec).await;
        let grouped = self.volume(&uid, "empty-dir", "grouped");
        eventually("what it wrote", Duration::from_secs(60), async || {
            grouped.join("new/deep/file").exists().then_some(())
        })
        .await;
        assert_eq!(fs::metadata(grouped.join("new/deep")).unwrap().gid(), 2000);
        self.deleted("parts").await;
    }

    async fn a_volumes_root_stays_as_the_pod_left_it(&self, supervisor: Supervisor) -> Supervisor {
        let spec = json!({
            "containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "1000"], "volumeMounts": [
                {"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"},
            ]}],
            "securityContext": {"fsGroup": 2000},
            "volumes": [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}],
        });
        let uid = self.create("keeper", spec).await;
        self.until("keeper", "running pod", running).await;
        let roots = ["disk", "memory"].map(|name| self.volume(&uid, "empty-dir", name));
        for root in &roots {
            assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o2777);
            fs::set_permissions(root, fs::Permissions::from_mode(0o2700)).unwrap();
        }
        supervisor.shutdown(Duration::from_secs(5)).await;
        drop(supervisor);
        let supervisor = self.start_kubelet().await;
        // A pod that came later runs: the volumes of those that were there have been looked at.
        let later = json!({"containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}]});
        self.create("after-keeper", later).await;
        self.until("after-keeper", "running pod", running).await;
        for root in &roots {
            assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o2700);
        }
        self.deleted("keeper").await;
        supervisor
    }
}
