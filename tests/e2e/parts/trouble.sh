# mk8s dies, containerd dies, the host reboots.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# mk8s dies"
before=$(k get pod -l app=web -o 'jsonpath={.items[*].status.containerStatuses[*].containerID}')
check "the application has containers" grep -q containerd:// <<<"$before"
check "a label is taken away" on 1 kubectl label nodes host1 node-role.kubernetes.io/control-plane-
pid=$(mk8s_pid)
check "kill -9" on 1 kill -9 "$pid"
shows "pods serve without mk8s" "hello from mk8s" on 1 curl -s -m 5 "http://$address"
check "start" on 1 mk8s start
shows "the same containers run" "^$before$" k get pod -l app=web -o 'jsonpath={.items[*].status.containerStatuses[*].containerID}'
lacks "the label stays away" "control-plane" on 1 kubectl get nodes host1 --no-headers
check "stop" on 1 mk8s stop
shows "pods serve while it is stopped" "hello from mk8s" on 1 curl -s -m 5 "http://$address"
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

echo "# the host reboots"
# reboot HOST: a power-off, the same disk again, and mk8s as its init system would start it.
reboot() { "$hosts" kill "$1" && "$hosts" start "$1" && on "$1" mk8s start; }
# Each pod of the application with its uid and how often its container was started anew, plus N.
restarts() {
  k get pod -l app=web -o 'jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{"\n"}{end}' |
    awk -v more="$1" '{ print $1, $2, $3 + more }' | sort
}
all_ready() { [ "$(k get deploy web -o 'jsonpath={.status.readyReplicas}')" = "$(k get deploy web -o 'jsonpath={.spec.replicas}')" ]; }
expected=$(restarts 1)
check "the application has pods" test -n "$expected"
restarted() { [ "$(restarts 0)" = "$expected" ] && all_ready; }
check "reboot" reboot 1
check "the same pods run again, restarted once" eventually 60 restarted
shows "with their uids and counts" "^0$" bash -c "diff <(echo '$expected') <(echo '$(restarts 0)'); echo \$?"
shows "the Service answers" "hello from mk8s" on 1 curl -s -m 5 --retry 5 --retry-connrefused "http://$address"
pod=$(pod_on host1)
shows "a pod finds it by name" "hello from mk8s" k exec "$pod" -- timeout 5 wget -q -O- http://web
shows "the logs of before" "^serving" k logs --previous "$pod"
