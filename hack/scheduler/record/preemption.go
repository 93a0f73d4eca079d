package main

import "fmt"

func init() { families["preemption"] = preemptions }

// running is a pod with a priority that has run on a node since a second of the day; who runs since when settles ties.
func running(name, node string, rank, second int, pieces ...string) object {
	return pod(name, append([]string{on(node), priority(rank), fmt.Sprintf("{status: {phase: Running, startTime: '2026-01-01T%02d:%02d:%02dZ'}}",
		second/3600, second/60%60, second%60)}, pieces...)...)
}

// preemptions: whom a pod may push aside where no node has room.
func preemptions(f *family) {
	whoIsAsked(f)
	whichNode(f)
	reprieves(f)
	budgets(f)
	nominations(f)
	otherConflicts(f)
	crowdedOut(f)
}

func whoIsAsked(f *family) {
	one, two := requests("cpu: 1"), requests("cpu: 2")
	small := nodes("abc", room("cpu: 2"))
	full := func(a, b, c int) []object {
		return list(running("v", "a", a, 1, two), running("w", "b", b, 2, two), running("x", "c", c, 3, two))
	}
	f.ask("one victim", pod("p", one, priority(100)), small, full(10, 100, 200))
	f.ask("none is of less", pod("p", one, priority(100)), small, full(100, 100, 200))
	f.ask("no priority against none", pod("p", one), small, list(pod("v", on("a"), two), pod("w", on("b"), two), pod("x", on("c"), two)))
	f.ask("a negative priority", pod("p", one), small, full(-1, 0, 1))
	f.ask("never", pod("p", one, priority(100), spec("preemptionPolicy: Never")), small, full(10, 20, 30))
	f.ask("lower priority, said", pod("p", one, priority(100), spec("preemptionPolicy: PreemptLowerPriority")), small, full(10, 20, 30))
	f.ask("critical", pod("p", one, priority(2000001000), spec("priorityClassName: system-node-critical")), small,
		full(2000000000, 2000001000, 2000001000))
	f.ask("too large for all", pod("p", requests("cpu: 3"), priority(100)), small, full(10, 20, 30))
	f.ask("too large even then", pod("p", two, priority(100)), small, list(running("v", "a", 200, 1, one), running("u", "a", 10, 1, one),
		running("w", "b", 200, 2, one), running("t", "b", 10, 2, one), running("x", "c", 200, 3, two)))
	f.ask("nodes that evicting does not help", pod("p", one, priority(100), spec("nodeSelector: {disk: ssd}")),
		list(node("a", room("cpu: 2")), node("b", room("cpu: 2"), labels("disk: ssd")), node("c", room("cpu: 2"), labels("disk: ssd"),
			spec("unschedulable: true"))), full(1, 50, 1))
	f.ask("no node that evicting helps", pod("p", one, priority(100), spec("nodeSelector: {disk: ssd}")), small, full(1, 2, 3))
	f.ask("a pod that ends already", pod("p", one, priority(100)), small, list(running("v", "a", 10, 1, two,
		"{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}"), running("w", "b", 20, 2, two), running("x", "c", 30, 3, two)))
	f.ask("refused before any node", pod("p", one, priority(100), using("none")), small, full(10, 20, 30))
}

// whichNode: fewest budgets broken, lowest highest victim, lowest sum, fewest victims, latest start.
func whichNode(f *family) {
	half, one, two := requests("cpu: 500m"), requests("cpu: 1"), requests("cpu: 2")
	small := nodes("abc", room("cpu: 2"))
	p := pod("p", two, priority(100))
	f.ask("the lowest highest priority", p, small, list(running("v", "a", 30, 1, two), running("w", "b", 20, 2, one), running("w2", "b", 20, 2, one),
		running("x", "c", 40, 3, two)))
	f.ask("the lowest sum", p, small, list(running("v", "a", 20, 1, one), running("v2", "a", 20, 1, one), running("w", "b", 20, 2, one),
		running("w2", "b", 10, 2, one), running("x", "c", 20, 3, one), running("x2", "c", 15, 3, one)))
	f.ask("fewest of negative priorities", p, small, list(running("v", "a", -5, 1, one), running("v2", "a", -5, 1, one), running("w", "b", -5, 2, two),
		running("x", "c", -5, 3, one), running("x2", "c", -10, 3, half), running("x3", "c", -20, 3, half)))
	f.ask("fewest victims", p, small, list(running("v", "a", 0, 1, one), running("v2", "a", 0, 1, one), running("w", "b", 0, 2, two),
		running("x", "c", 0, 3, half), running("x2", "c", 0, 3, half), running("x3", "c", 0, 3, one)))
	f.ask("the latest start", p, small, list(running("v", "a", 10, 100, two), running("w", "b", 10, 300, two), running("x", "c", 10, 200, two)))
	f.ask("the latest of the earliest starts of the highest", p, small, list(
		running("v", "a", 10, 100, one), running("v2", "a", 10, 900, one), running("w", "b", 10, 300, one), running("w2", "b", 10, 400, one),
		running("x", "c", 10, 50, one), running("x2", "c", 10, 1000, one)))
	f.ask("the start of the highest alone counts", p, small, list(
		running("v", "a", 10, 500, one), running("v2", "a", 5, 1, one), running("w", "b", 10, 300, one), running("w2", "b", 5, 400, one),
		running("x", "c", 11, 1000, one), running("x2", "c", 4, 1000, one)))
}

