//! Manifests of 2018, through stock kubectl: they apply, and apply again as unchanged; they are changed, scaled, read and
//! deleted in the version they name, and are the objects that everybody else sees.

use crate::kubectl;

const MANIFEST: &str = include_str!("old_versions.yaml");

const LINES: &[(&str, &str)] = &[
    (
        "kubectl apply -f old.yaml 2>/dev/null > out; grep -c created out; grep -v created out",
        r"^18$",
    ),
    // What a claim's template leaves out is filled in, in a list that is replaced as a whole: upstream's own StatefulSets
    // are said to be configured, too.
    (
        "kubectl apply -f old.yaml 2>/dev/null > out; grep -c unchanged out; grep -v unchanged out",
        r"^17\nstatefulset.apps/db configured$",
    ),
    (
        "kubectl apply -f old.yaml 2>&1 >/dev/null | grep Ingress",
        r"Warning: extensions/v1beta1 Ingress is deprecated in v1\.14\+, unavailable in v1\.22\+; use networking\.k8s\.io/v1 Ingress",
    ),
    ("kubectl diff -f old.yaml 2>/dev/null; echo status $?", r"^status 0$"),
    // The same objects as everybody's.
    (
        "kubectl get deployment web -o jsonpath='{.apiVersion} {.spec.selector.matchLabels.app} {.spec.strategy.rollingUpdate.maxSurge} {.spec.revisionHistoryLimit}'",
        r"^apps/v1 web 1 2147483647$",
    ),
    (
        "kubectl get deployments.v1beta1.extensions web -o jsonpath='{.apiVersion} {.metadata.labels.app}' 2>/dev/null",
        r"^extensions/v1beta1 web$",
    ),
    (
        "kubectl get ingress web -o jsonpath='{.apiVersion} {.spec.defaultBackend.service.port.name} {.spec.rules[0].http.paths[0].backend.service.port.number} {.spec.rules[0].http.paths[0].pathType}'",
        r"^networking.k8s.io/v1 http 80 ImplementationSpecific$",
    ),
    (
        "kubectl get statefulset db -o jsonpath='{.spec.updateStrategy.type} {.spec.volumeClaimTemplates[0].spec.resources.requests.storage}'",
        r"^OnDelete 1Gi$",
    ),
    (
        "kubectl get daemonset agent -o jsonpath='{.spec.updateStrategy.type}'",
        r"^OnDelete$",
    ),
    (
        "kubectl get pdb none -o jsonpath='{.spec.selector.matchExpressions[0].operator}'",
        r"^Exists$",
    ),
    (
        "kubectl get hpa web -o jsonpath='{.spec.metrics[0].resource.target.averageUtilization} {.spec.metrics[1].pods.metric.name} {.spec.metrics[1].pods.target.averageValue}'",
        r"^60 requests 100$",
    ),
    (
        "kubectl get clusterrolebinding old-reader -o jsonpath='{.apiVersion} {.subjects[1].apiGroup}'",
        r"^rbac.authorization.k8s.io/v1 rbac.authorization.k8s.io$",
    ),
    (
        "kubectl get deployments.v1beta2.apps 2>/dev/null",
        r"(?s)NAME\s+READY\s+UP-TO-DATE\s+AVAILABLE\s+AGE\n.*beta2\s+0/0",
    ),
    // Once in what many groups show.
    ("kubectl get all -o name | grep -c deployment", r"^3$"),
    (
        "kubectl get deploy -o name 2>&1",
        r"^deployment.apps/beta1\ndeployment.apps/beta2\ndeployment.apps/web$",
    ),
    // Changed, each in its version.
    (
        "sed 's/nginx:1.15/nginx:1.16/; s/servicePort: 80/servicePort: 81/; s/targetAverageUtilization: 60/targetAverageUtilization: 70/' old.yaml > next.yaml; kubectl apply -f next.yaml 2>/dev/null > out; grep configured out | grep -v statefulset | cut -d' ' -f1 | sort",
        r"^deployment.extensions/web\nhorizontalpodautoscaler.autoscaling/web\ningress.extensions/web\ningress.networking.k8s.io/later$",
    ),
    (
        "kubectl get ingress web later -o jsonpath='{.items[*].spec.rules[0].http.paths[0].backend.service.port.number}'",
        r"^81 81$",
    ),
    (
        "kubectl get hpa web -o jsonpath='{.spec.metrics[*].type} {.spec.metrics[0].resource.target.averageUtilization}'",
        r"^Resource Pods 70$",
    ),
    (
        "kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[*].image}'",
        r"^nginx:1.16$",
    ),
    (
        "kubectl scale deployments.v1beta1.extensions/web --replicas=2 2>/dev/null && kubectl get deployment web -o jsonpath='{.spec.replicas}'",
        r"deployment.extensions/web scaled\n2$",
    ),
    (
        "kubectl patch deployments.v1beta1.apps beta1 -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"env\":[{\"name\":\"A\",\"value\":\"1\"}]}]}}}}' 2>/dev/null; kubectl get deployment beta1 -o jsonpath='{.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].env[0].name}'",
        r"deployment.apps/beta1 patched\nbeta:1 A$",
    ),
    (
        "kubectl label ingresses.v1beta1.extensions web a=b 2>/dev/null; kubectl get ing -l a=b -o name",
        r"ingress.extensions/web labeled\ningress.networking.k8s.io/web$",
    ),
    // To those who may: the group is the request's.
    ("kubectl auth can-i list deployments.extensions --as=jane", "^yes"),
    ("kubectl auth can-i list deployments.apps --as=jane", "^no"),
    (
        "kubectl get deployments.v1beta1.extensions --as=jane -o name 2>/dev/null",
        "deployment.extensions/web",
    ),
    (
        "kubectl get deployments.v1beta1.extensions none 2>&1 | grep -v Warning",
        r#"\(NotFound\): deployments.extensions "none" not found"#,
    ),
    (
        "kubectl explain deployment --api-version=extensions/v1beta1 | grep -A1 -i '^version\\|^kind'",
        r"(?s)Deployment.*v1beta1",
    ),
    (
        "kubectl explain ingress.spec.backend.servicePort --api-version=extensions/v1beta1",
        r"(?i)servicePort",
    ),
    (
        "kubectl api-versions | tail -1; kubectl api-resources --api-group=extensions -o name | sort | tr '\\n' ' '",
        r"daemonsets.extensions deployments.extensions ingresses.extensions networkpolicies.extensions replicasets.extensions",
    ),
    (
        "kubectl get podsecuritypolicies",
        r#"the server doesn't have a resource type "podsecuritypolicies""#,
    ),
    (
        "sed -n '/kind: Ingress/,/---/p' old.yaml | sed 's/kind: Ingress/kind: NetworkPolicy/; 1i apiVersion: extensions/v1beta1' | sed '/spec:/,$d' > np.yaml; echo 'spec: {podSelector: {}}' >> np.yaml; kubectl apply -f np.yaml 2>&1",
        r"not in this version of mk8s",
    ),
    ("kubectl delete -f old.yaml 2>/dev/null | grep -c deleted", r"^18$"),
    (
        "kubectl get deploy,ing,sts,ds,hpa,pdb,cronjob 2>&1",
        r"No resources found",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_2018_by_the_oldest_kubectl() {
    kubectl::run("1.27", ("old.yaml", MANIFEST), LINES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_2018_by_the_newest_kubectl() {
    kubectl::run("1.35", ("old.yaml", MANIFEST), LINES).await;
}
