package main

// For each object on the input, what upstream says of every small change of it: each field gone, emptied, doubled, made
// senseless. pkg/api/tests/mutations.rs makes the same changes in the same order and compares.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// change is a place in an object and what is put there; the name is the same in the Rust half.
type change struct {
	pointer, name string
	value         any
	remove        bool
}

func changes(value any, pointer string, all *[]change) {
	add := func(name string, value any) { *all = append(*all, change{pointer, name, value, false}) }
	if pointer != "" {
		*all = append(*all, change{pointer, "gone", nil, true})
	}
	switch own := value.(type) {
	case string:
		add("empty", "")
		add("odd", "Bad Value!")
	case json.Number:
		add("minus", json.Number("-1"))
		add("zero", json.Number("0"))
		add("huge", json.Number("2000000"))
	case bool:
		add("not", !own)
	case []any:
		add("none", []any{})
		if len(own) > 0 {
			add("twice", append(append([]any{}, own...), own[0]))
		}
		for index, item := range own {
			changes(item, pointer+"/"+strconv.Itoa(index), all)
		}
	case map[string]any:
		if pointer != "" {
			add("none", map[string]any{})
		}
		keys := make([]string, 0, len(own))
		for key := range own {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		for _, key := range keys {
			if pointer == "" && (key == "apiVersion" || key == "kind") {
				continue
			}
			changes(own[key], pointer+"/"+strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1"), all)
		}
	}
}

func parse(raw []byte) any {
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		panic(err)
	}
	return tree
}

func apply(raw []byte, c change) json.RawMessage {
	tree := parse(raw)
	steps := strings.Split(c.pointer, "/")[1:]
	var at func(node any, steps []string) any
	at = func(node any, steps []string) any {
		step := strings.ReplaceAll(strings.ReplaceAll(steps[0], "~1", "/"), "~0", "~")
		switch own := node.(type) {
		case map[string]any:
			if len(steps) > 1 {
				own[step] = at(own[step], steps[1:])
			} else if c.remove {
				delete(own, step)
			} else {
				own[step] = c.value
			}
			return own
		case []any:
			index, _ := strconv.Atoi(step)
			if len(steps) > 1 {
				own[index] = at(own[index], steps[1:])
			} else if c.remove {
				return append(own[:index:index], own[index+1:]...)
			} else {
				own[index] = c.value
			}
			return own
		}
		panic(c.pointer)
	}
	out, err := json.Marshal(at(tree, steps))
	if err != nil {
		panic(err)
	}
	return out
}

// told is a cause's message as it is compared: its first line, and no struct's text, which is Go's.
func told(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	for _, start := range []string{"Invalid value: ", "Duplicate value: ", "Unsupported value: "} {
		rest, ok := strings.CutPrefix(message, start)
		if !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, "[") {
			continue
		}
		decoder := json.NewDecoder(strings.NewReader(rest))
		var value any
		if decoder.Decode(&value) == nil {
			return start + "…" + rest[decoder.InputOffset():]
		}
	}
	return message
}

func mutate(in *bufio.Scanner) {
	messages, numbers := []string{}, map[string]int{}
	lines := []string{}
	for in.Scan() {
		var base line
		if err := json.Unmarshal(in.Bytes(), &base); err != nil {
			panic(err)
		}
		tree := parse(base.Object).(map[string]any)
		kind := tree["kind"].(string)
		for _, way := range []string{"create", "update", "status"} {
			if way == "status" && (statusStrategies[kind] == nil || tree["status"] == nil) {
				continue
			}
			lines = append(lines, "= "+base.Name+" "+way)
			all := []change{{}}
			changes(tree, "", &all)
			for _, c := range all {
				if (way == "status") != strings.HasPrefix(c.pointer, "/status") && c.pointer != "" {
					continue
				}
				object := base.Object
				if c.pointer != "" {
					object = apply(base.Object, c)
				}
				l := line{Object: object}
				if way != "create" {
					l.Old = base.Object
				}
				causes := judgeCauses(base.Name, l, way == "status")
				if causes == nil {
					lines = append(lines, c.pointer+"\t"+c.name+"\t-")
					continue
				}
				if len(causes) == 0 {
					continue
				}
				parts := []string{}
				for _, cause := range causes {
					text := cause[0] + ": " + told(cause[1])
					number, ok := numbers[text]
					if !ok {
						number = len(messages)
						numbers[text] = number
						messages = append(messages, text)
					}
					parts = append(parts, strconv.Itoa(number))
				}
				lines = append(lines, c.pointer+"\t"+c.name+"\t"+strings.Join(parts, " "))
			}
		}
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, message := range messages {
		fmt.Fprintf(out, "%s\n", message)
	}
	fmt.Fprintln(out)
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
}

// judgeCauses is nil for what is refused before it is validated.
func judgeCauses(name string, l line, status bool) (causes [][2]string) {
	defer func() {
		if recover() != nil {
			causes = nil
		}
	}()
	_, err := judge(l, status)
	if err == nil {
		return [][2]string{}
	}
	refused, ok := err.(apierrors.APIStatus)
	if !ok || refused.Status().Details == nil || len(refused.Status().Details.Causes) == 0 {
		return nil
	}
	for _, cause := range refused.Status().Details.Causes {
		causes = append(causes, [2]string{cause.Field, cause.Message})
	}
	return causes
}
