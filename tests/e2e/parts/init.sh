# Preflight and init on host 1.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# preflight and init"
shows "init refuses another Kubernetes version" "KubernetesVersion" on 1 "$work/mk8s" init --kubernetes-version v1.13.3
shows "init refuses overlapping ranges" "overlap" on 1 "$work/mk8s" init --pod-network-cidr 10.96.0.0/16
shows "init refuses a range that the host has a route for" "RouteOverlap" on 1 "$work/mk8s" init --pod-network-cidr 10.9.0.0/16
# with_port PORT COMMAND…: while something else listens on the port of host 1.
with_port() {
  local port=$1; shift
  on 1 bash -c 'busybox nc -l -p "$0" >/dev/null & until ss -tln | grep -q ":$0 "; do sleep 0.05; done; "$@"; kill $!' "$port" "$@"
}
shows "init refuses a port that is in use" "Port-6443.*in use" with_port 6443 "$work/mk8s" init
shows "and the node agent's" "Port-10250.*in use" with_port 10250 "$work/mk8s" init
shows "init refuses an unknown key of its configuration file" "pod-network-cidr" on 1 bash -c \
  'mkdir -p /etc/mk8s; echo "pod-network-cdir: 10.1.0.0/16" >/etc/mk8s/config.yaml; "$0" init; rm -r /etc/mk8s' "$work/mk8s"
shows "init refuses kubeadm's own configuration" "flag" on 1 bash -c \
  'printf "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n" >/tmp/kubeadm.$$; "$0" init --config /tmp/kubeadm.$$; rm /tmp/kubeadm.$$' "$work/mk8s"
shows "init refuses an eviction threshold that it does not know" "disk.available.*nodefs.available" on 1 "$work/mk8s" init --eviction-hard "disk.available<1Gi"
shows "init wants root" "root" on 1 setpriv --reuid 65534 --clear-groups "$work/mk8s" init
lacks "a refused init changes nothing" "mk8s|kubernetes" traces 1
on 1 "$work/mk8s" init >"$work/init.log" 2>&1
shows "init ends as kubeadm does" "Your Kubernetes control-plane has initialized successfully!" cat "$work/init.log"
shows "init prints the join command" "mk8s join 10.9.0.1:6443 --token [a-z0-9]{6}\.[a-z0-9]{16} --discovery-token-ca-cert-hash sha256:[0-9a-f]{64}" cat "$work/init.log"
shows "the node is Ready" "host1 +Ready +control-plane" on 1 kubectl get nodes
shows "init again says that it runs" "runs" on 1 mk8s init
shows "init again refuses what contradicts" "contradicts" on 1 mk8s init --service-cidr 10.97.0.0/16
shows "init again names both values" "nodefs.available<9Mi contradicts .*nodefs.available<10Mi" on 1 mk8s init --eviction-hard "nodefs.available<9Mi"
shows "status" "ready: +yes" on 1 mk8s status
shows "what exists after init" "kube-dns .*10.96.0.10" on 1 kubectl get svc -A
shows "anonymous may not list" "Unauthorized|forbidden" on 1 curl -sk https://10.9.0.1:6443/api/v1/pods
shows "anonymous may see health" "ok" on 1 curl -sk https://10.9.0.1:6443/readyz
