package main

import (
	"fmt"
	"strings"
)

func firstAvailable(f *family) {
	p := pod("p", claiming("c"))
	sub := func(name, model string, count int) string {
		return fmt.Sprintf("{name: %s, deviceClassName: gpu, allocationMode: ExactCount, count: %d%s}", name, count,
			selecting(fmt.Sprintf(`device.attributes["gpu.example.com"].model == %q`, model)))
	}
	either := func(subs ...string) string { return "{name: r, firstAvailable: [" + strings.Join(subs, ", ") + "]}" }
	f.ask("a large one or two small ones", p, machines(), list(wants("c", either(sub("large", "large", 1), sub("small", "small", 2)), "")))
	f.ask("two small ones or a large one", p, machines(), list(wants("c", either(sub("small", "small", 2), sub("large", "large", 1)), "")))
	f.ask("three choices, the last on one node", p, machines(), list(wants("c", either(sub("huge", "huge", 1), sub("large", "large", 1), sub("small", "small", 1)), "")))
	f.ask("no choice", p, machines(), list(wants("c", either(sub("huge", "huge", 1), sub("large", "large", 2)), "")))
	f.ask("a choice and a request", p, machines(), list(wants("c", either(sub("large", "large", 1), sub("small", "small", 1))+", "+exactly("s", 1, ""), "")))
	f.ask("two claims with choices", pod("p", claiming("c", "d")), machines(), list(wants("c", either(sub("large", "large", 1), sub("small", "small", 1)), ""),
		wants("d", either(sub("large", "large", 1), sub("small", "small", 1)), "")))
	f.ask("a choice of a class that is not there", p, machines(), list(wants("c", either(strings.Replace(sub("large", "large", 1), "gpu", "none", 1), sub("small", "small", 1)), "")))
}

func deviceConstraints(f *family) {
	p := pod("p", claiming("c"))
	same := func(attribute, requests string) string {
		return fmt.Sprintf(", constraints: [{matchAttribute: %s/%s%s}]", driver, attribute, requests)
	}
	f.ask("of one bus", p, machines(), list(wants("c", exactly("r", 2, ""), same("bus", ""))))
	f.ask("of one model", p, machines(), list(wants("c", exactly("r", 2, ""), same("model", ""))))
	f.ask("of one rack, which none has", p, machines(), list(wants("c", exactly("r", 2, ""), same("rack", ""))))
	f.ask("some requests of one model", p, machines(), list(wants("c", exactly("r", 1, "")+", "+exactly("s", 1, ""), same("model", ", requests: [r]"))))
	f.ask("both requests of one model", p, machines(), list(wants("c", exactly("r", 1, "")+", "+exactly("s", 1, ""), same("model", ", requests: [r, s]"))))
	f.ask("the first two do not match", p, append(nodes("a"), gpuClass(), local("a", device("a0", "x", 0, 8), device("a1", "w", 1, 8), device("a2", "x", 2, 8))),
		list(wants("c", exactly("r", 2, ""), same("model", ""))))
	f.ask("all of one model", p, machines(), list(wants("c", all("r", ""), same("model", ""))))
}

// allocatedClaims have their devices already, and with them their nodes.
func allocatedClaims(f *family) {
	p := pod("p", claiming("c"))
	f.ask("allocated before", p, machines(), list(wants("c", exactly("r", 1, ""), "", taken("b", "b0", "x"))))
	f.ask("allocated and reserved for it", p, machines(), list(wants("c", exactly("r", 1, ""), "", taken("b", "b0", "p"))))
	f.ask("allocated for all nodes", p, machines(), list(wants("c", exactly("r", 1, ""), "", fmt.Sprintf(`{status: {reservedFor:
		[{resource: pods, name: x, uid: default/x}], allocation: {devices: {results: [{request: r, driver: %s, pool: net, device: n0}]}}}}`, driver))))
	f.ask("one allocated and one not", pod("p", claiming("c", "d")), machines(), list(wants("c", exactly("r", 1, ""), "", taken("b", "b0", "x")),
		wants("d", exactly("r", 1, ""), "")))
	f.ask("one allocated for all nodes and one not", pod("p", claiming("c", "d")), machines(), list(wants("c", exactly("r", 1, ""), "", fmt.Sprintf(`{status:
		{reservedFor: [{resource: pods, name: x, uid: default/x}], allocation: {devices: {results: [{request: r, driver: %s, pool: net, device: n0}]}}}}`,
		driver)), wants("d", exactly("r", 1, ""), "")))
	f.ask("allocated on a full node", pod("p", claiming("c"), requests("cpu: 1")), machines(), list(wants("c", exactly("r", 1, ""), "", taken("b", "b0", "x"))),
		bound("full", "b", 1, requests("cpu: 4")))
	f.ask("allocated on a node that is gone, for others", p, machines(), list(wants("c", exactly("r", 1, ""), "", taken("z", "z0", "x"))))
	f.ask("allocated on a node that is gone, for none", p, machines(), list(wants("c", exactly("r", 1, ""), "", taken("z", "z0"))))
	f.ask("two allocated on two nodes", pod("p", claiming("c", "d")), machines(), list(wants("c", exactly("r", 1, ""), "", taken("a", "a0", "x")),
		wants("d", exactly("r", 1, ""), "", taken("b", "b0", "x"))))
	f.ask("shared by two others", p, machines(), list(wants("c", exactly("r", 1, ""), "", taken("b", "b0", "x", "z"))))
}

