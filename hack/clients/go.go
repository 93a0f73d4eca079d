// client-go: what an operator does with it, each step checked. clients.sh runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
)

const (
	namespace = "clients-go"
	group     = "go.clients.example.com"
)

var (
	ctx         = context.Background()
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	wheels      = schema.GroupVersionResource{Group: group, Version: "v1", Resource: "wheels"}
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func holds(what string, is bool) {
	if !is {
		panic("not so: " + what)
	}
}

func until(what string, condition func() (bool, error)) {
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return condition() })
	if err != nil {
		panic(fmt.Sprintf("it did not come to be: %s: %v", what, err))
	}
}

// What an informer's handler was told.
type seen struct {
	sync.Mutex
	events []string
}

func (s *seen) note(event string, object any) {
	if last, gone := object.(cache.DeletedFinalStateUnknown); gone {
		object = last.Obj
	}
	s.Lock()
	defer s.Unlock()
	s.events = append(s.events, event+" "+object.(metav1.Object).GetName())
}

func (s *seen) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { s.note("add", object) },
		UpdateFunc: func(_, object any) { s.note("update", object) },
		DeleteFunc: func(object any) { s.note("delete", object) },
	}
}

func (s *seen) until(events ...string) {
	until(fmt.Sprint(events), func() (bool, error) {
		s.Lock()
		defer s.Unlock()
		return slices.Equal(s.events, events), nil
	})
}

// Typed clients speak protobuf.
func typed(client kubernetes.Interface) {
	maps := client.CoreV1().ConfigMaps(namespace)
	stop := make(chan struct{})
	defer close(stop)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = "x=y" }))
	told := &seen{}
	informer := factory.Core().V1().ConfigMaps().Informer()
	_, err := informer.AddEventHandler(told.handler())
	must(err)
	factory.Start(stop)
	cache.WaitForCacheSync(stop, informer.HasSynced)

	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"x": "y"}}, Data: map[string]string{"k": "1"}}
	made, err := maps.Create(ctx, object, metav1.CreateOptions{})
	must(err)
	_, err = maps.Create(ctx, object, metav1.CreateOptions{})
	holds("a name is taken once", errors.IsAlreadyExists(err))
	_, err = maps.Get(ctx, "none", metav1.GetOptions{})
	holds("what is not there is not found", errors.IsNotFound(err))
	for kind, patch := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/data/j","value":"1"}]`,
		types.MergePatchType:          `{"data":{"m":"1"}}`,
		types.StrategicMergePatchType: `{"data":{"s":"1","k":null}}`,
	} {
		_, err = maps.Patch(ctx, "a", kind, []byte(patch), metav1.PatchOptions{})
		must(err)
	}
	_, err = maps.Update(ctx, made, metav1.UpdateOptions{})
	holds("an old object conflicts", errors.IsConflict(err))
	applied, err := maps.Apply(ctx, applycore.ConfigMap("b", namespace).WithData(map[string]string{"k": "1"}), metav1.ApplyOptions{FieldManager: "me"})
	must(err)
	extracted, err := applycore.ExtractConfigMap(applied, "me")
	must(err)
	holds("what is one's own can be taken out", extracted.Data["k"] == "1")
	theirs := applycore.ConfigMap("b", namespace).WithData(map[string]string{"k": "2"})
	_, err = maps.Apply(ctx, theirs, metav1.ApplyOptions{FieldManager: "other"})
	holds("another's field conflicts", errors.IsConflict(err))
	_, err = maps.Apply(ctx, theirs, metav1.ApplyOptions{FieldManager: "other", Force: true})
	must(err)
	must(maps.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(made.UID))}))
	told.until("add a", "update a", "update a", "update a", "delete a")

	for i := range 25 {
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("page-%d", i)}}, metav1.CreateOptions{})
		must(err)
	}
	pages := pager.New(pager.SimplePageFunc(func(options metav1.ListOptions) (runtime.Object, error) { return maps.List(ctx, options) }))
	pages.PageSize = 10
	all, whole, err := pages.List(ctx, metav1.ListOptions{})
	must(err)
	holds("a list comes in pages", whole && meta.LenList(all) >= 26)
}

// The dynamic client, and its informer, of a kind that was not there before.
func custom(client dynamic.Interface) {
	text := map[string]any{"type": "string"}
	object := func(properties map[string]any) map[string]any { return map[string]any{"type": "object", "properties": properties} }
	crd := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "wheels." + group},
		"spec": map[string]any{
			"group": group, "scope": "Namespaced", "names": map[string]any{"plural": "wheels", "kind": "Wheel"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": object(map[string]any{
					"spec":   object(map[string]any{"colour": map[string]any{"type": "string", "enum": []any{"red", "blue"}}}),
					"status": object(map[string]any{"state": text}),
				})},
			}},
		},
	}}
	_, err := client.Resource(definitions).Create(ctx, crd, metav1.CreateOptions{})
	must(err)
	defer func() { must(client.Resource(definitions).Delete(ctx, crd.GetName(), metav1.DeleteOptions{})) }()
	api := client.Resource(wheels).Namespace(namespace)
	until("the kind is served", func() (bool, error) {
		_, err := api.List(ctx, metav1.ListOptions{})
		return err == nil, nil
	})
	stop := make(chan struct{})
	defer close(stop)
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	told := &seen{}
	informer := factory.ForResource(wheels).Informer()
	_, err = informer.AddEventHandler(told.handler())
	must(err)
	factory.Start(stop)
	cache.WaitForCacheSync(stop, informer.HasSynced)
	wheel := func(colour string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": group + "/v1", "kind": "Wheel",
			"metadata": map[string]any{"name": "w"}, "spec": map[string]any{"colour": colour}}}
	}
	_, err = api.Apply(ctx, "w", wheel("green"), metav1.ApplyOptions{FieldManager: "me"})
	holds("the schema is checked", errors.IsInvalid(err))
	_, err = api.Apply(ctx, "w", wheel("red"), metav1.ApplyOptions{FieldManager: "me"})
	must(err)
	_, err = api.Patch(ctx, "w", types.MergePatchType, []byte(`{"status":{"state":"turning"}}`), metav1.PatchOptions{}, "status")
	must(err)
	must(api.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	told.until("add w", "update w", "delete w")
}

// Two candidates: the second leads when the first has given up.
func leads(client kubernetes.Interface) {
	run := func(name string, started chan<- string) context.CancelFunc {
		lock := &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Name: "leader", Namespace: namespace}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name}}
		inner, cancel := context.WithCancel(ctx)
		go leaderelection.RunOrDie(inner, leaderelection.LeaderElectionConfig{Lock: lock, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second,
			RetryPeriod: 200 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { started <- name }, OnStoppedLeading: func() {}}})
		return cancel
	}
	started := make(chan string, 2)
	end := run("one", started)
	holds("one leads", <-started == "one")
	defer run("two", started)()
	end()
	holds("two leads after it", <-started == "two")
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	config.QPS = -1
	protobuf := rest.CopyConfig(config)
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(protobuf)
	must(err)
	namespaces := client.CoreV1().Namespaces()
	_, err = namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(err)
	defer func() { must(namespaces.Delete(ctx, namespace, metav1.DeleteOptions{})) }()
	typed(client)
	custom(dynamic.NewForConfigOrDie(config))
	leads(client)
}
