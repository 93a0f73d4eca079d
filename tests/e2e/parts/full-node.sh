# A node that is full: pods that ask for more than half of it run one after the other, and none is turned away because the one
# before has not quite gone.
# shellcheck shell=bash disable=SC2154
echo "# a full node"
cpu=$(on 1 kubectl get node host1 -o 'jsonpath={.status.allocatable.cpu}')
case $cpu in *m) cpu=${cpu%m} ;; *) cpu=$((cpu * 1000)) ;; esac
cat >"$work/turns.yaml" <<YAML
apiVersion: batch/v1
kind: Job
metadata: {name: turns, namespace: app}
spec:
  completions: 6
  parallelism: 6
  backoffLimit: 6
  template:
    spec:
      restartPolicy: Never
      nodeSelector: {kubernetes.io/hostname: host1}
      terminationGracePeriodSeconds: 1
      containers:
        - name: turn
          image: mk8s.local/busybox:1
          imagePullPolicy: IfNotPresent
          command: [sleep, "1.5"]
          resources: {requests: {cpu: $((cpu * 6 / 10))m}}
YAML
check "a Job whose pods have to take turns" on 1 kubectl apply -f "$work/turns.yaml"
waits() { has "FailedScheduling .*Insufficient cpu" k get events; }
check "the others wait" eventually 10 waits
check "all have their turn" k wait --for=condition=complete job/turns --timeout=80s
shows "none was turned away" "^6 failed=$" k get job turns -o 'jsonpath={.status.succeeded} failed={.status.failed}'
lacks "nor one for want of room" "OutOf.* pod/turns-" k get events
check "the Job goes" k delete job turns
