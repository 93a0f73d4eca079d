package main

import (
	"encoding/json"
	"regexp"
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
	// Of upstream's own types, which nobody else has.
	{regexp.MustCompile(`(?s)\n@@ .*`), "\n<what differs>"},
	{regexp.MustCompile(`in record \([0-9]+\)`), "in record (<revision>)"},
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
		switch {
		case key == "resourceVersion" && isText && isNumber(text) && text != "0":
			out[key] = "<revision>"
		case key == "continue" && text != "":
			out[key] = "<continue>"
		case key == "nodePort" && isDynamicPort(item):
			out[key] = "<port>"
		case key == "cells":
			out[key] = maskCells(item)
		case key == "columnDefinitions":
			out[key] = withoutDescriptions(item)
		default:
			out[key] = mask(item)
		}
	}
	return out
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
