//! A containerd of the test's own: root, state, socket and namespace under a temporary directory, stopped at the end.
//! Needs root and the programs containerd, containerd-shim-runc-v2, runc and a static busybox.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Redirect};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mk8s_containerd::spec::{self, ContainerConfig, Host, Namespaces, PidNamespace, SandboxConfig};
use mk8s_containerd::{Container, ContainerSpec, Containerd, Image, Options, Runtime, Stdio};

pub const BUSYBOX: &str = "docker.io/library/busybox:test";

/// runc keeps its state by namespace, outside of containerd's directories: other instances of this test, too.
pub static NAMESPACE: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("mk8s-test-{}", std::process::id()));

pub struct Node {
    pub directory: tempfile::TempDir,
    daemon: Option<Child>,
    pub host: Host,
}

impl Node {
    pub fn start() -> Node {
        Node::start_on(|_| {})
    }

    /// `prepare` gets the directory before containerd does: its root is to be `root` in there.
    pub fn start_on(prepare: impl FnOnce(&Path)) -> Node {
        needs(&["containerd", "containerd-shim-runc-v2", "runc", "ctr", "busybox"]);
        let directory = tempfile::Builder::new().prefix("mk8s-containerd-").tempdir().unwrap();
        prepare(directory.path());
        let mut node = Node {
            directory,
            daemon: None,
            host: Host::detect(),
        };
        node.configure(false, "");
        node.start_daemon();
        node
    }

    /// Writes the daemon's configuration; `more` goes into a file that it imports.
    pub fn configure(&self, with_cri: bool, more: &str) {
        let path = |name: &str| self.path(name).display().to_string();
        let off = if with_cri { "" } else { r#""io.containerd.grpc.v1.cri""# };
        let config = format!(
            "version = 2\nimports = [\"more.toml\"]\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{off}]\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("containerd.sock"),
            path("ttrpc.sock"),
        );
        fs::write(self.path("config.toml"), config).unwrap();
        fs::write(self.path("more.toml"), format!("version = 2\n{more}")).unwrap();
    }

    pub fn start_daemon(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("containerd.log"))
            .unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.path("config.toml"));
        command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Redirect::null());
        self.daemon = Some(command.spawn().unwrap());
        wait_for("containerd's socket", || {
            std::os::unix::net::UnixStream::connect(self.path("containerd.sock")).is_ok()
        });
    }

    /// As a crash: containers and shims stay.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Stands still, its socket open, until it may go on.
    pub fn pause_daemon(&self, still: bool) {
        use nix::sys::signal::{Signal, kill};
        let daemon = self.daemon.as_ref().unwrap();
        let signal = if still { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(nix::unistd::Pid::from_raw(daemon.id() as i32), signal).unwrap();
        // The signal is one thread's to take: until it has a processor, the others run on.
        let stopped = || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
            let states = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
            let stands = |stat: &String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
            states.into_iter().all(|stat| stands(&stat))
        };
        wait_for("containerd that stands still", || !still || stopped());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn client(&self) -> Containerd {
        let options = Options {
            socket: self.path("containerd.sock"),
            io_dir: self.path("io"),
            volumes_dir: self.path("volumes"),
            log_writer: log_writer(),
            registries: self.path("registries.yaml"),
            namespace: NAMESPACE.clone(),
            ..Default::default()
        };
        Containerd::connect(options).await.unwrap()
    }

    /// Debian's static busybox as an image, imported.
    pub async fn busybox(&self, client: &Containerd) -> Image {
        let archive = self.path("busybox.tar");
        if !archive.exists() {
            busybox_archive(&archive);
        }
        let file = tokio::fs::File::open(&archive).await.unwrap();
        client.import(file, None).await.unwrap().remove(0)
    }

    /// A running sandbox with the host's network; answers its pid.
    pub async fn sandbox(&self, client: &Containerd, id: &str) -> (Container, u32) {
        let image = client.ensure_pause_image().await.unwrap();
        let config = SandboxConfig {
            image: image.config.clone(),
            hostname: Some("sandbox".into()),
            cgroups_path: self.cgroup(id),
            shim_group: id.into(),
            ..Default::default()
        };
        let oci = spec::sandbox(&config, &self.host).unwrap();
        let labels = HashMap::from([("mk8s.io/test".to_owned(), "yes".to_owned())]);
        let stdio = Stdio::default();
        let container = client
            .create(ContainerSpec {
                id: id.into(),
                image,
                labels,
                oci,
                stdio,
                runtime: Default::default(),
            })
            .await
            .unwrap();
        let pid = client.start(&container).await.unwrap();
        (container, pid)
    }

    pub fn config(&self, image: &Image, sandbox: (&str, u32), script: &str) -> ContainerConfig {
        ContainerConfig {
            image: image.config.clone(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            hostname: "sandbox".into(),
            cgroups_path: self.cgroup(&format!("{}-c", sandbox.0)),
            shim_group: sandbox.0.into(),
            namespaces: Namespaces {
                sandbox_pid: sandbox.1,
                host_network: false,
                host_ipc: false,
                pid: PidNamespace::Container,
            },
            accounts: Arc::default(),
            ..Default::default()
        }
    }

    pub async fn container(
        &self,
        client: &Containerd,
        id: &str,
        image: &Image,
        config: &ContainerConfig,
        stdin: bool,
    ) -> Container {
        self.container_in(client, id, image, config, stdin, Runtime::default())
            .await
    }

    pub async fn container_in(
        &self,
        client: &Containerd,
        id: &str,
        image: &Image,
        config: &ContainerConfig,
        stdin: bool,
        runtime: Runtime,
    ) -> Container {
        let oci = spec::container(config, &self.host).unwrap();
        let labels = HashMap::from([("mk8s.io/test".to_owned(), "yes".to_owned())]);
        let stdio = Stdio {
            log_path: Some(self.log(id)),
            stdin,
            tty: config.tty,
        };
        let spec = ContainerSpec {
            id: id.into(),
            image: image.clone(),
            labels,
            oci,
            stdio,
            runtime,
        };
        client.create(spec).await.unwrap()
    }

    /// A cgroup below this instance's own.
    pub fn cgroup(&self, name: &str) -> String {
        let own = self.directory.path().file_name().unwrap_or_default().to_string_lossy();
        format!("/{own}/{name}")
    }

    /// containerd's own command-line client, on this instance.
    pub fn ctr(&self, args: &[&str]) -> String {
        let mut command = Command::new("ctr");
        command
            .arg("-a")
            .arg(self.path("containerd.sock"))
            .arg("-n")
            .arg(&*NAMESPACE)
            .args(args);
        String::from_utf8_lossy(&command.output().map(|o| o.stdout).unwrap_or_default()).into_owned()
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.path("logs").join(format!("{id}.log"))
    }

    /// What the container said, without times.
    pub fn logged(&self, id: &str) -> Vec<String> {
        let text = fs::read_to_string(self.log(id)).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(' ').map(|(_, rest)| rest.to_owned()))
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            self.start_daemon();
        }
        // Whatever a failed test left running would outlive its containerd.
        for id in self.ctr(&["tasks", "ls", "-q"]).lines() {
            self.ctr(&["tasks", "rm", "-f", id]);
        }
        self.kill_daemon();
        // What runc leaves empty: its state by namespace, and the parents of the cgroups.
        let _ = fs::remove_dir(Path::new("/run/containerd/runc").join(&*NAMESPACE));
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(controller.path().join(self.cgroup("").trim_matches('/')));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines().filter(|line| line.contains("mk8s-containerd-")) {
            if let Some(point) = line
                .split(' ')
                .nth(4)
                .filter(|p| Path::new(p).starts_with(self.directory.path()))
            {
                let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}

/// A machine that can't run these tests fails them.
pub fn needs(programs: &[&str]) {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root");
    for program in programs {
        assert!(
            which(program).is_some(),
            "these tests need {program}: it is not in the PATH"
        );
    }
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "no {what} within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub async fn wait_async(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "no {what} within 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.exists())
}

fn log_writer() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/log_writer")
}

