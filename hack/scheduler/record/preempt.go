package main

import (
	"context"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	preempting "k8s.io/kubernetes/pkg/scheduler/framework/preemption"
)

// preempt runs the PostFilter plugins, with the writing itself replaced by taking down whom it is about.
func (j *judge) preempt(ctx context.Context, state fwk.CycleState, unfit *framework.FitError) *preemption {
	plugin := j.defaultPreemption()
	if plugin == nil {
		return nil
	}
	var lock sync.Mutex
	var made preemption
	plugin.Evaluator.PreemptPod = func(_ context.Context, _ preempting.Candidate, _, victim *v1.Pod, _ string) error {
		lock.Lock()
		defer lock.Unlock()
		made.Victims = append(made.Victims, victim.Namespace+"/"+victim.Name)
		return nil
	}
	j.client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		lock.Lock()
		defer lock.Unlock()
		if patch, isPatch := action.(clienttesting.PatchAction); isPatch {
			made.Displaced = append(made.Displaced, patch.GetNamespace()+"/"+patch.GetName())
		}
		return true, &v1.Pod{}, nil
	})
	result, status := j.profile.RunPostFilterPlugins(ctx, state, j.pod, unfit.Diagnosis.NodeToStatus)
	for plugin.Evaluator.IsPodRunningPreemption(j.pod.UID) {
		time.Sleep(time.Millisecond)
	}
	lock.Lock()
	defer lock.Unlock()
	slices.Sort(made.Victims)
	slices.Sort(made.Displaced)
	if result != nil && result.NominatingInfo != nil {
		made.Node = result.NominatedNodeName
		made.Clears = made.Node == "" && j.pod.Status.NominatedNodeName != ""
	}
	made.Message = status.Message()
	return &made
}

func (j *judge) defaultPreemption() *defaultpreemption.DefaultPreemption {
	for _, each := range j.profile.PreEnqueuePlugins() {
		if found, ok := each.(*defaultpreemption.DefaultPreemption); ok {
			return found
		}
	}
	return nil
}
