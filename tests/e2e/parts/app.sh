# An application, as every guide shows one, and what one looks at it with.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# an application"
check "apply" on 1 kubectl apply -f "$here/app.yaml"
check "rollout status" k rollout status deploy/web --timeout=60s
check "the job completes" k wait --for=condition=complete job/once --timeout=30s
shows "get all" "deployment.apps/web +3/3" k get all,ep,events -o wide
pod=$(pod_on host1)
shows "events" "Normal +Scheduled +[Pp]od/web-" k get events
shows "kubectl events" "Normal +Scheduled +Pod/web-" k events
shows "describe" "Readiness: +http-get" k describe pod "$pod"
shows "describe shows the events" "Normal +Started" k describe pod "$pod"
shows "logs" "^serving" k logs "$pod"
shows "exec" "^s3cret 10\.244\." k exec "$pod" -- sh -c 'echo $PASSWORD $IP'
refuses "exec gives the exit status" "exit code 3" k exec "$pod" -- sh -c 'exit 3'
shows "exec with stdin" "^typed" bash -c "echo typed | timeout 30 $hosts exec 1 kubectl -n app exec -i $pod -- cat"
address=$(k get svc web -o 'jsonpath={.spec.clusterIP}')
shows "ClusterIP from the host" "hello from mk8s" on 1 curl -s -m 5 "http://$address"
shows "NodePort" "hello from mk8s" on 1 curl -s -m 5 http://10.9.0.1:30080
shows "NodePort at localhost" "hello from mk8s" on 1 curl -s -m 5 http://127.0.0.1:30080
for name in web web.app web.app.svc.cluster.local; do
  shows "from a pod by $name" "hello from mk8s" k exec "$pod" -- timeout 5 wget -q -O- "http://$name"
done
# forwarded KUBECTL: what the Service answers through a port-forward.
forwarded() {
  on 1 bash -c '"$0" -n app port-forward svc/web 18080:80 >/dev/null & trap "kill $!" EXIT
    for try in $(seq 50); do curl -s -m 3 http://127.0.0.1:18080 && break; sleep 0.1; done' "$1"
}
# A pty of its own for each: what is typed, its size, its exit status.
shows "exec -it" "typed-42" bash -c "printf 'echo typed-\$((40 + 2))\nexit\n' | timeout 30 $hosts exec 1 script -qec 'kubectl -n app exec -it $pod -- sh' /dev/null"
shows "exec -it has the terminal's size" "^(\^@)?31 97.?$" on 1 script -qec "stty rows 31 cols 97; kubectl -n app exec -it $pod -- sh -c 'sleep 1; stty size'" /dev/null
shows "exec -it gives the exit status" "status 5" on 1 script -qec "kubectl -n app exec -it $pod -- sh -c 'exit 5'; echo status \$?" /dev/null
shows "port-forward" "hello from mk8s" forwarded kubectl
# What hack/build-clients.sh made, and what MK8S_MORE_KUBECTLS names (files kubectl.MAJOR.MINOR); of each version one.
tried=' '
for kubectl in "${MK8S_KUBECTL_DIR:-$HOME/.cache/mk8s/kubectl}"/kubectl.1.* ${MK8S_MORE_KUBECTLS:-}; do
  [ -x "$kubectl" ] || continue
  version=${kubectl##*kubectl.}
  [[ $tried != *" $version "* ]] || continue
  tried+="$version "
  shows "kubectl $version: get -o wide" "web-.*Running.*host1" on 1 "$kubectl" -n app get pods -o wide
  shows "kubectl $version: exec" "^here" on 1 "$kubectl" -n app exec "$pod" -- echo here
  shows "kubectl $version: explain" "Pod" on 1 "$kubectl" explain pod.spec
  shows "kubectl $version: port-forward" "hello from mk8s" forwarded "$kubectl"
  check "kubectl $version: apply" on 1 "$kubectl" apply -f "$here/app.yaml"
  check "kubectl $version: create" on 1 "$kubectl" -n app create configmap "made-by-${version//./-}" --from-literal=a=b
done
check "each of two versions of kubectl was tried" grep -q '\..* .*\.' <<<"$tried"
