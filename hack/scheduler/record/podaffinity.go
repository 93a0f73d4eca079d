package main

import "fmt"

func init() { families["pod-affinity"] = podAffinity }

// term is a pod affinity term over a topology for pods of an app; more begins with a comma.
func term(app, key, more string) string {
	return fmt.Sprintf("labelSelector: {matchLabels: {app: %s}}, topologyKey: %s%s", app, key, more)
}

// near and apart are a pod's required terms, wanting its preferred ones as pairs of weight and term.
func near(terms ...string) string {
	return spec("affinity: {podAffinity: {" + requiredTerms(terms) + "}}")
}
func apart(terms ...string) string {
	return spec("affinity: {podAntiAffinity: {" + requiredTerms(terms) + "}}")
}

func ratherNear(terms ...string) string {
	return spec("affinity: {podAffinity: {" + preferredTerms(terms) + "}}")
}

func ratherApart(terms ...string) string {
	return spec("affinity: {podAntiAffinity: {" + preferredTerms(terms) + "}}")
}

func requiredTerms(terms []string) string {
	text := ""
	for _, each := range terms {
		text += "{" + each + "}, "
	}
	return "requiredDuringSchedulingIgnoredDuringExecution: [" + text + "]"
}

func preferredTerms(terms []string) string {
	text := ""
	for i := 0; i < len(terms); i += 2 {
		text += fmt.Sprintf("{weight: %s, podAffinityTerm: {%s}}, ", terms[i], terms[i+1])
	}
	return "preferredDuringSchedulingIgnoredDuringExecution: [" + text + "]"
}

// podAffinity: what a pod wants near or far, and what those there want of it.
func podAffinity(f *family) {
	requiredNear(f)
	requiredApart(f)
	wantedByThoseThere(f)
	affinityNamespaces(f)
	affinityKeys(f)
	preferredNear(f)
	preferredByThoseThere(f)
}

func requiredNear(f *family) {
	six := zones([]int{2, 2, 2})
	db := bound("db", "b0", 1, labels("app: db"))
	f.ask("near by zone", pod("p", near(term("db", zoneKey, ""))), six, db)
	f.ask("near by host", pod("p", near(term("db", hostKey, ""))), six, db)
	f.ask("near nothing there", pod("p", near(term("db", zoneKey, ""))), six)
	f.ask("first of its group", pod("p", labels("app: db"), near(term("db", zoneKey, ""))), six)
	f.ask("second of its group", pod("p", labels("app: db"), near(term("db", zoneKey, ""))), six, db)
	f.ask("first of its group elsewhere", pod("p", labels("app: db"), near(term("db", zoneKey, ""))), six,
		bound("db", "b0", 1, labels("app: db"), namespace("far")))
	f.ask("first of its group where no node has the key", pod("p", labels("app: db"), near(term("db", "rack", ""))), six)
	f.ask("two terms met by one pod", pod("p", near(term("db", zoneKey, ""), "labelSelector: {matchLabels: {tier: back}}, topologyKey: "+zoneKey)), six,
		bound("db", "b0", 1, labels("app: db, tier: back")))
	f.ask("two terms met by two pods", pod("p", near(term("db", zoneKey, ""), term("cache", hostKey, ""))), six,
		db, bound("cache", "b1", 1, labels("app: cache")))
	f.ask("first of a group of two terms", pod("p", labels("app: db, tier: back"),
		near(term("db", zoneKey, ""), "labelSelector: {matchLabels: {tier: back}}, topologyKey: "+hostKey)), six)
	f.ask("one of two terms is its own", pod("p", labels("app: db"), near(term("db", zoneKey, ""), term("cache", zoneKey, ""))), six)
	missing := append(zones([]int{1, 1}), node("none"))
	f.ask("near on a node without the key", pod("p", near(term("db", zoneKey, ""))), missing, bound("db", "none", 1, labels("app: db")))
	f.ask("near by expressions", pod("p", near("labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}, {key: app, operator: Exists}]}, topologyKey: "+zoneKey)),
		six, db, bound("web", "a0", 1, labels("app: web")))
	f.ask("near an ending pod", pod("p", near(term("db", zoneKey, ""))), six,
		bound("db", "a0", 1, labels("app: db"), "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}"))
	f.ask("near anything", pod("p", near("labelSelector: {}, topologyKey: "+zoneKey)), six, db)
	f.ask("near by no selector", pod("p", near("topologyKey: "+zoneKey)), six, db)
}

