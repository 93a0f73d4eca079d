//! Whom a pod asks for names on a host whose /etc/resolv.conf names systemd's stub.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{Cluster, IMAGE, eventually};

impl Cluster {
    pub async fn a_pod_is_not_sent_to_the_hosts_loopback(&self) {
        let stub = self.dir.join("resolv.conf");
        fs::write(&stub, "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n").unwrap();
        // Seen in this test's mounts alone.
        let target = Path::new("/etc/resolv.conf");
        mount(Some(&stub), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        fs::create_dir_all("/run/systemd/resolve").unwrap();
        let behind = "nameserver 192.0.2.53\nsearch corp.example\n";
        fs::write("/run/systemd/resolve/resolv.conf", behind).unwrap();
        let container = json!({"name": "c", "image": IMAGE, "command": ["cat", "/etc/resolv.conf"]});
        let spec = json!({"dnsPolicy": "Default", "restartPolicy": "Never", "containers": [container]});
        let uid = self.create("resolving", spec).await;
        let log = eventually("its resolv.conf", Duration::from_secs(60), async || {
            let log = self.log("resolving", &uid, "c", 0);
            log.contains("nameserver").then_some(log)
        })
        .await;
        assert!(
            log.contains("nameserver 192.0.2.53") && log.contains("search corp.example"),
            "{log}"
        );
        assert!(!log.contains("127.0.0.53"), "{log}");
        umount2(target, MntFlags::empty()).unwrap();
    }
}
