package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	preempting "k8s.io/kubernetes/pkg/scheduler/framework/preemption"
)

// judge is upstream's scheduler over one cluster. Its loop never runs: it is asked step by step.
type judge struct {
	scheduler *scheduler.Scheduler
	profile   framework.Framework
	pod       *v1.Pod
}

// settled asks a question until the answer stands, of the objects as they are written and of what the API server makes of them. An
// answer that depends on chance, or on a default, is none.
func settled(q question) (answer, error) {
	var first answer
	for i, defaulted := range []bool{false, true, false} {
		given, err := ask(q, defaulted)
		if err != nil {
			return answer{}, err
		}
		if i == 0 {
			first = given
		} else if !reflect.DeepEqual(first, given) {
			one, _ := json.Marshal(first)
			other, _ := json.Marshal(given)
			return answer{}, fmt.Errorf("two answers (defaults filled in: %v):\n%s\n%s", defaulted, one, other)
		}
	}
	return first, nil
}

func ask(q question, defaulted bool) (answer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	judge, err := newJudge(ctx, q, defaulted)
	if err != nil {
		return answer{}, err
	}
	// Informers tell the plugins' own caches of objects a little after they say that they have synced.
	before := answer{}
	for range 50 {
		time.Sleep(20 * time.Millisecond)
		given, preempt, err := judge.decide(ctx)
		if err != nil {
			return answer{}, err
		}
		if !reflect.DeepEqual(before, given) {
			before = given
			continue
		}
		if preempt != nil {
			given.Preemption = preempt()
		}
		return given, nil
	}
	return answer{}, errors.New("no lasting answer")
}

func newJudge(ctx context.Context, q question, defaulted bool) (*judge, error) {
	profiles, err := profilesOf(q.Config)
	if err != nil {
		return nil, err
	}
	objects, pending, err := typed(q, defaulted)
	if err != nil {
		return nil, err
	}
	// The plain object tracker: no case here needs the one that knows of field managers, and it takes long to make.
	client := fake.NewSimpleClientset(objects...)
	informers := scheduler.NewInformerFactory(client, 0)
	all := int32(100)
	made, err := scheduler.New(ctx, client, informers, nil,
		func(string) events.EventRecorder { return &events.FakeRecorder{} },
		scheduler.WithProfiles(profiles...), scheduler.WithPercentageOfNodesToScore(&all))
	if err != nil {
		return nil, err
	}
	informers.Start(ctx.Done())
	informers.WaitForCacheSync(ctx.Done())
	if err := made.WaitForHandlersSync(ctx); err != nil {
		return nil, err
	}
	return &judge{scheduler: made, profile: made.Profiles[v1.DefaultSchedulerName], pod: pending}, nil
}

// decide lets the scheduler look for a node, and then goes through the same plugins again for what its result does not tell. Where it
// finds none, the function returned preempts.
func (j *judge) decide(ctx context.Context) (answer, func() *preemption, error) {
	state := framework.NewCycleState()
	state.Write(framework.PodsToActivateKey, framework.NewPodsToActivate())
	_, err := j.scheduler.SchedulePod(ctx, j.profile, state, j.pod)
	var unfit *framework.FitError
	switch {
	case errors.As(err, &unfit):
		given := answer{Message: unfit.Error(), Refused: map[string]refusal{}}
		all, err := j.profile.SnapshotSharedLister().NodeInfos().List()
		for _, each := range all {
			name := each.Node().Name
			given.Refused[name] = refused(unfit.Diagnosis.NodeToStatus.Get(name))
		}
		return given, func() *preemption { return j.preempt(ctx, state, unfit) }, err
	case err != nil:
		return answer{Error: err.Error()}, nil, nil
	}
	given, err := j.scores(ctx)
	return given, nil, err
}

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
	scores, status := j.profile.RunScorePlugins(ctx, state, j.pod, feasible)
	if !status.IsSuccess() {
		return answer{}, status.AsError()
	}
	given.Feasible = map[string]map[string]int64{}
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

// preempt runs the PostFilter plugins, with the eviction itself replaced by taking down whom it is for.
func (j *judge) preempt(ctx context.Context, state fwk.CycleState, unfit *framework.FitError) *preemption {
	var lock sync.Mutex
	var made preemption
	var plugin *defaultpreemption.DefaultPreemption
	for _, each := range j.profile.PreEnqueuePlugins() {
		if found, ok := each.(*defaultpreemption.DefaultPreemption); ok {
			plugin = found
		}
	}
	if plugin == nil {
		return nil
	}
	plugin.Evaluator.PreemptPod = func(_ context.Context, _ preempting.Candidate, _, victim *v1.Pod, _ string) error {
		lock.Lock()
		defer lock.Unlock()
		made.Victims = append(made.Victims, victim.Namespace+"/"+victim.Name)
		return nil
	}
	result, status := j.profile.RunPostFilterPlugins(ctx, state, j.pod, unfit.Diagnosis.NodeToStatus)
	for plugin.Evaluator.IsPodRunningPreemption(j.pod.UID) {
		time.Sleep(time.Millisecond)
	}
	lock.Lock()
	defer lock.Unlock()
	slices.Sort(made.Victims)
	if result != nil && result.NominatingInfo != nil {
		made.Node = result.NominatedNodeName
	}
	made.Message = status.Message()
	return &made
}
