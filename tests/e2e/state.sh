#!/usr/bin/env bash
# What a host is like, for a comparison: files (outside of /proc, /sys, and what containerd keeps), mounts, links, addresses,
# routes, packet filter rules, cgroups, processes, the sysctls that mk8s may write, and containerd's objects by its API.
# Runs on a host of hack/hosts.sh, which has the machine's files but for the directories that are its own. What can't be looked
# at fails it: two states that say nothing are not the same.
set -euo pipefail
export LC_ALL=C
section() { sed "s|^|$1 |"; }

# What settles by itself has settled: addresses are checked for doubles for a second, and containerd collects what nothing
# refers to any more after the last call that let go of it (a lease that ends waits for that).
for _ in $(seq 50); do
  if ! ip -6 address | grep -q tentative; then break; fi
  sleep 0.1
done
namespaces=$(ctr namespaces ls -q)
for namespace in $namespaces; do
  ctr -n "$namespace" leases create --id state-of-the-host >/dev/null
  ctr -n "$namespace" leases delete --sync state-of-the-host >/dev/null
done

# /root is laid over the machine's, where others work: only what mk8s and kubectl's files may be in. kubectl keeps its cache.
directories=()
for directory in /etc /run /usr/local /var/log /var/lib/kubelet /var/lib/mk8s /var/lib/cni /opt/cni /root/.kube; do
  if [ -e $directory ]; then directories+=("$directory"); fi
done
# Files of others come and go while it looks.
find "${directories[@]}" -ignore_readdir_race \
  \( -path /run/udev -o -path /run/systemd -o -path /run/log -o -path /var/log/journal -o -path /var/log/wtmp -o -path /root/.kube/cache -o -path /run/containerd -o -path /var/log/containerd.log -o -path /usr/local/bin/mk8s \) -prune -o \
  \( -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %s %l\n' \) | grep -vx '/root/.kube d .*' | sort | section file
# Root, place and options of each, and what it is of. Those in /tmp are of the machine's other tests.
awk '{ for (at = 7; $at != "-";) at++; print $4, $5, $6, $(at + 1), $(at + 2) }' /proc/self/mountinfo | grep -vE ' /(run/containerd|var/lib/containerd|tmp/)' | sort | section mount
ip -o link | sed -E 's/^[0-9]+: //; s/@if[0-9]+//; s/ (state|qlen|link-netnsid) [^ ]+//g' | sort | section link
ip -o address | sed -E 's/^[0-9]+: //' | sort | section address
{ ip route show table all; ip rule; } | sed 's/ *$//' | sort | section route
nft list ruleset | sed -E 's/packets [0-9]+ bytes [0-9]+//' | section nft
for command in iptables-save ip6tables-save; do
  $command | sed -E '/^#/d; s/\[[0-9]+:[0-9]+\]//' | section $command
done
find /sys/fs/cgroup -type d | sort | section cgroup
ps -e -o comm= | grep -vxE 'kworker/.*|.udev-worker.|bash|ps|sort|sed|grep|sleep|nsenter|timeout' | sort | section process
echo "net/ipv4/ip_forward $(cat /proc/sys/net/ipv4/ip_forward)" | section sysctl
for link in /proc/sys/net/ipv4/conf/*; do
  for name in route_localnet send_redirects rp_filter forwarding; do
    value=$(cat "$link/$name")
    echo "${link#/proc/sys/}/$name $value"
  done
done | section sysctl
for namespace in $namespaces; do
  for kind in containers tasks images content snapshots leases; do
    ctr -n "$namespace" $kind ls | tail -n +2 | awk '{ print $1 }' | sort | section "$namespace $kind"
  done
done
