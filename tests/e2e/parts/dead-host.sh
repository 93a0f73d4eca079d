# Upstream's 50 s after the last heartbeat the node is NotReady, its endpoints leave the Service, its pods are replaced.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# the dead host is noticed"
not_ready() { has " NotReady" on 1 kubectl get nodes host2 --no-headers; }
check "the node is NotReady" eventually 75 not_ready
echo "        $((SECONDS - died)) s after its death"
shows "it is tainted" "node.kubernetes.io/unreachable:NoExecute" on 1 kubectl describe node host2
# The ready endpoints alone: those of deleted pods stay, as not ready, until their node says that they ended.
routed() { k get endpointslices -l kubernetes.io/service-name=web -o 'jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{"\n"}{end}'; }
left() { local ready; ready=$(routed) && ! grep -qxF "$lost" <<<"$ready"; }
check "its endpoints leave the Service" eventually 20 left
replaced() { [ "$(pods_on host1 | wc -l)" = 6 ]; }
check "its pods are replaced" eventually 60 replaced
check "all replicas are available" k rollout status deploy/web --timeout=60s
answers_always() { for _ in $(seq 20); do has "hello from mk8s" on 1 curl -s -m 2 "http://$address" || return 1; done; }
check "the Service answers each time" answers_always

echo "# and comes back"
check "its mk8s starts" reboot 2
# Its firewall was no more than memory.
firewall
shows "the node is Ready again" "host2 +Ready" on 1 kubectl get nodes
buried() { local pods; pods=$(k get pod --no-headers) && ! grep -q Terminating <<<"$pods"; }
check "what was evicted there is gone" eventually 30 buried
lacks "nothing of it runs there" "web" on 2 sh -c 'ctr -n k8s.io tasks ls -q | xargs -r -n 1 ctr -n k8s.io containers info'
