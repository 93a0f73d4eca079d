# Host 2 loses its power; what becomes of that is looked at in dead-host, most of a minute later.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# a joined host dies"
check "the application is on both hosts again" k rollout restart deploy/web
check "its rollout" k rollout status deploy/web --timeout=60s
lost=$(pods_on host2 | awk '{ print $2 }')
shows "pods are on the host that dies" "^10\." echo "$lost"
check "power-off" "$hosts" kill 2
died=$SECONDS
