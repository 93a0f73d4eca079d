# What is killed in the middle, or meets a containerd that is down, is done again from there and leaves nothing.
# shellcheck shell=bash disable=SC2154,SC2016
mk8s=$work/mk8s
start_containerd() {
  on "$1" sh -c 'setsid containerd >>/var/log/containerd.log 2>&1 </dev/null &'
  eventually 20 on "$1" ctr version >/dev/null
}
stop_containerd() { on "$1" sh -c 'pid=$(pgrep -x containerd) && kill -9 $pid && while [ -d /proc/$pid ]; do sleep 0.02; done'; }
# killed_at HOST LINE VERB ARGUMENT…: kill -9 as soon as it says LINE.
killed_at() {
  on "$1" bash -c 'wanted=$1; shift
    exec {said}< <(exec "$0" "$@" 2>&1); pid=$!
    while read -r line <&$said; do
      if [[ $line = *"$wanted"* ]]; then kill -9 $pid; while [ -d /proc/$pid ]; do sleep 0.02; done; exit 0; fi
      echo "$line"
    done
    exit 1' "$mk8s" "${@:2}"
}
is_set_up() { on "$1" test -e /var/lib/mk8s/settings.json; }
application() {
  check "an application" on 1 kubectl apply -f "$here/app.yaml"
  check "it runs" k rollout status deploy/web --timeout=90s
}

echo "# a reset that meets no containerd"
for host in 1 2; do remember "$work/state-cut-$host" $host; done
check "init" on 1 "$mk8s" init
application
check "containerd ends" stop_containerd 1
refuses "a host that can't be looked at is like no other" "containerd.sock" on 1 bash "$here/state.sh"
no_containerd="^error: cannot talk to containerd at /run/containerd/containerd.sock: .*start containerd, then .mk8s reset. again"
refuses "reset refuses" "$no_containerd" on 1 mk8s reset --force
on 1 mv /run/containerd/containerd.sock /run/containerd/away
refuses "so it does without the socket" "$no_containerd" on 1 mk8s reset --force
on 1 rm /run/containerd/away
check "and keeps what it can be done again with" on 1 ls /var/lib/mk8s/settings.json /var/lib/mk8s/db /var/lib/mk8s/pki/ca.key /etc/kubernetes/admin.conf
check "containerd starts" start_containerd 1
# A container whose directory of pipes is a mount point.
held=$(on 1 ctr -n k8s.io containers ls -q 'labels."mk8s.io/kind"==container' | head -n 1)
on 1 sh -c 'mkdir -p "$0" && mount -t tmpfs tmpfs "$0"' "/run/mk8s/io/$held"
refuses "a container that can't be removed is told" "^error: cannot remove what runs in containerd: 1 of [0-9]+ containers stay: .*$held.* again" on 1 mk8s reset --force
shows "and keeps none of the others" "^$held$" on 1 ctr -n k8s.io containers ls -q
shows "it alone" "^1$" on 1 sh -c 'ctr -n k8s.io containers ls -q | wc -l'
on 1 umount "/run/mk8s/io/$held"
check "reset" on 1 mk8s reset --force
same "the host is as it was" "$work/state-cut-1" 1

echo "# containerd is gone for good"
check "init" on 1 "$mk8s" init
check "containerd ends" stop_containerd 1
program=$(on 1 sh -c 'readlink -f "$(command -v containerd)"')
on 1 sh -c 'rm /run/containerd/containerd.sock && mount --bind /dev/null "$0"' "$program"
shows "reset says what it leaves" "containerd is not on this host any more" on 1 mk8s reset --force
on 1 umount "$program"
check "containerd is there again" start_containerd 1
check "which is its image" on 1 ctr -n k8s.io images rm --sync mk8s.io/pause:1
same "and nothing else" "$work/state-cut-1" 1

echo "# a reset that is killed"
# What an init leaves that was killed while it installed the program.
check "half a program" on 1 touch /usr/local/bin/mk8s.fresh
for line in "Stopping mk8s" "Removing pods" "Removing the pod network" "Deleting contents"; do
  check "init" on 1 "$mk8s" init
  [ "$line" = "Stopping mk8s" ] || application
  check "reset is killed at: $line" killed_at 1 "$line" reset --force
  # The last one may have ended before.
  if is_set_up 1; then check "reset again" on 1 mk8s reset --force; fi
  same "the host is as it was" "$work/state-cut-1" 1
done

