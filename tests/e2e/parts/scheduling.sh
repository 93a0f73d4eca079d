# Where pods may go: kept apart, spread, near their volumes, and in place of less important ones.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# scheduling"
# One container that listens nowhere: name, more of its spec, more of a container.
sleeper() { printf '{"metadata": {"labels": {"app": "%s"}}, "spec": {"terminationGracePeriodSeconds": 1, %s "containers": [{"name": "c", "image": "mk8s.local/busybox:1", "imagePullPolicy": "Never", "command": ["sleep", "1000"]%s}]}}' "$1" "$2" "${3:-}"; }
deployment() { printf '{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "%s", "namespace": "app"}, "spec": {"replicas": %s, "selector": {"matchLabels": {"app": "%s"}}, "template": %s}}' "$1" "$2" "$1" "$(sleeper "$1" "$3" "${4:-}")"; }
apply() { printf '%s' "$1" | on 1 kubectl apply -f -; }
# How many running pods of an application each host has.
hosts_of() { k get pod -l "app=$1" --no-headers -o custom-columns=:.spec.nodeName,:.status.phase | awk '$2 == "Running" { print $1 }' | sort | uniq -c | awk '{ printf "%s:%s ", $2, $1 }'; }
placed() { [ "$(hosts_of "$1")" = "$2" ]; }

own='{"labelSelector": {"matchLabels": {"app": "%s"}}, "topologyKey": "kubernetes.io/hostname"'
spread=$(printf "$own" spread)
check "a Deployment that is spread" apply "$(deployment spread 6 "\"topologySpreadConstraints\": [$spread, \"maxSkew\": 1, \"whenUnsatisfiable\": \"DoNotSchedule\"}],")"
check "each host has as many of it" eventually 30 placed spread "host1:3 host2:3 "
apart=$(printf "$own" apart)
check "a Deployment whose pods keep apart" apply "$(deployment apart 3 "\"affinity\": {\"podAntiAffinity\": {\"requiredDuringSchedulingIgnoredDuringExecution\": [$apart}]}},")"
check "each host has one of it" eventually 30 placed apart "host1:1 host2:1 "
shows "the third says what it waits for" "0/2 nodes are available: 2 node\(s\) didn't match pod anti-affinity rules" k describe pod -l app=apart
near=$(printf "$own" near)
check "a pod" apply "$(deployment near 1 '"nodeSelector": {"kubernetes.io/hostname": "host2"},')"
check "it is where it has to be" eventually 30 placed near "host2:1 "
check "one that has to be near it" apply "$(deployment beside 1 "\"affinity\": {\"podAffinity\": {\"requiredDuringSchedulingIgnoredDuringExecution\": [$near}]}},")"
check "it is" eventually 30 placed beside "host2:1 "

echo "# a more important pod"
check "a PriorityClass" on 1 kubectl create priorityclass important --value=1000
port=', "ports": [{"containerPort": 8099, "hostPort": 8099}]'
check "a Deployment that takes a port of each host" apply "$(deployment port 2 '' "$port")"
check "each host has one of it" eventually 30 placed port "host1:1 host2:1 "
check "a more important one that needs it as well" apply "$(deployment important 1 '"priorityClassName": "important",' "$port")"
running() { k get pod -l app=important --no-headers | grep -q Running; }
check "it runs" eventually 30 running
shows "another had to go" "Normal +Preempted .*Preempted by pod" on 1 kubectl -n app get events
shows "who waits says why" "2 node\(s\) didn't have free ports for the requested pod ports. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod" k describe pod -l app=port
check "the important one goes" k delete deployment important --wait
check "the other is back" eventually 40 placed port "host1:1 host2:1 "

echo "# a claim waits for its pod"
check "a claim of the default class" apply '{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "app"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}'
shows "it waits" "waiting for first consumer|WaitForFirstConsumer" k describe pvc data
check "a pod with it" apply "$(deployment data 1 '"nodeSelector": {"kubernetes.io/hostname": "host2"}, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],')"
check "the decision binds it" k wait --for=jsonpath='{.status.phase}'=Bound pvc/data --timeout=30s
shows "for the node that was chosen" "host2" k get pvc data -o jsonpath='{.metadata.annotations}'
shows "and the pod has its node" "host2" k get pod -l app=data -o jsonpath='{.items[0].spec.nodeName}'
check "all of it goes" k delete deployment spread apart near beside port data
check "and the claim" k delete pvc data --timeout=60s
check "and the class" on 1 kubectl delete priorityclass important
