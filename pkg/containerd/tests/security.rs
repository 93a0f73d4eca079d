//! What the spec builder says is what runc does: capabilities, seccomp, mounts, limits, namespaces, seen from inside.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::PathBuf;

use harness::{Node, wait_async};
use mk8s_containerd::spec::{ContainerConfig, Device, Mount, PidNamespace, Propagation, Resources, Seccomp};
use mk8s_containerd::{Containerd, Image};

struct Inside<'a> {
    node: &'a Node,
    client: &'a Containerd,
    image: &'a Image,
    sandbox: (&'a str, u32),
}

impl Inside<'_> {
    /// Runs a script in a container that `change` has its way with; answers what it printed.
    async fn says(&self, id: &str, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> Vec<String> {
        let mut config = self
            .node
            .config(self.image, self.sandbox, &format!("{script}; echo done"));
        change(&mut config);
        let container = self.node.container(self.client, id, self.image, &config, false).await;
        self.client
            .start(&container)
            .await
            .unwrap_or_else(|error| panic!("{id}: {error}"));
        self.client.wait(id).await.unwrap();
        wait_async("the last line", || {
            self.node.logged(id).iter().any(|line| line.ends_with("F done"))
        })
        .await;
        self.client.delete(id).await.unwrap();
        let lines = self.node.logged(id).into_iter();
        lines
            .filter_map(|line| line.split_once(" F ").map(|(_, text)| text.to_owned()))
            .collect()
    }
}

const STATUS: &str = "grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status";

fn field(lines: &[String], name: &str) -> String {
    let line = lines
        .iter()
        .find(|line| line.starts_with(name))
        .cloned()
        .unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::too_many_lines,
    reason = "a list of settings, each with what a container sees of it, in one sandbox"
)]
async fn containers_get_what_the_spec_says() {
    let node = Node::start();
    let client = node.client().await;
    let image = node.busybox(&client).await;
    let (sandbox, pid) = node.sandbox(&client, "sec").await;
    let inside = Inside {
        node: &node,
        client: &client,
        image: &image,
        sandbox: ("sec", pid),
    };

    let plain = inside
        .says("plain", STATUS, |c| c.security.seccomp = Seccomp::RuntimeDefault)
        .await;
    assert_eq!(field(&plain, "CapEff"), "00000000a80425fb");
    assert_eq!(
        (field(&plain, "Seccomp"), field(&plain, "NoNewPrivs")),
        ("2".into(), "0".into())
    );

    let strict = inside.says("strict", STATUS, |c| {
        c.security.drop_capabilities = vec!["ALL".into()];
        c.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
        c.security.no_new_privileges = true;
    });
    let strict = strict.await;
    assert_eq!(field(&strict, "CapBnd"), "0000000000000400");
    assert_eq!(field(&strict, "NoNewPrivs"), "1");

    // Privileged: whatever root here has, all devices, /sys writable, no filter.
    let script = format!("{STATUS}; ls /dev/kmsg; grep -c ' /sys sysfs rw' /proc/mounts");
    let open = inside.says("open", &script, |c| {
        c.security.privileged = true;
        c.security.seccomp = Seccomp::RuntimeDefault;
    });
    let open = open.await;
    assert_eq!(
        field(&open, "CapEff"),
        format!("{:016x}", node.host.capabilities & 0x1ff_ffff_ffff)
    );
    assert_eq!(field(&open, "Seccomp"), "0");
    assert!(
        open.contains(&"/dev/kmsg".to_owned()) && open.contains(&"1".to_owned()),
        "{open:?}"
    );

    // Root filesystem, bind mounts, a device.
    let shared = node.path("shared");
    fs::create_dir_all(&shared).unwrap();
    fs::write(shared.join("file"), "content\n").unwrap();
    let mount = |path: &str, readonly| Mount {
        container_path: path.into(),
        host_path: PathBuf::from(&shared),
        readonly,
        propagation: Propagation::Private,
        ..Default::default()
    };
    let script = "touch /x || echo no root; cat /ro/file; touch /ro/x || echo no ro; touch /rw/x && echo rw; ls /dev/fuse2; cat /vol/sub/seed; touch /vol/x && echo volume";
    let files = inside.says("files", script, |c| {
        c.security.readonly_rootfs = true;
        c.mounts = vec![mount("/ro", true), mount("/rw", false)];
        let (host_path, permissions) = ("/dev/null".into(), "rwm".into());
        c.devices = vec![Device {
            host_path,
            container_path: "/dev/fuse2".into(),
            permissions,
        }];
    });
    let files = files.await;
    for line in ["no root", "content", "no ro", "rw", "/dev/fuse2", "seeded", "volume"] {
        assert!(files.contains(&line.to_owned()), "{line}: {files:?}");
    }

    assert!(
        !node.path("volumes/files").exists(),
        "an image's volumes go with the container"
    );

    // Limits, in the cgroup that was named.
    let script = "cat /proc/self/oom_score_adj; cat /proc/self/cgroup; cd /sys/fs/cgroup; for f in memory/memory.limit_in_bytes \
                  cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max memory.max cpu.max pids.max; do
                  [ ! -e $f ] || echo limit $(cat $f); done";
    let limited = inside.says("limited", script, |c| {
        c.resources = Resources {
            cpu_shares: 102,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit: 32 << 20,
            pids_limit: 100,
            oom_score_adj: Some(1000),
            ..Default::default()
        };
        c.cgroups_path = node.cgroup("limited");
    });
    let limited = limited.await;
    assert_eq!(limited.first().map(String::as_str), Some("1000"));
    let limits: Vec<&str> = limited.iter().filter_map(|line| line.strip_prefix("limit ")).collect();
    let (path, expected): (String, &[&str]) = match node.host.cgroup_v2 {
        // In a namespace of its own it sees no path.
        true => ("0::/".into(), &["33554432", "50000 100000", "100"]),
        false => (node.cgroup("limited"), &["33554432", "102", "50000", "100000", "100"]),
    };
    assert_eq!(limits, expected);
    assert!(limited.iter().any(|line| line.ends_with(&path)), "{limited:?}");
    // One below our own can't be set without CAP_SYS_RESOURCE, and is no reason to fail.
    let low = inside
        .says("low", "cat /proc/self/oom_score_adj", |c| {
            c.resources.oom_score_adj = Some(-998)
        })
        .await;
    let has_resource = node.host.capabilities & (1 << 24) != 0;
    // containerd's shim, which the container comes from, is one step above containerd.
    let expected = if has_resource {
        -998
    } else {
        node.host.oom_score_adj + 1
    };
    assert_eq!(low[0].parse(), Ok(expected), "{low:?}");

    // Its own pid namespace, or the sandbox's; the sandbox's host name.
    let own = inside.says("own", "cat /proc/1/comm; hostname", |_| {}).await;
    assert_eq!(own[..2], ["sh", "sandbox"].map(str::to_owned));
    let joined = inside
        .says("joined", "cat /proc/1/comm", |c| {
            c.namespaces.pid = PidNamespace::Of(pid)
        })
        .await;
    assert_eq!(joined[0], "pause");

    client.delete(&sandbox.id).await.unwrap();
}
