package main

import "fmt"

func init() { families["volumes"] = volumes }

// using mounts claims of the pod's namespace.
func using(claims ...string) string {
	text := ""
	for _, claim := range claims {
		text += fmt.Sprintf("{name: %s, persistentVolumeClaim: {claimName: %s}}, ", claim, claim)
	}
	return spec("volumes: [" + text + "]")
}

// claim is an unbound one of a class for 1 GiB.
func claim(name, class string, pieces ...string) object {
	return plain("v1", "PersistentVolumeClaim", "default/"+name, append([]string{fmt.Sprintf(`{spec: {storageClassName: %q,
		accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}, status: {phase: Pending}}`, class)}, pieces...)...)
}

// volume is an available one of a class and size at a path of the node, or of all where node is empty.
func volume(name, class, size, node string, pieces ...string) object {
	text := fmt.Sprintf(`{spec: {storageClassName: %q, capacity: {storage: %s}, accessModes: [ReadWriteOnce],
		hostPath: {path: /data}}, status: {phase: Available}}`, class, size)
	if node != "" {
		pieces = append([]string{fmt.Sprintf(`{spec: {nodeAffinity: {required: {nodeSelectorTerms:
			[{matchExpressions: [{key: %s, operator: In, values: [%s]}]}]}}}}`, hostKey, node)}, pieces...)
	}
	return plain("v1", "PersistentVolume", name, append([]string{text}, pieces...)...)
}

// bind is a claim and a volume that are each other's.
func bind(name, class, node string, pieces ...string) []object {
	return list(claim(name, class, fmt.Sprintf(`{metadata: {annotations: {pv.kubernetes.io/bind-completed: 'yes'}},
			spec: {volumeName: pv-%s}, status: {phase: Bound}}`, name)),
		volume("pv-"+name, class, "1Gi", node, append([]string{fmt.Sprintf(`{spec: {claimRef: {apiVersion: v1,
			kind: PersistentVolumeClaim, namespace: default, name: %s, uid: default/%s}}, status: {phase: Bound}}`, name, name)}, pieces...)...))
}

// class is a storage class; what provisions it is told to wait for the first consumer.
func class(name, provisioner string, pieces ...string) object {
	return plain("storage.k8s.io/v1", "StorageClass", name, append([]string{fmt.Sprintf(
		"{provisioner: %s, volumeBindingMode: WaitForFirstConsumer}", provisioner)}, pieces...)...)
}

const nobody = "kubernetes.io/no-provisioner"

// volumes: claims that are bound, that wait for the pod, and that cannot be; zones, limits, and volumes one pod alone may use.
func volumes(f *family) {
	boundClaims(f)
	brokenClaims(f)
	waitingClaims(f)
	provisionedClaims(f)
	capacities(f)
	volumeZones(f)
	volumeRestrictions(f)
	volumeLimits(f)
}

func boundClaims(f *family) {
	three := nodes("abc")
	local := list(class("local", nobody))
	f.ask("bound on one node", pod("p", using("c")), three, local, bind("c", "local", "b"))
	f.ask("bound on any node", pod("p", using("c")), three, bind("c", "", ""))
	f.ask("bound on two nodes", pod("p", using("c", "d")), three, local, bind("c", "local", "b"), bind("d", "local", "c"))
	f.ask("bound on a node that is not there", pod("p", using("c")), three, local, bind("c", "local", "z"))
	f.ask("bound on a full node", pod("p", using("c"), requests("cpu: 1")), three, local, bind("c", "local", "b"),
		bound("full", "b", 1, requests("cpu: 4")))
	f.ask("bound to a volume that is gone", pod("p", using("c")), three, bind("c", "", "")[:1])
}

