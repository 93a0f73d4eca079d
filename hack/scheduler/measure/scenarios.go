package main

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// cluster is what a scenario starts with.
type cluster struct {
	objects []runtime.Object
	// waiting is how many of them are pods without a node.
	waiting int
	// fromStart says that the clock starts with the scheduler.
	fromStart bool
}

// scenarios make clusters of so many nodes and pods, where 0 pods are as many as upstream binds in less than a minute.
//
// A node I is node-I with 32 cpu, 64Gi and 110 pods, the labels kubernetes.io/hostname: node-I, topology.kubernetes.io/zone:
// zone-(I mod 4), and disk: ssd where I is even. A pod I is pod-I in the namespace default with one container that asks for 100m cpu
// and 200Mi, and the label app: web. Beside that:
//
//   - plain: a Service web selects app: web, so that the scheduler's own spreading constraints count.
//   - anti-affinity: the label group: g-(I / 100) instead, and each pod may be on no host with another of its group.
//   - spread: over zones and over hosts with a skew of one, both hard.
//   - preferred: rather (weight 10) in a zone with app: web, rather (weight 20) on a node with disk: ssd.
//   - volumes: each pod I has a claim claim-I for 1Gi of a class that waits for the first consumer and provisions.
//   - local-volumes: the same, of a class that does not provision; each node I has a volume volume-I of 1Gi that only it reaches.
//     Upstream looks at each volume for each node, so few pods are enough.
//   - preemption: each node is full with 4 pods of 8 cpu and priority 0, and a pod asks for 8 cpu and has the priority 100.
var scenarios = map[string]func(nodes, pods int) cluster{
	"plain":         plainly,
	"anti-affinity": apart,
	"spread":        spread,
	"preferred":     preferred,
	"volumes":       func(nodes, pods int) cluster { return withClaims(nodes, pods, "example.com/disk") },
	"local-volumes": localVolumes,
	"preemption":    preempting,
}

func names() []string { return slices.Sorted(maps.Keys(scenarios)) }

func plainly(nodes, pods int) cluster {
	made := clusterOf(nodes, orElse(pods, 10000), func(int, *v1.Pod) {})
	made.objects = append(made.objects, &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       v1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []v1.ServicePort{{Port: 80}}},
	})
	return made
}

func apart(nodes, pods int) cluster {
	return clusterOf(nodes, orElse(pods, 5000), func(i int, pod *v1.Pod) {
		pod.Labels = map[string]string{"group": fmt.Sprint("g-", i/100)}
		pod.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{
				{LabelSelector: &metav1.LabelSelector{MatchLabels: pod.Labels}, TopologyKey: v1.LabelHostname},
			},
		}}
	})
}

func spread(nodes, pods int) cluster {
	over := func(key string) v1.TopologySpreadConstraint {
		return v1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: v1.DoNotSchedule, LabelSelector: web()}
	}
	return clusterOf(nodes, orElse(pods, 3000), func(_ int, pod *v1.Pod) {
		pod.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{over(v1.LabelTopologyZone), over(v1.LabelHostname)}
	})
}

func preferred(nodes, pods int) cluster {
	near := v1.WeightedPodAffinityTerm{Weight: 10,
		PodAffinityTerm: v1.PodAffinityTerm{LabelSelector: web(), TopologyKey: v1.LabelTopologyZone}}
	ssd := v1.PreferredSchedulingTerm{Weight: 20, Preference: v1.NodeSelectorTerm{
		MatchExpressions: []v1.NodeSelectorRequirement{{Key: "disk", Operator: v1.NodeSelectorOpIn, Values: []string{"ssd"}}}}}
	return clusterOf(nodes, orElse(pods, 3000), func(_ int, pod *v1.Pod) {
		pod.Spec.Affinity = &v1.Affinity{
			PodAffinity:  &v1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.WeightedPodAffinityTerm{near}},
			NodeAffinity: &v1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.PreferredSchedulingTerm{ssd}},
		}
	})
}

func preempting(nodes, pods int) cluster {
	high := int32(100)
	made := clusterOf(nodes, orElse(pods, 1000), func(_ int, pod *v1.Pod) {
		pod.Spec.Priority = &high
		pod.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("8")
	})
	made.fromStart = true
	low, started := int32(0), metav1.Now()
	for i := range nodes * 4 {
		pod := podOf(fmt.Sprint("low-", i))
		pod.Spec.Priority = &low
		pod.Spec.NodeName = fmt.Sprint("node-", i/4)
		pod.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("8")
		pod.Status = v1.PodStatus{Phase: v1.PodRunning, StartTime: &started}
		made.objects = append(made.objects, pod)
	}
	return made
}

func clusterOf(nodes, pods int, shape func(int, *v1.Pod)) cluster {
	made := cluster{waiting: pods}
	for i := range nodes {
		made.objects = append(made.objects, nodeOf(i))
	}
	for i := range pods {
		pod := podOf(fmt.Sprint("pod-", i))
		shape(i, pod)
		made.objects = append(made.objects, pod)
	}
	return made
}

func nodeOf(i int) *v1.Node {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i)}}
	node.Labels = map[string]string{v1.LabelHostname: node.Name, v1.LabelTopologyZone: fmt.Sprint("zone-", i%4)}
	if i%2 == 0 {
		node.Labels["disk"] = "ssd"
	}
	node.Status.Allocatable = resources("32", "64Gi")
	node.Status.Allocatable[v1.ResourcePods] = resource.MustParse("110")
	node.Status.Capacity = node.Status.Allocatable
	return node
}

func podOf(name string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec: v1.PodSpec{
			SchedulerName: v1.DefaultSchedulerName,
			Containers: []v1.Container{{
				Name: "c", Image: "app",
				Resources: v1.ResourceRequirements{Requests: resources("100m", "200Mi")},
			}},
		},
		Status: v1.PodStatus{Phase: v1.PodPending},
	}
}

func resources(cpu, memory string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
}

func web() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
}

func orElse(asked, otherwise int) int {
	if asked == 0 {
		return otherwise
	}
	return asked
}
