# Reset leaves nothing of mk8s behind.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# the end"
check "delete the namespace" on 1 kubectl delete namespace app --timeout=60s
refuses "reset without an answer is refused" "--force" on 2 mk8s reset </dev/null
shows "reset of the worker" "kubectl delete node host2" on 2 mk8s reset --force
check "reset of the master" on 1 "$work/mk8s" reset --force
for host in 1 2; do
  lacks "host $host: no containers" "." on $host ctr -n k8s.io containers ls -q
  shows "host $host: the imported image stays" "mk8s.local/busybox:1" on $host ctr -n k8s.io images ls -q
  absent $host /var/lib/mk8s/settings.json /etc/kubernetes /run/mk8s /var/log/mk8s.log /root/.kube/config
  same "host $host is as it was before" "$work/state-$host" $host
done
refuses "a second reset has nothing to do" "was not set up" on 1 "$work/mk8s" reset --force
