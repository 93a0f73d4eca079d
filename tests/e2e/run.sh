#!/usr/bin/env bash
# The built binary on two hosts with real containers, driven by stock kubectl: what a person does, each line asserted.
#   run.sh BINARY
# Ends with "e2e: N passed, N failed" and fails when a check failed.
set -uo pipefail
binary=$(readlink -f "$1")
here=$(dirname "$(readlink -f "$0")")
hosts=$here/../../hack/hosts.sh
work=$(mktemp -d)
passed=0 failed=0

on() { local host=$1; shift; timeout 90 "$hosts" exec "$host" "$@"; }
k() { on 1 kubectl -n app "$@"; }

# check NAME COMMAND…: the command succeeds.
check() {
  local name=$1 output; shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1)); echo "ok      $name"
  else
    failed=$((failed + 1)); echo "FAILED  $name"; sed 's/^/        /' <<<"$output" | tail -n 15
  fi
}
# shows NAME PATTERN COMMAND…: the command's output has a line that matches.
shows() {
  local name=$1 pattern=$2 output; shift 2
  output=$("$@" 2>&1)
  if grep -qE -- "$pattern" <<<"$output"; then
    passed=$((passed + 1)); echo "ok      $name"
  else
    failed=$((failed + 1)); echo "FAILED  $name: no line matches /$pattern/ in:"; sed 's/^/        /' <<<"$output" | tail -n 15
  fi
}
# lacks NAME PATTERN COMMAND…: no line of the output matches.
lacks() {
  local name=$1 pattern=$2 output; shift 2
  output=$("$@" 2>&1)
  if grep -qE -- "$pattern" <<<"$output"; then
    failed=$((failed + 1)); echo "FAILED  $name: a line matches /$pattern/ in:"; sed 's/^/        /' <<<"$output" | tail -n 15
  else
    passed=$((passed + 1)); echo "ok      $name"
  fi
}
# eventually SECONDS COMMAND…: tries until it succeeds.
eventually() {
  local until=$((SECONDS + $1)); shift
  until "$@"; do ((SECONDS < until)) || return 1; sleep 0.3; done
}
pod_on() { k get pod -l app=web -o wide --no-headers | awk -v node="$1" '$3 == "Running" && $7 == node { print $1; exit }'; }
mk8s_pid() { on 1 cat /run/mk8s/mk8s.pid; }

cleanup() {
  "$hosts" down >/dev/null 2>&1
  rm -rf "$work"
}
trap cleanup EXIT
"$hosts" down >/dev/null 2>&1
"$hosts" up 2 || exit 1
cp "$binary" "$work/mk8s"; chmod 755 "$work" "$work/mk8s"
"$here/../../hack/busybox-image.sh" "$work/busybox.tar" mk8s.local/busybox:1 || exit 1
for host in 1 2; do on $host ctr -n k8s.io images import "$work/busybox.tar" >/dev/null || exit 1; done

echo "# preflight and init"
shows "init refuses another Kubernetes version" "KubernetesVersion" on 1 "$work/mk8s" init --kubernetes-version v1.13.3
shows "init refuses overlapping ranges" "overlap" on 1 "$work/mk8s" init --pod-network-cidr 10.96.0.0/16
shows "init refuses a range that the host has a route for" "RouteOverlap" on 1 "$work/mk8s" init --pod-network-cidr 10.9.0.0/16
lacks "a refused init changes nothing" "settings.json|pki" on 1 ls /var/lib/mk8s
on 1 "$work/mk8s" init >"$work/init.log" 2>&1
shows "init ends as kubeadm does" "Your Kubernetes control-plane has initialized successfully!" cat "$work/init.log"
shows "init prints the join command" "mk8s join 10.9.0.1:6443 --token [a-z0-9]{6}\.[a-z0-9]{16} --discovery-token-ca-cert-hash sha256:[0-9a-f]{64}" cat "$work/init.log"
shows "the node is Ready" "host1 +Ready +control-plane" on 1 kubectl get nodes
shows "init again says that it runs" "runs" on 1 mk8s init
shows "init again refuses what contradicts" "contradicts" on 1 mk8s init --service-cidr 10.97.0.0/16
shows "status" "ready: +yes" on 1 mk8s status
shows "what exists after init" "kube-dns .*10.96.0.10" on 1 kubectl get svc -A
shows "anonymous may not list" "Unauthorized|forbidden" on 1 curl -sk https://10.9.0.1:6443/api/v1/pods
shows "anonymous may see health" "ok" on 1 curl -sk https://10.9.0.1:6443/readyz

