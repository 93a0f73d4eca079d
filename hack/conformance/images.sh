#!/usr/bin/env bash
# The images that the official suite pulls, made of its own sources and Debian's packages, in a registry on this machine.
#   images.sh fill CACHE           builds what is missing into CACHE/registry; the suite's programs are in CACHE/v1.35.4
#   images.sh serve CACHE ADDRESS  serves them there under the names that they have at registry.k8s.io; stays in the foreground
# Needs the packages that ../conformance.sh installs, and Go's module cache with what go.mod names.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cache=$2 programs=$2/v1.35.4
e2e=e2e-test-images
images=("$e2e/agnhost:2.59" "$e2e/agnhost:2.55" "$e2e/busybox:1.37.0-1" "$e2e/jessie-dnsutils:1.7" "$e2e/nautilus:1.7"
  "$e2e/kitten:1.7" "$e2e/nonewprivs:1.3" "$e2e/nginx:1.14-4" "$e2e/nginx:1.15-4" "$e2e/sample-apiserver:1.29.2"
  etcd:3.6.6-0 pause:3.10.1)

stored() { [ -d "$cache/registry/data/docker/registry/v2/repositories/${1%:*}/_manifests/tags/${1##*:}" ]; }

serve() { # serve ADDRESS
  mkdir -p "$cache/registry/data"
  exec docker-registry serve /dev/fd/3 3<<Y
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $cache/registry/data}}
http: {addr: "$1"}
Y
}

# Debian's package, unpacked: its daemon shall not run here.
unpack() { (cd "$work" && apt-get download -qq "$1" >/dev/null 2>&1 && dpkg-deb -x "$1"_*.deb "$1"); }

# tree ROOT FILE…: a root directory with busybox, the files and the libraries that they need.
tree() {
  local root=$1 file lib applet; shift
  mkdir -p "$root"/{bin,etc,lib,lib64,proc,root,run,sys,dev,tmp,uploads,usr/bin,usr/local/bin,usr/sbin,var/log,var/lib,var/tmp}
  chmod 1777 "$root/tmp" "$root/var/tmp"
  cp "$busybox" "$root/bin/busybox"
  for applet in $("$busybox" --list); do [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"; done
  printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534::/:/bin/false user-defined-in-image:x:1000:1000::/:/bin/sh >"$root/etc/passwd"
  printf '%s\n' root:x:0: nogroup:x:65534: user-defined-in-image:x:1000: group-defined-in-image:x:50000:user-defined-in-image >"$root/etc/group"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  printf 'NAME="test"\nID=test\n' >"$root/etc/os-release"
  for file in "$busybox" "$@"; do
    [ "$file" = "$busybox" ] || install -D "$file" "$root$file"
    for lib in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do [ -e "$root$lib" ] || install -D "$lib" "$root$lib"; done
  done
}

# image NAME CONFIG ROOT…: one layer for each ROOT, pushed; CONFIG is what stands in the image's "config" beside the PATH.
image() {
  local name=$1 config=$2 root n=0 sums=() layers=() dir=$work/image; shift 2
  rm -rf "$dir"; mkdir "$dir"
  for root; do
    n=$((n + 1))
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" -cf "$dir/$n.tar" .
    sums+=("\"sha256:$(sha256sum "$dir/$n.tar" | cut -d' ' -f1)\"") layers+=("\"$n.tar\"")
  done
  local IFS=,
  printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=%s"],%s},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$(dpkg --print-architecture)" /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$config" "${sums[*]}" >"$dir/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":[%s]}]' "$name" "${layers[*]}" >"$dir/manifest.json"
  tar -C "$dir" -cf "$work/image.tar" .
  skopeo copy -q --dest-tls-verify=false "docker-archive:$work/image.tar" "docker://$local_registry/$name"
  echo "made $name"
}

# Debian's busybox drops environment variables whose names are no identifiers, and the suite reads such by `sh -c env`; all else
# is busybox's own shell, whose words the suite knows.
shell() {
  gcc -static -O1 -x c -o "$1" - <<'C'
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv, char **envp) {
  if (argc == 3 && !strcmp(argv[1], "-c") && !strcmp(argv[2], "env")) {
    for (; *envp; envp++) puts(*envp);
    return 0;
  }
  execve("/bin/busybox", argv, envp);
  return 127;
}
C
}

