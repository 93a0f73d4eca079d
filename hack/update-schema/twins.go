package main

import (
	"bufio"
	"bytes"
	"fmt"
	"reflect"
	"strings"
)

// pair finds, for each type that only removed versions have, one that stands for it: it has the same short name and the
// same fields, up to the Go names of scalars. A kind stands for itself.
//
// Types hold each other, so equality is what is left when no more pair can be told apart: each type begins with its first
// candidate, and moves on to the next one when the two differ as the pairs are.
func (g *generator) pair(infos []*typeInfo) {
	byName := map[string][]*typeInfo{}
	for _, old := range []bool{false, true} {
		for _, info := range infos {
			if ofRemoved(info.goType) == old && len(info.kinds) == 0 {
				byName[info.goType.Name()] = append(byName[info.goType.Name()], info)
			}
		}
	}
	left := map[*typeInfo][]*typeInfo{}
	for _, info := range infos {
		if !ofRemoved(info.goType) || len(info.kinds) > 0 {
			continue
		}
		for _, candidate := range byName[info.goType.Name()] {
			if candidate == info {
				break
			}
			left[info] = append(left[info], candidate)
		}
		info.next(left)
	}
	for changed := true; changed; {
		changed = false
		for _, info := range infos {
			if info.twin != nil && g.signature(info) != g.signature(info.twin) {
				info.next(left)
				changed = true
			}
		}
	}
}

// next takes the next candidate, if there is one.
func (info *typeInfo) next(left map[*typeInfo][]*typeInfo) {
	info.twin = nil
	if candidates := left[info]; len(candidates) > 0 {
		info.twin, left[info] = candidates[0], candidates[1:]
	}
}

// ofRemoved says whether a type's package is that of a version of which removed kinds are served.
func ofRemoved(goType reflect.Type) bool {
	return strings.Contains(goType.PkgPath(), "/v1beta") || strings.Contains(goType.PkgPath(), "/v2beta")
}

// signature is what the table says of a type's fields, without the Go names of scalars.
func (g *generator) signature(info *typeInfo) string {
	var text bytes.Buffer
	out := bufio.NewWriter(&text)
	g.writeFields(out, info.goType, "", g.defs[info.name].Schema)
	must(out.Flush())
	definition := g.defs[info.name].Schema
	lines := []string{fmt.Sprint(definition.Extensions["x-kubernetes-map-type"])}
	for _, line := range strings.Split(text.String(), "\n") {
		var cells []string
		for _, cell := range strings.Split(line, "\t") {
			if !strings.HasPrefix(cell, "g=") && !strings.HasPrefix(cell, "G=") {
				cells = append(cells, cell)
			}
		}
		lines = append(lines, strings.Join(cells, "\t"))
	}
	return strings.Join(lines, "\n")
}

// reference is the number of the type that stands for a struct.
func (g *generator) reference(goType reflect.Type) string {
	info := g.types[goType]
	for info.twin != nil {
		info = info.twin
	}
	return fmt.Sprint(info.index)
}
