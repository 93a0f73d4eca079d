package main

import "fmt"

func init() { families["taints"] = taints }

func tainted(list string) string { return spec("taints: [" + list + "]") }

func tolerating(list string) string { return spec("tolerations: [" + list + "]") }

// taints: what a node keeps off, what a pod puts up with, and NodeUnschedulable beside it.
func taints(f *family) {
	three := list(node("a"), node("b", tainted("{key: k, value: v, effect: NoSchedule}")),
		node("c", tainted("{key: k, value: w, effect: NoExecute}")), node("d", tainted("{key: l, effect: NoSchedule}")))
	for _, tolerated := range []string{
		"",
		"{key: k, operator: Equal, value: v, effect: NoSchedule}",
		"{key: k, value: v}",
		"{key: k, operator: Exists}",
		"{key: k, operator: Exists, effect: NoExecute}",
		"{key: k, operator: Exists, effect: PreferNoSchedule}",
		"{key: l, operator: Equal, effect: NoSchedule}",
		"{key: k, value: w, effect: NoSchedule}, {key: k, value: v, effect: NoExecute}",
		"{operator: Exists}",
		"{operator: Exists, effect: NoSchedule}",
		"{key: k, operator: Exists}, {key: l, operator: Exists}",
		"{key: k, operator: Exists, effect: NoExecute, tolerationSeconds: 0}",
	} {
		f.ask("tolerates ["+tolerated+"]", pod("p", tolerating(tolerated)), three)
	}
	all := list(node("b", tainted("{key: k, value: v, effect: NoSchedule}")),
		node("c", tainted("{key: m, effect: PreferNoSchedule}, {key: o, effect: NoSchedule}, {key: k, value: w, effect: NoExecute}")))
	f.ask("none is tolerated", pod("p"), all)
	f.ask("one of three is tolerated", pod("p", tolerating("{key: o, operator: Exists}")), all)
	f.ask("values are compared as text", pod("p", tolerating("{key: k, operator: Equal, value: '5'}")),
		list(node("a", tainted("{key: k, value: '05', effect: NoSchedule}")), node("b", tainted("{key: k, value: '5', effect: NoSchedule}"))))
	preferred(f)
	unschedulable(f)
}

func preferred(f *family) {
	prefer := func(keys ...string) string {
		text := ""
		for _, key := range keys {
			text += fmt.Sprintf("{key: %s, effect: PreferNoSchedule}, ", key)
		}
		return tainted(text)
	}
	four := list(node("a"), node("b", prefer("k")), node("c", prefer("k", "l")), node("d", prefer("k", "l", "m")))
	for _, tolerated := range []string{
		"",
		"{key: k, operator: Exists}",
		"{key: k, operator: Exists, effect: NoSchedule}",
		"{key: k, operator: Exists, effect: PreferNoSchedule}, {key: l, operator: Exists}",
		"{operator: Exists}",
	} {
		f.ask("preferred off, tolerates ["+tolerated+"]", pod("p", tolerating(tolerated)), four)
	}
	f.ask("all are as bad", pod("p"), nodes("abc", prefer("k")))
	f.ask("preferred off among those kept off", pod("p"), list(node("a", prefer("k")), node("b", prefer("k", "l")),
		node("c", tainted("{key: x, effect: NoSchedule}"))))
}

func unschedulable(f *family) {
	mixed := list(node("a"), node("b", spec("unschedulable: true")),
		node("c", spec("unschedulable: true, taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]")))
	f.ask("unschedulable", pod("p"), mixed)
	f.ask("unschedulable tolerated", pod("p", tolerating("{key: node.kubernetes.io/unschedulable, operator: Exists}")), mixed)
	f.ask("unschedulable tolerated by another effect", pod("p",
		tolerating("{key: node.kubernetes.io/unschedulable, operator: Exists, effect: NoExecute}")), mixed)
	f.ask("all unschedulable", pod("p"), nodes("ab", spec("unschedulable: true")))
	f.ask("unschedulable and not selected", pod("p", spec("nodeSelector: {kubernetes.io/hostname: z}")), mixed)
	f.ask("not ready", pod("p"), list(node("a", tainted("{key: node.kubernetes.io/not-ready, effect: NoSchedule}")), node("b",
		tainted("{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T00:00:00Z'}"))))
	f.ask("a daemon's tolerations", pod("p", tolerating(`{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute},
		{key: node.kubernetes.io/unschedulable, operator: Exists, effect: NoSchedule}`), spec(`affinity: {nodeAffinity:
		{requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields:
		[{key: metadata.name, operator: In, values: [c]}]}]}}}`)), mixed)
}
