package main

import resource "k8s.io/api/resource/v1"

// question is a cluster and a pending pod in it. The objects are the API's, as a client would write them: what the server would fill in
// and says nothing here is left out, but settled sees to it that upstream answers the same when it is filled in. Two things are left to
// the reader: a uid where none is written is "NAMESPACE/NAME", and an empty schedulerName is default-scheduler.
type question struct {
	Name string `json:"name"`
	// Config is one profile of a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1), where it is not the default one.
	Config object `json:"config,omitempty"`
	// Objects are all there is in the cluster beside the pod and those nominated.
	Objects []object `json:"objects"`
	// Nominated are pods that wait with a status.nominatedNodeName.
	Nominated []object `json:"nominated,omitempty"`
	Pod       object   `json:"pod"`
}

// answer is what upstream makes of a question.
type answer struct {
	// Feasible has the weighted, normalised score of each plugin on each node the pod may go to; a plugin that gives 0, or that has no
	// say, is left out.
	Feasible map[string]map[string]int64 `json:"feasible,omitempty"`
	// Bindings has what is written for the pod's claims before it is bound to a feasible node, where it has claims that wait for that.
	Bindings map[string]bindings `json:"bindings,omitempty"`
	// Refused has every other node that was looked at, and those the pod was kept from before any was.
	Refused map[string]refusal `json:"refused,omitempty"`
	// Message is the text of the FitError where no node is feasible, as it is before preemption adds to it.
	Message string `json:"message,omitempty"`
	// Error stands where a plugin fails instead of refusing.
	Error      string      `json:"error,omitempty"`
	Preemption *preemption `json:"preemption,omitempty"`
}

// bindings are written to claims of the pod's namespace, by their names.
type bindings struct {
	// Volumes are the volumes that are bound to claims.
	Volumes map[string]string `json:"volumes,omitempty"`
	// Provisioned are the claims that get the node's name, for a provisioner.
	Provisioned []string `json:"provisioned,omitempty"`
	// Allocations are the status.allocation of the resource claims that are reserved for the pod, new or not.
	Allocations map[string]*resource.AllocationResult `json:"allocations,omitempty"`
}

// refusal is the status of a node. The reasons are sorted, since upstream walks through a map for some.
type refusal struct {
	Plugin  string   `json:"plugin,omitempty"`
	Code    string   `json:"code"`
	Reasons []string `json:"reasons,omitempty"`
}

// preemption is what DefaultPreemption's PostFilter says: a node and the sorted "NAMESPACE/NAME" of those it evicts (pods that end
// already are not among them), or why there is none.
type preemption struct {
	Node    string   `json:"node,omitempty"`
	Victims []string `json:"victims,omitempty"`
	// Displaced are the pods of less priority that no longer wait for the node.
	Displaced []string `json:"displaced,omitempty"`
	Message   string   `json:"message,omitempty"`
	// Clears says that a pod that waits for a node waits for it no longer.
	Clears bool `json:"clears,omitempty"`
}

type recorded struct {
	question
	answer
}

func (b bindings) written() bool { return len(b.Volumes)+len(b.Provisioned)+len(b.Allocations) > 0 }
