package main

import "fmt"

// nominations: pods that wait for a node count there for those of no higher priority.
func nominations(f *family) {
	one, two := requests("cpu: 1"), requests("cpu: 2")
	small := nodes("ab", room("cpu: 2"))
	waits := func(rank int, pieces ...string) object {
		return pod("waits", append([]string{two, priority(rank), "{status: {nominatedNodeName: a}}"}, pieces...)...)
	}
	f.ask("one of more waits for a node", pod("p", one, priority(100)), small).nominate(waits(200))
	f.ask("one as high waits for a node", pod("p", one, priority(100)), small).nominate(waits(100))
	f.ask("one of less waits for a node", pod("p", one, priority(100)), small).nominate(waits(50))
	f.ask("one of more waits for the only node", pod("p", one, priority(100)), small[:1]).nominate(waits(200))
	f.ask("a node is kept from its own victims' room", pod("p", two, priority(100)), small, list(running("v", "a", 10, 1, two),
		running("w", "b", 20, 2, two))).nominate(waits(200))
	f.ask("one of less that waits loses its place", pod("p", two, priority(100)), small[:1], list(running("v", "a", 10, 1, two))).nominate(waits(50))
	f.ask("one that waits and would keep it apart", pod("p", labels("app: web"), priority(100)), small).
		nominate(waits(200, apart(term("web", hostKey, ""))))
	f.ask("one that waits and it wants near", pod("p", priority(100), near(term("web", hostKey, ""))), small).nominate(waits(200, labels("app: web")))
	own := "{status: {nominatedNodeName: a}}"
	evicted := `{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}, status: {conditions:
		[{type: DisruptionTarget, status: "True", reason: PreemptionByScheduler}]}}`
	f.ask("its own node has room", pod("p", one, priority(100), own), small, list(running("w", "b", 10, 1, one)))
	f.ask("its own node has no room yet", pod("p", one, priority(100), own), small, list(running("v", "a", 10, 1, two, evicted), running("w", "b", 20, 2, two)))
	f.ask("its own node has a pod that ends for another reason", pod("p", one, priority(100), own), small, list(
		running("v", "a", 10, 1, two, "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}"), running("w", "b", 20, 2, two)))
	f.ask("its own node no longer suits", pod("p", one, priority(100), own, spec("nodeSelector: {kubernetes.io/hostname: b}")), small, list(
		running("v", "a", 10, 1, two, evicted), running("w", "b", 20, 2, two)))
	f.ask("its own node is gone", pod("p", one, priority(100), "{status: {nominatedNodeName: z}}"), small, list(running("v", "a", 10, 1, two),
		running("w", "b", 20, 2, two)))
	f.ask("its own node and no other", pod("p", one, priority(100), own), small, list(running("v", "a", 200, 1, two), running("w", "b", 200, 2, two)))
	f.ask("another node got room", pod("p", one, priority(100), own), small, list(running("v", "a", 10, 1, two, evicted)))
}

func otherConflicts(f *family) {
	two := requests("cpu: 2")
	small := nodes("ab", room("cpu: 2"))
	f.ask("apart from victims", pod("p", priority(100), apart(term("web", hostKey, ""))), small, list(running("v", "a", 10, 1, labels("app: web")),
		running("w", "b", 200, 2, labels("app: web"))))
	f.ask("victims want it apart", pod("p", priority(100), labels("app: web")), small, list(running("v", "a", 10, 1, apart(term("web", hostKey, ""))),
		running("w", "b", 200, 2, apart(term("web", hostKey, "")))))
	f.ask("apart by zone from pods of other nodes", pod("p", priority(100), apart(term("web", zoneKey, ""))), zones([]int{2}), list(
		running("v", "a0", 10, 1, labels("app: web")), running("w", "a1", 10, 2, labels("app: web"))))
	f.ask("apart by zone from pods of one node", pod("p", priority(100), apart(term("web", zoneKey, ""))), zones([]int{2}), list(
		running("v", "a0", 10, 1, labels("app: web")), running("w", "a0", 20, 2, labels("app: web"))))
	f.ask("near its victim", pod("p", two, priority(100), near(term("web", hostKey, ""))), small, list(running("v", "a", 10, 1, two, labels("app: web")),
		running("w", "b", 20, 2, two)))
	f.ask("near one that could be spared", pod("p", two, priority(100), near(term("web", hostKey, ""))), small, list(running("v", "a", 10, 1, two),
		running("near", "a", 20, 2, labels("app: web")), running("w", "b", 5, 3, two)))
	taken := port("{containerPort: 80, hostPort: 80}")
	f.ask("a host's port", pod("p", taken, priority(100)), small, list(running("v", "a", 10, 1, taken), running("u", "a", 5, 2),
		running("w", "b", 100, 2, taken)))
	f.ask("spread over hosts", pod("p", labels("app: web"), requests("cpu: 1"), priority(100), spreading(even(1, hostKey, hard, web))), nodes("ab", room("cpu: 2")), list(
		running("v", "a", 10, 1, labels("app: web")), running("w", "a", 20, 2, labels("app: web")), running("x", "b", 200, 3, two)),
		list(running("full", "b", 200, 4)))
	f.ask("spread over zones", pod("p", labels("app: web"), two, priority(100), spreading(even(1, zoneKey, hard, web))), zones([]int{1, 1}, room("cpu: 2")), list(
		running("v", "a0", 10, 1, two, labels("app: web")), running("w", "b0", 20, 2, two)))
	f.ask("a volume of one pod alone", pod("p", priority(100), using("c")), small, list(running("v", "a", 10, 1, using("c")), running("w", "b", 5, 2)), func() []object {
		alone := bind("c", "", "")
		alone[0]["spec"].(object)["accessModes"] = []any{"ReadWriteOncePod"}
		return alone
	}())
	disk := spec("volumes: [{name: v, gcePersistentDisk: {pdName: x}}]")
	f.ask("a disk in use", pod("p", priority(100), disk), small, list(running("v", "a", 10, 1, disk), running("w", "b", 200, 2, disk)))
	f.ask("a taint that is not tolerated beside", pod("p", two, priority(100)), append(nodes("a", room("cpu: 2")),
		node("b", room("cpu: 2"), tainted("{key: k, effect: NoSchedule}"))), list(running("v", "a", 50, 1, two), running("w", "b", 1, 2, two)))
}

// crowdedOut: many pods of some priorities on some nodes, and never a tie, since each started at another time.
func crowdedOut(f *family) {
	for i := range 8 {
		among := nodes("abcdef", room("cpu: 4, memory: 8Gi"))
		var there []object
		for _, each := range "abcdef" {
			for left := 8; left > 0; {
				size := f.between(1, min(left, 3))
				left -= size
				there = append(there, running(fmt.Sprint("v", len(there)), string(each), 10*f.between(0, 4), 60*len(there)+f.between(1, 50),
					requests(fmt.Sprintf("cpu: %dm, memory: %dMi", 500*size, 256*f.between(1, 4))), labels("app: "+f.pick("x", "w", "z"))))
			}
		}
		pdb := plain("policy/v1", "PodDisruptionBudget", "default/x", fmt.Sprintf(`{spec: {selector: {matchLabels: {app: x}}},
			status: {disruptionsAllowed: %d, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1}}`, f.between(0, 2)))
		f.ask(fmt.Sprint("crowded out ", i), pod("p", priority(10*f.between(2, 5)), requests(fmt.Sprintf("cpu: %dm, memory: 1Gi", 500*f.between(1, 5)))),
			among, there, list(pdb))
	}
}