func requiredApart(f *family) {
	six := zones([]int{2, 2, 2})
	f.ask("apart by host", pod("p", apart(term("web", hostKey, ""))), six, webs(six, []int{1, 0, 1}))
	f.ask("apart by zone", pod("p", apart(term("web", zoneKey, ""))), six, webs(six, []int{1, 0, 1}))
	f.ask("apart from all", pod("p", apart(term("web", zoneKey, ""))), six, webs(six, []int{1, 0, 1, 0, 1}))
	f.ask("apart from its like", pod("p", labels("app: web"), apart(term("web", hostKey, ""))), six, webs(six, []int{1, 0, 1}, apart(term("web", hostKey, ""))))
	f.ask("apart by two terms", pod("p", apart(term("web", hostKey, ""), term("db", zoneKey, ""))), six,
		webs(six, []int{1, 0, 1}), bound("db", "c0", 1, labels("app: db")))
	f.ask("near and apart", pod("p", spec("affinity: {podAffinity: {"+requiredTerms([]string{term("db", zoneKey, "")})+
		"}, podAntiAffinity: {"+requiredTerms([]string{term("web", hostKey, "")})+"}}")), six,
		webs(six, []int{1, 0, 1}), bound("db", "a1", 1, labels("app: db")))
	f.ask("near and apart exclude each other", pod("p", spec("affinity: {podAffinity: {"+requiredTerms([]string{term("web", zoneKey, "")})+
		"}, podAntiAffinity: {"+requiredTerms([]string{term("web", zoneKey, "")})+"}}")), six, webs(six, []int{1, 0, 1}))
	missing := append(zones([]int{1, 1}), node("none"))
	f.ask("apart on a node without the key", pod("p", apart(term("web", zoneKey, ""))), missing, webs(missing, []int{1, 0, 1}))
}

func wantedByThoseThere(f *family) {
	six := zones([]int{2, 2, 2})
	jealous := bound("jealous", "a0", 1, apart(term("web", zoneKey, "")))
	f.ask("those there want it apart", pod("p", labels("app: web")), six, jealous)
	f.ask("those there want another apart", pod("p", labels("app: db")), six, jealous)
	f.ask("those there want it apart by host", pod("p", labels("app: web")), six, bound("jealous", "a0", 1, apart(term("web", hostKey, ""))))
	f.ask("all there want it apart", pod("p", labels("app: web")), six, jealous, bound("jealous", "b0", 1, apart(term("web", zoneKey, ""))),
		bound("jealous", "c1", 1, apart(term("web", zoneKey, ""))))
	f.ask("those there of another namespace", pod("p", labels("app: web")), six,
		bound("jealous", "a0", 1, apart(term("web", zoneKey, "")), namespace("far")))
	f.ask("those there of another namespace that name this", pod("p", labels("app: web")), six,
		bound("jealous", "a0", 1, apart(term("web", zoneKey, ", namespaces: [default]")), namespace("far")))
	f.ask("those there on a node without the key", pod("p", labels("app: web")), append(zones([]int{1, 1}), node("none")),
		bound("jealous", "none", 1, apart(term("web", zoneKey, ""))))
	f.ask("all three kinds of refusal", pod("p", labels("app: web"), spec("affinity: {podAffinity: {"+requiredTerms([]string{term("db", zoneKey, "")})+
		"}, podAntiAffinity: {"+requiredTerms([]string{term("cache", hostKey, "")})+"}}")), zones([]int{1, 2, 1}),
		jealous, bound("db", "a0", 1, labels("app: db")), bound("db", "b0", 1, labels("app: db")), bound("cache", "b0", 1, labels("app: cache")),
		bound("cache", "b1", 1, labels("app: cache")))
}
