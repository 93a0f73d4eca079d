//! The guide to batches of test cases, as it stands: its commands are run, its example's script too, and what they print is what it says.

use std::path::Path;
use std::process::Stdio;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::cluster::Cluster;

/// What becomes of a pod whose container runs a script; none: it runs none.
pub async fn run(pod: &Pod) -> Option<(i32, String)> {
    let container = &pod.spec.as_ref()?.containers[0];
    let script = container
        .args
        .as_ref()
        .filter(|_| container.command.as_deref() == Some(&["sh".into(), "-c".into()]))?;
    let said = tempfile::NamedTempFile::new().unwrap();
    let script = script[0].replace("/dev/termination-log", said.path().to_str().unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdout(Stdio::null()).kill_on_drop(true);
    for variable in container.env.iter().flatten() {
        let path = variable
            .value_from
            .as_ref()
            .and_then(|from| from.field_ref.as_ref())
            .map(|field| &field.field_path);
        let value = path.map_or_else(|| variable.value.clone(), |path| field(pod, path));
        command.env(&variable.name, value.unwrap_or_default());
    }
    let code = command.status().await.unwrap().code().unwrap();
    Some((code, std::fs::read_to_string(said.path()).unwrap()))
}

/// `metadata.labels['KEY']`, `metadata.annotations['KEY']`.
fn field(pod: &Pod, path: &str) -> Option<String> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    let map = match map {
        "metadata.labels" => &pod.metadata.labels,
        "metadata.annotations" => &pod.metadata.annotations,
        other => panic!("{other} is not pretended"),
    };
    map.as_ref()?.get(key).cloned()
}

/// The status of a container that ended long ago: nobody waits before the next try.
pub fn terminated(code: i32, message: &str) -> Value {
    let ended = json!({"exitCode": code, "message": message, "startedAt": "2024-01-01T00:00:00Z", "finishedAt": "2024-01-01T00:00:00Z"});
    json!([{"name": "case", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": ended}}])
}

/// The commands of a page's console blocks, each with what it is said to print.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for block in page.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command.to_owned(), String::new()));
                continue;
            }
            let (command, printed) = commands.last_mut().unwrap();
            let text = if line.starts_with("  ") { command } else { printed };
            text.push('\n');
            text.push_str(line);
        }
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_batches_of_test_cases_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built =
        std::env::var("MK8S_KUBECTL_DIR").unwrap_or(format!("{}/.cache/mk8s/kubectl", std::env::var("HOME").unwrap()));
    let kubectl = Path::new(&built).join("kubectl.1.35");
    assert!(kubectl.exists(), "no kubectl 1.35: hack/build-clients.sh makes one");
    let work = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(kubectl, work.path().join("kubectl")).unwrap();
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    cluster.node("n1").await;

    let page = std::fs::read_to_string(root.join("deploy/guide/test-batch.md")).unwrap();
    let commands = commands(&page);
    assert!(commands.len() > 10, "{commands:?}");
    let script: Vec<String> = commands
        .iter()
        .map(|(command, _)| format!("{command}\nprintf '\\1'\n"))
        .collect();
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{}", script.concat())])
        .current_dir(root)
        .env(
            "PATH",
            format!("{}:{}", work.path().display(), std::env::var("PATH").unwrap()),
        )
        .env("HOME", work.path())
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(180), output)
        .await
        .unwrap()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = printed.split('\u{1}').collect();
    for (at, (command, expected)) in commands.iter().enumerate() {
        let found = printed.get(at).map(|found| found.trim());
        assert_eq!(found, Some(expected.trim()), "$ {command}");
    }
    cluster.stop().await;
}
