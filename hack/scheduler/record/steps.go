package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	resource "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

// scores runs the filters on each node and the scorers on those that pass.
func (j *judge) scores(ctx context.Context) (answer, error) {
	state := framework.NewCycleState()
	named, status, _ := j.profile.RunPreFilterPlugins(ctx, state, j.pod)
	if !status.IsSuccess() {
		return answer{}, status.AsError()
	}
	all, err := j.profile.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return answer{}, err
	}
	given := answer{Refused: map[string]refusal{}}
	var feasible []fwk.NodeInfo
	for _, each := range all {
		name := each.Node().Name
		if !named.AllNodes() && !named.NodeNames.Has(name) {
			continue
		}
		status := j.profile.RunFilterPluginsWithNominatedPods(ctx, state, j.pod, each)
		if !status.IsSuccess() {
			given.Refused[name] = refused(status)
			continue
		}
		if name == j.pod.Status.NominatedNodeName {
			// The scheduler looks at no other node then.
			feasible, given.Refused = []fwk.NodeInfo{each}, nil
			break
		}
		feasible = append(feasible, each)
	}
	if status := j.profile.RunPreScorePlugins(ctx, state, j.pod, feasible); !status.IsSuccess() {
		return answer{}, status.AsError()
	}
	given.Feasible = map[string]map[string]int64{}
	scores, status := j.profile.RunScorePlugins(ctx, state, j.pod, feasible)
	if !status.IsSuccess() && len(feasible) == 1 {
		// The scheduler does not score a single node, so what fails there does not fail it.
		given.Feasible[feasible[0].Node().Name] = map[string]int64{}
		return given, nil
	}
	if !status.IsSuccess() {
		return answer{}, status.AsError()
	}
	for _, node := range scores {
		given.Feasible[node.Name] = map[string]int64{}
		for _, plugin := range node.Scores {
			if plugin.Score != 0 {
				given.Feasible[node.Name][plugin.Name] = plugin.Score
			}
		}
	}
	return given, nil
}

func refused(status *fwk.Status) refusal {
	reasons := slices.Sorted(slices.Values(status.Reasons()))
	return refusal{Plugin: status.Plugin(), Code: status.Code().String(), Reasons: reasons}
}

// bind reserves what the pod needs for a node, and takes down what is written before it is bound there.
func (j *judge) bind(ctx context.Context, node string) (bindings, error) {
	made := bindings{Volumes: map[string]string{}, Allocations: map[string]*resource.AllocationResult{}}
	j.client.PrependReactor("update", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		update, isUpdate := action.(clienttesting.UpdateAction)
		if !isUpdate {
			return false, nil, nil
		}
		switch object := update.GetObject().(type) {
		case *v1.PersistentVolume:
			made.Volumes[object.Spec.ClaimRef.Name] = object.Name
		case *v1.PersistentVolumeClaim:
			made.Provisioned = append(made.Provisioned, object.Name)
		case *resource.ResourceClaim:
			made.Allocations[object.Name] = sorted(object.Status.Allocation)
		}
		return true, update.GetObject(), nil
	})
	state := framework.NewCycleState()
	if _, status, _ := j.profile.RunPreFilterPlugins(ctx, state, j.pod); !status.IsSuccess() {
		return bindings{}, status.AsError()
	}
	all, err := j.profile.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return bindings{}, err
	}
	for _, each := range all {
		j.profile.RunFilterPluginsWithNominatedPods(ctx, state, j.pod, each)
	}
	pod := j.pod.DeepCopy()
	pod.Spec.NodeName = node
	if status := j.profile.RunReservePluginsReserve(ctx, state, pod, node); !status.IsSuccess() {
		return bindings{}, status.AsError()
	}
	// Volumes are waited for, and nobody is here who would bind them.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	status := j.profile.RunPreBindPlugins(short, state, pod, node)
	if !status.IsSuccess() && !strings.Contains(status.Message(), context.DeadlineExceeded.Error()) {
		return bindings{}, status.AsError()
	}
	slices.Sort(made.Provisioned)
	return made, nil
}

// sorted is an allocation with its devices in order: upstream walks through slices as they come out of a map.
func sorted(allocation *resource.AllocationResult) *resource.AllocationResult {
	if allocation == nil {
		return nil
	}
	made := allocation.DeepCopy()
	slices.SortFunc(made.Devices.Results, func(one, other resource.DeviceRequestAllocationResult) int {
		return cmp.Or(cmp.Compare(one.Request, other.Request), cmp.Compare(one.Pool, other.Pool), cmp.Compare(one.Device, other.Device))
	})
	return made
}
