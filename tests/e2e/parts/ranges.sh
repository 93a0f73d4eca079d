# A second range of Services' addresses: one is of it, pods and the hosts' own processes reach it, and the range goes again.
# shellcheck shell=bash disable=SC2154
echo "# a second range of Services"
range() { printf 'apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: %s}\nspec: {cidrs: [%s]}\n' "$1" "$2" >"$work/$1.yaml"; }
range more 10.98.0.0/24
# The second host was drained.
check "pods on both hosts" k rollout restart deploy/web
check "all of them" k rollout status deploy/web --timeout=60s
cat >"$work/second.yaml" <<YAML
apiVersion: v1
kind: Service
metadata: {name: second, namespace: app}
spec: {clusterIP: 10.98.0.50, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
YAML
refuses "no address of a range that is not there" "10\.98\.0\.50.*not" on 1 kubectl apply -f "$work/second.yaml"
check "a range" on 1 kubectl apply -f "$work/more.yaml"
check "it is ready" on 1 kubectl wait --for=condition=Ready servicecidr/more --timeout=30s
check "a Service with an address of it" eventually 10 on 1 kubectl apply -f "$work/second.yaml"
for host in 1 2; do
  # Whatever the host's other routes are: it may have none.
  ours() { has "^10\.98\.0\.50 dev mk8s0 " on "$host" ip route get 10.98.0.50; }
  check "host $host has a way of its own to it" eventually 10 ours
  reached() { has "hello from mk8s" on "$host" curl -s -m 5 http://10.98.0.50; }
  check "a process of host $host reaches it" eventually 10 reached
  shows "a pod of host $host reaches it" "hello from mk8s" k exec "$(pod_on host$host)" -- timeout 5 wget -q -O- http://second
  refuses "host $host: what no Service has there is refused" "Connection refused" on "$host" bash -c 'exec 3<>/dev/tcp/10.98.0.51/80'
done

# One that was named by mistake: the hosts' own network.
range mistake 10.9.0.0/24
check "a range that the nodes are in" on 1 kubectl apply -f "$work/mistake.yaml"
warned() { has "ServiceCIDROverlap .*10\.9\.0\.0/24 holds the address 10\.9\.0\." on 1 kubectl get events; }
check "it is warned of" eventually 10 warned
near=$(pod_on host1) far=$(k get pod "$(pod_on host2)" -o 'jsonpath={.status.podIP}')
shows "pods reach pods all the same" "hello from mk8s" k exec "$near" -- timeout 5 wget -q -O- "http://$far:8080"
shows "and hosts hosts" "hello from mk8s" on 1 curl -s -m 5 http://10.9.0.2:30080
check "it goes" on 1 kubectl delete servicecidr mistake --timeout=40s
# A part of it in which no node is: who else is there is still answered.
on 2 ip addr add 10.9.0.200/24 dev eth0
on 2 bash -c 'mkdir -p /run/stranger; echo a stranger >/run/stranger/index.html
  setsid busybox httpd -f -p 10.9.0.200:8099 -h /run/stranger >/dev/null 2>&1 </dev/null & echo $! >/run/stranger.pid'
range stranger 10.9.0.128/25
check "a range in the hosts' network" on 1 kubectl apply -f "$work/stranger.yaml"
check "it is ready" on 1 kubectl wait --for=condition=Ready servicecidr/stranger --timeout=30s
told() { has "ServiceCIDROverlap .*10\.9\.0\.128/25 overlaps 10\.9\.0\.0/24, where host " on 1 kubectl get events; }
check "it is warned of" eventually 10 told
shows "the way there stays the host's own" "^10\.9\.0\.200 dev eth0" on 1 ip route get 10.9.0.200
# The table is another within seconds.
strangers() { has "a stranger" "$@"; }
check "who is there answers the host" eventually 10 strangers on 1 curl -s -m 5 http://10.9.0.200:8099
check "and a pod" eventually 10 strangers k exec "$near" -- timeout 5 wget -q -O- http://10.9.0.200:8099
check "and it goes" on 1 kubectl delete servicecidr stranger --timeout=40s
on 2 bash -c 'kill "$(cat /run/stranger.pid)"; rm -r /run/stranger /run/stranger.pid; ip addr del 10.9.0.200/24 dev eth0'

check "the range is to go" on 1 kubectl delete servicecidr more --wait=false
check "it waits for the Service" on 1 kubectl wait --for=condition=Ready=False servicecidr/more --timeout=30s
shows "which is reached" "hello from mk8s" on 1 curl -s -m 5 http://10.98.0.50
check "the Service goes" k delete svc second
check "and the range with it" on 1 kubectl wait --for=delete servicecidr/more --timeout=40s
for host in 1 2; do
  left() { ! has "^10\.98\." on "$host" ip route; }
  check "and host $host's way to it" eventually 10 left
done
