package main

import "fmt"

func init() { families["spread"] = spread }

const (
	zoneKey = "topology.kubernetes.io/zone"
	hostKey = "kubernetes.io/hostname"
	hard    = "DoNotSchedule"
	soft    = "ScheduleAnyway"
	web     = ", labelSelector: {matchLabels: {app: web}}"
)

// even is a constraint; more begins with a comma.
func even(skew int, key, when, more string) string {
	return fmt.Sprintf("{maxSkew: %d, topologyKey: %s, whenUnsatisfiable: %s%s}", skew, key, when, more)
}

func spreading(constraints ...string) string {
	text := ""
	for _, each := range constraints {
		text += each + ", "
	}
	return spec("topologySpreadConstraints: [" + text + "]")
}

// webs binds as many pods of the app as counts say to the nodes in their order.
func webs(among []object, counts []int, pieces ...string) []object {
	var all []object
	for i, count := range counts {
		name := among[i]["metadata"].(object)["name"].(string)
		all = append(all, bound("web", name, count, append([]string{labels("app: web")}, pieces...)...)...)
	}
	return all
}

// spread: topologySpreadConstraints as filters and as scores, and those the scheduler adds itself.
func spread(f *family) {
	hardSpread(f)
	minimumDomains(f)
	spreadPolicies(f)
	spreadKeys(f)
	whoCounts(f)
	softSpread(f)
	defaultSpread(f)
	listedSpread(f)
}

func hardSpread(f *family) {
	six := zones([]int{2, 2, 2})
	p := func(constraints ...string) object { return pod("p", labels("app: web"), spreading(constraints...)) }
	f.ask("skew of one over zones", p(even(1, zoneKey, hard, web)), six, webs(six, []int{2, 0, 1, 0, 1}))
	f.ask("skew of two over zones", p(even(2, zoneKey, hard, web)), six, webs(six, []int{2, 1, 1, 1, 1}))
	f.ask("skew of one over hosts", p(even(1, hostKey, hard, web)), six, webs(six, []int{1, 2, 1, 1, 1, 1}))
	f.ask("an empty zone", p(even(1, zoneKey, hard, web)), six, webs(six, []int{1, 0, 1}))
	f.ask("over zones and hosts", p(even(1, zoneKey, hard, web), even(1, hostKey, hard, web)), six, webs(six, []int{1, 0, 1, 1, 1, 0}))
	f.ask("zones and hosts exclude each other", p(even(1, zoneKey, hard, web), even(1, hostKey, hard, web)), zones([]int{1, 1}),
		bound("web", "a0", 2, labels("app: web")), bound("web", "b0", 2, labels("app: other")), bound("host", "b0", 1, labels("app: web")))
	f.ask("selects others than itself", pod("p", labels("app: other"), spreading(even(1, zoneKey, hard, web))), six, webs(six, []int{2, 0, 1, 0, 1}))
	f.ask("no selector", p(even(1, zoneKey, hard, "")), six, webs(six, []int{2, 0, 1, 0, 1}))
	f.ask("an empty selector", p(even(1, zoneKey, hard, ", labelSelector: {}")), six, webs(six, []int{2, 0, 1, 0, 1}))
	f.ask("a selector of expressions", p(even(1, zoneKey, hard, ", labelSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}")),
		six, webs(six, []int{1, 0, 1, 0, 1}), bound("db", "b0", 1, labels("app: db")))
	f.ask("nothing fits", p(even(1, hostKey, hard, web), even(1, "rack", hard, web)), six)
	for i := range 4 {
		counts := []int{f.between(0, 3), f.between(0, 3), f.between(0, 3), f.between(0, 3), f.between(0, 3), f.between(0, 3)}
		f.ask(fmt.Sprint("hard over any zones ", i), p(even(f.between(1, 3), zoneKey, hard, web), even(f.between(1, 3), hostKey, hard, web)),
			six, webs(six, counts))
	}
}

func minimumDomains(f *family) {
	p := func(more string) object {
		return pod("p", labels("app: web"), spreading(even(1, zoneKey, hard, web+more)))
	}
	two := zones([]int{2, 1})
	f.ask("fewer domains than the minimum", p(", minDomains: 3"), two, webs(two, []int{1, 0, 1}))
	f.ask("fewer domains than the minimum, one empty", p(", minDomains: 3"), two, webs(two, []int{1}))
	f.ask("as many domains as the minimum", p(", minDomains: 2"), two, webs(two, []int{1, 0, 1}))
	f.ask("fewer hosts than the minimum", pod("p", labels("app: web"), spreading(even(2, hostKey, hard, web+", minDomains: 5"))),
		two, webs(two, []int{1, 2, 0}))
}

