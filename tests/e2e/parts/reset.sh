# Reset leaves nothing of mk8s behind.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# the end"
check "delete the namespace" on 1 kubectl delete namespace app --timeout=60s
shows "reset without an answer is refused" "--force" on 2 mk8s reset </dev/null
shows "reset of the worker" "kubectl delete node host2" on 2 mk8s reset --force
check "reset of the master" on 1 "$work/mk8s" reset --force
for host in 1 2; do
  lacks "host $host: no tables" "mk8s" on $host nft list tables
  lacks "host $host: no links" "mk8s" on $host ip link
  lacks "host $host: no routes" "10\.(244|96)\." on $host ip route
  lacks "host $host: no mounts" "/var/lib/kubelet/|/var/lib/mk8s/|/run/netns/mk8s" on $host cat /proc/self/mountinfo
  lacks "host $host: no containers" "." on $host ctr -n k8s.io containers ls -q
  lacks "host $host: no kubeconfig" "admin.conf" on $host ls /etc/kubernetes
  lacks "host $host: no hole in the firewall" "mk8s" on $host iptables-save
  lacks "host $host: no cgroups" "kubepods" on $host sh -c "find /sys/fs/cgroup -maxdepth 2 -name '*kubepods*'"
  shows "host $host: the imported image stays" "mk8s.local/busybox:1" on $host ctr -n k8s.io images ls -q
done
