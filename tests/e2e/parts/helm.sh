# Charts in the manner of common ones (tests/helm), through stock Helm 3 and 4: subcharts, hooks, a CRD and its objects, tests.
# shellcheck shell=bash disable=SC2154,SC2016
echo "# helm"
helm_of() { local major=$1; shift; on 1 "${MK8S_HELM_DIR:-$HOME/.cache/mk8s/helm}/helm.$major" "$@"; }
cp -r "$here/../helm" "$work/charts"
for chart in cache ledger shop; do check "the dependencies of $chart" helm_of 3 dependency update "$work/charts/$chart"; done
shows "lint" "0 chart\(s\) failed" helm_of 4 lint "$work/charts/shop" --set owner=me

# One release through one Helm, from its installation to its end.
for major in 3 4; do
  echo "# helm $major"
  chart=$work/charts/shop
  helm() { helm_of "$major" -n "shop-$major" "$@"; }
  kube() { on 1 kubectl -n "shop-$major" "$@"; }
  field() { kube get "$1" -o "jsonpath={$2}"; }
  # On one line.
  names_of() { local names; names=$(kube get "$1" -o name) && tr '\n' ' ' <<<"$names"; }
  rendered=--validate undo=--atomic
  if [ "$major" = 4 ]; then rendered=--dry-run=server undo=--rollback-on-failure; fi

  refuses "install without what the chart requires" "an owner has to be given" helm install shop "$chart" --create-namespace
  refuses "install with what the chart's schema refuses" "replicas.*got -1, want 0|Must be greater than or equal to 0" helm install shop "$chart" --set owner=me,replicas=-1
  check "install, and wait" helm install shop "$chart" --create-namespace --set owner=me --wait --timeout 60s
  shows "its notes saw the CRD and the cluster" "It has 2 widgets" helm get notes shop
  shows "lookup asked the cluster" "The cluster was asked" helm get notes shop
  shows "the custom resources" "shop-right +5 +red" kube get wg
  shows "and what their schema fills in" "shop-left +3 +blue" kube get widgets
  shows "the subchart" "shop-cache +1/1" kube get deploy
  refuses "the first hook's job is gone" "NotFound" kube get job shop-setup
  shows "its account stays" "shop-setup" kube get sa
  shows "the last hook's job did its work" "^migrated to 1" kube logs job/shop-migrate
  shows "status" "STATUS: deployed" helm status shop
  shows "test" "^welcome to shop, revision 1" helm test shop --logs
  refuses "the same name again" "in use|re-use" helm install shop "$chart" --set owner=me

  password=$(field secret/shop .data.password)
  check "somebody else changes an annotation" kube annotate deploy shop note=mine
  shows "upgrade --dry-run=server" "^ +changed$" helm upgrade shop "$chart" --set owner=me,message=changed --dry-run=server
  shows "it changed nothing" "^shop.*[[:space:]]1[[:space:]]" helm list
  check "upgrade --install, and wait" helm upgrade --install shop "$chart" --set owner=me,message=changed --wait --timeout 60s
  shows "what somebody else changed stays" "^mine$" field deploy/shop .metadata.annotations.note
  check "lookup kept the password" test "$password" -a "$(field secret/shop .data.password)" = "$password"
  shows "test of the upgrade" "^changed$" helm test shop --logs
  shows "the hook after it" "^migrated to 2" kube logs job/shop-migrate

  check "somebody else scales" kube scale deploy shop --replicas=3
  if [ "$major" = 4 ]; then
    refuses "an upgrade conflicts with that" 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' \
      helm upgrade shop "$chart" --reuse-values --set replicas=1
    check "upgrade --force-conflicts" helm upgrade shop "$chart" --reuse-values --set replicas=1 --force-conflicts --wait
    shows "its fields are Helm's" "^helm$" field deploy/shop '.metadata.managedFields[?(@.operation=="Apply")].manager'
  else
    check "an upgrade takes that back" helm upgrade shop "$chart" --reuse-values --set replicas=1 --wait
  fi
  shows "the replicas are the chart's" "^1$" field deploy/shop .spec.replicas
  refuses "an upgrade whose hook fails" "rolled back" helm upgrade shop "$chart" --reuse-values --set hooks.fail=true,message=bad $undo --timeout 30s
  shows "it was rolled back" "changed" field configmap/shop '.data.index\.html'
  shows "history" "failed.*post-upgrade" helm history shop
  check "rollback to the beginning" helm rollback shop 1 --wait --timeout 60s
  lacks "the page is the first one's" "changed" field configmap/shop '.data.index\.html'
  shows "so are the replicas" "^2$" field deploy/shop .spec.replicas

  all="extras.enabled=true,tags.storage=true,sessions.enabled=true,autoscaling.enabled=true"
  check "upgrade with all that a chart may have" helm upgrade shop "$chart" --set "owner=me,$all"
  check "it is there" kube get sts/shop-ledger svc/shop-ledger pdb/shop-ledger ds/shop-agent cronjob/shop-nightly pvc/shop pdb/shop \
    hpa/shop deploy/shop-sessions cm/shop-one cm/shop-two
  shows "with its values" "100000" kube get priorityclass "shop-$major-shop"
  shows "the manifest has it" "kind: StatefulSet" helm get manifest shop
  shows "what is rendered is valid" "kind: DaemonSet" helm template other "$chart" --set "owner=me,$all" $rendered
  check "upgrade that takes it away again" helm upgrade shop "$chart" --set owner=me --wait --timeout 60s
  # The claims of the ledger's pods outlive them: nobody said otherwise.
  claims="persistentvolumeclaim/data-shop-ledger-0 persistentvolumeclaim/data-shop-ledger-1 persistentvolumeclaim/data-shop-ledger-2"
  shows "what says that it stays is all that is left of it" "^$claims persistentvolumeclaim/shop $" names_of sts,ds,cronjob,hpa,pdb,pvc
  check "uninstall" helm uninstall shop --wait
  shows "nothing else is left" "^$claims persistentvolumeclaim/shop $" names_of deploy,svc,secret,role,rolebinding,ingress,widgets,pvc
  shows "the CRD stays" "widgets.shop.example.com" on 1 kubectl get crd
  check "the namespace goes" on 1 kubectl delete ns "shop-$major" --timeout=60s
  unset -f helm kube field names_of
done

echo "# a release of helm 3 becomes one of helm 4"
check "install by helm 3" helm_of 3 -n app install legacy "$work/charts/cache" --set image.registry=mk8s.local
check "upgrade by helm 4" helm_of 4 -n app upgrade legacy "$work/charts/cache" --reuse-values --set maxMemory=32mb --server-side=true --wait --timeout 60s
shows "it applies now" "^helm$" k get deploy legacy-cache --show-managed-fields -o 'jsonpath={.metadata.managedFields[?(@.operation=="Apply")].manager}'
shows "and has what it applied" "32mb" k get cm legacy-cache -o yaml
check "upgrade by helm 4 that takes a field away" helm_of 4 -n app upgrade legacy "$work/charts/cache" --reuse-values --set resources=null --wait --timeout 60s
shows "it is gone" "^\{\}$" k get deploy legacy-cache -o 'jsonpath={.spec.template.spec.containers[0].resources}'
check "uninstall" helm_of 4 -n app uninstall legacy --wait
check "the charts' CRD goes" on 1 kubectl delete crd widgets.shop.example.com