func spreadPolicies(f *family) {
	p := func(more string, pieces ...string) object {
		return pod("p", append([]string{labels("app: web"), spreading(even(1, zoneKey, hard, web+more))}, pieces...)...)
	}
	inside := requiring(match("{key: " + zoneKey + ", operator: In, values: [a, b]}"))
	six := zones([]int{2, 2, 2})
	there := webs(six, []int{1, 1, 1, 1, 0, 0})
	f.ask("node affinity honoured by default", p("", inside), six, there)
	f.ask("node affinity honoured", p(", nodeAffinityPolicy: Honor", inside), six, there)
	f.ask("node affinity ignored", p(", nodeAffinityPolicy: Ignore", inside), six, there)
	f.ask("node selector honoured", p("", spec("nodeSelector: {"+zoneKey+": a}")), six, there)
	off := append(zones([]int{2, 2}), node("c0", labels(zoneKey+": c"), tainted("{key: k, effect: NoSchedule}")))
	f.ask("taints ignored by default", p(""), off, webs(off, []int{1, 0, 1}))
	f.ask("taints honoured", p(", nodeTaintsPolicy: Honor"), off, webs(off, []int{1, 0, 1}))
	f.ask("taints honoured and tolerated", p(", nodeTaintsPolicy: Honor", tolerating("{key: k, operator: Exists}")), off, webs(off, []int{1, 0, 1}))
	f.ask("taints honoured in the score", pod("p", labels("app: web"), spreading(even(1, zoneKey, soft, web+", nodeTaintsPolicy: Honor"))),
		off, webs(off, []int{2, 0, 1, 0, 3}))
	f.ask("affinity ignored in the score", pod("p", labels("app: web"), inside,
		spreading(even(1, zoneKey, soft, web+", nodeAffinityPolicy: Ignore"))), six, there)
}

func spreadKeys(f *family) {
	six := zones([]int{2, 2, 2})
	p := func(more string) object {
		return pod("p", labels("app: web, pod-template-hash: new"), spreading(even(1, zoneKey, hard, web+more)))
	}
	old := webs(six, []int{2, 1, 1, 0, 0, 0}, labels("pod-template-hash: old"))
	fresh := bound("fresh", "b0", 1, labels("app: web, pod-template-hash: new"))
	f.ask("match label keys", p(", matchLabelKeys: [pod-template-hash]"), six, old, fresh)
	f.ask("match label keys that the server merged", pod("p", labels("app: web, pod-template-hash: new"), spreading(even(1, zoneKey, hard,
		`, labelSelector: {matchLabels: {app: web}, matchExpressions: [{key: pod-template-hash, operator: In, values: [new]}]},
		matchLabelKeys: [pod-template-hash]`))), six, old, fresh)
	f.ask("match label keys the pod has not", p(", matchLabelKeys: [other]"), six, old, fresh)
	f.ask("no match label keys", p(""), six, old, fresh)
	f.ask("match label keys in the score", pod("p", labels("app: web, pod-template-hash: new"),
		spreading(even(1, zoneKey, soft, web+", matchLabelKeys: [pod-template-hash]"))), six, old, fresh)
	missing := append(zones([]int{2, 1}), node("none"))
	f.ask("a node without the key", p(""), missing, webs(missing, []int{1, 0, 0, 3}))
	f.ask("a node without one of two keys", pod("p", labels("app: web"), spreading(even(1, hostKey, hard, web), even(1, zoneKey, hard, web))),
		missing, webs(missing, []int{1, 0, 1, 0}))
	f.ask("no node has the key", p(""), nodes("ab"))
	f.ask("a node without the key in the score", pod("p", labels("app: web"), spreading(even(1, zoneKey, soft, web))),
		missing, webs(missing, []int{1, 0, 0, 3}))
	f.ask("a node without one of two keys in the score", pod("p", labels("app: web"),
		spreading(even(1, hostKey, soft, web), even(1, zoneKey, soft, web))), missing, webs(missing, []int{1, 0, 1, 0}))
	f.ask("no node has the key in the score", pod("p", labels("app: web"), spreading(even(1, zoneKey, soft, web))), nodes("ab"))
}

func whoCounts(f *family) {
	six := zones([]int{1, 1, 1})
	ending := "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}"
	for _, when := range []string{hard, soft} {
		p := pod("p", labels("app: web"), spreading(even(1, zoneKey, when, web)))
		f.ask("ending pods do not count, "+when, p, six, webs(six, []int{1, 1, 0}), bound("ending", "a0", 3, labels("app: web"), ending))
		f.ask("other namespaces do not count, "+when, p, six, webs(six, []int{1, 1, 0}),
			bound("far", "a0", 3, labels("app: web"), namespace("far")))
		f.ask("other apps do not count, "+when, p, six, webs(six, []int{1, 1, 0}), bound("db", "a0", 3, labels("app: db")))
	}
}
