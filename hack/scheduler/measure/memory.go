package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
)

// memory is the cluster and the client of it. What there is at first is listed by client-go's fake client; what the scheduler does
// from then on (binding, patching a pod's status, evicting, binding volumes) is answered here at once and told to its watches, as an
// API server, a provisioner and a kubelet that takes no time would.
type memory struct {
	*fake.Clientset
	pods, volumes, claims *stream

	lock     sync.Mutex
	version  int
	podsNow  map[string]*v1.Pod
	claimNow map[string]*v1.PersistentVolumeClaim

	waiting, bound int
	first, last    time.Time
	done           chan struct{}
}

// stream is a watch that never ends.
type stream struct{ events chan watch.Event }

func newStream() *stream { return &stream{make(chan watch.Event, 1<<16)} }

func (s *stream) Stop() {}

func (s *stream) ResultChan() <-chan watch.Event { return s.events }

func newMemory(objects []runtime.Object, waiting int) *memory {
	m := &memory{
		pods: newStream(), volumes: newStream(), claims: newStream(),
		podsNow:  map[string]*v1.Pod{},
		claimNow: map[string]*v1.PersistentVolumeClaim{},
		waiting:  waiting,
		done:     make(chan struct{}),
	}
	for _, each := range objects {
		if accessor, err := meta.Accessor(each); err == nil {
			m.stamp(accessor)
			accessor.SetUID(types.UID(accessor.GetNamespace() + "/" + accessor.GetName()))
		}
		switch each := each.(type) {
		case *v1.Pod:
			m.podsNow[each.Namespace+"/"+each.Name] = each
		case *v1.PersistentVolumeClaim:
			m.claimNow[each.Namespace+"/"+each.Name] = each
		}
	}
	m.Clientset = fake.NewSimpleClientset(objects...)
	return m
}

func (m *memory) stamp(object metav1.Object) {
	m.version++
	object.SetResourceVersion(strconv.Itoa(m.version))
}

// change puts a changed copy of a pod in its place and tells of it.
func (m *memory) change(key string, how func(*v1.Pod)) (*v1.Pod, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	before, found := m.podsNow[key]
	if !found {
		return nil, fmt.Errorf("no pod %s", key)
	}
	after := *before
	how(&after)
	m.stamp(&after)
	m.podsNow[key] = &after
	m.pods.events <- watch.Event{Type: watch.Modified, Object: &after}
	return &after, nil
}

func (m *memory) countBinding() {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.last = time.Now()
	if m.bound == 0 {
		m.first = m.last
	}
	m.bound++
	if m.bound == m.waiting {
		close(m.done)
	}
}

func (m *memory) soFar() int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.bound
}

// CoreV1 is the fake client's with the calls that the scheduler makes replaced.
func (m *memory) CoreV1() core.CoreV1Interface { return coreClient{m.Clientset.CoreV1(), m} }

type coreClient struct {
	core.CoreV1Interface
	memory *memory
}

func (c coreClient) Pods(namespace string) core.PodInterface {
	return podClient{c.CoreV1Interface.Pods(namespace), c.memory, namespace}
}

type podClient struct {
	core.PodInterface
	memory    *memory
	namespace string
}

func (c podClient) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return c.memory.pods, nil
}

func (c podClient) Bind(_ context.Context, binding *v1.Binding, _ metav1.CreateOptions) error {
	_, err := c.memory.change(c.namespace+"/"+binding.Name, func(pod *v1.Pod) {
		pod.Spec.NodeName = binding.Target.Name
		pod.Status.NominatedNodeName = ""
	})
	if err == nil {
		c.memory.countBinding()
	}
	return err
}

// Patch knows the two things of a pod's status that a scheduler writes: where it is nominated, and conditions.
func (c podClient) Patch(_ context.Context, name string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*v1.Pod, error) {
	var patch struct {
		Status struct {
			NominatedNodeName *string
			Conditions        []v1.PodCondition
		}
	}
	if err := json.Unmarshal(data, &patch); err != nil {
		return nil, err
	}
	return c.memory.change(c.namespace+"/"+name, func(pod *v1.Pod) {
		if patch.Status.NominatedNodeName != nil {
			pod.Status.NominatedNodeName = *patch.Status.NominatedNodeName
		}
		if len(patch.Status.Conditions) > 0 {
			pod.Status.Conditions = patch.Status.Conditions
		}
	})
}

// Delete is at once: the pod has no grace period here.
func (c podClient) Delete(_ context.Context, name string, _ metav1.DeleteOptions) error {
	c.memory.lock.Lock()
	defer c.memory.lock.Unlock()
	key := c.namespace + "/" + name
	before, found := c.memory.podsNow[key]
	if !found {
		return fmt.Errorf("no pod %s", key)
	}
	after := *before
	c.memory.stamp(&after)
	delete(c.memory.podsNow, key)
	c.memory.pods.events <- watch.Event{Type: watch.Deleted, Object: &after}
	return nil
}
