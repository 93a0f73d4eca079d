# A batch of test cases as deploy/guide/test-batch.md has it, with four of them; and a CronJob.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# a batch"
sed -e 's/completions: 200/completions: 4/' -e 's/value: all/value: "13 42 77 5"/' "$here/../../deploy/examples/test-batch.yaml" >"$work/batch.yaml"
chmod 644 "$work/batch.yaml"
check "apply" k apply -f "$work/batch.yaml"
# Two of them are tried again, ten seconds after they failed.
check "the batch ends" k wait --for=condition=Failed job/cases --timeout=60s
shows "with these lists" '^2,3 0,1 FailedIndexes$' k get job cases -o 'jsonpath={.status.completedIndexes} {.status.failedIndexes} {.status.conditions[?(@.type=="Failed")].reason}'
# result INDEX: exit codes and messages of an index's pods.
result() {
  k get pods -l "job-name=cases,batch.kubernetes.io/job-completion-index=$1" --sort-by=.metadata.creationTimestamp -o \
    'jsonpath={range .items[*]}{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.message}; {end}'
}
shows "one failed twice" '^1 case 13: expected 4, got 5; 1 case 13: expected 4, got 5; $' result 0
shows "one once and for all" '^3 case 42: there is no such file; $' result 1
shows "one only once" '^1 case 77: timed out; 0 case 77: passed; $' result 2
shows "one never" '^0 case 5: passed; $' result 3
shows "its log is there" '^passed' k logs -l job-name=cases,batch.kubernetes.io/job-completion-index=3
shows "and its pod knows its name" '^cases-3$' k get pods -l job-name=cases,batch.kubernetes.io/job-completion-index=3 -o 'jsonpath={.items[0].spec.hostname}'
check "delete it" k delete job cases
# gone KIND NAME: nothing of this kind has a name that begins so.
gone() { local all; all=$(k get "$1" --no-headers -o name) && ! grep -q "/$2" <<<"$all"; }
check "its pods go with it" eventually 20 gone pods cases-

echo "# a CronJob"
check "create" k create cronjob often --image=mk8s.local/busybox:1 --schedule='@every 2s' -- echo done
check "it runs" k wait --for=jsonpath='{.status.lastSuccessfulTime}' cronjob/often --timeout=30s
shows "by a Job of its minute" '^often-[0-9]+ .*Complete' k get jobs --no-headers
check "suspend" k patch cronjob often -p '{"spec":{"suspend":true}}'
shows "get" '^often +@every 2s +<none> +True' k get cronjobs --no-headers
shows "it tells what it did" 'SuccessfulCreate .*Created job often-' k events
check "a run by hand" k create job by-hand --from=cronjob/often
check "it completes" k wait --for=condition=Complete job/by-hand --timeout=30s
check "delete" k delete cronjob often
check "its Jobs go with it" eventually 20 gone jobs often-