func brokenClaims(f *family) {
	three := nodes("abc")
	f.ask("no claim", pod("p", using("c")), three)
	f.ask("no claim of two", pod("p", using("c", "d")), three, bind("c", "", ""))
	f.ask("a claim that ends", pod("p", using("c")), three, list(bind("c", "", "")[1],
		claim("c", "", "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pvc-protection]}}")))
	f.ask("a lost claim", pod("p", using("c")), three, list(claim("c", "",
		"{metadata: {annotations: {pv.kubernetes.io/bind-completed: 'yes'}}, spec: {volumeName: gone}, status: {phase: Lost}}")))
	immediate := class("now", "example.com/disk", "{volumeBindingMode: Immediate}")
	f.ask("unbound and immediate", pod("p", using("c")), three, list(immediate, claim("c", "now")))
	f.ask("unbound of no class", pod("p", using("c")), three, list(claim("c", "")))
	f.ask("unbound of a class that is not there", pod("p", using("c")), three, list(claim("c", "none")))
	f.ask("named a volume and not bound yet", pod("p", using("c")), three, list(class("local", nobody),
		claim("c", "local", "{spec: {volumeName: v}}"), volume("v", "local", "1Gi", "b")))
	ephemeral := spec("volumes: [{name: scratch, ephemeral: {volumeClaimTemplate: {spec: {storageClassName: local, " +
		"accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]")
	owned := "{metadata: {ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: default/p, controller: true}]}}"
	local := list(class("local", nobody), volume("v", "local", "1Gi", "b"))
	f.ask("an ephemeral volume without its claim", pod("p", ephemeral), three, local)
	f.ask("an ephemeral volume", pod("p", ephemeral), three, local, list(claim("p-scratch", "local", owned)))
	f.ask("an ephemeral volume whose claim is another's", pod("p", ephemeral), three, local, list(claim("p-scratch", "local")))
}

func waitingClaims(f *family) {
	three := nodes("abc")
	local := list(class("local", nobody))
	f.ask("a volume on one node", pod("p", using("c")), three, local, list(claim("c", "local"), volume("v", "local", "1Gi", "b")))
	f.ask("a volume on each of two", pod("p", using("c")), three, local, list(claim("c", "local"),
		volume("v", "local", "5Gi", "b"), volume("w", "local", "1Gi", "a")))
	f.ask("no volume", pod("p", using("c")), three, local, list(claim("c", "local")))
	f.ask("a volume that is too small", pod("p", using("c")), three, local, list(claim("c", "local"), volume("v", "local", "1G", "b")))
	f.ask("two claims and one volume", pod("p", using("c", "d")), three, local, list(claim("c", "local"), claim("d", "local"),
		volume("v", "local", "1Gi", "b")))
	f.ask("two claims and two volumes", pod("p", using("c", "d")), three, local, list(claim("c", "local"),
		claim("d", "local", "{spec: {resources: {requests: {storage: 3Gi}}}}"), volume("v", "local", "2Gi", "b"), volume("w", "local", "4Gi", "b"),
		volume("x", "local", "2Gi", "a"), volume("y", "local", "2Gi", "a")))
	for name, text := range pairs(
		"of another class", "{spec: {storageClassName: other}}",
		"with another mode of access", "{spec: {accessModes: [ReadOnlyMany]}}",
		"that is a device", "{spec: {volumeMode: Block}}",
		"that is released", "{spec: {claimRef: {namespace: default, name: gone, uid: gone}}, status: {phase: Released}}",
		"that is another claim's", "{spec: {claimRef: {namespace: default, name: other}}}",
		"that is kept for the claim", "{spec: {claimRef: {namespace: default, name: c}}}",
		"that ends", "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pv-protection]}}",
	) {
		f.ask("a volume "+name, pod("p", using("c")), three, local, list(claim("c", "local"), volume("v", "local", "1Gi", "b", text)))
	}
	f.ask("a selector", pod("p", using("c")), three, local, list(claim("c", "local", "{spec: {selector: {matchLabels: {kind: fast}}}}"),
		volume("v", "local", "1Gi", "b"), volume("w", "local", "1Gi", "c", labels("kind: fast"))))
	f.ask("one claim bound and one waits", pod("p", using("c", "d")), three, local, bind("c", "local", "b"),
		list(claim("d", "local"), volume("v", "local", "1Gi", "a")))
	f.ask("one claim bound and one waits on the same node", pod("p", using("c", "d")), three, local, bind("c", "local", "b"),
		list(claim("d", "local"), volume("v", "local", "1Gi", "b")))
}