/// An OCI archive with one layer: busybox, a few of its names, users.
fn busybox_archive(path: &Path) {
    let root = path.with_extension("root");
    busybox_root(&root);
    let layer_path = path.with_extension("layer");
    tar(&root, &layer_path);
    let layer = fs::read(&layer_path).unwrap();
    let gzipped = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&layer).unwrap();
        encoder.finish().unwrap()
    };
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=1"], "Cmd": ["sh"], "Volumes": {"/vol": {}, "/ro": {}}},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(&gzipped), "size": gzipped.len()}],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256(&manifest), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": BUSYBOX},
        }],
    });
    let layout = path.with_extension("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for blob in [&config, &manifest, &gzipped] {
        fs::write(blobs.join(sha256(blob).trim_start_matches("sha256:")), blob).unwrap();
    }
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    tar(&layout, path);
}

/// What the layer holds.
fn busybox_root(root: &Path) {
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "var"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(which("busybox").unwrap(), root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "echo", "cat", "sleep", "id", "true", "false", "env", "ls", "stty", "head", "yes", "hostname", "touch",
        "mount", "grep", "tail",
    ] {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(name));
    }
    fs::create_dir_all(root.join("vol/sub")).unwrap();
    fs::write(root.join("vol/sub/seed"), "seeded\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("vol/link")).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/var:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:102:\nextra:x:44:web\n").unwrap();
}

fn tar(directory: &Path, out: &Path) {
    let status = Command::new("tar")
        .arg("-C")
        .arg(directory)
        .arg("-cf")
        .arg(out)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
}

pub fn sha256(data: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, data);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
