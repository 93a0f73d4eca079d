package main

import "fmt"

func volumeZones(f *family) {
	four := append(zones([]int{1, 1, 1}), node("none"))
	in := func(text string) []object { return bind("c", "", "", labels(text)) }
	f.ask("a volume's zone", pod("p", using("c")), four, in(zoneKey+": a"))
	f.ask("a volume's zones", pod("p", using("c")), four, in(zoneKey+": a__b"))
	f.ask("a volume's zone none is in", pod("p", using("c")), four[:3], in(zoneKey+": z"))
	f.ask("a volume's old label of the zone", pod("p", using("c")), four, in("failure-domain.beta.kubernetes.io/zone: a"))
	f.ask("a volume's zone and nodes of old labels", pod("p", using("c")), list(
		node("a", labels("failure-domain.beta.kubernetes.io/zone: a")), node("b", labels("failure-domain.beta.kubernetes.io/zone: b")), node("c")),
		in("failure-domain.beta.kubernetes.io/zone: a"))
	f.ask("a volume's region", pod("p", using("c")), list(node("a", labels("topology.kubernetes.io/region: r")),
		node("b", labels("topology.kubernetes.io/region: s, "+zoneKey+": a")), node("c", labels(zoneKey+": a"))),
		in("topology.kubernetes.io/region: r"))
	f.ask("two volumes of two zones", pod("p", using("c", "d")), four, in(zoneKey+": a"), bind("d", "", "", labels(zoneKey+": b")))
}

func volumeRestrictions(f *family) {
	three := nodes("abc")
	alone := bind("c", "", "")
	alone[0]["spec"].(object)["accessModes"] = []any{"ReadWriteOncePod"}
	f.ask("of one pod alone", pod("p", using("c")), three, alone)
	f.ask("of one pod alone and in use", pod("p", using("c")), three, alone, bound("user", "a", 1, using("c")))
	f.ask("of one pod alone and in use elsewhere", pod("p", using("c")), three, alone, bound("user", "a", 1, using("c"), namespace("far")))
	f.ask("of one pod alone and in use by a lesser one", pod("p", using("c"), priority(10)), three, alone, bound("user", "a", 1, using("c")))
	f.ask("of many pods and in use", pod("p", using("c")), three, bind("c", "", ""), bound("user", "a", 1, using("c")))
	mounted := func(source string) string { return spec("volumes: [{name: v, " + source + "}]") }
	for name, both := range pairs(
		"the same gce disk", "gcePersistentDisk: {pdName: x}|gcePersistentDisk: {pdName: x}",
		"the same gce disk, read only", "gcePersistentDisk: {pdName: x, readOnly: true}|gcePersistentDisk: {pdName: x, readOnly: true}",
		"the same gce disk, one read only", "gcePersistentDisk: {pdName: x, readOnly: true}|gcePersistentDisk: {pdName: x}",
		"another gce disk", "gcePersistentDisk: {pdName: x}|gcePersistentDisk: {pdName: w}",
		"the same aws disk, read only", "awsElasticBlockStore: {volumeID: x, readOnly: true}|awsElasticBlockStore: {volumeID: x, readOnly: true}",
		"the same iscsi target", "iscsi: {targetPortal: 'a:1', iqn: q, lun: 0}|iscsi: {targetPortal: 'b:1', iqn: q, lun: 1}",
		"the same iscsi target, read only", "iscsi: {targetPortal: 'a:1', iqn: q, lun: 0, readOnly: true}|iscsi: {targetPortal: 'a:1', iqn: q, lun: 0, readOnly: true}",
		"the same rbd image", "rbd: {monitors: [a, b], image: i, pool: q}|rbd: {monitors: [b, c], image: i, pool: q}",
		"the same rbd image of other monitors", "rbd: {monitors: [a], image: i, pool: q}|rbd: {monitors: [b], image: i, pool: q}",
		"the same rbd image of another pool", "rbd: {monitors: [a], image: i, pool: q}|rbd: {monitors: [a], image: i, pool: r}",
		"the same rbd image, read only", "rbd: {monitors: [a], image: i, pool: q, readOnly: true}|rbd: {monitors: [a], image: i, pool: q, readOnly: true}",
		"the same nfs share", "nfs: {server: s, path: /}|nfs: {server: s, path: /}",
	) {
		before, after := cut(both)
		f.ask(name, pod("p", mounted(after)), three, bound("user", "a", 1, mounted(before)))
	}
}

// volumeLimits: how many volumes of a CSI driver may be attached to a node.
func volumeLimits(f *family) {
	disk := "example.com/disk"
	limit := func(node string, count int) object {
		return plain("storage.k8s.io/v1", "CSINode", node, fmt.Sprintf(
			"{spec: {drivers: [{name: %s, nodeID: %s, topologyKeys: [], allocatable: {count: %d}}]}}", disk, node, count))
	}
	limits := append(nodes("abc"), limit("a", 1), limit("b", 2), plain("storage.k8s.io/v1", "CSINode", "c", "{spec: {drivers: []}}"))
	served := func(name, driver string) []object {
		made := bind(name, "", "")
		made[1]["spec"].(object)["csi"] = object{"driver": driver, "volumeHandle": name}
		delete(made[1]["spec"].(object), "hostPath")
		return made
	}
	f.ask("one volume more", pod("p", using("c")), limits, served("c", disk))
	f.ask("two volumes more", pod("p", using("c", "d")), limits, served("c", disk), served("d", disk))
	f.ask("one more than are there", pod("p", using("c")), limits, served("c", disk), served("d", disk), bound("user", "a", 1, using("d")))
	f.ask("the same volume again", pod("p", using("c")), limits, served("c", disk), bound("user", "a", 1, using("c")))
	f.ask("volumes of another driver", pod("p", using("c")), limits, served("c", disk), served("d", "other.com/disk"),
		bound("user", "a", 1, using("d")))
	f.ask("volumes still to be provisioned", pod("p", using("c", "d")), limits, list(class("disk", disk), claim("c", "disk"), claim("d", "disk")))
	attached := plain("storage.k8s.io/v1", "VolumeAttachment", "left", fmt.Sprintf(
		"{spec: {attacher: %s, nodeName: a, source: {persistentVolumeName: pv-d}}, status: {attached: true}}", disk))
	f.ask("a volume still attached", pod("p", using("c")), limits, served("c", disk), served("d", disk), list(attached))
	f.ask("a volume attached and used", pod("p", using("c")), append(nodes("ab"), limit("a", 2)), served("c", disk), served("d", disk),
		list(attached), bound("user", "a", 1, using("d")))
	f.ask("a driver that is known", pod("p", using("c")), limits, served("c", disk), list(plain("storage.k8s.io/v1", "CSIDriver", disk, "{spec: {attachRequired: true}}")))
	f.ask("limits of all", pod("p", using("c")), append(nodes("ab"), limit("a", 0), limit("b", 1)), served("c", disk), served("d", disk),
		bound("user", "b", 1, using("d")))
}