echo "# an application"
check "apply" on 1 kubectl apply -f "$here/app.yaml"
check "rollout status" k rollout status deploy/web --timeout=60s
check "the job completes" k wait --for=condition=complete job/once --timeout=30s
shows "get all" "deployment.apps/web +3/3" k get all,ep,events -o wide
pod=$(pod_on host1)
shows "describe" "Readiness: +http-get" k describe pod "$pod"
shows "logs" "^serving" k logs "$pod"
shows "exec" "^s3cret 10\.244\." k exec "$pod" -- sh -c 'echo $PASSWORD $IP'
shows "exec gives the exit status" "exit code 3" k exec "$pod" -- sh -c 'exit 3'
shows "exec with stdin" "^typed" bash -c "echo typed | timeout 30 $hosts exec 1 kubectl -n app exec -i $pod -- cat"
address=$(k get svc web -o 'jsonpath={.spec.clusterIP}')
shows "ClusterIP from the host" "hello from mk8s" on 1 curl -s -m 5 "http://$address"
shows "NodePort" "hello from mk8s" on 1 curl -s -m 5 http://10.9.0.1:30080
shows "NodePort at localhost" "hello from mk8s" on 1 curl -s -m 5 http://127.0.0.1:30080
for name in web web.app web.app.svc.cluster.local; do
  shows "from a pod by $name" "hello from mk8s" k exec "$pod" -- timeout 5 wget -q -O- "http://$name"
done
shows "port-forward" "hello from mk8s" on 1 bash -c 'kubectl -n app port-forward svc/web 18080:80 >/dev/null & trap "kill $!" EXIT
  for try in $(seq 50); do curl -s -m 3 http://127.0.0.1:18080 && break; sleep 0.1; done'
