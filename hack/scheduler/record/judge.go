package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

// judge is upstream's scheduler over one cluster. Its loop never runs: it is asked step by step.
type judge struct {
	client    *fake.Clientset
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
	given, err := asked(q, defaulted, func(_ context.Context, _ *judge, given *answer, preempt func() *preemption) error {
		if preempt != nil {
			given.Preemption = preempt()
		}
		return nil
	})
	if err == nil && hasClaims(q.Pod) {
		given.Bindings, err = bindingsOf(q, defaulted, given)
	}
	return given, err
}

// bindingsOf are the bindings to each feasible node that have any. What is reserved for one stands in the way of another, so each has a
// scheduler of its own.
func bindingsOf(q question, defaulted bool, given answer) (map[string]bindings, error) {
	all := map[string]bindings{}
	for node := range given.Feasible {
		_, err := asked(q, defaulted, func(ctx context.Context, judge *judge, _ *answer, _ func() *preemption) error {
			made, err := judge.bind(ctx, node)
			if made.written() {
				all[node] = made
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// asked sets a scheduler up, waits for its decision to last, and lets more be done with it.
func asked(q question, defaulted bool, more func(context.Context, *judge, *answer, func() *preemption) error) (answer, error) {
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
		if err := more(ctx, judge, &given, preempt); err != nil {
			return answer{}, err
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
	return &judge{client: client, scheduler: made, profile: made.Profiles[v1.DefaultSchedulerName], pod: pending}, nil
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
