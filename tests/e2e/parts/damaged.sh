# Settings and secrets that are damaged, lost or half written: what to do is said, and reset leaves nothing.
# shellcheck shell=bash disable=SC2154,SC2016
mk8s=$work/mk8s
settings=/var/lib/mk8s/settings.json
for host in 1 2; do remember "$work/state-whole-$host" $host; done

echo "# damaged settings"
check "init" on 1 "$mk8s" init
check "an application" on 1 kubectl apply -f "$here/app.yaml"
check "it runs" k rollout status deploy/web --timeout=90s
for damage in "truncate -s 60 $settings" "truncate -s 0 $settings" "rm $settings" "rm $settings; mkfifo $settings"; do
  check "$damage" on 1 sh -c "$damage"
  for verb in status start init; do
    refuses "$verb says what to do" "^error: $settings is (damaged|missing).*cp -p .*mk8s reset" on 1 mk8s $verb
  done
  check "the copy is put back" on 1 sh -c "rm -f $settings; cp -p /var/lib/mk8s/settings.copy.json $settings"
  shows "all is well" "ready: +yes" on 1 mk8s status
done
on 1 sh -c "echo '{\"version\":99}' >$settings"
refuses "a later version is named" "version 99" on 1 mk8s status
on 1 truncate -s 60 $settings
shows "stop goes by the copy" "mk8s is stopped" on 1 mk8s stop
# What a kill in the middle of each write leaves, where a file is replaced.
on 1 sh -c 'for file in /etc/kubernetes/admin.conf /var/lib/mk8s/settings.json /var/lib/mk8s/settings.copy.json /var/lib/mk8s/pki/ca.key /root/.kube/config; do
  cp -p $file $(dirname $file)/.mk8s-new.$(basename $file)
done'
check "reset goes by the copy" on 1 mk8s reset --force
same "the host is as it was" "$work/state-whole-1" 1

echo "# a damaged key"
check "init" on 1 "$mk8s" init
check "stop" on 1 mk8s stop
for file in ca.crt ca.key sa.key; do
  on 1 sh -c 'cp -p $0 /run/kept && echo garbage >$0' /var/lib/mk8s/pki/$file
  refuses "start names $file and what to do" "/var/lib/mk8s/pki/$file is damaged .*backup.*mk8s reset" on 1 mk8s start
  on 1 sh -c 'cp -p /run/kept $0 && rm /run/kept' /var/lib/mk8s/pki/$file
done
on 1 sh -c 'echo garbage >/etc/kubernetes/admin.conf'
refuses "so it does with admin.conf" "admin.conf is damaged .*makes it anew" on 1 mk8s start
on 1 rm /etc/kubernetes/admin.conf
shows "start" "host1 is Ready" on 1 mk8s start

echo "# a damaged database"
check "an object" on 1 kubectl create configmap kept --from-literal=a=b
check "stop" on 1 mk8s stop
check "a copy" on 1 cp -a /var/lib/mk8s/db /run/kept
# All but the beginning: what lies where in it, and whether it is in use, depends on what was written before.
for damage in "head -c \$((\$(stat -c %s db/db) - 16384)) /dev/urandom | dd of=db/db bs=1k seek=16 conv=notrunc status=none" "truncate -s 200000 db/db" ": >db/db" "rm -r db"; do
  on 1 sh -c "cd /var/lib/mk8s && $damage"
  refuses "start after $damage" "/var/lib/mk8s/db .*put a copy of the folder back.*mk8s reset" on 1 mk8s start
  check "the copy is put back" on 1 sh -c 'rm -rf /var/lib/mk8s/db && cp -a /run/kept /var/lib/mk8s/db'
done
shows "start" "host1 is Ready" on 1 mk8s start
check "nothing is lost" on 1 kubectl get configmap kept
on 1 rm -r /run/kept

check "reset" on 1 mk8s reset --force

echo "# a full disk"
on 1 mount -t tmpfs -o size=32m tmpfs /var/lib/mk8s
check "init" on 1 "$mk8s" init
on 1 sh -c 'dd if=/dev/zero of=/var/lib/mk8s/node/full bs=64k 2>/dev/null; head -c 900000 /dev/zero | tr "\0" x >/run/large'
# What is there of the store's file takes a few more.
full() { ! on 1 kubectl create configmap "large-$RANDOM$RANDOM" --from-file=/run/large; }
check "a write fails" eventually 30 full
refuses "status says why" "^ready: +no \(store failed: .*No space left" on 1 mk8s status
on 1 rm /var/lib/mk8s/node/full /run/large
ready() { has "ready: +yes" on 1 mk8s status; }
check "with space it is ready again" eventually 30 ready
check "reset" on 1 mk8s reset --force
on 1 umount /var/lib/mk8s
same "the host is as it was" "$work/state-whole-1" 1
check "init" on 1 "$mk8s" init

echo "# a join after one that was killed in its first write"
join=$(on 1 mk8s token create --print-join-command)
on 2 sh -c 'mkdir -p /var/lib/mk8s && echo "{" >/var/lib/mk8s/.mk8s-new.settings.json'
# shellcheck disable=SC2086
shows "join" "This node has joined the cluster" on 2 "$mk8s" ${join#mk8s }
for host in 2 1; do
  check "reset" on $host mk8s reset --force
  absent $host /var/lib/mk8s/settings.json /var/lib/mk8s/.mk8s-new.settings.json
done
same "the host is as it was" "$work/state-whole-1" 1
