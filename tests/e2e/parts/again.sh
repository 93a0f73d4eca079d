# A second life of host 1: inits that are interrupted or meet each other, a firewall that forwards nothing, a taint.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# an init that is killed"
for delay in 0.1 0.3 0.6 1.2; do
  on 1 bash -c '"$0" init >/dev/null 2>&1 & sleep "$1"; kill -9 $!' "$work/mk8s" "$delay"
  shows "init after one that was killed after $delay s" "initialized successfully|runs" on 1 "$work/mk8s" init
  shows "the node is Ready" "host1 +Ready" on 1 kubectl get nodes
  shows "hosts may join" "kind: *Config|server: https://10.9.0.1:6443" on 1 kubectl get configmap -n kube-public cluster-info -o yaml
  shows "with a token" "authentication,signing" on 1 mk8s token list
  shows "and the cluster's settings" "podCidr" on 1 kubectl get configmap -n kube-system mk8s-config -o yaml
  check "reset" on 1 sh -c "echo y | $work/mk8s reset"
done

echo "# two inits at once, on a host whose firewall forwards nothing, with a taint"
on 1 iptables -P FORWARD DROP
taint=node-role.kubernetes.io/master
on 1 "$work/mk8s" init --register-with-taints=$taint:NoSchedule >"$work/one.log" 2>&1 &
one=$!
on 1 "$work/mk8s" init --register-with-taints=$taint:NoSchedule >"$work/two.log" 2>&1 &
two=$!
wait $one; ended=$?; check "the one ends well" test $ended = 0
wait $two; ended=$?; check "the other ends well" test $ended = 0
shows "one of them set the host up" "^1$" bash -c "cat $work/one.log $work/two.log | grep -c 'initialized successfully'"
shows "one of them says that it runs" "mk8s runs" cat "$work/one.log" "$work/two.log"
check "apply" on 1 kubectl apply -f "$here/app.yaml"
pending() { has Pending k get pod -l app=web --no-headers; }
check "nothing is scheduled on the tainted node" eventually 10 pending
shows "the events say why" "untolerated taint" k events
check "remove the taint" on 1 kubectl taint nodes host1 $taint:NoSchedule-
check "the application runs" k rollout status deploy/web --timeout=60s
pod=$(pod_on host1)
other=$(other_on host1 "$pod")
shows "pod to pod" "hello from mk8s" k exec "$pod" -- timeout 5 wget -q -O- "http://$other:8080"
shows "pod to Service by name" "hello from mk8s" k exec "$pod" -- timeout 5 wget -q -O- http://web
shows "the NodePort from another host" "hello from mk8s" on 2 curl -s -m 5 http://10.9.0.1:30080
shows "a pod reaches another host" "1 packets received" k exec "$pod" -- ping -c 1 -W 3 10.9.0.2
check "reset with pods running" on 1 "$work/mk8s" reset --force
lacks "no containers" "." on 1 ctr -n k8s.io containers ls -q
lacks "no hole in the firewall" "mk8s|10\.244" on 1 iptables-save
shows "the firewall's own policy" "FORWARD DROP" on 1 iptables-save

echo "# an init by sudo, a lost CA, and a reset by root"
# Whose home is on the host's own disk.
on 1 bash -c 'useradd --home-dir /usr/local/sam --create-home sam; mkdir -p /etc/kubernetes/manifests /var/lib/kubelet/theirs'
remember "$work/state-sam" 1
check "init" on 1 env SUDO_USER=sam "$work/mk8s" init
shows "the user's copy is the user's" "^sam 600 /usr/local/sam/.kube/config$" on 1 stat -c "%U %a %n" /usr/local/sam/.kube/config
check "stop" on 1 mk8s stop
check "the CA's certificate is lost" on 1 mv /var/lib/mk8s/pki/ca.crt /run/ca.crt
hash=$(on 1 sha256sum /var/lib/mk8s/pki/ca.key)
for verb in start init; do
  refuses "$verb makes no other CA" "^error: /var/lib/mk8s/pki/ca.crt is missing" on 1 mk8s $verb
done
refuses "nor does the service" "^error: /var/lib/mk8s/pki/ca.crt is missing" on 1 mk8s run
absent 1 /var/lib/mk8s/pki/ca.crt
check "its key is as it was" test "$hash" = "$(on 1 sha256sum /var/lib/mk8s/pki/ca.key)"
check "the certificate is found again" on 1 mv /run/ca.crt /var/lib/mk8s/pki/ca.crt
on 1 sh -c 'mv /etc/kubernetes/admin.conf /run/admin.conf; echo "a: [" >/etc/kubernetes/admin.conf'
refuses "a start that fails with the store open" "^error: .*admin.conf" on 1 mk8s run
refuses "closes it" "the store is closed" on 1 mk8s run
on 1 mv /run/admin.conf /etc/kubernetes/admin.conf
check "a lost admin.conf is a leaf" on 1 sh -c "rm /etc/kubernetes/admin.conf; mk8s start && kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes"
check "reset by root" on 1 "$work/mk8s" reset --force
same "the host is as it was, the user's home included" "$work/state-sam" 1
on 1 bash -c 'userdel --remove sam 2>/dev/null; rm -r /etc/kubernetes /var/lib/kubelet/theirs'

echo "# a node under pressure"
check "init" on 1 "$work/mk8s" init --eviction-hard "nodefs.available<99%"
shows "it says so" "DiskPressure +True" on 1 kubectl describe node host1
shows "and takes no pods" "disk-pressure:NoSchedule" on 1 kubectl describe node host1
check "reset" on 1 "$work/mk8s" reset --force
