package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// An Entry of a corpus file is a step as it stands, or a kind, which becomes the steps that every kind is put to.
type Entry struct {
	Step
	Kind *Kind `json:"kind,omitempty"`
}

// A Kind is what the steps of a kind are made of. Objects are in the version that is asked for.
type Kind struct {
	Plural  string `json:"plural"`
	Cluster bool   `json:"cluster,omitempty"`
	// The least that is valid, and an object with every field.
	Least map[string]any `json:"least"`
	Full  map[string]any `json:"full"`
	// What an update, a merge patch, a JSON patch and a strategic merge patch change, each besides a label.
	Update    map[string]any `json:"update,omitempty"`
	Merge     map[string]any `json:"merge,omitempty"`
	JSON      []any          `json:"json,omitempty"`
	Strategic map[string]any `json:"strategic,omitempty"`
	// What a second manager applies over the full object: it conflicts where it differs.
	Apply map[string]any `json:"apply,omitempty"`
	// What the status subresource is given; absent where there is none.
	Status map[string]any `json:"status,omitempty"`
	Scale  bool           `json:"scale,omitempty"`
	// Variants of `least`, created in a dry run: valid ones show defaults, bad ones their causes.
	Create map[string]Edit `json:"create,omitempty"`
	// Variants of `full`, put over it in a dry run.
	Change map[string]Edit `json:"change,omitempty"`
	// Variants of the object's status (of `full`), put over it in a dry run.
	ChangeStatus map[string]Edit `json:"changeStatus,omitempty"`
	// Field selectors besides metadata.name.
	Selectors []string `json:"selectors,omitempty"`
	// Names are given by rule: nothing is generated, nothing put to names of the corpus' own.
	Named bool `json:"named,omitempty"`
	// Updates have to say which revision they are of.
	Versioned bool `json:"versioned,omitempty"`
	// Steps that the kind's nature rules out, or the patterns of those that alone are wanted.
	Without []string `json:"without,omitempty"`
	Only    []string `json:"only,omitempty"`
}

// An Edit changes places of an object, each a JSON pointer; null takes the place away, `-` appends; in the pointers' order.
type Edit map[string]any

func load(area string) ([]Step, error) {
	content, err := os.ReadFile("corpus/" + area + ".yaml")
	if err != nil {
		return nil, err
	}
	var entries []Entry
	if err := yaml.UnmarshalStrict(content, &entries); err != nil {
		return nil, err
	}
	var steps []Step
	for _, entry := range entries {
		if entry.Kind == nil {
			steps = append(steps, entry.Step)
			continue
		}
		steps = append(steps, expand(entry.Name, entry.Kind)...)
	}
	return steps, nil
}

// edited is a copy with each place changed.
func edited(object map[string]any, edit Edit) (map[string]any, error) {
	copied := clone(object).(map[string]any)
	for _, pointer := range slices.Sorted(maps.Keys(edit)) {
		changed, err := set(copied, split(pointer), clone(edit[pointer]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pointer, err)
		}
		copied = changed.(map[string]any)
	}
	return copied, nil
}

func set(tree any, path []string, value any) (any, error) {
	if len(path) == 0 {
		return value, nil
	}
	part := path[0]
	switch node := tree.(type) {
	case nil:
		return set(map[string]any{}, path, value)
	case map[string]any:
		if len(path) == 1 && value == nil {
			delete(node, part)
			return node, nil
		}
		changed, err := set(node[part], path[1:], value)
		node[part] = changed
		return node, err
	case []any:
		if part == "-" {
			return append(node, value), nil
		}
		index, err := strconv.Atoi(part)
		if err != nil || index >= len(node) {
			return nil, fmt.Errorf("there is no item %s", part)
		}
		if len(path) == 1 && value == nil {
			return append(node[:index:index], node[index+1:]...), nil
		}
		node[index], err = set(node[index], path[1:], value)
		return node, err
	}
	return nil, fmt.Errorf("%v holds no %s", tree, strings.Join(path, "/"))
}

func clone(value any) any {
	content, err := json.Marshal(value)
	must(err)
	var copied any
	must(json.Unmarshal(content, &copied))
	return copied
}

func raw(value any) json.RawMessage {
	content, err := json.Marshal(value)
	must(err)
	return content
}
