//! A power cut under containerd's root: the file system (an ext4 on a loop device) is shut down without writing its
//! journal out, as if the machine had lost its power, and mounted again.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Node, needs};
use mk8s_containerd::{Containerd, Image};

/// FS_IOC_SHUTDOWN with NOLOGFLUSH: nothing that is in memory reaches the disk any more. In Perl, which every Debian has:
/// an ioctl of our own would be unsafe code.
const SHUT_DOWN: &str =
    r#"open(F, "<", $ARGV[0]) or die $!; my $how = pack("L", 2); ioctl(F, 0x8004587D, $how) or die $!"#;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

fn mount_disk(directory: &Path) {
    let (disk, root) = (directory.join("disk"), directory.join("root"));
    run("mount", &["-o", "loop", disk.to_str().unwrap(), root.to_str().unwrap()]);
}

fn start() -> Node {
    needs(&["mkfs.ext4", "mount", "umount", "perl"]);
    Node::start_on(|directory| {
        let disk = directory.join("disk");
        File::create(&disk).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.ext4", &["-q", disk.to_str().unwrap()]);
        fs::create_dir(directory.join("root")).unwrap();
        mount_disk(directory);
    })
}

/// The power goes and comes back.
fn cut(node: &mut Node) {
    let root = node.path("root");
    run("perl", &["-e", SHUT_DOWN, root.to_str().unwrap()]);
    node.kill_daemon();
    run("umount", &[root.to_str().unwrap()]);
    mount_disk(node.directory.path());
    node.start_daemon();
}

async fn says(node: &Node, client: &Containerd, name: &str) -> u32 {
    let busybox = client.image(harness::BUSYBOX).await.unwrap().unwrap();
    let (sandbox, pid) = node.sandbox(client, &format!("{name}s")).await;
    let config = node.config(&busybox, (&sandbox.id, pid), "exit 7");
    let container = node.container(client, name, &busybox, &config, false).await;
    client.start(&container).await.unwrap();
    let status = client.wait(name).await.unwrap().status;
    client.delete(&sandbox.id).await.unwrap();
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_unpacked_survives() {
    let mut node = start();
    let client = node.client().await;
    node.busybox(&client).await;
    client.ensure_pause_image().await.unwrap();
    cut(&mut node);
    assert_eq!(Box::pin(says(&node, &node.client().await, "after")).await, 7);
}

/// Where a file of the image's snapshot is on the host.
fn file_of(node: &Node, client: &Containerd, image: &Image, file: &str) -> PathBuf {
    let snapshots = client.image_dir().unwrap().join("snapshots");
    let chain = chain_id(node, image);
    let mounts = node.ctr(&["snapshots", "--snapshotter", client.snapshotter(), "info", &chain]);
    assert!(mounts.contains(&chain), "{mounts}");
    let found = fs::read_dir(snapshots).unwrap().flatten();
    let paths = found.map(|entry| entry.path().join("fs").join(file));
    paths
        .filter(|path| path.exists())
        // The one made last: an inode number is given out again.
        .max_by_key(|path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.ctime(), metadata.ctime_nsec())
        })
        .unwrap()
}

/// Of an image with one layer, the layer's.
fn chain_id(node: &Node, image: &Image) -> String {
    let config = node.ctr(&["content", "get", &image.id]);
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["rootfs"]["diff_ids"][0].as_str().unwrap().to_owned()
}

fn unlabel(node: &Node, client: &Containerd, image: &Image, labels: &[&str]) {
    let chain = chain_id(node, image);
    let mut args = vec!["snapshots", "--snapshotter", client.snapshotter(), "label", &chain];
    args.extend(labels);
    node.ctr(&args);
}

/// The cut came between the unpacking and the sync: a file is empty, and the container that was begun on it is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_being_unpacked_is_unpacked_again() {
    let node = Node::start();
    let client = node.client().await;
    let busybox = node.busybox(&client).await;
    assert_eq!(Box::pin(says(&node, &client, "before")).await, 7);
    let file = file_of(&node, &client, &busybox, "bin/busybox");
    File::create(&file).unwrap();
    unlabel(&node, &client, &busybox, &["mk8s.io/on-disk="]);
    assert_eq!(Box::pin(says(&node, &node.client().await, "after")).await, 7);

    // What is not ours is taken as it is, whatever it holds.
    let file = file_of(&node, &client, &busybox, "bin/busybox");
    assert!(fs::metadata(&file).unwrap().len() > 0);
    fs::remove_file(&file).unwrap();
    unlabel(&node, &client, &busybox, &["mk8s.io/on-disk=", "mk8s.io/unpacked="]);
    let client = node.client().await;
    assert!(client.accounts(&busybox).await.unwrap().uid_of("web").is_some());
    assert!(!file.exists());
}

/// An older mk8s left the pause program empty, without a label that says whose it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_pause_program_is_replaced() {
    let node = Node::start();
    let client = node.client().await;
    let pause = client.ensure_pause_image().await.unwrap();
    unlabel(&node, &client, &pause, &["mk8s.io/on-disk=", "mk8s.io/unpacked="]);
    // A dead pod's, and a running one's.
    let (dead, _) = node.sandbox(&client, "dead").await;
    let (alive, _) = node.sandbox(&client, "alive").await;
    client.delete_task(&dead.id).await.unwrap();
    File::create(file_of(&node, &client, &pause, "pause")).unwrap();
    let refused = node.client().await.ensure_pause_image().await.unwrap_err();
    assert!(refused.to_string().contains("while alive stands on it"), "{refused}");
    client.delete_task(&alive.id).await.unwrap();
    let client = node.client().await;
    client.ensure_pause_image().await.unwrap();
    let (again, _) = node.sandbox(&client, "again").await;
    for id in [again.id, dead.id, alive.id] {
        client.delete(&id).await.unwrap();
    }
}
