# Images from a real registry on host 1 (docker-registry, filled by skopeo): by tag and digest, through a mirror that
# registries.yaml names, with credentials.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# a registry"
# registry PORT MORE: an open one, or one with what MORE adds to its configuration.
registry() {
  printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry-%s}}\nhttp: {addr: "0.0.0.0:%s"}\n%s' \
    "$work" "$1" "$1" "${2-}" >"$work/registry-$1.yml"
  on 1 sh -c "setsid docker-registry serve $work/registry-$1.yml >$work/registry-$1.log 2>&1 </dev/null & until ss -tln | grep -q :$1; do sleep 0.05; done"
}
push() { on 1 skopeo --insecure-policy copy --quiet --dest-tls-verify=false "${@:2}" "docker-archive:$work/busybox.tar" "docker://127.0.0.1:$1"; }
# bcrypt of "secret".
echo 'bob:$2b$04$9FgUw3CI4mHNjY/pjGL68ueCdNFtMsut90kH4wTEWE87pRTlDG0qy' >"$work/htpasswd"
registry 5000
registry 5001 "auth: {htpasswd: {realm: test, path: $work/htpasswd}}"
check "push" push 5000/e2e/box:v1
check "push with a password" push 5001/e2e/box:v1 --dest-creds bob:secret
digest=$(on 1 skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://127.0.0.1:5000/e2e/box:v1)

# pulls NAME IMAGE [SECRET]: starts a pod of the image on host 1.
pulls() {
  k create -f - <<POD
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  nodeName: host1
  terminationGracePeriodSeconds: 1
  imagePullSecrets: [${3:+{name: $3\}}]
  containers: [{name: box, image: "$2", imagePullPolicy: Always, command: [sleep, "1000"]}]
POD
}
running() { check "$2" k wait --for=condition=Ready "pod/$1" --timeout=30s; }
waits_with() { has "$2" k get pod "$1" -o 'jsonpath={.status.containerStatuses[0].state.waiting.reason}'; }

check "a pod of an image by tag" pulls by-tag 127.0.0.1:5000/e2e/box:v1
check "a pod of an image by digest" pulls by-digest "127.0.0.1:5000/e2e/box@$digest"
running by-tag "the tag is pulled"
running by-digest "the digest is pulled"
shows "its status names the digest" "127.0.0.1:5000/e2e/box@$digest" k get pod by-tag -o 'jsonpath={.status.containerStatuses[0].imageID}'

check "a pod of an image that only a mirror has" pulls mirrored registry.example/box:v1
check "it can't be pulled" eventually 20 waits_with mirrored 'ErrImagePull|ImagePullBackOff'
on 1 mkdir -p /etc/mk8s
on 1 tee /etc/mk8s/registries.yaml >/dev/null <<'YAML'
mirrors:
  registry.example:
    endpoint: ["http://10.9.0.1:5000"]
    rewrite: {"^(.*)$": "e2e/$1"}
YAML
check "registries.yaml is read again: it is pulled from the mirror" k wait --for=condition=Ready pod/mirrored --timeout=60s

check "a pod without the registry's password" pulls stranger 127.0.0.1:5001/e2e/box:v1
check "is refused" eventually 20 waits_with stranger 'ErrImagePull|ImagePullBackOff'
shows "with the registry's answer in the event" "Failed +.*(may require authorization|no basic auth credentials)" k describe pod stranger
check "create secret docker-registry" k create secret docker-registry bob --docker-server=127.0.0.1:5001 --docker-username=bob --docker-password=secret
check "a pod with it" pulls friend 127.0.0.1:5001/e2e/box:v1 bob
running friend "its image is pulled"
# The same credentials from the host's own file.
on 1 tee /etc/mk8s/registries.yaml >/dev/null <<'YAML'
configs:
  "127.0.0.1:5001":
    auth: {username: bob, password: secret}
YAML
check "registries.yaml has credentials" k wait --for=condition=Ready pod/stranger --timeout=60s
check "delete those pods" k delete pod by-tag by-digest mirrored stranger friend
# What was written and started by hand is not reset's to remove.
on 1 sh -c 'rm -r /etc/mk8s; pkill -x docker-registry'
