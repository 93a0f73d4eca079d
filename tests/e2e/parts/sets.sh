# A StatefulSet and a DaemonSet, and what one does with them.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# a StatefulSet and a DaemonSet"
check "apply" on 1 kubectl apply -f "$here/sets.yaml"
check "rollout status of the StatefulSet" k rollout status sts/db --timeout=60s
check "rollout status of the DaemonSet" k rollout status ds/agent --timeout=60s
shows "a pod is found by its name" "^db-1$" k exec db-0 -- timeout 5 wget -q -O- http://db-1.db:8080
agents() { k get pod -l app=agent --no-headers -o custom-columns=:.spec.nodeName,:.status.phase | sort | tr -s ' \n' ' '; }
shows "each host has its daemon" "^host1 Running host2 Running $" agents
shows "get" "^db +2/2" k get sts db
shows "get, too" "^agent +2 +2 +2 +2 +2" k get ds agent
for set in sts/db ds/agent; do
  check "$set: rollout restart" k rollout restart "$set"
  check "$set: rollout of the restart" k rollout status "$set" --timeout=60s
  shows "$set: rollout history" "^2 " k rollout history "$set"
  check "$set: rollout undo" k rollout undo "$set"
  check "$set: rollout of the undo" k rollout status "$set" --timeout=60s
  shows "$set: the first template is the third revision" "^3 " k rollout history "$set"
  lacks "$set: and no other" "^1 " k rollout history "$set"
done
check "scale" k scale sts/db --replicas=1
check "the last pod goes" k wait --for=delete pod/db-1 --timeout=30s
check "delete a pod" k delete pod db-0
check "it is there again" k rollout status sts/db --timeout=60s
check "the daemon leaves a host that is no place for it" on 1 kubectl label node host2 agents=none
alone() { [ "$(agents)" = "host1 Running " ]; }
check "it is gone there" eventually 30 alone
check "the label goes" on 1 kubectl label node host2 agents-
both() { [ "$(agents)" = "host1 Running host2 Running " ]; }
check "it is back" eventually 30 both
check "cordon" on 1 kubectl cordon host2
check "delete both daemons" k delete pod -l app=agent
check "they are back, also on the cordoned host" eventually 30 both
check "uncordon" on 1 kubectl uncordon host2
check "delete" on 1 kubectl delete -f "$here/sets.yaml"
