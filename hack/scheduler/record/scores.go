package main

import "fmt"

func init() { families["scores"] = scores }

const (
	leastAllocated = "{scoringStrategy: {type: LeastAllocated, resources: [%s]}}"
	mostAllocated  = "{scoringStrategy: {type: MostAllocated, resources: [%s]}}"
	toRatio        = `{scoringStrategy: {type: RequestedToCapacityRatio, resources: [%s],
		requestedToCapacityRatio: {shape: [%s]}}}`
)

// scores: how full the nodes are, by the strategies of NodeResourcesFit and by NodeResourcesBalancedAllocation.
func scores(f *family) {
	weights := []string{
		"{name: cpu, weight: 1}, {name: memory, weight: 1}",
		"{name: cpu, weight: 3}, {name: memory, weight: 1}",
		"{name: memory, weight: 100}",
		"{name: cpu, weight: 2}, {name: example.com/gpu, weight: 5}",
		"{name: ephemeral-storage, weight: 1}, {name: cpu, weight: 1}",
	}
	for i, weighted := range weights {
		mixed, there := f.mixed()
		asks := requests(fmt.Sprintf("cpu: %dm, memory: %dMi, example.com/gpu: 1", 100*f.between(1, 9), 128*f.between(1, 9)))
		f.ask(fmt.Sprint("least allocated ", i), pod("p", asks), mixed, there).
			with("NodeResourcesFit", fmt.Sprintf(leastAllocated, weighted))
		f.ask(fmt.Sprint("most allocated ", i), pod("p", asks), mixed, there).
			with("NodeResourcesFit", fmt.Sprintf(mostAllocated, weighted))
		shape := f.pick("{utilization: 0, score: 0}, {utilization: 100, score: 10}",
			"{utilization: 0, score: 10}, {utilization: 100, score: 0}",
			"{utilization: 0, score: 2}, {utilization: 30, score: 9}, {utilization: 70, score: 4}, {utilization: 100, score: 0}")
		f.ask(fmt.Sprint("requested to capacity ", i), pod("p", asks), mixed, there).
			with("NodeResourcesFit", fmt.Sprintf(toRatio, weighted, shape))
	}
	balanced(f)
	weighted(f)
}

// mixed are nodes of all sizes, some with two kinds of devices, and a crowd on them.
func (f *family) mixed() ([]object, []object) {
	var all []object
	for _, name := range "abcdef" {
		size := room(fmt.Sprintf("cpu: %d, memory: %dGi, example.com/gpu: %d", f.between(2, 16), f.between(4, 64), f.between(1, 8)))
		all = append(all, node(string(name), size))
	}
	return all, f.crowd(all, 5)
}

func balanced(f *family) {
	for i := range 3 {
		mixed, there := f.mixed()
		asks := requests(fmt.Sprintf("cpu: %dm, memory: %dMi", 100*f.between(1, 19), 128*f.between(1, 29)))
		f.ask(fmt.Sprint("balanced ", i), pod("p", asks), mixed, there)
	}
	mixed, there := f.mixed()
	asks := requests("cpu: 500m, memory: 1Gi, example.com/gpu: 1")
	three := "{resources: [{name: cpu, weight: 1}, {name: memory, weight: 1}, {name: example.com/gpu, weight: 1}]}"
	f.ask("balanced over three", pod("p", asks), mixed, there).with("NodeResourcesBalancedAllocation", three)
	f.ask("balanced over three, where one is not asked for", pod("p", requests("cpu: 500m, memory: 1Gi")), mixed, there).
		with("NodeResourcesBalancedAllocation", three)
	f.ask("balanced over devices alone", pod("p", asks), mixed, there).
		with("NodeResourcesBalancedAllocation", "{resources: [{name: example.com/gpu, weight: 1}]}")
	f.ask("a pod that asks for nothing", pod("p"), mixed, there)
	f.ask("those there that ask for nothing", pod("p", requests("cpu: 100m")), nodes("abc"), bound("idle", "a", 7), bound("idle", "b", 3))
	two := spec("containers: [{name: c, image: app}, {name: d, image: app, resources: {requests: {cpu: 1}}}]")
	f.ask("one of two containers asks for nothing", pod("p", two), nodes("abc"), bound("two", "a", 2, two), bound("one", "b", 1, requests("cpu: 1")))
	f.ask("init containers and overhead in the score", pod("p", requests("cpu: 500m"), spec(`overhead: {cpu: 250m, memory: 64Mi},
		initContainers: [{name: i, image: app, resources: {requests: {memory: 2Gi}}},
			{name: s, image: app, restartPolicy: Always, resources: {requests: {cpu: 250m}}}]`)), mixed, there)
	f.ask("pod-level requests in the score", pod("p", spec("resources: {requests: {cpu: 1, memory: 2Gi}}")), mixed, there,
		bound("level", "a", 1, requests("cpu: 100m"), spec("resources: {requests: {cpu: 1, memory: 1Gi}}")))
}

// weighted: the profile's weights and what it turns off.
func weighted(f *family) {
	mixed, there := f.mixed()
	asks := requests("cpu: 500m, memory: 1Gi")
	off := f.ask("a scorer turned off", pod("p", asks), mixed, there)
	off.Config = parse("{plugins: {score: {disabled: [{name: NodeResourcesBalancedAllocation}]}}}")
	heavier := f.ask("a scorer with another weight", pod("p", asks), mixed, there)
	heavier.Config = parse(`{plugins: {score: {disabled: [{name: NodeResourcesFit}, {name: TaintToleration}],
		enabled: [{name: NodeResourcesFit, weight: 7}, {name: TaintToleration, weight: 1}]}}}`)
	everywhere := f.ask("weights of all points", pod("p", asks), mixed, there)
	everywhere.Config = parse(`{plugins: {multiPoint: {enabled: [{name: NodeResourcesBalancedAllocation, weight: 4}]}}}`)
	unfiltered := f.ask("a filter turned off", pod("p", requests("cpu: 99")), mixed, there)
	unfiltered.Config = parse("{plugins: {filter: {disabled: [{name: NodeResourcesFit}]}}}")
}
