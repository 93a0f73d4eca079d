# A second host.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# a second host"
# A firewall of somebody else's that forwards nothing, as Docker and ufw leave one. With iptables on nftables each chain
# that was ever asked for stays, empty; a firewall has both.
firewall() { on 2 sh -c 'iptables -P FORWARD DROP && iptables -P INPUT ACCEPT'; }
check "a firewall" firewall
remember "$work/state-2" 2
join=$(on 1 mk8s token create --print-join-command)
shows "token list" "^[a-z0-9]{6}\.[a-z0-9]{16} .*authentication,signing" on 1 mk8s token list
token=$(on 1 mk8s token generate)
short=$(on 1 mk8s token create "$token" --ttl 1s --print-join-command)
gone() { local tokens; tokens=$(on 1 mk8s token list) && ! grep -qF "$token" <<<"$tokens"; }
check "an expired token is removed" eventually 30 gone
# shellcheck disable=SC2086
refuses "join refuses an expired token" "^error: token ${token%.*} is unknown .*expired" on 2 "$work/mk8s" ${short#mk8s }
# shellcheck disable=SC2086
refuses "join refuses the name of a Ready node" "already exists" on 2 "$work/mk8s" ${join#mk8s } --node-name host1
# shellcheck disable=SC2086
refuses "join refuses a host with a route to the pods' range" "RouteOverlap" on 2 sh -c "ip route add 10.244.7.0/24 dev lo; $work/mk8s ${join#mk8s }; status=\$?; ip route del 10.244.7.0/24; exit \$status"
bad=${join/sha256:?/sha256:z}
# shellcheck disable=SC2086
refuses "join refuses another CA" "has the hash sha256:[0-9a-f]{64}, none of --discovery-token-ca-cert-hash" on 2 "$work/mk8s" ${bad#mk8s }
lacks "a refused join changes nothing" "settings|pki|bin/mk8s|table .*mk8s|mk8s[.-]" traces 2
# shellcheck disable=SC2086
shows "join" "This node has joined the cluster" on 2 "$work/mk8s" ${join#mk8s }
shows "join again says that it runs" "runs" on 2 mk8s join
shows "status of a worker" "ready: +yes" on 2 mk8s status
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
other=$(other_on host2 "$far")
shows "pod to pod on the host whose firewall forwards nothing" "hello from mk8s" k exec "$far" -- timeout 5 wget -q -O- "http://$other:8080"
shows "and to that host's pods from the other" "hello from mk8s" on 1 curl -s -m 5 "http://$there:8080"
check "cordon" on 1 kubectl cordon host2
check "drain" on 1 kubectl drain host2 --force --ignore-daemonsets --timeout=60s
check "uncordon" on 1 kubectl uncordon host2
check "taint" on 1 kubectl taint nodes host2 a=b:NoSchedule
check "taint removed" on 1 kubectl taint nodes host2 a-