# What hack/build-kubectl.sh made, and what the machine has besides.
for kubectl in "${MK8S_KUBECTL_DIR:-$HOME/.cache/mk8s/kubectl}"/kubectl.1.* /usr/lib/google-cloud-sdk/bin/kubectl.1.*; do
  [ -x "$kubectl" ] || continue
  version=${kubectl##*kubectl.}
  shows "kubectl $version: get -o wide" "web-.*Running.*host1" on 1 "$kubectl" -n app get pods -o wide
  shows "kubectl $version: exec" "^here" on 1 "$kubectl" -n app exec "$pod" -- echo here
  shows "kubectl $version: explain" "Pod" on 1 "$kubectl" explain pod.spec
  check "kubectl $version: apply" on 1 "$kubectl" apply -f "$here/app.yaml"
  check "kubectl $version: create" on 1 "$kubectl" -n app create configmap "made-by-${version//./-}" --from-literal=a=b
done

echo "# changes"
check "scale" k scale deploy/web --replicas=4
check "set env" k set env deploy/web FOO=bar
check "rollout of a change" k rollout status deploy/web --timeout=60s
check "rollout undo" k rollout undo deploy/web
check "rollout of the undo" k rollout status deploy/web --timeout=60s
shows "rollout history" "^3 " k rollout history deploy/web
check "rollout restart" k rollout restart deploy/web
check "rollout of the restart" k rollout status deploy/web --timeout=60s
check "label" k label pod -l app=web tier=front
check "annotate" k annotate deploy/web note=x
check "patch" k patch deploy/web -p '{"spec":{"replicas":3}}'
check "rollout after the patch" k rollout status deploy/web --timeout=60s
check "diff shows nothing after apply" bash -c "timeout 60 $hosts exec 1 kubectl apply -f $here/app.yaml >/dev/null && timeout 60 $hosts exec 1 kubectl diff -f $here/app.yaml"
check "set image" k set image deploy/web web=mk8s.local/busybox:1
check "delete pod by label" k delete pod -l app=web
check "rollout after the deletion" k rollout status deploy/web --timeout=60s
shows "get -w" "web-.*Running" on 1 bash -c 'timeout 3 kubectl -n app get pods -w; true'
shows "logs -f of a job ends" "^done" k logs -f job/once
shows "api-resources" "^deployments +deploy +apps/v1 +true +Deployment" on 1 kubectl api-resources
shows "api-resources has what is only refused or stored" "^statefulsets +sts" on 1 kubectl api-resources
shows "explain" "replicas" on 1 kubectl explain deployment.spec
check "create deployment" k create deployment made --image=mk8s.local/busybox:1
check "expose" k expose deployment made --port=80
check "create service" k create service clusterip plain --tcp=80:80
check "create job" k create job made --image=mk8s.local/busybox:1 -- echo x
check "create secret" k create secret generic made --from-literal=a=b
shows "a network policy is refused" "not in this version of mk8s" k create -f - <<<'{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"x"},"spec":{"podSelector":{}}}'
check "delete what was made" k delete deployment/made service/made service/plain job/made secret/made
pod=$(pod_on host1)
check "cp" k cp /etc/hostname "$pod:/tmp/name"
shows "cp arrived" "host1" k exec "$pod" -- cat /tmp/name
check "create role" k create role reader --verb=get --resource=pods
shows "can-i" "^no" k auth can-i delete pods --as=system:serviceaccount:app:default
# Debian's kubectl 1.20 has no such verb.
if kubectl create token --help 2>&1 | grep -e --audience >/dev/null; then shows "create token" "^ey" k create token default; fi
shows "run --rm -i" "^from-stdin" bash -c "echo from-stdin | timeout 60 $hosts exec 1 kubectl -n app run once-more --rm -i --restart=Never --image=mk8s.local/busybox:1 --image-pull-policy=IfNotPresent -- cat"
shows "a bad manifest is refused with the field" "spec.replicas.*greater than or equal to 0" k patch deploy/web -p '{"spec":{"replicas":-1}}'
shows "an unknown field is refused" "unknown field" k create --validate=strict -f - <<<'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dat":{}}'
check "create a pod whose image does not exist" k run missing --image=127.0.0.1:9/none:1
shows "its image cannot be pulled" "ErrImagePull|ImagePullBackOff" bash -c "sleep 3; timeout 30 $hosts exec 1 kubectl -n app get pod missing"
check "delete it" k delete pod missing --grace-period=0 --force
check "create a pod that crashes" k run crash --image=mk8s.local/busybox:1 --image-pull-policy=IfNotPresent -- sh -c 'exit 7'
crashing() { k get pod crash | grep -q CrashLoopBackOff; }
check "it is in CrashLoopBackOff" eventually 30 crashing
check "delete it too" k delete pod crash --grace-period=0 --force

echo "# mk8s dies"
before=$(k get pod -l app=web -o 'jsonpath={.items[*].status.containerStatuses[*].containerID}')
pid=$(mk8s_pid)
check "kill -9" on 1 kill -9 "$pid"
shows "pods serve without mk8s" "hello from mk8s" on 1 curl -s -m 5 "http://$address"
check "start" on 1 mk8s start
shows "the same containers run" "^$before$" k get pod -l app=web -o 'jsonpath={.items[*].status.containerStatuses[*].containerID}'
check "stop" on 1 mk8s stop
check "init starts it again" on 1 mk8s init

echo "# containerd dies"
pod=$(pod_on host1)
# The host has processes of its own only.
check "kill -9 of containerd" on 1 sh -c 'kill -9 $(pgrep -x containerd)'
shows "pods serve without containerd" "hello from mk8s" on 1 curl -s -m 5 "http://$address"
on 1 sh -c 'setsid containerd >>/var/log/containerd.log 2>&1 </dev/null &'
answers() { k exec "$pod" -- true; }
check "exec works again" eventually 30 answers
shows "containerd's containers were kept" "^$before$" k get pod -l app=web -o 'jsonpath={.items[*].status.containerStatuses[*].containerID}'

echo "# a second host"
join=$(on 1 mk8s token create --print-join-command)
bad=${join/sha256:?/sha256:z}
# shellcheck disable=SC2086
shows "join refuses another CA" "hash" on 2 "$work/mk8s" ${bad#mk8s }
# shellcheck disable=SC2086
shows "join" "This node has joined the cluster" on 2 "$work/mk8s" ${join#mk8s }
shows "the second node is Ready" "host2 +Ready" on 1 kubectl get nodes
check "scale over both" k scale deploy/web --replicas=6
check "rollout over both" k rollout status deploy/web --timeout=60s
far=$(pod_on host2)
shows "a pod runs there" "web" echo "$far"
shows "logs from there" "^serving" k logs "$far"
served_certificate() { k exec "$far" -- true; }
check "exec there" eventually 20 served_certificate
shows "DNS and the Service from there" "hello from mk8s" k exec "$far" -- timeout 5 wget -q -O- http://web
shows "NodePort there" "hello from mk8s" on 2 curl -s -m 5 http://10.9.0.2:30080
near=$(pod_on host1)
there=$(k get pod "$far" -o 'jsonpath={.status.podIP}')
shows "pod to pod across hosts" "hello from mk8s" k exec "$near" -- timeout 5 wget -q -O- "http://$there:8080"
check "cordon" on 1 kubectl cordon host2
check "drain" on 1 kubectl drain host2 --force --ignore-daemonsets --timeout=60s
check "uncordon" on 1 kubectl uncordon host2
check "taint" on 1 kubectl taint nodes host2 a=b:NoSchedule
check "taint removed" on 1 kubectl taint nodes host2 a-

echo "# the end"
check "delete the namespace" on 1 kubectl delete namespace app --timeout=60s
shows "reset without an answer is refused" "--force" on 2 mk8s reset </dev/null
check "reset of the worker" on 2 mk8s reset --force
check "reset of the master" on 1 "$work/mk8s" reset --force
for host in 1 2; do
  lacks "host $host: no tables" "mk8s" on $host nft list tables
  lacks "host $host: no links" "mk8s" on $host ip link
  lacks "host $host: no routes" "10\.(244|96)\." on $host ip route
  lacks "host $host: no mounts" "/var/lib/kubelet/|/var/lib/mk8s/|/run/netns/mk8s" on $host cat /proc/self/mountinfo
  lacks "host $host: no containers" "." on $host ctr -n k8s.io containers ls -q
  lacks "host $host: no kubeconfig" "admin.conf" on $host ls /etc/kubernetes
  shows "host $host: the imported image stays" "mk8s.local/busybox:1" on $host ctr -n k8s.io images ls -q
done

if ((failed)); then
  for host in 1 2; do echo "# mk8s's log on host $host"; on $host tail -n 30 /var/log/mk8s.log 2>/dev/null; done
fi
echo "e2e: $passed passed, $failed failed"
((failed == 0))