func provisionedClaims(f *family) {
	three := zones([]int{1, 1, 1})
	disk := "example.com/disk"
	f.ask("provisioned", pod("p", using("c")), three, list(class("disk", disk), claim("c", "disk")))
	inside := fmt.Sprintf("{allowedTopologies: [{matchLabelExpressions: [{key: %s, values: [a, c]}]}]}", zoneKey)
	f.ask("provisioned in two zones", pod("p", using("c")), three, list(class("disk", disk, inside), claim("c", "disk")))
	either := fmt.Sprintf(`{allowedTopologies: [{matchLabelExpressions: [{key: %s, values: [a]}]},
		{matchLabelExpressions: [{key: %s, values: [b0]}, {key: %s, values: [b]}]}]}`, zoneKey, hostKey, zoneKey)
	f.ask("provisioned by either of two terms", pod("p", using("c")), three, list(class("disk", disk, either), claim("c", "disk")))
	f.ask("provisioned nowhere", pod("p", using("c")), three, list(class("disk", disk,
		"{allowedTopologies: [{matchLabelExpressions: [{key: rack, values: [x]}]}]}"), claim("c", "disk")))
	f.ask("provisioned or found", pod("p", using("c")), three, list(class("disk", disk, inside), claim("c", "disk"),
		volume("v", "disk", "1Gi", "b0")))
	f.ask("one found and one provisioned", pod("p", using("c", "d")), three, list(class("disk", disk, inside), claim("c", "disk"),
		claim("d", "disk"), volume("v", "disk", "1Gi", "b0"), volume("w", "disk", "1Gi", "c0")))
	f.ask("a node was selected before", pod("p", using("c")), three, list(class("disk", disk),
		claim("c", "disk", "{metadata: {annotations: {volume.kubernetes.io/selected-node: b0}}}")))
	f.ask("a class of the old annotation", pod("p", using("c")), three, list(class("disk", disk),
		claim("c", "none", "{metadata: {annotations: {volume.beta.kubernetes.io/storage-class: disk}}}")))
}

func capacities(f *family) {
	three := zones([]int{1, 1, 1})
	disk := "example.com/disk"
	driver := func(tracked bool) object {
		return plain("storage.k8s.io/v1", "CSIDriver", disk, fmt.Sprintf("{spec: {storageCapacity: %v}}", tracked))
	}
	capacity := func(name, class, zone, more string) object {
		return plain("storage.k8s.io/v1", "CSIStorageCapacity", "default/"+name, fmt.Sprintf(
			"{storageClassName: %s, nodeTopology: {matchLabels: {%s: %s}}, %s}", class, zoneKey, zone, more))
	}
	wanted := list(class("disk", disk), claim("c", "disk"))
	f.ask("capacity that is not tracked", pod("p", using("c")), three, wanted, list(driver(false)))
	f.ask("no capacity anywhere", pod("p", using("c")), three, wanted, list(driver(true)))
	f.ask("capacity in one zone", pod("p", using("c")), three, wanted, list(driver(true),
		capacity("one", "disk", "a", "capacity: 2Gi"), capacity("two", "disk", "b", "capacity: 1G"), capacity("three", "other", "c", "capacity: 9Gi")))
	f.ask("the largest volume counts", pod("p", using("c")), three, wanted, list(driver(true),
		capacity("one", "disk", "a", "capacity: 2Gi, maximumVolumeSize: 1G"), capacity("two", "disk", "b", "capacity: 1G, maximumVolumeSize: 1Gi"),
		capacity("three", "disk", "c", "")))
	f.ask("a volume found needs no capacity", pod("p", using("c")), three, wanted, list(driver(true), volume("v", "disk", "1Gi", "c0")))
}
