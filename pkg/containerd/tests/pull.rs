//! Pulling from a real registry on the loopback (Debian's docker-registry, filled by skopeo): anonymously, with
//! credentials of both kinds, through a mirror; and what is said when it fails.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

mod harness;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio as Redirect};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{BUSYBOX, Node, needs, wait_for};
use mk8s_containerd::{Keychain, PullError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// bcrypt of `secret`.
const HTPASSWD: &str = "bob:$2b$04$9FgUw3CI4mHNjY/pjGL68ueCdNFtMsut90kH4wTEWE87pRTlDG0qy\n";

struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(directory: &Path, name: &str, htpasswd: bool) -> Registry {
        let users = directory.join("htpasswd");
        fs::write(&users, HTPASSWD).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {users:?}}}}}\n");
        Registry::start_with(directory, name, if htpasswd { &auth } else { "" })
    }

    /// `more`: lines of the configuration; those that start with a comma belong to `http`.
    fn start_with(directory: &Path, name: &str, more: &str) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let storage = directory.join("registry");
        let (http, more) = if more.starts_with(',') { (more, "") } else { ("", more) };
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage:?}}}}}\nhttp: {{addr: {address:?}{http}}}\n{more}"
        );
        let config = directory.join(format!("{name}.yml"));
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .stdout(Redirect::null())
            .stderr(Redirect::null());
        let child = command.spawn().unwrap();
        wait_for("registry", || std::net::TcpStream::connect(&address).is_ok());
        Registry { child, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A front that wants a token of its own service, then points to the registry. Answers its address.
async fn token_front(registry: String, tokens: Arc<AtomicUsize>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let own = address.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (registry, own, tokens) = (registry.clone(), own.clone(), tokens.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0u8; 1];
                    if socket.read_exact(&mut byte).await.is_err() {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let answer = if path.starts_with("/token?service=front&scope=repository%3alibrary%2fbusybox%3apull") {
                    tokens.fetch_add(1, Ordering::SeqCst);
                    // bob:secret, of which lower-casing left this.
                    let known = head.contains("authorization: basic ym9ionnly3jlda==");
                    if known {
                        let body = r#"{"token":"t0ken"}"#;
                        format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                            body.len()
                        )
                    } else {
                        let body = r#"{"details":"incorrect username or password"}"#;
                        format!(
                            "HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                            body.len()
                        )
                    }
                } else if head.contains("authorization: bearer t0ken") {
                    format!(
                        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{registry}{path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    )
                } else {
                    format!(
                        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{own}/token\",service=\"front\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    )
                };
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// A certificate for the loopback, its own authority; answers the registry's lines for it.
fn tls(directory: &Path) -> String {
    let (key, certificate) = (directory.join("key.pem"), directory.join("ca.pem"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
        ])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    format!(", tls: {{certificate: {certificate:?}, key: {key:?}}}")
}

/// A front that breaks off every first answer of a blob half-way; `ranges`: whether it lets the client go on from there.
async fn flaky_front(registry: String, ranges: bool, breaks: Arc<AtomicUsize>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broken = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (registry, broken, breaks) = (registry.clone(), broken.clone(), breaks.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0u8; 1];
                    if socket.read_exact(&mut byte).await.is_err() {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let kept: Vec<&str> = head
                    .trim_end()
                    .lines()
                    .filter(|line| ranges || !line.to_lowercase().starts_with("range:"))
                    .collect();
                let request = format!("{}\r\nconnection: close\r\n\r\n", kept.join("\r\n"));
                let mut upstream = tokio::net::TcpStream::connect(&registry).await.unwrap();
                upstream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                upstream.read_to_end(&mut answer).await.unwrap();
                let first = path.contains("/blobs/") && broken.lock().unwrap().insert(path);
                if first {
                    breaks.fetch_add(1, Ordering::SeqCst);
                    answer.truncate(answer.len() - answer.len() / 3);
                }
                let _ = socket.write_all(&answer).await;
            });
        }
    });
    address
}

