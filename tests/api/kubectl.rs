//! Stock kubectl, oldest and newest: shell lines, each with what it has to print.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use regex::Regex;

use crate::cluster::Cluster;

/// A shell line; a regular expression that its output, with stderr, has to match.
const LINES: &[(&str, &str)] = &[
    ("kubectl version", r"Server Version: .*v1\.35"),
    ("kubectl get ns", r"kube-system\s+Active"),
    // Create, and create again.
    ("kubectl create configmap c --from-literal=a=b", "configmap/c created"),
    (
        "kubectl create configmap c --from-literal=a=b",
        r#"configmaps "c" already exists"#,
    ),
    (
        "kubectl create configmap d --from-literal=a=b --dry-run=server",
        r"configmap/d created \(server dry run\)",
    ),
    (
        "kubectl get configmap d",
        r#"Error from server \(NotFound\): configmaps "d" not found"#,
    ),
    (
        "kubectl create secret generic s --from-literal=p=q && kubectl get secret s -o jsonpath='{.data.p}'",
        "cQ==",
    ),
    (
        "kubectl create deployment web --image=nginx --replicas=0 --port=80",
        "deployment.apps/web created",
    ),
    (
        "kubectl create job once --image=busybox -- true",
        "job.batch/once created",
    ),
    (
        "kubectl create role reader --verb=get,list --resource=pods",
        "role.rbac.authorization.k8s.io/reader created",
    ),
    ("kubectl create token default", r"^ey[^.]+\.[^.]+\.[^.]+$"),
    (
        "kubectl expose deployment web --target-port=8080",
        "service/web exposed",
    ),
    // Read.
    (
        "kubectl get deploy -o wide",
        r"NAME\s+READY\s+UP-TO-DATE\s+AVAILABLE\s+AGE\s+CONTAINERS\s+IMAGES\s+SELECTOR\nweb\s+0/0\s+0\s+0\s+\S+\s+nginx\s+nginx\s+app=web",
    ),
    ("kubectl get all", r"service/web\s+ClusterIP\s+10\.96\."),
    // Once, though two groups show it.
    (
        "kubectl get all -o name | grep web | sort",
        r"^deployment.apps/web\nreplicaset.apps/web-\S+\nservice/web$",
    ),
    ("kubectl get svc web -o yaml", r"targetPort: 8080"),
    ("kubectl get pods -l job-name=once -o name", "pod/once-"),
    (
        "kubectl get cm -o custom-columns=N:.metadata.name --sort-by=.metadata.name",
        r"N\nc\nkube-root-ca.crt",
    ),
    (
        "kubectl get nothings",
        r#"the server doesn't have a resource type "nothings""#,
    ),
    ("kubectl describe deploy web", r"StrategyType:\s+RollingUpdate"),
    (
        "kubectl explain deployment.spec.replicas",
        r"(?i)FIELD:\s+replicas\s+<integer>",
    ),
    ("kubectl explain pod --recursive", r"readinessProbe\s+<Probe>"),
    (
        "kubectl api-resources",
        r"deployments\s+deploy\s+apps/v1\s+true\s+Deployment",
    ),
    ("kubectl api-versions", r"(?m)^networking.k8s.io/v1$"),
    ("kubectl auth can-i get pods --as=nobody", "^no"),
    (
        "kubectl cluster-info",
        r"control plane.* is running at .*https://127\.0\.0\.1",
    ),
    // Apply, and change.
    ("kubectl apply -f app.yaml", r"deployment.apps/app created"),
    ("kubectl apply -f app.yaml", r"deployment.apps/app unchanged"),
    ("kubectl diff -f app.yaml; echo status $?", r"^status 0$"),
    (
        "sed 's/replicas: 0/replicas: 2/' app.yaml | kubectl diff -f -; echo status $?",
        r"(?s)\+  replicas: 2.*status 1$",
    ),
    (
        "sed 's/replicas: 0/replicas: -2/' app.yaml | kubectl apply -f -",
        r"spec.replicas: Invalid value: -2: must be greater than or equal to 0",
    ),
    (
        "sed 's/replicas: 0/replcas: 0/' app.yaml | kubectl apply -f -",
        r#"unknown field "spec.replcas""#,
    ),
    (
        "kubectl apply --server-side -f app.yaml",
        r"deployment.apps/app serverside-applied",
    ),
    // What kubectl applied in the old manner is its own in the new one.
    (
        "kubectl get deploy app -o yaml --show-managed-fields",
        r"manager: kubectl\n    operation: Apply",
    ),
    (
        "printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ssa}\ndata: {a: x}\n' > ssa.yaml; kubectl apply --server-side -f ssa.yaml",
        "configmap/ssa serverside-applied",
    ),
    (
        "sed 's/a: x/a: z/' ssa.yaml | kubectl apply --server-side --field-manager=other -f -",
        r#"Apply failed with 1 conflict: conflict with "kubectl": \.data\.a"#,
    ),
    (
        "sed 's/a: x/a: z/' ssa.yaml | kubectl apply --server-side --field-manager=other --force-conflicts -f -",
        "configmap/ssa serverside-applied",
    ),
    (
        "kubectl get cm ssa -o jsonpath='{.metadata.managedFields[*].manager} {.data.a}' --show-managed-fields",
        "^other z$",
    ),
    ("kubectl delete cm ssa", "deleted"),
    // The annotation of what was applied last is the server's now; kubectl words it otherwise.
    ("kubectl apply -f app.yaml", "deployment.apps/app configured"),
    (
        "kubectl apply --prune -l app=app -f app.yaml",
        r"deployment.apps/app unchanged",
    ),
    ("kubectl scale deploy/app --replicas=0", "deployment.apps/app scaled"),
    (
        "kubectl patch deploy app -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"app\",\"env\":[{\"name\":\"A\",\"value\":\"1\"}]}]}}}}'",
        "deployment.apps/app patched",
    ),
    (
        "kubectl get deploy app -o jsonpath='{.spec.template.spec.containers[0].image}'",
        "^nginx:1$",
    ),
    (
        "kubectl patch cm c --type=json -p '[{\"op\":\"replace\",\"path\":\"/data/a\",\"value\":\"z\"}]'",
        "configmap/c patched",
    ),
    (
        "kubectl patch cm c --type=merge -p '{\"data\":{\"a\":\"y\"}}'",
        "configmap/c patched",
    ),
    ("kubectl set image deploy/app app=nginx:2", "image updated"),
    ("kubectl set env deploy/app B=2", "env updated"),
    (
        "kubectl label deploy app tier=front && kubectl get deploy -l tier=front -o name",
        "deployment.apps/app$",
    ),
    ("kubectl label deploy app tier=back", r"already has a value"),
    ("kubectl annotate deploy app note=x", "deployment.apps/app annotate"),
    ("kubectl replace -f app.yaml", "deployment.apps/app replaced"),
    // Controllers act on it.
    (
        "kubectl rollout status deploy/app --timeout=20s",
        "successfully rolled out",
    ),
    ("kubectl rollout history deploy/app", r"(?m)^3\s"),
    ("kubectl rollout undo deploy/app", "rolled back"),
    ("kubectl rollout restart deploy/app", "restarted"),
    (
        "kubectl wait --for=condition=Available deploy/app --timeout=20s",
        "condition met",
    ),
    (
        "kubectl wait --for=jsonpath='{.spec.replicas}'=0 deploy/app --timeout=20s",
        "condition met",
    ),
    (
        "timeout 20 kubectl get cm -w >seen & until grep -q kube-root seen; do sleep .1; done; kubectl create cm late; \
         for i in {1..100}; do grep -q late seen && break; sleep .1; done; kill %1; wait; cat seen",
        r"(?s)c\s+1.*late\s+0",
    ),
    // Refused, and warned of.
    ("kubectl create quota q --hard=pods=1", "not in this version of mk8s"),
    ("kubectl create ingress i --rule=a.example/=svc:80", "Warning: "),
    (
        "kubectl create cronjob cj --image=x --schedule='* * * * *'",
        "^cronjob.batch/cj created$",
    ),
    // Delete.
    ("kubectl delete cm c late", r#"configmap "late" deleted"#),
    ("kubectl delete -f app.yaml", r#"deployment.apps "app" deleted"#),
    (
        "kubectl wait --for=delete rs -l app=app --timeout=20s; kubectl get rs -l app=app",
        "No resources found",
    ),
    (
        "kubectl delete deploy web --cascade=foreground --wait --timeout=20s",
        r#"deployment.apps "web" deleted"#,
    ),
    ("kubectl delete jobs,svc --all", r#"job.batch "once" deleted"#),
    (
        "kubectl create ns gone && kubectl create cm x -n gone && kubectl delete ns gone --timeout=30s; kubectl get ns gone",
        r#"namespaces "gone" not found"#,
    ),
];

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {app: app}}
spec:
  replicas: 0
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
        - {name: app, image: 'nginx:1', ports: [{containerPort: 80}], resources: {limits: {cpu: 500m, memory: 64Mi}}}
";

/// Where hack/build-clients.sh puts this version.
fn kubectl(version: &str) -> Option<PathBuf> {
    let built = std::env::var_os("MK8S_KUBECTL_DIR").map(PathBuf::from);
    let built = built.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/mk8s/kubectl")))?;
    Some(built.join(format!("kubectl.{version}"))).filter(|path| path.exists())
}

/// Runs lines with a kubectl, in a folder with a file, on a cluster of their own.
pub async fn run(version: &str, (file, text): (&str, &str), lines: &[(&str, &str)]) {
    let program = kubectl(version).unwrap_or_else(|| panic!("no kubectl {version}: hack/build-clients.sh makes one"));
    let cluster = Cluster::start().await;
    let work = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(program, work.path().join("kubectl")).unwrap();
    std::fs::write(work.path().join(file), text).unwrap();
    let path = format!("{}:{}", work.path().display(), std::env::var("PATH").unwrap());
    let mut failures = Vec::new();
    for (line, pattern) in lines {
        let command = tokio::process::Command::new("bash")
            .args(["-c", &format!("exec 2>&1; {line}")])
            .current_dir(work.path())
            .env("PATH", &path)
            .env("HOME", work.path())
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(Duration::from_secs(60), command).await {
            Ok(output) => String::from_utf8_lossy(&output.unwrap().stdout).into_owned(),
            Err(_) => "(no end within a minute)".to_string(),
        };
        if !Regex::new(pattern).unwrap().is_match(output.trim_end()) {
            failures.push(format!("$ {line}\n{output}does not match {pattern}\n"));
        }
    }
    assert!(failures.is_empty(), "kubectl {version}:\n{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_kubectl() {
    run("1.27", ("app.yaml", APP), LINES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_kubectl() {
    run("1.35", ("app.yaml", APP), LINES).await;
}