echo "# a join that is killed"
check "init" on 1 "$mk8s" init
join=$(on 1 mk8s token create --print-join-command)
# What comes next, and at which line the join is killed.
while read -r next line <&3; do
  # shellcheck disable=SC2086
  check "join is killed at: $line" killed_at 2 "$line" ${join#mk8s }
  if [ "$next" = join ]; then
    # shellcheck disable=SC2086
    shows "join again" "This node has joined the cluster" on 2 "$mk8s" ${join#mk8s }
    shows "the node is Ready" "host2 +Ready" on 1 kubectl get nodes
  fi
  if is_set_up 2; then
    check "reset" on 2 "$mk8s" reset --force
  else
    refuses "there is nothing to reset yet" "was not set up" on 2 "$mk8s" reset --force
    check "but the lock of who sets up" on 2 sh -c 'rm /run/mk8s/turn && rmdir /run/mk8s'
  fi
  same "the host is as it was" "$work/state-cut-2" 2
  on 1 kubectl delete node host2 --ignore-not-found >/dev/null
done 3<<'TABLE'
reset Reading configuration
join Reading configuration
reset Getting a certificate
join Getting a certificate
reset Starting the node agent
join Starting the node agent
TABLE
check "reset of the master" on 1 mk8s reset --force

echo "# a service that is started again and again"
on 1 tee /usr/local/bin/systemctl >/dev/null <<'SYSTEMCTL'
#!/bin/bash
# What mk8s asks of systemd: one service, started anew a second after each of its ends.
loop=/run/systemd/loop unit=/etc/systemd/system/mk8s.service
runs() { [ -e $loop ] && [ -d "/proc/$(cat $loop)" ]; }
stop() {
  runs || return 0
  main=$(pgrep -P "$(cat $loop)" -x mk8s)
  kill -9 "$(cat $loop)"
  if [ "$main" ]; then kill "$main"; while [ -d "/proc/$main" ]; do sleep 0.05; done; fi
  rm $loop
}
case $* in
  "restart mk8s")
    stop
    setsid bash -c 'echo $$ >"$0"; while :; do $1; sleep 1; done' $loop "$(sed -n 's/^ExecStart=//p' $unit)" >>/var/log/mk8s.log 2>&1 </dev/null &
    until [ -s $loop ]; do sleep 0.05; done ;;
  "stop mk8s") stop ;;
  "show --property=ActiveState mk8s") if runs; then echo ActiveState=activating; else echo ActiveState=inactive; fi ;;
  "show --property=ActiveState,NRestarts mk8s") if runs; then echo ActiveState=active; else echo ActiveState=inactive; fi; echo NRestarts=0 ;;
  daemon-reload | "enable --quiet mk8s" | "disable --quiet mk8s" | "reset-failed mk8s") ;;
  *) echo "systemctl $* is not known" >&2; exit 1 ;;
esac
SYSTEMCTL
on 1 sh -c 'chmod 755 /usr/local/bin/systemctl; mkdir -p /run/systemd/system'
remember "$work/state-unit" 1
# With a data directory whose name systemd would read as two.
check "init" on 1 "$mk8s" init --data-dir "/var/lib/mk8s/a %home"
check "stop" on 1 mk8s stop
check "start" on 1 mk8s start
check "stop" on 1 mk8s stop
# As an init leaves it that is killed between the settings and what says where they are.
on 1 sh -c 'rm /etc/kubernetes/mk8s-data-dir "$0/settings.copy.json"; sed -i "s/\"unfinished\": false/\"unfinished\": true/" "$0/settings.json"' "/var/lib/mk8s/a %home"
shows "init goes on" "finishing it" on 1 "$mk8s" init --data-dir "/var/lib/mk8s/a %home"
check "stop" on 1 mk8s stop
on 1 bash -c 'setsid busybox nc -l -p 6443 >/dev/null 2>&1 </dev/null & echo $! >/run/taken; until ss -tln | grep -q ":6443 "; do sleep 0.05; done'
on 1 systemctl restart mk8s
between() { ! on 1 pgrep -x mk8s >/dev/null; }
ends_again() { [ "$(on 1 grep -c "^error: .*6443" /var/log/mk8s.log)" -ge 2 ]; }
check "it ends again and again" eventually 20 ends_again
check "nobody runs between two starts" eventually 10 between
check "reset" on 1 mk8s reset --force
shows "the service is stopped" "=inactive" on 1 systemctl show --property=ActiveState mk8s
check "the port is free" on 1 sh -c 'kill "$(cat /run/taken)"; rm /run/taken'
sleep 2
same "nothing starts after that" "$work/state-unit" 1
on 1 rm -r /usr/local/bin/systemctl /run/systemd/system
