#!/usr/bin/env bash
# Several hosts on one machine, for tests: each has its own network, mount, pid, uts, ipc and cgroup namespace, private
# /run, /etc, /root, /usr/local, /var/log and state directories, and a containerd on the default socket.
#   hosts.sh up N            N hosts on one LAN; host I is 10.9.0.I
#   hosts.sh exec I CMD…     runs a command there
#   hosts.sh kill I          a power-off: everything of the host dies at once
#   hosts.sh start I         switches it on again, with the disk that it had
#   hosts.sh down            ends all hosts
set -euo pipefail
self=$(readlink -f "$0")
# Two sets of hosts on one machine need two names.
prefix=${MK8S_HOSTS_PREFIX:-mk8sh}
dir=${MK8S_HOSTS_DIR:-/var/tmp/$prefix}
lan=10.9.0
v1_controllers="cpu cpuacct cpuset memory devices freezer blkio pids"

pid_of() { cut -d ' ' -f 1 "$dir/$1/pid"; }
# When a process began, and in which run of the machine: what tells it from a later one of its number.
birth() { echo "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20)@$(cat /proc/sys/kernel/random/boot_id)"; }
on_v2() { [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; }

# The cgroup directories of a host, on whichever hierarchies the machine has.
cgroups() {
  if on_v2; then echo "/sys/fs/cgroup/$prefix/$1"; return; fi
  for controller in $v1_controllers systemd; do
    if mountpoint -q "/sys/fs/cgroup/$controller"; then echo "/sys/fs/cgroup/$controller/$prefix/$1"; fi
  done
}

enter_cgroups() {
  local group parent file
  for group in $(cgroups "$1"); do
    mkdir -p "$group"
    if [[ $group = */cpuset/* ]]; then
      for parent in "${group%/*}" "$group"; do
        for file in cpuset.cpus cpuset.mems; do cat "$(dirname "$parent")/$file" >"$parent/$file"; done
      done
    fi
    if on_v2; then
      for parent in /sys/fs/cgroup "/sys/fs/cgroup/$prefix"; do
        for file in $(cat "$parent/cgroup.controllers"); do echo "+$file" >"$parent/cgroup.subtree_control" || true; done
      done 2>/dev/null
    fi
    # A host's processes stand in a leaf, since cgroup v2 wants none beside children.
    if [ -d "$group/init" ]; then group=$group/init; fi
    echo "$BASHPID" >"$group/cgroup.procs"
  done
}

# Runs as process 1 of the host.
become_host() {
  local host=$1 home=$dir/$1 name controller first_boot=
  [ -d "$dir/$1/up" ] || first_boot=yes
  mount --make-rprivate /
  hostname "host$host"
  mount -t proc proc /proc
  umount -l -R /run/netns 2>/dev/null || true
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock
  for name in etc root usr/local; do
    mkdir -p "$home/up/$name" "$home/scratch/$name"
    mount -t overlay overlay -o "lowerdir=/$name,upperdir=$home/up/$name,workdir=$home/scratch/$name" "/$name"
  done
  for name in lib/containerd lib/kubelet lib/mk8s log; do
    mkdir -p "$home/var/$name" "/var/$name"
    mount --bind "$home/var/$name" "/var/$name"
  done
  # A cluster on the machine itself is none of the host's.
  if [ "$first_boot" ]; then rm -rf /root/.kube /etc/kubernetes /etc/mk8s /usr/local/bin/mk8s; fi
  echo "127.0.0.1 localhost host$host" >/etc/hosts
  echo "host$host" >/etc/hostname
  if on_v2; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /sys/fs/cgroup/init
    while read -r name; do echo "$name" >/sys/fs/cgroup/init/cgroup.procs || true; done </sys/fs/cgroup/cgroup.procs 2>/dev/null
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
      echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
    done
  else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controller in $v1_controllers; do
      mkdir "/sys/fs/cgroup/$controller"
      mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" 2>/dev/null || rmdir "/sys/fs/cgroup/$controller"
    done
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  fi
  ip link set lo up
  ip addr add "$lan.$host/24" dev eth0
  ip link set eth0 up
  ip route add default via "$lan.254"
  rm -f /etc/containerd/config.toml
  containerd >/var/log/containerd.log 2>&1 &
  while [ ! -S /run/containerd/containerd.sock ]; do sleep 0.02; done
  touch "$home/ready"
  trap 'exit 0' TERM
  # Process 1 reaps what is orphaned in its namespace.
  while :; do sleep 1000 & wait -n || true; done
}

start() {
  local host=$1 home=$dir/$1 tries=0
  mkdir -p "$home"
  rm -f "$home/ready"
  ip netns add "$prefix$host"
  ip -n "$prefix-lan" link add "v$host" type veth peer name eth0 address "$(printf "02:00:0a:09:00:%02x" "$host")" netns "$prefix$host"
  ip -n "$prefix-lan" link set "v$host" master lan up
  (
    enter_cgroups "$host"
    cd /
    exec setsid ip netns exec "$prefix$host" unshare -m -u -i -p -C -f --kill-child \
      bash "$self" become "$host" </dev/null >"$home/init.log" 2>&1
  ) &
  local outer=$!
  until [ -f "$home/ready" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 1000 ]; then echo "host $host does not start:" >&2; cat "$home/init.log" >&2; return 1; fi
    sleep 0.02
  done
  local pid
  pid=$(pgrep -P "$outer")
  echo "$pid $(birth "$pid")" >"$home/pid"
}

power_off() {
  local host=$1 group pid born
  if [ -f "$dir/$host/pid" ]; then
    read -r pid born <"$dir/$host/pid" || true
    # An earlier form of the file names no birth: then what the process is called tells.
    if [ -z "$born" ] && grep -qz "^become$" "/proc/$pid/cmdline" 2>/dev/null; then born=$(birth "$pid"); fi
    # The file outlives a reboot, and then the number is a stranger's.
    if [ -n "$pid" ] && [ "$(birth "$pid")" = "$born" ]; then
      kill -9 "$pid" 2>/dev/null || true
      while [ "$(birth "$pid")" = "$born" ]; do sleep 0.01; done
    fi
    rm -f "$dir/$host/pid"
  fi
  ip netns del "$prefix$host" 2>/dev/null || true
  ip -n "$prefix-lan" link del "v$host" 2>/dev/null || true
  for group in $(cgroups "$host"); do
    # The kernel lets go of the last dead processes a moment later.
    for _ in $(seq 50); do
      find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
      [ -d "$group" ] || break
      sleep 0.02
    done
  done
}

case ${1:-} in
  up)
    mkdir -p "$dir"
    ip netns add "$prefix-lan"
    ip -n "$prefix-lan" link set lo up
    ip -n "$prefix-lan" link add lan type bridge
    ip -n "$prefix-lan" addr add "$lan.254/24" dev lan
    ip -n "$prefix-lan" link set lan up
    for host in $(seq "$2"); do start "$host"; done
    ;;
  become) become_host "$2" ;;
  exec)
    host=$2
    shift 2
    enter_cgroups "$host"
    exec nsenter -t "$(pid_of "$host")" -m -n -u -i -p -C -- "$@"
    ;;
  kill) power_off "$2" ;;
  start) start "$2" ;;
  down)
    for home in "$dir"/[0-9]*; do [ -d "$home" ] && power_off "${home##*/}"; done
    ip netns del "$prefix-lan" 2>/dev/null || true
    rm -rf "$dir"
    ;;
  *)
    sed -n '2,9p' "$self"
    exit 2
    ;;
esac
