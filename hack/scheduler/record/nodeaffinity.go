package main

import "fmt"

func init() { families["node-affinity"] = nodeAffinity }

// requiring wants one of the terms, each the inside of a NodeSelectorTerm.
func requiring(terms ...string) string {
	text := ""
	for _, term := range terms {
		text += "{" + term + "}, "
	}
	return spec("affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + text + "]}}}")
}

func preferring(terms ...string) string {
	text := ""
	for i := 0; i < len(terms); i += 2 {
		text += fmt.Sprintf("{weight: %s, preference: {%s}}, ", terms[i], terms[i+1])
	}
	return spec("affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [" + text + "]}}")
}

func match(list string) string { return "matchExpressions: [" + list + "]" }

func fields(list string) string { return "matchFields: [" + list + "]" }

// nodeAffinity: a pod's nodeSelector and node affinity, and what the profile adds.
func nodeAffinity(f *family) {
	five := list(node("a", labels("disk: ssd, size: '10', zone: x")), node("b", labels("disk: hdd, size: '5', zone: x")),
		node("c", labels("disk: ssd, size: large, zone: w")), node("d", labels("size: '-3'")), node("e", labels("disk: ''")))
	for _, expression := range []string{
		"{key: disk, operator: In, values: [ssd, nvme]}",
		"{key: disk, operator: NotIn, values: [ssd]}",
		"{key: disk, operator: Exists}",
		"{key: disk, operator: DoesNotExist}",
		"{key: size, operator: Gt, values: ['5']}",
		"{key: size, operator: Lt, values: ['6']}",
		"{key: disk, operator: In, values: ['']}",
		"{key: disk, operator: In, values: [ssd]}, {key: zone, operator: In, values: [w]}",
		"{key: disk, operator: In, values: [floppy]}",
	} {
		f.ask("requires "+expression, pod("p", requiring(match(expression))), five)
	}
	f.ask("either of two terms", pod("p", requiring(match("{key: disk, operator: In, values: [hdd]}"),
		match("{key: zone, operator: In, values: [w]}"))), five)
	f.ask("a term of nothing", pod("p", requiring("")), five)
	f.ask("a term of nothing beside one", pod("p", requiring("", match("{key: zone, operator: In, values: [w]}"))), five)
	selectors(f, five)
	matchFields(f, five)
	weightedAffinity(f, five)
	added(f, five)
}

func selectors(f *family, five []object) {
	f.ask("node selector", pod("p", spec("nodeSelector: {disk: ssd}")), five)
	f.ask("node selector of two", pod("p", spec("nodeSelector: {disk: ssd, zone: w}")), five)
	f.ask("node selector none has", pod("p", spec("nodeSelector: {disk: floppy}")), five)
	f.ask("node selector and affinity", pod("p", spec("nodeSelector: {zone: x}"),
		requiring(match("{key: disk, operator: In, values: [ssd]}"))), five)
}

func matchFields(f *family, five []object) {
	name := func(operator, name string) string {
		return fields(fmt.Sprintf("{key: metadata.name, operator: %s, values: [%s]}", operator, name))
	}
	f.ask("field of one node", pod("p", requiring(name("In", "b"))), five)
	f.ask("field of no node", pod("p", requiring(name("In", "z"))), five)
	f.ask("field not in", pod("p", requiring(name("NotIn", "b"))), five)
	f.ask("fields of two terms", pod("p", requiring(name("In", "b"), name("In", "c"))), five)
	f.ask("fields of two terms, one with labels", pod("p", requiring(name("In", "b"),
		match("{key: disk, operator: In, values: [ssd]}"))), five)
	f.ask("field and labels of one term", pod("p", requiring(name("In", "b")+", "+match("{key: disk, operator: In, values: [ssd]}"))), five)
	f.ask("fields that exclude each other", pod("p", requiring(
		fields("{key: metadata.name, operator: In, values: [b]}, {key: metadata.name, operator: In, values: [c]}"))), five)
	f.ask("field of a node that is full", pod("p", requests("cpu: 1"), requiring(name("In", "b"))), five,
		bound("full", "b", 1, requests("cpu: 4")))
}

func weightedAffinity(f *family, five []object) {
	ssd, large := match("{key: disk, operator: In, values: [ssd]}"), match("{key: size, operator: Gt, values: ['4']}")
	f.ask("prefers", pod("p", preferring("10", ssd)), five)
	f.ask("prefers two things", pod("p", preferring("10", ssd, "30", large)), five)
	f.ask("prefers a name", pod("p", preferring("10", fields("{key: metadata.name, operator: In, values: [d]}"), "7", ssd)), five)
	f.ask("prefers what none has", pod("p", preferring("10", match("{key: disk, operator: In, values: [floppy]}"))), five)
	f.ask("prefers nothing", pod("p", preferring("10", "")), five)
	for i := range 3 {
		f.ask(fmt.Sprint("requires and prefers ", i), pod("p", requiring(match("{key: size, operator: Exists}")),
			preferring(fmt.Sprint(f.between(1, 100)), ssd, fmt.Sprint(f.between(1, 100)), large,
				fmt.Sprint(f.between(1, 100)), match("{key: zone, operator: NotIn, values: [x]}"))), five)
	}
}

func added(f *family, five []object) {
	required := `{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms:
		[{matchExpressions: [{key: zone, operator: In, values: [x]}]}]}}}`
	f.ask("added affinity", pod("p"), five).with("NodeAffinity", required)
	f.ask("added affinity and the pod's own", pod("p", requiring(match("{key: disk, operator: In, values: [ssd]}"))), five).
		with("NodeAffinity", required)
	f.ask("added affinity that none meets", pod("p", spec("nodeSelector: {zone: w}")), nodes("ab", labels("zone: w"))).
		with("NodeAffinity", required)
	f.ask("added preference", pod("p", preferring("10", match("{key: disk, operator: In, values: [ssd]}"))), five).
		with("NodeAffinity", `{addedAffinity: {preferredDuringSchedulingIgnoredDuringExecution:
		[{weight: 25, preference: {matchExpressions: [{key: zone, operator: In, values: [w]}]}}]}}`)
}
