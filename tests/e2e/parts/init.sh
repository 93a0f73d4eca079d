# Preflight and init on host 1.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# preflight and init"
refuses "init refuses another Kubernetes version" "KubernetesVersion" on 1 "$work/mk8s" init --kubernetes-version v1.13.3
refuses "init refuses overlapping ranges" "overlap" on 1 "$work/mk8s" init --pod-network-cidr 10.96.0.0/16
refuses "init refuses a range that the host has a route for" "RouteOverlap" on 1 "$work/mk8s" init --pod-network-cidr 10.9.0.0/16
# with_port PORT COMMAND…: while something else listens on the port of host 1.
with_port() {
  local port=$1; shift
  on 1 bash -c 'busybox nc -l -p "$0" >/dev/null & until ss -tln | grep -q ":$0 "; do sleep 0.05; done; "$@"; status=$?; kill $!; exit $status' "$port" "$@"
}
refuses "init refuses a port that is in use" "Port-6443.*in use" with_port 6443 "$work/mk8s" init
refuses "and the node agent's" "Port-10250.*in use" with_port 10250 "$work/mk8s" init
refuses "init refuses an unknown key of its configuration file" "pod-network-cidr" on 1 bash -c \
  'mkdir -p /etc/mk8s; echo "pod-network-cdir: 10.1.0.0/16" >/etc/mk8s/config.yaml; "$0" init; status=$?; rm -r /etc/mk8s; exit $status' "$work/mk8s"
refuses "init refuses kubeadm's own configuration" "flag" on 1 bash -c \
  'printf "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n" >/tmp/kubeadm.$$; "$0" init --config /tmp/kubeadm.$$; status=$?; rm /tmp/kubeadm.$$; exit $status' "$work/mk8s"
refuses "init refuses an eviction threshold that it does not know" "disk.available.*nodefs.available" on 1 "$work/mk8s" init --eviction-hard "disk.available<1Gi"
refuses "init refuses a domain that is none" "^error: --service-dns-domain: .a b. is no domain" on 1 "$work/mk8s" init --service-dns-domain "a b"
refuses "init refuses a name that no certificate can have" "^error: --apiserver-cert-extra-sans: .a b. is no address" on 1 "$work/mk8s" init --apiserver-cert-extra-sans "ok.example.org,a b"
refuses "init refuses a scheduler configuration that is none" "scheduler's configuration.*unknown field .*profile" on 1 bash -c \
  'printf "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofile: []\n" >/tmp/scheduler.$$; "$0" init --scheduler-config /tmp/scheduler.$$; status=$?; rm /tmp/scheduler.$$; exit $status' "$work/mk8s"
refuses "init refuses port 0" "apiserver-bind-port" on 1 "$work/mk8s" init --apiserver-bind-port 0
refuses "init wants root" "root" on 1 setpriv --reuid 65534 --clear-groups "$work/mk8s" init
refuses "init refuses a host with another cluster's admin.conf" "FileAvailable--etc-kubernetes-admin.conf" on 1 bash -c \
  'mkdir /etc/kubernetes; echo theirs >/etc/kubernetes/admin.conf; "$0" init; status=$?; cat /etc/kubernetes/admin.conf; rm -r /etc/kubernetes; exit $status' "$work/mk8s"
lacks "a refused init changes nothing" "mk8s|kubernetes" traces 1
# Reset on a host that mk8s did not set up, and of a folder that is none of its data directories.
on 1 bash -c 'mkdir -p /etc/kubernetes /var/lib/kubelet/pods/theirs /var/log/pods/theirs /var/lib/mk8s/folder
  touch /etc/kubernetes/admin.conf /var/lib/kubelet/config.yaml /var/lib/mk8s/folder/mine /var/log/mk8s.log'
refuses "reset refuses a host that was not set up" "^error: this host was not set up .*settings.json is missing.*nothing was changed" on 1 "$work/mk8s" reset --force
refuses "reset refuses a folder of somebody else's" "^error: .*/folder/settings.json is missing" on 1 "$work/mk8s" reset --force --data-dir /var/lib/mk8s/folder
check "neither removed anything" on 1 ls /etc/kubernetes/admin.conf /var/lib/kubelet/config.yaml /var/lib/kubelet/pods/theirs /var/log/pods/theirs /var/lib/mk8s/folder/mine /var/log/mk8s.log
on 1 bash -c 'rm -r /etc/kubernetes /var/lib/kubelet/* /var/log/pods /var/lib/mk8s/folder /var/log/mk8s.log'
same "and none made anything" "$work/state-1" 1
on 1 "$work/mk8s" init >"$work/init.log" 2>&1
shows "init ends as kubeadm does" "Your Kubernetes control-plane has initialized successfully!" cat "$work/init.log"
shows "init prints the join command" "mk8s join 10.9.0.1:6443 --token [a-z0-9]{6}\.[a-z0-9]{16} --discovery-token-ca-cert-hash sha256:[0-9a-f]{64}" cat "$work/init.log"
shows "the node is Ready" "host1 +Ready +control-plane" on 1 kubectl get nodes
shows "init again says that it runs" "runs" on 1 mk8s init
refuses "init again refuses what contradicts" "contradicts" on 1 mk8s init --service-cidr 10.97.0.0/16
refuses "init again names both values" "nodefs.available<9Mi contradicts .*nodefs.available<10Mi" on 1 mk8s init --eviction-hard "nodefs.available<9Mi"
refuses "init again refuses a token" "mk8s token create" on 1 mk8s init --token abcdef.0123456789abcdef
refuses "reset of a folder on a host with a cluster is refused" "nothing was changed" on 1 mk8s reset --force --data-dir /usr/local
refuses "so is that of a copy of the data directory" "is a copy of that of /var/lib/mk8s" on 1 bash -c \
  'mkdir /run/copy; cp /var/lib/mk8s/settings.json /run/copy; mk8s reset --force --data-dir /run/copy; status=$?; rm -r /run/copy; exit $status'
refuses "nobody else may look at the store, the keys and what pods are given" "^(ls: .*Permission denied *){3}$" on 1 bash -c \
  'for name in db pki node; do setpriv --reuid 65534 --clear-groups ls /var/lib/mk8s/$name; done 2>&1 | tr "\n" " "; exit ${PIPESTATUS[0]}'
shows "status" "ready: +yes" on 1 mk8s status
for verb in status start stop run kubeconfig init join reset; do
  refuses "$verb wants root" "^error: mk8s $verb has to run as root: use sudo$" on 1 setpriv --reuid 65534 --clear-groups mk8s $verb
done
refuses "token wants a kubeconfig that it may read" "^error: you may not read /etc/kubernetes/admin.conf: use sudo" on 1 setpriv --reuid 65534 --clear-groups mk8s token list
shows "output that nobody reads is no failure" "^role" on 1 bash -c 'set -o pipefail; mk8s status | head -n 1'
on 1 mk8s token create abcdef.0123456789abcdef
refuses "a token is made once" "^error: a token with the id .abcdef. exists already" on 1 mk8s token create abcdef.0123456789abcdef
on 1 mk8s token delete abcdef
shows "what exists after init" "kube-dns .*10.96.0.10" on 1 kubectl get svc -A
shows "claims have a default class" "local-path \(default\) +mk8s.io/local-path +Delete +WaitForFirstConsumer +false" on 1 kubectl get storageclass
shows "anonymous may not list" "Unauthorized|forbidden" on 1 curl -sk https://10.9.0.1:6443/api/v1/pods
shows "anonymous may see health" "ok" on 1 curl -sk https://10.9.0.1:6443/readyz