fn keychain(host: &str, password: &str) -> Keychain {
    let mut keychain = Keychain::default();
    let text = serde_json::json!({"auths": {host: {"username": "bob", "password": password}}}).to_string();
    keychain.add_config_json(text.as_bytes()).unwrap();
    keychain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one story, each step on what the last one left")]
async fn pulls_from_a_registry() {
    needs(&["docker-registry", "skopeo", "openssl"]);
    let node = Node::start();
    let client = node.client().await;
    // The import is only to have the archive; the image itself must come from the registry.
    let imported = node.busybox(&client).await;
    client.remove_image(&imported).await.unwrap();
    assert!(client.image(BUSYBOX).await.unwrap().is_none());

    let open = Registry::start(node.directory.path(), "open", false);
    let archive = format!("oci-archive:{}", node.path("busybox.tar").display());
    let target = format!("docker://{}/library/busybox:1", open.address);
    let copied = Command::new("skopeo")
        .args([
            "copy",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &archive,
            &target,
        ])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));

    // Twenty callers, one pull; then it is there under all its names.
    let none = Keychain::default();
    let name = format!("{}/library/busybox:1", open.address);
    let pulls = (0..20).map(|_| client.pull(&name, &none));
    let images = futures::future::try_join_all(pulls).await.unwrap();
    let image = &images[0];
    assert!(images.iter().all(|other| other.digest == image.digest));
    assert_eq!(image.id, imported.id);
    assert_eq!(
        image.image_id(),
        format!("{}/library/busybox@{}", open.address, image.digest)
    );
    for reference in [
        name.as_str(),
        image.id.as_str(),
        image.id.trim_start_matches("sha256:"),
        image.image_id(),
    ] {
        let found = client.image(reference).await.unwrap();
        assert_eq!(found.map(|found| found.id), Some(image.id.clone()), "{reference}");
    }
    let by_digest = client.pull(image.image_id(), &none).await.unwrap();
    assert_eq!(by_digest.digest, image.digest);
    assert_eq!(client.images().await.unwrap().len(), 1);
    // It runs.
    let (sandbox, pid) = node.sandbox(&client, "p1").await;
    let container = node
        .container(&client, "p1c", image, &node.config(image, ("p1", pid), "exit 4"), false)
        .await;
    client.start(&container).await.unwrap();
    assert_eq!(client.wait("p1c").await.unwrap().status, 4);
    client.delete("p1c").await.unwrap();
    client.delete(&sandbox.id).await.unwrap();

    // What goes wrong says why.
    let error = client
        .pull(&format!("{}/library/busybox:nope", open.address), &none)
        .await
        .unwrap_err();
    assert!(matches!(error.cause(), PullError::NotFound(_)), "{error}");
    assert!(error.to_string().contains("manifest unknown"), "{error}");
    let error = client.pull("127.0.0.1:1/x:1", &none).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(matches!(
        client.pull("Bad//x", &none).await.unwrap_err().cause(),
        PullError::InvalidReference(_)
    ));

    // Two images of the same layers at once: each blob is written by one, the other waits.
    let second = format!("docker://{}/library/other:1", open.address);
    let copied = Command::new("skopeo")
        .args([
            "copy",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &target,
            &second,
        ])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    client.remove_pulled_images().await.unwrap();
    let other = format!("{}/library/other:1", open.address);
    let (one, two) = futures::future::try_join(client.pull(&name, &none), client.pull(&other, &none))
        .await
        .unwrap();
    assert_eq!(one.id, two.id);

    // Reset's removal leaves what others named.
    let removed = client.remove_pulled_images().await.unwrap();
    assert!(removed.contains(&name) && removed.contains(&image.id), "{removed:?}");
    assert!(client.images().await.unwrap().is_empty());

    // Basic authorization: without, with wrong, with right credentials, and from registries.yaml.
    let closed = Registry::start(node.directory.path(), "closed", true);
    let name = format!("{}/library/busybox:1", closed.address);
    for keychain in [Keychain::default(), keychain(&closed.address, "wrong")] {
        let error = client.pull(&name, &keychain).await.unwrap_err();
        assert!(matches!(error.cause(), PullError::Denied(_)), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    client.pull(&name, &keychain(&closed.address, "secret")).await.unwrap();
    client.remove_pulled_images().await.unwrap();
    let text = format!(
        "configs:\n  {:?}:\n    auth: {{username: bob, password: secret}}\n",
        closed.address
    );
    fs::write(node.path("registries.yaml"), text).unwrap();
    client.pull(&name, &Keychain::default()).await.unwrap();
    client.remove_pulled_images().await.unwrap();

    // Answers that break off: the next attempt goes on, or starts over where the registry knows no ranges.
    for ranges in [true, false] {
        let breaks = Arc::new(AtomicUsize::new(0));
        let front = flaky_front(open.address.clone(), ranges, breaks.clone()).await;
        // Content that a removed image leaves is collected some time later.
        node.ctr(&["content", "prune", "references"]);
        for digest in node.ctr(&["content", "ls", "-q"]).lines() {
            node.ctr(&["content", "rm", digest]);
        }
        let image = client.pull(&format!("{front}/library/busybox:1"), &none).await.unwrap();
        assert_eq!(image.id, imported.id);
        assert_eq!(breaks.load(Ordering::SeqCst), 2, "config and layer, ranges: {ranges}");
        client.remove_pulled_images().await.unwrap();
    }

    // TLS with an authority of its own: unknown, configured, not verified.
    let secure = Registry::start_with(node.directory.path(), "secure", &tls(node.directory.path()));
    let name = format!("{}/library/busybox:1", secure.address);
    let configured = |text: &str| {
        let text = format!("configs:\n  {:?}:\n    tls: {{{text}}}\n", secure.address);
        fs::write(node.path("registries.yaml"), text).unwrap();
    };
    configured("insecure_skip_verify: false");
    let error = client.pull(&name, &none).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    configured(&format!("ca_file: {:?}", node.path("ca.pem")));
    client.pull(&name, &none).await.unwrap();
    client.remove_pulled_images().await.unwrap();
    configured("insecure_skip_verify: true");
    client.pull(&name, &none).await.unwrap();
    client.remove_pulled_images().await.unwrap();

    // A token service, reached through a mirror of Docker Hub that redirects: credentials stay with their host.
    let tokens = Arc::new(AtomicUsize::new(0));
    let front = token_front(open.address.clone(), tokens.clone()).await;
    let name = format!("{front}/library/busybox:1");
    let error = client.pull(&name, &keychain(&front, "wrong")).await.unwrap_err();
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    client.pull(&name, &keychain(&front, "secret")).await.unwrap();
    client.remove_pulled_images().await.unwrap();
    let text = format!(
        "mirrors:\n  docker.io:\n    endpoint: [\"http://{front}\"]\n    rewrite: {{\"^hub/(.*)\": \"library/$1\"}}\nconfigs:\n  {front:?}:\n    auth: {{username: bob, password: secret}}\n"
    );
    fs::write(node.path("registries.yaml"), text).unwrap();
    let image = client.pull("hub/busybox:1", &none).await.unwrap();
    assert_eq!(image.name, "docker.io/hub/busybox:1");
    assert!(tokens.load(Ordering::SeqCst) >= 3);
}

/// A registry of one image, whose manifest says `size` about a config of `config` bytes. Answers its address.
async fn lying_registry(size: usize, config: usize) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let digest = harness::sha256(b"whatever");
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
        });
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let manifest = manifest.to_string();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = socket.read_u8().await else { return };
                    head.push(byte);
                }
                let is_manifest = String::from_utf8_lossy(&head).contains("/manifests/");
                let body = if is_manifest {
                    manifest.into_bytes()
                } else {
                    vec![b' '; config]
                };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.oci.image.manifest.v1+json";
                let head = format!("{head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = socket.write_all(head.as_bytes()).await;
                let _ = socket.write_all(&body).await;
            });
        }
    });
    address
}

/// What a registry sends is bounded: neither the memory nor the disk is its to fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_config_is_refused() {
    let node = Node::start();
    let client = node.client().await;
    for (size, config, why) in [
        (9 << 20, 9 << 20, "its config has 9437184 bytes"),
        (100, 1 << 20, "larger than the 100 bytes that its manifest says"),
    ] {
        let image = format!("{}/a/b:1", lying_registry(size, config).await);
        let error = client.pull(&image, &Keychain::default()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}