pause() {
  gcc -Os -static -s -x c -o "$1" - <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) { signal(SIGINT, leave); signal(SIGTERM, leave); signal(SIGCHLD, reap); for (;;) pause(); }
C
}

web() { # web ROOT: nginx on port 80; which version it is, the suite tells by the tag alone
  mkdir -p "$1"/{etc/nginx,usr/share/nginx/html,var/log/nginx,var/lib/nginx}
  cp /etc/nginx/mime.types "$1/etc/nginx/"
  cat >"$1/etc/nginx/nginx.conf" <<'N'
user root;
worker_processes 1;
error_log /dev/stderr;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
  include mime.types;
  access_log /dev/stdout;
  server { listen 80; listen [::]:80; root /usr/share/nginx/html; }
}
N
  echo '<html><head><title>Welcome to nginx!</title></head><body>Welcome to nginx!</body></html>' >"$1/usr/share/nginx/html/index.html"
}

build() {
  local sources name tag
  sources=$(cd "$here" && go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images
  # The dynamic busybox: a static one resolves no names. Its wget crashes, so that the real one stands before it on PATH.
  unpack busybox; unpack etcd-server
  busybox=$work/busybox/bin/busybox
  tree "$work/small" /bin/bash /usr/bin/wget
  rm "$work/small/bin/sh"; shell "$work/small/bin/sh"
  image "$e2e/busybox:1.37.0-1" '"Cmd":["sh"]' "$work/small"

  tree "$work/tools" /bin/bash /usr/bin/{curl,wget,dig,nslookup,host,nc,iperf,getent,ipcs,ipcmk,ipcrm} /bin/nc.openbsd /sbin/ip /usr/sbin/ip /bin/ss /usr/bin/ss
  ln -sf /usr/bin/iperf "$work/tools/usr/local/bin/iperf"
  image "$e2e/jessie-dnsutils:1.7" '"Cmd":["bash"]' "$work/tools"

  install -D -t "$work/agnhost" "$programs/agnhost"
  install -m644 -t "$work/agnhost" "$sources"/agnhost/porter/localhost.{crt,key}
  ln -s agnhost "$work/agnhost/agnhost-2"
  for tag in 2.59 2.55; do image "$e2e/agnhost:$tag" '"Entrypoint":["/agnhost"],"Cmd":["pause"]' "$work/tools" "$work/agnhost"; done
  for name in nautilus kitten; do
    mkdir "$work/$name"; install -m644 -t "$work/$name" "$sources/$name"/html/*
    image "$e2e/$name:1.7" '"Entrypoint":["/agnhost"],"Cmd":["test-webserver"]' "$work/tools" "$work/agnhost" "$work/$name"
  done

  install -D -m6755 "$programs/nonewprivs" "$work/nnp/usr/local/bin/nnp"
  image "$e2e/nonewprivs:1.3" '"Cmd":["nnp"]' "$work/small" "$work/nnp"
  install -D -t "$work/sample" "$programs/sample-apiserver"
  image "$e2e/sample-apiserver:1.29.2" '"Entrypoint":["/sample-apiserver"]' "$work/small" "$work/sample"
  install -D -t "$work/etcd/usr/local/bin" "$work/etcd-server/usr/bin/etcd"
  image etcd:3.6.6-0 '"Cmd":["etcd"]' "$work/small" "$work/etcd"

  tree "$work/web" /usr/sbin/nginx; web "$work/web"
  for tag in 1.14-4 1.15-4; do image "$e2e/nginx:$tag" '"Cmd":["nginx","-g","daemon off;"]' "$work/web"; done
  mkdir "$work/pause"; pause "$work/pause/pause"
  image pause:3.10.1 '"Entrypoint":["/pause"],"User":"65535:65535"' "$work/pause"
}

fill() {
  local name missing=
  for name in "${images[@]}"; do stored "$name" || missing=yes; done
  [ "$missing" ] || return 0
  work=$(mktemp -d) local_registry=127.0.0.1:5112
  serve $local_registry >/dev/null 2>&1 & registry=$!
  trap 'kill $registry; rm -rf "$work"' EXIT
  for _ in $(seq 100); do curl -fsS "http://$local_registry/v2/" >/dev/null 2>&1 && break; sleep 0.1; done
  build
}

case $1 in
  fill) fill ;;
  serve) serve "$3" ;;
  *) sed -n '2,5p' "$0"; exit 2 ;;
esac
