# What one does to an application.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# changes"
check "scale" k scale deploy/web --replicas=4
check "set env" k set env deploy/web FOO=bar
check "rollout of a change" k rollout status deploy/web --timeout=60s
check "rollout undo" k rollout undo deploy/web
check "rollout of the undo" k rollout status deploy/web --timeout=60s
shows "rollout history" "^3 " k rollout history deploy/web
check "rollout restart" k rollout restart deploy/web
check "rollout of the restart" k rollout status deploy/web --timeout=60s
# The restart's old pods are in the list, and may be gone when their turn comes.
check "label" eventually 20 k label --overwrite pod -l app=web tier=front
check "annotate" k annotate deploy/web note=x
check "patch" k patch deploy/web -p '{"spec":{"replicas":3}}'
check "rollout after the patch" k rollout status deploy/web --timeout=60s
check "diff shows nothing after apply" bash -c "timeout 60 $hosts exec 1 kubectl apply -f $here/app.yaml >/dev/null && timeout 60 $hosts exec 1 kubectl diff -f $here/app.yaml"
check "set image" k set image deploy/web web=mk8s.local/busybox:1
check "delete pod by label" k delete pod -l app=web
check "wait for a deletion" k wait --for=delete pod -l tier=front --timeout=30s
check "rollout after the deletion" k rollout status deploy/web --timeout=60s
# A change that comes while get -w runs.
watched() { on 1 bash -c 'timeout 3 kubectl -n app get configmaps -w --no-headers & sleep 1; kubectl -n app create configmap late --from-literal=a=b >/dev/null; wait $! || [ $? = 124 ]'; }
shows "get -w" "^late +1" watched
check "wait for a condition" k wait --for=condition=Available deploy/web --timeout=30s
check "wait for a field" k wait --for=jsonpath='{.status.readyReplicas}'=3 deploy/web --timeout=30s
shows "logs -f of a job ends" "^done" k logs -f job/once
shows "api-resources" "^deployments +deploy +apps/v1 +true +Deployment" on 1 kubectl api-resources
shows "api-resources has what is only refused or stored" "^statefulsets +sts" on 1 kubectl api-resources
shows "explain" "replicas" on 1 kubectl explain deployment.spec
check "create deployment" k create deployment made --image=mk8s.local/busybox:1
check "expose" k expose deployment made --port=80
check "create service" k create service clusterip plain --tcp=80:80
shows "expose finds the deployment's pods" "app=made" k get service made -o wide
check "create job" k create job made --image=mk8s.local/busybox:1 -- echo x
check "create secret" k create secret generic made --from-literal=a=b
refuses "a network policy is refused" "not in this version of mk8s" k create -f - <<<'{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"x"},"spec":{"podSelector":{}}}'
check "delete what was made" k delete deployment/made service/made service/plain job/made secret/made
pod=$(pod_on host1)
check "cp" k cp /etc/hostname "$pod:/tmp/name"
shows "cp arrived" "host1" k exec "$pod" -- cat /tmp/name
check "create role" k create role reader --verb=get --resource=pods
refuses "can-i" "^no" k auth can-i delete pods --as=system:serviceaccount:app:default
# Debian's kubectl 1.20 has no such verb.
if kubectl create token --help 2>&1 | grep -e --audience >/dev/null; then shows "create token" "^ey" k create token default; fi
shows "run --rm -i" "^from-stdin" bash -c "echo from-stdin | timeout 60 $hosts exec 1 kubectl -n app run once-more --rm -i --restart=Never --image=mk8s.local/busybox:1 --image-pull-policy=IfNotPresent -- cat"
refuses "a bad manifest is refused with the field" "spec.replicas.*greater than or equal to 0" k patch deploy/web -p '{"spec":{"replicas":-1}}'
refuses "an unknown field is refused" "unknown field" k create --validate=strict -f - <<<'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dat":{}}'
check "create a pod whose image does not exist" k run missing --image=127.0.0.1:9/none:1
shows "its image cannot be pulled" "ErrImagePull|ImagePullBackOff" bash -c "sleep 3; timeout 30 $hosts exec 1 kubectl -n app get pod missing"
check "delete it" k delete pod missing --grace-period=0 --force
check "create a pod that crashes" k run crash --image=mk8s.local/busybox:1 --image-pull-policy=IfNotPresent -- sh -c 'exit 7'
crashing() { has CrashLoopBackOff k get pod crash; }
check "it is in CrashLoopBackOff" eventually 30 crashing
check "delete it too" k delete pod crash --grace-period=0 --force
# Claims: one that waits for its first pod, one that finds a volume.
claim() { printf '{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"%s"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}%s}}' "$@"; }
volume='{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"e2e"},"spec":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"hostPath":{"path":"/tmp/e2e"}}}'
check "make claims and a volume" on 1 bash -c 'printf "%s\n" "$@" | kubectl -n app create -f -' make "$(claim waits "")" "$(claim finds ',"storageClassName":""')" "$volume"
check "a claim finds its volume" k wait --for=jsonpath='{.status.phase}'=Bound pvc/finds --timeout=10s
shows "a claim waits for its first pod" "WaitForFirstConsumer" k describe pvc waits
check "delete the claims" k delete pvc waits finds --timeout=20s
check "the volume is released" on 1 kubectl wait --for=jsonpath='{.status.phase}'=Released pv/e2e --timeout=10s
check "delete the volume" on 1 kubectl delete pv e2e --timeout=20s
