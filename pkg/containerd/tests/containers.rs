//! Containers on a real containerd: start, logs, exit events, exec, attach, adoption, cleaning up.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::{Node, wait_async};
use mk8s_containerd::{Event, ExecOptions, Output, Runtime, Runtimes, TaskStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one story, each step on what the last one left")]
async fn a_pod_lives_and_dies() {
    let mut node = Node::start();
    let client = node.client().await;
    assert!(client.version().await.unwrap().version.contains('.'));
    let mut events = client.events(CancellationToken::new());
    assert_eq!(events.recv().await, Some(Event::Connected));

    let busybox = node.busybox(&client).await;
    let accounts = client.accounts(&busybox).await.unwrap();
    assert_eq!(accounts.uid_of("web"), Some(101));

    let (sandbox, sandbox_pid) = node.sandbox(&client, "s1").await;
    assert_eq!(client.task("s1").await.unwrap().status, TaskStatus::Running);

    // Logs of both streams, the environment, the user, and the exit status as an event.
    let script = "echo out $FROM_IMAGE $HOSTNAME; echo err >&2; id; hostname; exit 3";
    let mut config = node.config(&busybox, ("s1", sandbox_pid), script);
    config.accounts = accounts;
    config.security.run_as_user = Some(101);
    config.security.seccomp = mk8s_containerd::spec::Seccomp::RuntimeDefault;
    let container = node.container(&client, "c1", &busybox, &config, false).await;
    client.start(&container).await.unwrap();
    let exit = client.wait("c1").await.unwrap();
    assert_eq!(exit.status, 3);
    let event = loop {
        match events.recv().await.unwrap() {
            Event::Exit {
                id, exec_id, status, ..
            } if id == "c1" => break (exec_id, status),
            _ => {}
        }
    };
    assert_eq!(event, (String::new(), 3));
    wait_async("log", || node.logged("c1").len() >= 4).await;
    let log = node.logged("c1");
    assert!(log.contains(&"stdout F out 1 sandbox".to_owned()), "{log:?}");
    assert!(log.contains(&"stderr F err".to_owned()), "{log:?}");
    assert!(
        log.iter()
            .any(|line| line.starts_with("stdout F uid=101(web) gid=102(web) groups=")),
        "{log:?}"
    );
    assert!(log.iter().any(|line| line.contains("44(extra)")), "{log:?}");
    assert!(log.contains(&"stdout F sandbox".to_owned()), "{log:?}");
    client.delete("c1").await.unwrap();
    client.delete("c1").await.unwrap();
    assert!(client.container("c1").await.unwrap_err().is_not_found());

    // A log writer goes on while containerd is dead; afterwards the container is found again, still the same.
    let script = "i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.1; done";
    let config = node.config(&busybox, ("s1", sandbox_pid), script);
    let container = node.container(&client, "c2", &busybox, &config, false).await;
    let pid = client.start(&container).await.unwrap();
    wait_async("tick", || node.logged("c2").len() > 2).await;
    node.kill_daemon();
    let before = node.logged("c2").len();
    wait_async("ticks without containerd", || node.logged("c2").len() > before + 5).await;
    assert!(client.task("c2").await.unwrap_err().is_unavailable());
    node.start_daemon();
    while events.recv().await.unwrap() != Event::Connected {}
    let task = client.task("c2").await.unwrap();
    assert_eq!((task.pid, task.status), (pid, TaskStatus::Running));
    let found = client.containers(&[("mk8s.io/test", "yes")]).await.unwrap();
    let mut ids: Vec<&str> = found.iter().map(|container| container.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["c2", "s1"]);
    assert_eq!(found.iter().find(|c| c.id == "c2").unwrap().stdio, container.stdio);

    // Kill by signal: 128 + 9, with the shim's event through the new connection.
    client.kill("c2", 9, false).await.unwrap();
    assert_eq!(client.wait("c2").await.unwrap().status, 137);
    client.delete("c2").await.unwrap();

    client.kill(&sandbox.id, 15, false).await.unwrap();
    assert_eq!(
        client.wait(&sandbox.id).await.unwrap().status,
        0,
        "pause leaves on SIGTERM"
    );
    client.delete(&sandbox.id).await.unwrap();
    assert!(client.tasks().await.unwrap().is_empty());
}

/// Nothing is lost after `Connected`: it is said when containerd listens, however long that took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_stands_when_it_says_so() {
    let node = Node::start();
    let client = node.client().await;
    node.pause_daemon(true);
    let mut events = client.events(CancellationToken::new());
    let early = tokio::time::timeout(Duration::from_millis(500), events.recv()).await;
    node.pause_daemon(false);
    assert!(early.is_err(), "told while containerd stood still: {early:?}");
    let told = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
    assert_eq!(told.unwrap(), Some(Event::Connected));
    let busybox = node.busybox(&client).await;
    let heard = async {
        while events.recv().await
            != Some(Event::ImageChanged {
                name: busybox.name.clone(),
            })
        {}
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one story, each step on what the last one left")]
async fn exec_and_attach() {
    let node = Node::start();
    let client = node.client().await;
    let busybox = node.busybox(&client).await;
    let (sandbox, sandbox_pid) = node.sandbox(&client, "s2").await;

    let config = node.config(&busybox, ("s2", sandbox_pid), "sleep 1000");
    let container = node.container(&client, "sleeper", &busybox, &config, false).await;
    client.start(&container).await.unwrap();

    let command = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
    let output = client
        .exec_sync(
            &container,
            &command("echo hello; echo oops >&2; exit 7"),
            Duration::from_secs(10),
        )
        .await
        .unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice(), output.exit_code),
        (&b"hello\n"[..], &b"oops\n"[..], 7)
    );
    let late = client
        .exec_sync(&container, &command("sleep 100"), Duration::from_millis(500))
        .await
        .unwrap_err();
    assert!(late.is_timeout(), "{late}");
    let missing = client
        .exec_sync(&container, &["/nope".to_owned()], Duration::from_secs(10))
        .await
        .unwrap_err();
    assert!(missing.to_string().contains("no such file"), "{missing}");
    let big = client
        .exec_sync(
            &container,
            &command("head -c 3000000 /dev/zero"),
            Duration::from_secs(20),
        )
        .await
        .unwrap();
    assert_eq!(
        (big.stdout.len(), big.exit_code),
        (10 << 10, 0),
        "the beginning is kept, the command runs to its end"
    );

    // stdin to an exec, closed by us.
    let options = ExecOptions {
        command: command("cat"),
        stdin: true,
        tty: false,
    };
    let mut exec = client.exec(&container, &options).await.unwrap();
    exec.stdin.as_mut().unwrap().write_all(b"through\n").await.unwrap();
    let mut stdout = exec.stdout.take().unwrap();
    let mut line = [0u8; 8];
    stdout.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"through\n");
    exec.close_stdin().await.unwrap();
    assert_eq!(exec.wait().await.unwrap().status, 0);

    // A terminal, resized.
    let options = ExecOptions {
        command: command("sleep 0.3; stty size; exit 5"),
        stdin: true,
        tty: true,
    };
    let mut exec = client.exec(&container, &options).await.unwrap();
    exec.resize(101, 33).await.unwrap();
    let mut said = Vec::new();
    exec.stdout.take().unwrap().read_to_end(&mut said).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "33 101\r\n");
    assert_eq!(exec.wait().await.unwrap().status, 5);

    // Attach to a plain container: output only.
    let config = node.config(
        &busybox,
        ("s2", sandbox_pid),
        "while true; do echo beat; sleep 0.1; done",
    );
    let talker = node.container(&client, "talker", &busybox, &config, false).await;
    client.start(&talker).await.unwrap();
    let mut attached = client.attach(&talker).await.unwrap();
    assert!(attached.stdin.is_none());
    assert_eq!(attached.next().await.unwrap(), Some(Output::Stdout("beat\n".into())));
    client.delete("talker").await.unwrap();
    while attached.next().await.unwrap_or(None).is_some() {}

    // Attach with stdin: what is typed comes back, goes to the log, and closing ends the container.
    let config = node.config(
        &busybox,
        ("s2", sandbox_pid),
        "while read l; do echo got $l; done; echo end >&2",
    );
    let reader = node.container(&client, "reader", &busybox, &config, true).await;
    client.start(&reader).await.unwrap();
    for word in ["one", "two"] {
        let mut attached = client.attach(&reader).await.unwrap();
        let mut stdin = attached.take_stdin().unwrap();
        stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        assert_eq!(
            attached.next().await.unwrap(),
            Some(Output::Stdout(format!("got {word}\n").into()))
        );
    }
    client.close_stdin("reader", "").await.unwrap();
    assert_eq!(client.wait("reader").await.unwrap().status, 0);
    wait_async("log of the reader", || node.logged("reader").len() == 3).await;
    assert_eq!(
        node.logged("reader"),
        ["stdout F got one", "stdout F got two", "stderr F end"]
    );

    // A terminal of the container's own.
    let mut config = node.config(&busybox, ("s2", sandbox_pid), "read l; echo typed $l");
    config.tty = true;
    let terminal = node.container(&client, "terminal", &busybox, &config, true).await;
    client.start(&terminal).await.unwrap();
    let mut attached = client.attach(&terminal).await.unwrap();
    attached.take_stdin().unwrap().write_all(b"x\n").await.unwrap();
    let mut said = Vec::new();
    while let Some(Output::Stdout(part)) = attached.next().await.unwrap() {
        said.extend_from_slice(&part);
    }
    assert!(String::from_utf8_lossy(&said).contains("typed x\r\n"), "{said:?}");
    assert_eq!(client.wait("terminal").await.unwrap().status, 0);

    for id in ["terminal", "reader", "sleeper", sandbox.id.as_str()] {
        client.delete(id).await.unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(node.path("io"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_leaves_nothing() {
    let node = Node::start();
    let client = node.client().await;
    let busybox = node.busybox(&client).await;
    let (sandbox, sandbox_pid) = node.sandbox(&client, "s3").await;
    let mut config = node.config(&busybox, ("s3", sandbox_pid), "");
    config.command = vec!["/does/not/exist".to_owned()];
    for stdin in [false, true] {
        let container = node.container(&client, "bad", &busybox, &config, stdin).await;
        let error = client.start(&container).await.unwrap_err();
        assert!(error.to_string().contains("no such file or directory"), "{error}");
        assert!(client.task("bad").await.unwrap_err().is_not_found());
        client.delete("bad").await.unwrap();
    }
    client.delete(&sandbox.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_dies_takes_its_pod_along_and_is_told() {
    let node = Node::start();
    let client = node.client().await;
    let mut events = client.events(CancellationToken::new());
    let busybox = node.busybox(&client).await;
    let (sandbox, sandbox_pid) = node.sandbox(&client, "s5").await;
    let config = node.config(&busybox, ("s5", sandbox_pid), "exec sleep 1000");
    let container = node.container(&client, "victim", &busybox, &config, false).await;
    let pid = client.start(&container).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{sandbox_pid}/status")).unwrap();
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut ended = std::collections::BTreeSet::new();
    let told = async {
        while ended.len() < 2 {
            if let Some(Event::Exit { id, .. }) = events.recv().await {
                ended.insert(id);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .unwrap_or_else(|_| panic!("only {ended:?} were told"));
    wait_async("end of its process", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
    client.delete("victim").await.unwrap();
    client.delete(&sandbox.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_memory_is_told() {
    let node = Node::start();
    let client = node.client().await;
    let mut events = client.events(CancellationToken::new());
    let busybox = node.busybox(&client).await;
    let (sandbox, sandbox_pid) = node.sandbox(&client, "s4").await;
    let script = "exec tail -c 100000000 /dev/zero";
    let mut config = node.config(&busybox, ("s4", sandbox_pid), script);
    config.resources.memory_limit = 16 << 20;
    let container = node.container(&client, "hungry", &busybox, &config, false).await;
    client.start(&container).await.unwrap();
    assert_eq!(client.wait("hungry").await.unwrap().status, 137);
    let (mut oom, mut exited) = (false, false);
    let told = async {
        while !(oom && exited) {
            match events.recv().await {
                Some(Event::Oom { id }) => oom |= id == "hungry",
                Some(Event::Exit { id, status, .. }) => exited |= id == "hungry" && status == 137,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    client.delete("hungry").await.unwrap();
    client.delete(&sandbox.id).await.unwrap();
}

const TWO_HANDLERS: &str = r#"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "second"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.second]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.second.options]
BinaryName = "/usr/sbin/runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.broken]
runtime_type = "io.containerd.nothing.v1"
"#;

/// Where its CRI plugin is off, from its files; where it runs, from that; and anew when containerd has been restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runtimes_are_those_that_containerd_is_set_up_with() {
    let mut node = Node::start();
    let client = node.client().await;
    let mut events = client.events(CancellationToken::new());
    while events.recv().await.unwrap() != Event::Connected {}
    let names = |runtimes: &Runtimes| runtimes.names().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&client.runtimes().await.unwrap()), "runc");
    assert_eq!(client.runtimes().await.unwrap().get(""), Some(&Runtime::default()));

    for with_cri in [false, true] {
        node.kill_daemon();
        node.configure(with_cri, TWO_HANDLERS);
        node.start_daemon();
        while events.recv().await.unwrap() != Event::Connected {}
        let mut asked = client.runtimes().await;
        while asked.as_ref().is_err_and(|error| error.is_unavailable()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            asked = client.runtimes().await;
        }
        let runtimes = asked.unwrap();
        assert_eq!(names(&runtimes), "broken runc second", "with CRI: {with_cri}");
        assert_eq!(runtimes.get(""), runtimes.get("second"));
        assert_eq!(runtimes.get("third"), None);
    }

    // A container runs in the runtime that its spec names, and in no other.
    let runtimes = client.runtimes().await.unwrap();
    let busybox = node.busybox(&client).await;
    let (sandbox, pid) = node.sandbox(&client, "s6").await;
    let config = node.config(&busybox, ("s6", pid), "exit 4");
    for (handler, works) in [("second", true), ("broken", false)] {
        let runtime = runtimes.get(handler).unwrap().clone();
        let container = node
            .container_in(&client, handler, &busybox, &config, false, runtime)
            .await;
        let started = client.start(&container).await;
        assert_eq!(started.is_ok(), works, "{handler}: {started:?}");
        if works {
            assert_eq!(client.wait(handler).await.unwrap().status, 4);
        }
        client.delete(handler).await.unwrap();
    }
    client.delete(&sandbox.id).await.unwrap();
}

/// Containers fill their volumes as they like: no depth stops the removal, and none blows the stack that walks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_goes_however_deep_it_is() {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};
    let node = Node::start();
    let client = node.client().await;
    let busybox = node.busybox(&client).await;
    let config = node.config(&busybox, ("none", std::process::id()), "true");
    node.container(&client, "deep", &busybox, &config, false).await;
    let volume = node.path("volumes/deep/0");
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = nix::fcntl::open(&volume, flags, Mode::empty()).unwrap();
    for _ in 0..5000 {
        mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
        at = openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    client.delete("deep").await.unwrap();
    assert!(!node.path("volumes/deep").exists());
}

/// A removal that fails or is cut off leaves the record, by which it is found again; what has none goes at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_container_outlives_its_record_for_good() {
    use nix::mount::{MsFlags, mount, umount};
    let node = Node::start();
    let client = node.client().await;
    let busybox = node.busybox(&client).await;
    let config = node.config(&busybox, ("none", std::process::id()), "true");
    node.container(&client, "stuck", &busybox, &config, false).await;
    let point = node.path("volumes/stuck/1/sub");
    mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    client.delete("stuck").await.unwrap_err();
    client.container("stuck").await.unwrap();
    umount(&point).unwrap();
    client.delete("stuck").await.unwrap();
    assert!(!node.path("volumes/stuck").exists());

    for id in ["kept", "lost"] {
        node.container(&client, id, &busybox, &config, false).await;
        std::fs::create_dir_all(node.path("io").join(id)).unwrap();
    }
    std::fs::create_dir_all(node.path("io/exec")).unwrap();
    node.ctr(&["containers", "rm", "lost"]);
    assert!(node.path("volumes/lost").exists());
    assert_eq!(client.sweep_leftovers().await.unwrap(), 2);
    for (path, there) in [
        ("volumes/kept", true),
        ("io/kept", true),
        ("volumes/lost", false),
        ("io/lost", false),
        ("io/exec", false),
    ] {
        assert_eq!(node.path(path).exists(), there, "{path}");
    }
    client.delete("kept").await.unwrap();
}
