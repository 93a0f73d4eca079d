package main

import "fmt"

func init() { families["fit"] = fit }

// fit: what a pod asks for, what those there have, and what a node has left.
func fit(f *family) {
	plainFit(f)
	initContainers(f)
	podLevel(f)
	resized(f)
	counted(f)
}

func plainFit(f *family) {
	three := list(node("a"), node("b", room("cpu: 2")), node("c", room("memory: 1Gi")))
	for _, asks := range []string{"cpu: 3", "memory: 2Gi", "cpu: 3, memory: 2Gi", "cpu: 5, memory: 20Gi",
		"ephemeral-storage: 200Gi", "cpu: 4", "cpu: 4001m", "cpu: 100m, memory: 200M"} {
		f.ask("asks for "+asks, pod("p", requests(asks)), three)
	}
	f.ask("nothing asked for fits a full node", pod("p"), nodes("ab", room("cpu: 1")),
		bound("full", "a", 1, requests("cpu: 1, memory: 16Gi")))
	f.ask("nothing asked for fits an overfull node", pod("p"), nodes("ab", room("cpu: 1")),
		bound("full", "a", 2, requests("cpu: 1, memory: 16Gi")))
	f.ask("memory asked for on a node overfull of cpu", pod("p", requests("memory: 1Gi")), nodes("ab", room("cpu: 1")),
		bound("full", "a", 2, requests("cpu: 1")))
	for i := range 6 {
		five := nodes("abcde", room(fmt.Sprintf("cpu: %d, memory: %dGi", f.between(1, 4), f.between(1, 6))))
		asks := fmt.Sprintf("cpu: %dm, memory: %dMi", 100*f.between(1, 15), 256*f.between(1, 6))
		f.ask(fmt.Sprint("a crowd ", i), pod("p", requests(asks)), five, f.crowd(five, 6))
	}
	two := spec(`containers: [{name: c, image: app, resources: {requests: {cpu: 1}}},
		{name: d, image: app, resources: {requests: {cpu: 1500m}}}]`)
	f.ask("two containers are added up", pod("p", two), list(node("a", room("cpu: 2")), node("b", room("cpu: 2500m"))))
	gpus := list(node("a", room("example.com/gpu: 2")), node("b", room("example.com/gpu: 1")), node("c"))
	f.ask("extended resource", pod("p", requests("example.com/gpu: 2")), gpus)
	f.ask("extended resource none has", pod("p", requests("example.com/tpu: 1, example.com/gpu: 1")), gpus)
	f.ask("extended resource of none asked for", pod("p", requests("example.com/tpu: 0, cpu: 1")), gpus)
	f.ask("extended resource taken", pod("p", requests("example.com/gpu: 1")), gpus,
		bound("user", "a", 1, requests("example.com/gpu: 2")), bound("user", "b", 1, requests("example.com/gpu: 1")))
	f.ask("ignored resources", pod("p", requests("example.com/gpu: 2, other.org/tpu: 1, other.com/x: 1")), gpus).
		with("NodeResourcesFit", "{ignoredResources: [example.com/gpu], ignoredResourceGroups: [other.org]}")
	f.ask("huge pages", pod("p", requests("hugepages-2Mi: 64Mi, cpu: 1")),
		list(node("a", room("hugepages-2Mi: 128Mi")), node("b", room("hugepages-2Mi: 32Mi")), node("c")))
}

func initContainers(f *family) {
	sized := list(node("a", room("cpu: 1")), node("b", room("cpu: 2")), node("c", room("cpu: 3")), node("d", room("cpu: 4")))
	one := func(name, cpu, more string) string {
		return fmt.Sprintf("{name: %s, image: app, resources: {requests: {cpu: %s}}%s}", name, cpu, more)
	}
	always := ", restartPolicy: Always"
	for name, containers := range pairs(
		"an init container that is larger", one("i", "2", ""),
		"an init container that is smaller", one("i", "500m", ""),
		"the largest of the init containers", one("i", "1500m", "")+", "+one("j", "2500m", ""),
		"a sidecar is added", one("s", "1500m", always),
		"an init container after a sidecar", one("s", "1", always)+", "+one("i", "2", ""),
		"an init container before a sidecar", one("i", "2", "")+", "+one("s", "1", always),
		"two sidecars around an init container", one("s", "500m", always)+", "+one("i", "2", "")+", "+one("t", "1500m", always),
	) {
		f.ask(name, pod("p", requests("cpu: 1"), spec("initContainers: ["+containers+"]")), sized)
	}
	f.ask("sidecars of those there", pod("p", requests("cpu: 1")), sized,
		bound("with", "d", 1, requests("cpu: 1"), spec("initContainers: ["+one("s", "2500m", always)+"]")),
		bound("with", "c", 1, requests("cpu: 1"), spec("initContainers: ["+one("s", "2500m", "")+"]")))
	f.ask("overhead", pod("p", requests("cpu: 1"), spec("overhead: {cpu: 1500m, memory: 100Mi}")), sized)
	f.ask("overhead over an init container", pod("p", requests("cpu: 1"),
		spec("overhead: {cpu: 500m}, initContainers: ["+one("i", "2", "")+"]")), sized)
	f.ask("overhead of those there", pod("p", requests("cpu: 1")), sized,
		bound("with", "c", 1, requests("cpu: 1"), spec("overhead: {cpu: 1500m}")), bound("with", "d", 1, spec("overhead: {cpu: 1}")))
}

