package main

import (
	"encoding/json"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/resource/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
	schedulerapi "k8s.io/kubernetes/pkg/scheduler/apis/config"
	configscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
)

var strict = serializer.NewCodecFactory(clientscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// typed gives the objects of a question as upstream's types, the pending pod among them and beside them.
func typed(q question, defaulted bool) ([]runtime.Object, *v1.Pod, error) {
	var made []runtime.Object
	for _, each := range slices.Concat(q.Objects, q.Nominated, []object{q.Pod}) {
		text, err := json.Marshal(each)
		if err != nil {
			return nil, nil, err
		}
		decoded, _, err := strict.Decode(text, nil, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("%w in %s", err, text)
		}
		if defaulted {
			legacyscheme.Scheme.Default(decoded)
		}
		accessor, err := meta.Accessor(decoded)
		if err != nil {
			return nil, nil, err
		}
		if accessor.GetUID() == "" {
			accessor.SetUID(types.UID(accessor.GetNamespace() + "/" + accessor.GetName()))
		}
		if pod, isPod := decoded.(*v1.Pod); isPod && pod.Spec.SchedulerName == "" {
			pod.Spec.SchedulerName = v1.DefaultSchedulerName
		}
		made = append(made, decoded)
	}
	pending, isPod := made[len(made)-1].(*v1.Pod)
	if !isPod {
		return nil, nil, fmt.Errorf("%T waits", made[len(made)-1])
	}
	return made, pending, nil
}

// profilesOf gives upstream's profiles with its defaults for what a question's profile leaves open.
func profilesOf(profile object) ([]schedulerapi.KubeSchedulerProfile, error) {
	if profile == nil {
		profile = object{}
	}
	text, err := json.Marshal(object{
		"apiVersion": "kubescheduler.config.k8s.io/v1",
		"kind":       "KubeSchedulerConfiguration",
		"profiles":   []any{profile},
	})
	if err != nil {
		return nil, err
	}
	decoded, _, err := configscheme.Codecs.UniversalDecoder().Decode(text, nil, nil)
	if err != nil {
		return nil, err
	}
	config, isConfig := decoded.(*schedulerapi.KubeSchedulerConfiguration)
	if !isConfig {
		return nil, fmt.Errorf("%T is no configuration", decoded)
	}
	return config.Profiles, nil
}
