package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// writePatches writes strategic merge patches of random pods, as kubectl makes them, and what upstream makes of them:
// target, patch, result. Cases that only upstream refuses (an empty list that a server never stores) are left out.
func writePatches(dir string) {
	random := rand.New(rand.NewSource(1))
	meta, err := strategicpatch.NewPatchMetaFromStruct(&corev1.Pod{})
	must(err)
	var out bytes.Buffer
	for range 30 {
		original, modified, live := pod(random), pod(random), pod(random)
		two, err := strategicpatch.CreateTwoWayMergePatch(original, modified, &corev1.Pod{})
		must(err)
		three, err := strategicpatch.CreateThreeWayMergePatch(original, modified, live, meta, true)
		must(err)
		for _, patch := range [][]byte{two, three} {
			result, err := strategicpatch.StrategicMergePatch(live, patch, &corev1.Pod{})
			// Upstream leaves directives in items that it adds; a server drops them when it decodes the result.
			if err != nil || strings.Contains(string(result), "\"$") {
				continue
			}
			fmt.Fprintf(&out, "%s\t%s\t%s\n", live, patch, result)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "patches.tsv"), out.Bytes(), 0o644))
}

type object = map[string]any

// some returns a random choice of names in random order, each turned into something.
func some(random *rand.Rand, names string, make func(string) any) []any {
	items := []any{}
	for _, at := range random.Perm(len(names))[:random.Intn(len(names)+1)] {
		items = append(items, make(names[at:at+1]))
	}
	return items
}

func pod(random *rand.Rand) []byte {
	value := func(name string) any { return object{"name": name, "value": fmt.Sprint(random.Intn(3))} }
	container := func(name string) any {
		return drop(random, object{
			"name":         name,
			"image":        fmt.Sprint("i", random.Intn(3)),
			"args":         some(random, "ab", func(name string) any { return name }),
			"env":          some(random, "ABC", value),
			"volumeMounts": some(random, "vw", func(name string) any { return object{"name": name, "mountPath": "/" + name} }),
			"ports": some(random, "123", func(name string) any {
				return object{"containerPort": int64(name[0]), "protocol": "TCP"}
			}),
		})
	}
	volume := func(name string) any {
		if random.Intn(2) == 0 {
			return object{"name": name, "emptyDir": object{}}
		}
		return object{"name": name, "hostPath": object{"path": "/" + name}}
	}
	labels := object{}
	for _, name := range some(random, "abc", func(name string) any { return name }) {
		labels[name.(string)] = fmt.Sprint(random.Intn(2))
	}
	containers := append(some(random, "pqr", container), container("s"))
	encoded, err := json.Marshal(object{
		"metadata": drop(random, object{
			"name": "x", "labels": labels,
			"finalizers": some(random, "abc", func(name string) any { return name + "/" + name }),
		}),
		"spec": drop(random, object{
			"containers":  containers,
			"volumes":     some(random, "vwx", volume),
			"tolerations": some(random, "ab", func(name string) any { return object{"key": name} }),
			"topologySpreadConstraints": some(random, "zh", func(name string) any {
				return object{"topologyKey": name, "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
			}),
		}),
	})
	must(err)
	return encoded
}

// drop leaves out empty lists, as a server does, and now and then another field.
func drop(random *rand.Rand, fields object) object {
	// In an order of its own, so that the same seed makes the same file.
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if list, ok := value.([]any); ok && (len(list) == 0 || (name != "containers" && random.Intn(5) == 0)) {
			delete(fields, name)
		}
	}
	return fields
}
