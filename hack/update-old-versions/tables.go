package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"

// An age, as tests/api/golden/mask.rs has it.
var age = regexp.MustCompile(`^([0-9]+(ms|[smhdy]))+$`)

// table is of one object: the columns are those of the stored version, the row has its metadata alone.
func (k kind) table(name string) pair {
	return k.tabled("table", "/"+name, func(object map[string]any) map[string]any {
		metadata, _ := object["metadata"].(map[string]any)
		return map[string]any{"/apiVersion": object["apiVersion"], "/kind": object["kind"], "/metadata/name": metadata["name"]}
	})
}

// wholeTable is of a list, and the row has the object as the old version shows it.
func (k kind) wholeTable(name string) pair {
	return k.tabled("whole table", "?fieldSelector=metadata.name%3D"+name+"&includeObject=Object", func(object map[string]any) map[string]any {
		object["apiVersion"], object["kind"] = k.line.storedKind().ToAPIVersionAndKind()
		return pick(k.shown(printed(object)), parts)
	})
}

func (k kind) tabled(what, rest string, row func(map[string]any) map[string]any) pair {
	old, stored := k.paths(rest)
	code, warnings, answered := k.askFor(asTable, "GET", stored, nil)
	tree := pick(answered, []string{"/apiVersion", "/kind", "/columnDefinitions"})
	for _, column := range tree["/columnDefinitions"].([]any) {
		delete(column.(map[string]any), "description")
	}
	var table struct {
		Rows []struct {
			Cells  []any
			Object map[string]any
		}
	}
	must(json.Unmarshal(answered, &table))
	for index, cell := range table.Rows[0].Cells {
		if text, ok := cell.(string); ok {
			if age.MatchString(text) {
				continue
			}
			cell = moment.ReplaceAllString(text, "<time>")
		}
		tree[fmt.Sprintf("/rows/0/cells/%d", index)] = cell
	}
	for pointer, value := range row(table.Rows[0].Object) {
		tree["/rows/0/object"+pointer] = value
	}
	return pair{
		Name:    k.name(what),
		Request: request{Path: old, Headers: map[string]string{"Accept": asTable}, Pick: slices.Sorted(maps.Keys(tree))},
		Answer:  answer{Code: code, Headers: isJSON, Warning: k.warnings(warnings), Body: tree},
	}
}
