# What containers of one pod are to each other, when they run again, and what one has of another.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# containers"
# pod NAME FIELDS: one that runs once, and shares a folder.
pod() {
  printf '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s"},"spec":{"restartPolicy":"Never","volumes":[{"name":"v","emptyDir":{}}],%s}}' "$1" "$2" |
    k create -f -
}
# runs NAME SCRIPT FIELDS: a container.
runs() {
  printf '{"name":"%s","image":"mk8s.local/busybox:1","imagePullPolicy":"IfNotPresent","volumeMounts":[{"name":"v","mountPath":"/v"}],"command":["sh","-c","%s"]%s}' "$@"
}
sidecar() { runs "$1" "$2" ',"restartPolicy":"Always"'"$3"; }
waits='while :; do sleep 0.1; done'
# A sidecar is there before the pod's own container begins, and ends after it, the latest first: it ends a pod no less.
first=$(sidecar first 'trap \"ls /v >/dev/termination-log; exit 0\" TERM; touch /v/first; '"$waits" ',"startupProbe":{"periodSeconds":1,"exec":{"command":["test","-e","/v/first"]}}')
second=$(sidecar second 'trap \"touch /v/second-ended; exit 3\" TERM; ls /v >/dev/termination-log; touch /v/second; '"$waits" ',"startupProbe":{"periodSeconds":1,"exec":{"command":["test","-e","/v/second"]}}')
main=$(runs main 'ls /v; touch /v/main-ended' '')
check "a pod with sidecars" pod sidecars "\"initContainers\":[$first,$second],\"containers\":[$main]"
check "ends when its own container has" k wait --for=jsonpath='{.status.phase}'=Succeeded pod/sidecars --timeout=30s
shows "which found both of them" "^first second $" bash -c "timeout 30 $hosts exec 1 kubectl -n app logs sidecars -c main | tr '\\n' ' '"
ended() { k get pod sidecars -o "jsonpath={range .status.initContainerStatuses[?(@.name==\"$1\")]}{.state.terminated.message}{end}" | tr '\n' ' '; }
shows "the second began after the first" "^first $" ended second
shows "the first ended after the second" "^first main-ended second second-ended $" ended first
# One that dies runs again, and nothing else does.
dies=$(sidecar dies 'test -e /v/died || { touch /v/died; exit 1; }; touch /v/lives; '"$waits" '')
main=$(runs main 'until test -e /v/lives; do sleep 0.1; done' '')
check "a pod with a sidecar that dies" pod dying "\"initContainers\":[$dies],\"containers\":[$main]"
check "ends well all the same" k wait --for=jsonpath='{.status.phase}'=Succeeded pod/dying --timeout=60s
shows "the sidecar ran again, its pod's own container did not" "^1 0$" k get pod dying -o 'jsonpath={.status.initContainerStatuses[0].restartCount} {.status.containerStatuses[0].restartCount}'
# Rules of a container go before its policy, and that before the pod's.
rules=',"restartPolicy":"Never","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]'
again=$(runs again 'test -e /v/tried || { touch /v/tried; exit 42; }; exit 7' "$rules")
once=$(runs once 'exit 8' '')
check "a container with a rule for its restart" pod ruled "\"containers\":[$again,$once]"
check "its pod ends when none runs again" k wait --for=jsonpath='{.status.phase}'=Failed pod/ruled --timeout=60s
shows "the rule had it run once more" "^1 7 0 8 $" k get pod ruled -o 'jsonpath={range .status.containerStatuses[*]}{.restartCount} {.state.terminated.exitCode} {end}'
# A variable comes from a file that another container has written.
writes=$(runs writes "echo \\\"A='made here' # by hand\\\" >/v/env" '')
reads=$(runs reads 'echo \"$A\"' ',"env":[{"name":"A","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"env","key":"A"}}}]')
check "a container with a variable of a file" pod filed "\"initContainers\":[$writes],\"containers\":[$reads]"
check "runs" k wait --for=jsonpath='{.status.phase}'=Succeeded pod/filed --timeout=30s
shows "and has it" "^made here$" k logs filed -c reads
check "delete them" k delete pod sidecars dying ruled filed --wait=false
