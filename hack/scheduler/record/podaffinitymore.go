package main

import "fmt"

// affinityNamespaces: a term looks at the pod's namespace, those it names, and those it selects.
func affinityNamespaces(f *family) {
	six := zones([]int{2, 2, 2})
	spaces := list(plain("v1", "Namespace", "default", labels("kubernetes.io/metadata.name: default, team: x")),
		plain("v1", "Namespace", "far", labels("kubernetes.io/metadata.name: far, team: z")),
		plain("v1", "Namespace", "lone", labels("kubernetes.io/metadata.name: lone")))
	there := append(bound("db", "b0", 1, labels("app: db"), namespace("far")), bound("db", "c0", 1, labels("app: db"), namespace("lone"))...)
	here := bound("db", "a0", 1, labels("app: db"))
	for name, more := range pairs(
		"own namespace", "",
		"a named namespace", ", namespaces: [far]",
		"two named namespaces", ", namespaces: [far, default]",
		"selected namespaces", ", namespaceSelector: {matchLabels: {team: z}}",
		"all namespaces", ", namespaceSelector: {}",
		"selected and named", ", namespaceSelector: {matchLabels: {team: z}}, namespaces: [lone]",
		"namespaces that lack a label", ", namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}",
		"no namespace selected", ", namespaceSelector: {matchLabels: {team: none}}",
	) {
		f.ask("near in "+name, pod("p", near(term("db", zoneKey, more))), six, spaces, there, here)
		f.ask("apart in "+name, pod("p", apart(term("db", zoneKey, more))), six, spaces, there, here)
	}
	f.ask("those there select its namespace", pod("p", labels("app: web")), six, spaces, bound("jealous", "a0", 1,
		apart(term("web", zoneKey, ", namespaceSelector: {matchLabels: {team: x}}")), namespace("far")))
	f.ask("those there select another namespace", pod("p", labels("app: web")), six, spaces, bound("jealous", "a0", 1,
		apart(term("web", zoneKey, ", namespaceSelector: {matchLabels: {team: z}}")), namespace("far")))
	f.ask("preferred in selected namespaces", pod("p", ratherNear("10", term("db", zoneKey, ", namespaceSelector: {matchLabels: {team: z}}"))), six, spaces, there, here)
}

// affinityKeys: the API server turns matchLabelKeys into expressions of the selector, and both stand in a stored pod.
func affinityKeys(f *family) {
	six := zones([]int{2, 2, 2})
	there := append(bound("old", "a0", 1, labels("app: db, hash: old")), bound("new", "b0", 1, labels("app: db, hash: new"))...)
	keyed := func(operator, field string) string {
		return fmt.Sprintf(`labelSelector: {matchLabels: {app: db}, matchExpressions: [{key: hash, operator: %s, values: [new]}]},
			topologyKey: %s, %s: [hash]`, operator, zoneKey, field)
	}
	for name, text := range pairs("match label keys", keyed("In", "matchLabelKeys"), "mismatch label keys", keyed("NotIn", "mismatchLabelKeys"),
		"match label keys that were not turned", term("db", zoneKey, ", matchLabelKeys: [hash]")) {
		f.ask("near by "+name, pod("p", labels("app: db, hash: new"), near(text)), six, there)
		f.ask("apart by "+name, pod("p", labels("app: db, hash: new"), apart(text)), six, there)
	}
}

func preferredNear(f *family) {
	six := zones([]int{2, 2, 2})
	there := append(webs(six, []int{1, 0, 2, 1}), bound("db", "c0", 1, labels("app: db"))...)
	f.ask("rather near", pod("p", ratherNear("10", term("web", zoneKey, ""))), six, there)
	f.ask("rather near by host", pod("p", ratherNear("10", term("web", hostKey, ""))), six, there)
	f.ask("rather apart", pod("p", ratherApart("10", term("web", zoneKey, ""))), six, there)
	f.ask("rather near one and another", pod("p", ratherNear("10", term("web", zoneKey, ""), "25", term("db", hostKey, ""))), six, there)
	f.ask("rather near one and apart from another", pod("p", spec("affinity: {podAffinity: {"+preferredTerms([]string{"10", term("web", zoneKey, "")})+
		"}, podAntiAffinity: {"+preferredTerms([]string{"50", term("db", zoneKey, "")})+"}}")), six, there)
	f.ask("rather near none there", pod("p", ratherNear("10", term("cache", zoneKey, ""))), six, there)
	f.ask("rather near on nodes without the key", pod("p", ratherNear("10", term("web", "rack", ""))), six, there)
	for i := range 4 {
		counts := make([]int, 6)
		for each := range counts {
			counts[each] = f.between(0, 4)
		}
		f.ask(fmt.Sprint("rather near and apart ", i), pod("p", labels("app: web"), spec("affinity: {podAffinity: {"+
			preferredTerms([]string{fmt.Sprint(f.between(1, 100)), term("web", f.pick(zoneKey, hostKey), "")})+
			"}, podAntiAffinity: {"+preferredTerms([]string{fmt.Sprint(f.between(1, 100)), term("db", f.pick(zoneKey, hostKey), "")})+"}}")),
			six, webs(six, counts), bound("db", f.pick("a0", "b1"), f.between(1, 3), labels("app: db")))
	}
}

func preferredByThoseThere(f *family) {
	six := zones([]int{2, 2, 2})
	p := pod("p", labels("app: web"))
	f.ask("those there would rather have it near", p, six, bound("friend", "a0", 2, ratherNear("20", term("web", zoneKey, ""))))
	f.ask("those there would rather have it apart", p, six, bound("foe", "a0", 2, ratherApart("20", term("web", hostKey, ""))))
	requiring := bound("needy", "b0", 1, near(term("web", zoneKey, "")))
	f.ask("those there require it near", p, six, requiring)
	f.ask("those there require it near, with weight", pod("p", labels("app: web"), ratherNear("10", term("db", zoneKey, ""))), six, requiring,
		bound("db", "c0", 1, labels("app: db"))).with("InterPodAffinity", "{hardPodAffinityWeight: 40}")
	f.ask("those there require it near, without weight", p, six, requiring).with("InterPodAffinity", "{hardPodAffinityWeight: 0}")
	f.ask("preferences of those there are ignored", pod("p", labels("app: web")), six, bound("friend", "a0", 2, ratherNear("20", term("web", zoneKey, "")))).
		with("InterPodAffinity", "{ignorePreferredTermsOfExistingPods: true}")
	f.ask("preferences of those there are ignored for one that has some", pod("p", labels("app: web"), ratherNear("10", term("db", zoneKey, ""))), six,
		bound("friend", "a0", 2, ratherNear("20", term("web", zoneKey, ""))), bound("db", "c0", 1, labels("app: db"))).
		with("InterPodAffinity", "{ignorePreferredTermsOfExistingPods: true}")
	f.ask("friends and foes", p, six, bound("friend", "a0", 2, ratherNear("20", term("web", zoneKey, ""))),
		bound("foe", "a1", 1, ratherApart("30", term("web", hostKey, ""))), requiring,
		bound("far", "c0", 1, ratherNear("99", term("web", zoneKey, "")), namespace("far")))
}