// podLevel: spec.resources stands above its containers'.
func podLevel(f *family) {
	sized := list(node("a", room("cpu: 1")), node("b", room("cpu: 2, memory: 1Gi")), node("c", room("cpu: 3")))
	f.ask("pod-level requests", pod("p", spec("resources: {requests: {cpu: 2500m}}")), sized)
	f.ask("pod-level requests above the containers'", pod("p", requests("cpu: 500m, memory: 2Gi"),
		spec("resources: {requests: {cpu: 1500m}}")), sized)
	f.ask("pod-level requests with an init container", pod("p", spec(`resources: {requests: {cpu: 1500m}},
		initContainers: [{name: i, image: app, resources: {requests: {cpu: 1200m, memory: 2Gi}}}]`)), sized)
	f.ask("pod-level requests with overhead", pod("p", spec("resources: {requests: {cpu: 1500m}}, overhead: {cpu: 1}")), sized)
	f.ask("pod-level huge pages", pod("p", spec("resources: {requests: {hugepages-2Mi: 64Mi, cpu: 1}}")),
		list(node("a", room("hugepages-2Mi: 32Mi")), node("b", room("hugepages-2Mi: 64Mi"))))
	f.ask("pod-level requests of those there", pod("p", requests("cpu: 1")), sized,
		bound("with", "c", 1, requests("cpu: 100m"), spec("resources: {requests: {cpu: 2500m}}")),
		bound("with", "b", 1, requests("cpu: 100m"), spec("resources: {requests: {cpu: 1}}")))
}

// resized: a pod whose resources are being changed counts with the most of what is asked for, allocated and in use.
func resized(f *family) {
	status := func(allocated, actual, more string) string {
		return fmt.Sprintf(`{status: {containerStatuses: [{name: c, ready: true, restartCount: 0, image: app, imageID: "",
			allocatedResources: {cpu: %s}, resources: {requests: {cpu: %s}}}]%s}}`, allocated, actual, more)
	}
	infeasible := `, conditions: [{type: PodResizePending, status: "True", reason: Infeasible}]`
	deferred := `, conditions: [{type: PodResizePending, status: "True", reason: Deferred}]`
	for name, pieces := range pairs(
		"resize up under way", status("1", "1", ""),
		"resize down under way", status("3", "3", ""),
		"resize down allocated and not done", status("2", "3", ""),
		"resize infeasible", status("1", "1", infeasible),
		"resize deferred", status("1", "1", deferred),
	) {
		f.ask(name, pod("p", requests("cpu: 2")), nodes("ab", room("cpu: 4")),
			bound("resized", "a", 1, requests("cpu: 2500m"), pieces), bound("resized", "b", 1, requests("cpu: 1500m"), pieces))
	}
}

func counted(f *family) {
	f.ask("pods count", pod("p"), list(node("a", room("pods: 2")), node("b", room("pods: 3")), node("c", room("pods: 0"))),
		bound("there", "a", 2), bound("there", "b", 2))
	f.ask("pods count and all else", pod("p", requests("cpu: 8, memory: 99Gi, example.com/gpu: 1, ephemeral-storage: 1Ti")),
		nodes("ab", room("pods: 1")), bound("there", "a", 1), bound("there", "b", 1))
	f.ask("a node without status", pod("p", requests("cpu: 1")), list(node("a"), plain("v1", "Node", "b")))
	f.ask("no node", pod("p", requests("cpu: 1")))
	f.ask("an ending pod counts", pod("p", requests("cpu: 2")), nodes("ab"),
		bound("there", "a", 1, requests("cpu: 3"), "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}"))
	f.ask("requests that are not limits", pod("p", container("resources: {requests: {cpu: 1}, limits: {cpu: 8}}")), nodes("a"))
}
