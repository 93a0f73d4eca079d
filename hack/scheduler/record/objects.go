package main

import (
	"fmt"
	"iter"
	"log"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// object is an API object as it is written down. Questions are made by laying pieces of YAML over a plain object of the kind, so that
// what is recorded says only what the question is about.
type object = map[string]any

// family collects the questions of one file.
type family struct {
	questions []*question
	// random is the same in each run, so that variations are.
	random *rand.Rand
}

func newFamily(name string) *family {
	seed := uint64(0)
	for _, letter := range name {
		seed = seed*131 + uint64(letter)
	}
	return &family{random: rand.New(rand.NewPCG(seed, 0))}
}

// ask adds a question about the pod among the objects.
func (f *family) ask(name string, pod object, objects ...[]object) *question {
	if slices.ContainsFunc(f.questions, func(q *question) bool { return q.Name == name }) {
		log.Fatalf("%s is asked twice", name)
	}
	q := &question{Name: name, Pod: pod, Objects: slices.Concat(objects...)}
	f.questions = append(f.questions, q)
	return q
}

// with gives the profile's plugins arguments: pairs of a plugin and YAML of its arguments.
func (q *question) with(arguments ...string) *question {
	var config []any
	for i := 0; i < len(arguments); i += 2 {
		config = append(config, object{"name": arguments[i], "args": parse(arguments[i+1])})
	}
	q.Config = object{"pluginConfig": config}
	return q
}

func (q *question) nominate(pods ...object) *question {
	q.Nominated = pods
	return q
}

// node is one of 4 CPUs and 16 GiB with room for 110 pods and its name as hostname.
func node(name string, pieces ...string) object {
	return merged(fmt.Sprintf(`{apiVersion: v1, kind: Node, metadata: {name: %s, labels: {kubernetes.io/hostname: %s}},
		status: {allocatable: {cpu: 4, memory: 16Gi, ephemeral-storage: 100Gi, pods: 110}}}`, name, name), pieces)
}

// nodes makes one of each letter of names.
func nodes(names string, pieces ...string) []object {
	var all []object
	for _, name := range names {
		all = append(all, node(string(name), pieces...))
	}
	return all
}

// zones makes nodes named as the zone is with a number after: counts of 2 and 1 are a0, a1 and b0.
func zones(counts []int, pieces ...string) []object {
	var all []object
	for zone, count := range counts {
		letter := string(rune('a' + zone))
		for i := range count {
			in := fmt.Sprintf("{metadata: {labels: {topology.kubernetes.io/zone: %s}}}", letter)
			all = append(all, node(fmt.Sprint(letter, i), append([]string{in}, pieces...)...))
		}
	}
	return all
}

// pod is one with a single container that asks for nothing, in the namespace default.
func pod(name string, pieces ...string) object {
	return merged(fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: default},
		spec: {containers: [{name: c, image: app}]}}`, name), pieces)
}

// bound are count pods of a name on a node.
func bound(name, node string, count int, pieces ...string) []object {
	var all []object
	for i := range count {
		all = append(all, pod(fmt.Sprintf("%s-%s-%d", name, node, i), append([]string{on(node)}, pieces...)...))
	}
	return all
}

// plain is an object of a kind of the API without a namespace, or of the namespace default where the name says "default/".
func plain(apiVersion, kind, name string, pieces ...string) object {
	base := object{"name": name}
	if inside, found := strings.CutPrefix(name, "default/"); found {
		base = object{"name": inside, "namespace": "default"}
	}
	made := object{"apiVersion": apiVersion, "kind": kind, "metadata": base}
	for _, piece := range pieces {
		lay(made, parse(piece))
	}
	return made
}

func list(objects ...object) []object { return objects }

func labels(text string) string { return fmt.Sprintf("{metadata: {labels: {%s}}}", text) }

func spec(text string) string { return fmt.Sprintf("{spec: {%s}}", text) }

func on(node string) string { return fmt.Sprintf("{spec: {nodeName: %s}}", node) }

func priority(value int) string { return fmt.Sprintf("{spec: {priority: %d}}", value) }

func namespace(name string) string { return fmt.Sprintf("{metadata: {namespace: %s}}", name) }

// room is what a node has, laid over what it has anyway.
func room(text string) string { return fmt.Sprintf("{status: {allocatable: {%s}}}", text) }

// requests lets the pod's single container ask for something.
func requests(text string) string { return container("resources: {requests: {" + text + "}}") }

// container says more about the pod's single container.
func container(text string) string {
	return fmt.Sprintf("{spec: {containers: [{name: c, image: app, %s}]}}", text)
}

func merged(base string, pieces []string) object {
	made := parse(base)
	for _, piece := range pieces {
		lay(made, parse(piece))
	}
	return made
}

func parse(text string) object {
	made := object{}
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(text, "\t", " ")), &made); err != nil {
		log.Fatalf("%v in %s", err, text)
	}
	quantities(made)
	return made
}

// lay puts the fields of a piece over an object: maps are merged, all else is replaced.
func lay(under, over object) {
	for key, value := range over {
		inner, isMap := value.(object)
		below, wasMap := under[key].(object)
		if isMap && wasMap {
			lay(below, inner)
		} else {
			under[key] = value
		}
	}
}

// hasClaims says whether a pod uses claims of volumes or of devices.
func hasClaims(pod object) bool {
	spec := pod["spec"].(object)
	return spec["volumes"] != nil || spec["resourceClaims"] != nil
}

// quantities lets numbers stand as the strings the API writes quantities as.
func quantities(value any) {
	switch value := value.(type) {
	case object:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			switch key {
			case "requests", "limits", "allocatable", "overhead", "allocatedResources":
				if amounts, found := value[key].(object); found {
					for name, amount := range amounts {
						// The count of volumes is no quantity.
						if name != "count" {
							amounts[name] = fmt.Sprint(amount)
						}
					}
					continue
				}
			}
			quantities(value[key])
		}
	case []any:
		for _, each := range value {
			quantities(each)
		}
	}
}

// between is a number of low to high.
func (f *family) between(low, high int) int { return low + f.random.IntN(high-low+1) }

func (f *family) pick(choices ...string) string { return choices[f.random.IntN(len(choices))] }

// crowd binds up to most pods to each node; what each asks for differs.
func (f *family) crowd(among []object, most int, pieces ...string) []object {
	var all []object
	for _, each := range among {
		name := each["metadata"].(object)["name"].(string)
		for i := range f.between(0, most) {
			asks := requests(fmt.Sprintf("cpu: %dm, memory: %dMi", 50*f.between(1, 20), 64*f.between(1, 32)))
			all = append(all, pod(fmt.Sprintf("crowd-%s-%d", name, i), append([]string{on(name), asks}, pieces...)...))
		}
	}
	return all
}

// pairs walks through names and what goes with each, in order.
func pairs(texts ...string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := 0; i+1 < len(texts); i += 2 {
			if !yield(texts[i], texts[i+1]) {
				return
			}
		}
	}
}

// cut gives what stands on both sides of a bar.
func cut(text string) (string, string) {
	before, after, _ := strings.Cut(text, "|")
	return before, after
}