func brokenDeviceClaims(f *family) {
	p := pod("p", claiming("c"))
	f.ask("no device claim", p, machines())
	f.ask("a device claim that ends", p, machines(), list(wants("c", exactly("r", 1, ""), "", "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a/b]}}")))
	f.ask("no class", p, nodes("ab"), list(wants("c", exactly("r", 1, ""), ""), local("a", device("a0", "small", 0, 8))))
	from := spec("resourceClaims: [{name: c, resourceClaimTemplateName: t}]")
	made := "{status: {resourceClaimStatuses: [{name: c, resourceClaimName: p-c}]}}"
	f.ask("a template's claim is not made yet", pod("p", from), machines())
	f.ask("a template's claim", pod("p", from, made), machines(), list(wants("p-c", exactly("r", 1, ""), "",
		"{metadata: {ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: default/p, controller: true}]}}")))
	f.ask("a template's claim that is another's", pod("p", from, made), machines(), list(wants("p-c", exactly("r", 1, ""), "",
		"{metadata: {ownerReferences: [{apiVersion: v1, kind: Pod, name: q, uid: default/q, controller: true}]}}")))
	f.ask("a template that needed no claim", pod("p", from, "{status: {resourceClaimStatuses: [{name: c}]}}"), machines())
}

func pools(f *family) {
	p := pod("p", claiming("c"))
	one := list(wants("c", exactly("r", 1, ""), ""))
	every := list(wants("c", all("r", ""), ""))
	n := []string{device("n0", "net", 0, 1), device("n1", "net", 1, 1)}
	three := append(zones([]int{1, 1, 1}), gpuClass())
	f.ask("a pool of all nodes", p, three, list(slice("net", "allNodes: true", n)), one)
	inZone := fmt.Sprintf("nodeSelector: {nodeSelectorTerms: [{matchExpressions: [{key: %s, operator: In, values: [a, b]}]}]}", zoneKey)
	f.ask("a pool of two zones", p, three, list(slice("net", inZone, n)), one)
	f.ask("a device of the net taken", p, three, list(slice("net", inZone, n)), list(wants("c", exactly("r", 2, ""), ""),
		wants("other", exactly("r", 1, ""), "", strings.Replace(taken("a0", "n0", "x"), "pool: a0", "pool: net", 1))))
	part := func(name, generation string, count int, devices ...string) object {
		return slice(name, "nodeName: a", devices, fmt.Sprintf("{spec: {pool: {name: shared, generation: %s, resourceSliceCount: %d}}}", generation, count))
	}
	two := append(nodes("ab"), gpuClass())
	f.ask("a pool of two slices", p, two, list(part("one", "1", 2, device("d0", "x", 0, 8)), part("two", "1", 2, device("d1", "x", 0, 8))),
		list(wants("c", exactly("r", 2, ""), "")))
	f.ask("one of an incomplete pool", p, two, list(part("one", "1", 2, device("d0", "x", 0, 8))), one)
	f.ask("all of an incomplete pool", p, two, list(part("one", "1", 2, device("d0", "x", 0, 8))), every)
	f.ask("an older slice", p, two, list(part("one", "1", 1, device("d0", "x", 0, 8)), part("two", "2", 1, device("d1", "x", 0, 8))),
		list(wants("c", exactly("r", 2, ""), "")))
	f.ask("one device of two generations", p, two, list(part("one", "1", 1, device("d0", "x", 0, 8)), part("two", "2", 1, device("d1", "x", 0, 8))), one)
	f.ask("a device twice in a pool", p, two, list(part("one", "1", 2, device("d0", "x", 0, 8)), part("two", "1", 2, device("d0", "x", 0, 8))), one)
	f.ask("all of a pool with a device twice", p, two, list(part("one", "1", 2, device("d0", "x", 0, 8)), part("two", "1", 2, device("d0", "x", 0, 8))), every)
	f.ask("a taint that is not looked at", p, two, list(local("a", "{name: d0, taints: [{key: k, effect: NoSchedule}]}")), one)
}
