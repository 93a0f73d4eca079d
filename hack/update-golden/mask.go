package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What differs from run to run, wherever it stands in a text. tests/api/golden/mask.rs has the same.
var patterns = []struct {
	found *regexp.Regexp
	as    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "<uid>"},
	{regexp.MustCompile(`20[2-9][0-9]-[01][0-9]-[0-3][0-9]T[0-9:]{8}\.[0-9]{6}Z`), "<microtime>"},
	{regexp.MustCompile(`20[2-9][0-9]-[01][0-9]-[0-3][0-9]T[0-9:]{8}Z`), "<time>"},
	{regexp.MustCompile(`kube-api-access-[a-z0-9]{5}\b`), "kube-api-access-<5>"},
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`), "<token>"},
	// The corpus has objects named after this alone.
	{regexp.MustCompile(`\bsome-[a-z0-9]{5}\b`), "some-<5>"},
	{regexp.MustCompile(`(resourceVersion\W{1,8}|in object meta: |current: |in record \()[0-9]+`), "${1}<revision>"},
	// A place in its store, which is another's own.
	{regexp.MustCompile(`Key: /registry/[^,]*`), "Key: <key>"},
	{regexp.MustCompile(`192\.0\.2\.1:[0-9]+`), "192.0.2.1:<port>"},
	// Lines of upstream's own types, which nobody else has; what follows them is compared.
	{regexp.MustCompile(`\n(?:@@ [^\n]*\n(?:[-+ ][^\n]*\n)*)+`), "\n<what differs>\n"},
	// Of an OpenAPI document, as each server reckons it.
	{regexp.MustCompile(`\?hash=[0-9A-F]+`), "?hash=<hash>"},
	// What is given out of itself; the corpus asks for addresses and ports below.
	{regexp.MustCompile(`\b10\.96\.[1-9][0-9]*\.[0-9]+\b`), "<address>"},
}

var age = regexp.MustCompile(`^([0-9]+(ms|[smhdy]))+$`)

func maskText(text string) string {
	for _, pattern := range patterns {
		text = pattern.found.ReplaceAllString(text, pattern.as)
	}
	return text
}

// mask is the tree without what differs from run to run, nor prose. OpenAPI documents are reduced to a digest of each item.
func mask(tree any) any {
	switch value := tree.(type) {
	case map[string]any:
		if value["swagger"] != nil || value["openapi"] != nil {
			return digested(value)
		}
		return maskObject(value)
	case []any:
		out := make([]any, len(value))
		for i, item := range value {
			out[i] = mask(item)
		}
		return out
	case string:
		return maskText(value)
	}
	return tree
}

func maskObject(value map[string]any) map[string]any {
	out := make(map[string]any, len(value))
	for key, item := range value {
		text, isText := item.(string)
		// Of a part that was picked, the key is the pointer to it.
		name := key[strings.LastIndex(key, "/")+1:]
		switch {
		case name == "resourceVersion" && isText && isNumber(text) && text != "0":
			out[key] = "<revision>"
		case name == "continue" && text != "":
			out[key] = "<continue>"
		case name == "nodePort" && isDynamicPort(item):
			out[key] = "<port>"
		case name == "finalizers":
			// Some of them come out of a set.
			out[key] = sorted(mask(item), func(finalizer any) string { text, _ := finalizer.(string); return text })
		case name == "managedFields":
			out[key] = sorted(mask(item), manager)
		case name == "cells":
			out[key] = maskCells(item)
		case name == "columnDefinitions":
			out[key] = withoutDescriptions(item)
		default:
			out[key] = mask(item)
		}
	}
	return out
}

// manager is what no two entries of managedFields share; their order is that of time, in seconds.
func manager(entry any) string {
	fields, _ := entry.(map[string]any)
	text := func(name string) string { value, _ := fields[name].(string); return value }
	return strings.Join([]string{text("manager"), text("operation"), text("apiVersion"), text("subresource")}, "\n")
}

func sorted(list any, key func(any) string) any {
	items, _ := list.([]any)
	slices.SortStableFunc(items, func(a, b any) int { return strings.Compare(key(a), key(b)) })
	return list
}

// digested is an OpenAPI document, too long to be kept, with a digest in each item's place: of its JSON without prose.
func digested(document map[string]any) map[string]any {
	digests := func(items any) any {
		out := map[string]any{}
		named, _ := items.(map[string]any)
		for name, item := range named {
			var text bytes.Buffer
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(false)
			must(encoder.Encode(withoutProse(item)))
			out[name] = fmt.Sprintf("%x", sha256.Sum256(bytes.TrimSpace(text.Bytes())))[:12]
		}
		return out
	}
	out := maps.Clone(document)
	for _, place := range []string{"definitions", "paths", "parameters"} {
		if items, ok := out[place]; ok {
			out[place] = digests(items)
		}
	}
	if components, ok := out["components"].(map[string]any); ok {
		out["components"] = map[string]any{"schemas": digests(components["schemas"]), "securitySchemes": components["securitySchemes"]}
	}
	return out
}

// picked are the places of a document that pointers point at; null where there is nothing.
func picked(tree any, pointers []string) any {
	out := map[string]any{}
	for _, pointer := range pointers {
		value, _ := find(tree, pointer)
		out[pointer] = withoutProse(value)
	}
	return out
}

func withoutProse(tree any) any {
	switch value := tree.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, item := range value {
			if _, prose := item.(string); !prose || key != "description" {
				out[key] = withoutProse(item)
			}
		}
		return out
	case []any:
		out := make([]any, len(value))
		for i, item := range value {
			out[i] = withoutProse(item)
		}
		return out
	}
	return tree
}

// maskCells is a table's row without ages.
func maskCells(item any) any {
	cells, _ := mask(item).([]any)
	for i, cell := range cells {
		if text, ok := cell.(string); ok && age.MatchString(text) {
			cells[i] = "<age>"
		}
	}
	return cells
}

func withoutDescriptions(item any) any {
	columns, _ := item.([]any)
	for _, column := range columns {
		if column, ok := column.(map[string]any); ok {
			delete(column, "description")
		}
	}
	return columns
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil
}

func isDynamicPort(item any) bool {
	number, ok := item.(json.Number)
	port, err := strconv.Atoi(string(number))
	return ok && err == nil && port >= 30086
}

// find is what a JSON pointer points at.
func find(tree any, pointer string) (any, bool) {
	for _, part := range split(pointer) {
		switch value := tree.(type) {
		case map[string]any:
			item, ok := value[part]
			if !ok {
				return nil, false
			}
			tree = item
		case []any:
			index, err := strconv.Atoi(part)
			if err != nil || index >= len(value) {
				return nil, false
			}
			tree = value[index]
		default:
			return nil, false
		}
	}
	return tree, true
}

func split(pointer string) []string {
	parts := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(parts[i], "~1", "/"), "~0", "~")
	}
	return parts
}