func reprieves(f *family) {
	half, one := requests("cpu: 500m"), requests("cpu: 1")
	single := nodes("a", room("cpu: 2"))
	f.ask("the highest is spared", pod("p", one, priority(100)), single, list(running("v", "a", 10, 1, one), running("w", "a", 20, 2, one)))
	f.ask("the oldest is spared", pod("p", one, priority(100)), single, list(running("v", "a", 10, 900, one), running("w", "a", 10, 2, one)))
	f.ask("what still fits is spared", pod("p", one, priority(100)), single, list(running("v", "a", 30, 1, requests("cpu: 1500m")),
		running("w", "a", 20, 2, half)))
	f.ask("several go", pod("p", requests("cpu: 1500m"), priority(100)), single, list(running("v", "a", 10, 1, half), running("w", "a", 20, 2, half),
		running("x", "a", 30, 3, half), running("z", "a", 40, 4, half)))
	f.ask("all go", pod("p", requests("cpu: 2"), priority(100)), single, list(running("v", "a", 10, 1, half), running("w", "a", 20, 2, half),
		running("x", "a", 30, 3, half)))
	f.ask("one that holds nothing is spared", pod("p", one, priority(100)), single, list(running("v", "a", 10, 1, requests("cpu: 2")), running("w", "a", 5, 2)))
	f.ask("by memory and by cpu", pod("p", requests("cpu: 1, memory: 8Gi"), priority(100)), single, list(running("v", "a", 10, 1, one),
		running("w", "a", 20, 2, requests("memory: 12Gi")), running("x", "a", 30, 3, one)))
	f.ask("by the count of pods", pod("p", priority(100)), nodes("a", room("pods: 2")), list(running("v", "a", 10, 1), running("w", "a", 20, 2)))
	f.ask("by a device", pod("p", requests("example.com/gpu: 1"), priority(100)), list(node("a", room("example.com/gpu: 1")), node("b")), list(
		running("v", "a", 10, 1, requests("example.com/gpu: 1")), running("w", "b", 5, 2, requests("cpu: 4"))))
}

func budgets(f *family) {
	one, two := requests("cpu: 1"), requests("cpu: 2")
	budget := func(name, app string, allowed int, pieces ...string) object {
		return plain("policy/v1", "PodDisruptionBudget", "default/"+name, append([]string{fmt.Sprintf(`{spec: {selector: {matchLabels: {app: %s}}},
			status: {disruptionsAllowed: %d, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1}}`, app, allowed)}, pieces...)...)
	}
	small := nodes("ab", room("cpu: 2"))
	pair := list(running("v", "a", 10, 1, two, labels("app: v")), running("w", "b", 20, 2, two, labels("app: w")))
	p := pod("p", two, priority(100))
	f.ask("a budget is kept", p, small, pair, list(budget("v", "v", 0)))
	f.ask("a budget that allows it", p, small, pair, list(budget("v", "v", 1)))
	f.ask("all budgets break", p, small, pair, list(budget("v", "v", 0), budget("w", "w", 0)))
	f.ask("a budget of another namespace", p, small, pair, list(budget("v", "v", 0, namespace("far"))))
	f.ask("a budget that has it down already", p, small, pair, list(budget("v", "v", 0, "{status: {disruptedPods: {v: '2026-01-01T00:00:00Z'}}}")))
	f.ask("a budget that selects nothing", p, small, pair, list(plain("policy/v1", "PodDisruptionBudget", "default/v",
		"{spec: {selector: {}}, status: {disruptionsAllowed: 0, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1}}")))
	f.ask("fewer broken budgets before lower priorities", p, small, list(running("v", "a", 1, 1, one, labels("app: v")), running("v2", "a", 1, 2, one, labels("app: v")),
		running("w", "b", 50, 2, two)), list(budget("v", "v", 1)))
	f.ask("those within a budget are spared last", pod("p", one, priority(100)), nodes("a", room("cpu: 2")), list(
		running("v", "a", 10, 1, one, labels("app: v")), running("w", "a", 20, 2, one)), list(budget("v", "v", 0)))
	f.ask("two budgets over one pod", p, small, list(running("v", "a", 10, 1, two, labels("app: v, tier: t")), running("w", "b", 20, 2, two)),
		list(budget("v", "v", 1), plain("policy/v1", "PodDisruptionBudget", "default/t", `{spec: {selector: {matchLabels: {tier: t}}},
			status: {disruptionsAllowed: 0, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1}}`)))
}
