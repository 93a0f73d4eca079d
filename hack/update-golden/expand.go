package main

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

const (
	space     = "golden"
	mergeType = "application/merge-patch+json"
	jsonType  = "application/json-patch+json"
	strategic = "application/strategic-merge-patch+json"
	applyType = "application/apply-patch+yaml"
	asTable   = "application/json;as=Table;v=v1;g=meta.k8s.io"
	asPart    = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	asParts   = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
)

// An expansion makes a kind's steps, in an order in which each finds what it needs.
type expansion struct {
	kind       *Kind
	name       string
	collection string
	all        string
	steps      []Step
}

func expand(name string, kind *Kind) []Step {
	version := kind.Least["apiVersion"].(string)
	root := "/apis/" + version
	if !strings.Contains(version, "/") {
		root = "/api/" + version
	}
	e := &expansion{kind: kind, name: name, all: root + "/" + kind.Plural}
	e.collection = e.all
	if !kind.Cluster {
		e.collection = root + "/namespaces/" + space + "/" + kind.Plural
	}
	e.variants()
	e.create()
	e.read()
	e.change()
	e.validation()
	e.apply()
	e.subresources()
	e.remove()
	return e.steps
}

func nameOf(object map[string]any) string {
	return object["metadata"].(map[string]any)["name"].(string)
}

func (e *expansion) at(object map[string]any) string {
	return e.collection + "/" + nameOf(object)
}

func (e *expansion) step(name, method, at string, body any, headers ...string) *Step {
	if !e.kind.wants(name) {
		return &Step{}
	}
	step := Step{Name: e.name + "/" + name, Request: Request{Method: method, Path: at}}
	if method == "GET" {
		step.Method = ""
	}
	switch body := body.(type) {
	case nil:
	case string:
		step.Text = body
	default:
		step.Body = raw(body)
	}
	for i := 0; i < len(headers); i += 2 {
		step.Headers = with(step.Headers, headers[i], headers[i+1])
	}
	e.steps = append(e.steps, step)
	return &e.steps[len(e.steps)-1]
}

func (kind *Kind) wants(step string) bool {
	fits := func(pattern string) bool {
		found, err := path.Match(pattern, step)
		must(err)
		return found
	}
	return !slices.ContainsFunc(kind.Without, fits) && (kind.Only == nil || slices.ContainsFunc(kind.Only, fits))
}

func (e *expansion) edit(object map[string]any, edit Edit) map[string]any {
	changed, err := edited(object, edit)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", e.name, err))
	}
	return changed
}

// variants are all in dry runs: what they do depends on nothing that is stored.
func (e *expansion) variants() {
	for _, name := range slices.Sorted(maps.Keys(e.kind.Create)) {
		e.step("create/"+name, "POST", e.collection+"?dryRun=All", e.edit(e.kind.Least, e.kind.Create[name]))
	}
}

func (e *expansion) create() {
	least, full := e.kind.Least, e.kind.Full
	e.step("create-dry", "POST", e.collection+"?dryRun=All", least)
	e.step("get-none", "GET", e.at(least), nil)
	e.step("create-least", "POST", e.collection, least)
	e.step("create-again", "POST", e.collection, least)
	e.step("create-full", "POST", e.collection, full)
	e.step("create-protobuf", "POST", e.collection+"?dryRun=All", e.renamed(full, "binary"), "Accept", protobufType).Protobuf = true
	if !e.kind.Named {
		generated := e.edit(least, Edit{"/metadata/name": nil, "/metadata/generateName": "some-"})
		e.step("create-generated", "POST", e.collection+"?dryRun=All", generated)
		e.step("create-nameless", "POST", e.collection, e.edit(least, Edit{"/metadata/name": nil}))
		e.step("create-bad-name", "POST", e.collection, e.renamed(least, "Bad_Name/%"))
	}
	if !e.kind.Cluster {
		e.step("create-elsewhere", "POST", e.collection, e.edit(least, Edit{"/metadata/namespace": "other"}))
	}
	e.step("create-bad-metadata", "POST", e.collection+"?dryRun=All", e.edit(least, Edit{
		"/metadata/labels":          map[string]any{"a b": strings.Repeat("x", 64)},
		"/metadata/annotations":     map[string]any{"Not Good": "x"},
		"/metadata/finalizers":      []any{"plain", "no good/x"},
		"/metadata/ownerReferences": []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": ""}},
		"/metadata/generation":      -1,
	}))
}

func (e *expansion) renamed(object map[string]any, name string) map[string]any {
	if e.kind.Named {
		return object
	}
	return e.edit(object, Edit{"/metadata/name": name})
}

func (e *expansion) read() {
	least, full := e.kind.Least, e.kind.Full
	e.step("get", "GET", e.at(least), nil)
	e.step("get-table", "GET", e.at(full), nil, "Accept", asTable)
	e.step("get-part", "GET", e.at(full), nil, "Accept", asPart)
	e.step("get-protobuf", "GET", e.at(full), nil, "Accept", protobufType)
	e.step("list", "GET", e.collection+"?labelSelector=golden", nil)
	e.step("list-table", "GET", e.collection+"?labelSelector=golden&includeObject=None", nil, "Accept", asTable)
	e.step("list-parts", "GET", e.collection+"?labelSelector=golden", nil, "Accept", asParts)
	e.step("list-by-name", "GET", e.collection+"?fieldSelector=metadata.name%3D"+nameOf(full), nil)
	e.step("list-by-no-field", "GET", e.collection+"?fieldSelector=spec.nonsense%3Dx", nil)
	for _, selector := range e.kind.Selectors {
		e.step("list-by/"+selector, "GET", e.collection+"?labelSelector=golden&fieldSelector="+
			strings.NewReplacer("=", "%3D", "!", "%21").Replace(selector), nil, "Accept", asParts)
	}
	if !e.kind.Cluster {
		e.step("list-everywhere", "GET", e.all+"?labelSelector=golden", nil, "Accept", asParts)
	}
	e.step("watch", "GET", e.collection+"?watch=true&resourceVersion=0&labelSelector=golden", nil)
}

func label(name string) map[string]any {
	return map[string]any{"metadata": map[string]any{"labels": map[string]any{name: "yes"}}}
}

// merged is a patch that has a label besides what it is given.
func merged(patch map[string]any, name string) map[string]any {
	out := label(name)
	for key, value := range patch {
		if key == "metadata" {
			maps.Copy(out["metadata"].(map[string]any), clone(value).(map[string]any))
			continue
		}
		out[key] = value
	}
	return out
}

func (e *expansion) change() {
	least, full := e.kind.Least, e.kind.Full
	at := e.at(full)
	e.step("merge-patch", "PATCH", at, merged(e.kind.Merge, "merge"), "Content-Type", mergeType)
	e.step("json-patch", "PATCH", at, append([]any{
		map[string]any{"op": "test", "path": "/metadata/name", "value": nameOf(full)},
		map[string]any{"op": "add", "path": "/metadata/labels/json", "value": "yes"},
	}, e.kind.JSON...), "Content-Type", jsonType)
	e.step("json-patch-fails", "PATCH", at, []any{
		map[string]any{"op": "test", "path": "/metadata/name", "value": "another"},
	}, "Content-Type", jsonType)
	e.step("strategic-patch", "PATCH", at, merged(e.kind.Strategic, "strategic"), "Content-Type", strategic)
	e.step("patch-nothing", "PATCH", at, map[string]any{}, "Content-Type", mergeType)
	e.step("patch-none", "PATCH", e.collection+"/none", label("x"), "Content-Type", mergeType)
	e.revision("put")
	e.step("put", "PUT", at, e.next(e.edit(full, Edit(e.kind.Update))))
	e.step("put-again", "PUT", at, e.next(e.edit(full, Edit(e.kind.Update))))
	e.step("put-stale", "PUT", at, e.edit(full, Edit{"/metadata/resourceVersion": "1"}))
	e.step("put-other-uid", "PUT", at, e.edit(full, Edit{"/metadata/uid": "5ca1ab1e-0000-4000-8000-000000000000"}))
	e.step("put-misnamed", "PUT", at, e.edit(full, Edit{"/metadata/name": "another"}))
	if !e.kind.Named {
		e.step("put-none", "PUT", e.collection+"/none?dryRun=All", e.renamed(least, "none"))
	}
	e.revision("change")
	for _, name := range slices.Sorted(maps.Keys(e.kind.Change)) {
		e.step("change/"+name, "PUT", at+"?dryRun=All", e.next(e.edit(full, e.kind.Change[name])))
	}
}

// revision keeps the object's present one for the updates that follow, where they have to name it.
func (e *expansion) revision(before string) {
	if e.kind.Versioned {
		e.step("revision-for-"+before, "GET", e.at(e.kind.Full), nil).Keep = map[string]string{"revision": "/metadata/resourceVersion"}
	}
}

func (e *expansion) next(object map[string]any) map[string]any {
	if !e.kind.Versioned {
		return object
	}
	return e.edit(object, Edit{"/metadata/resourceVersion": "${revision}"})
}

// validation asks for the three ways to take fields that are unknown or there twice.
func (e *expansion) validation() {
	body := string(raw(e.edit(e.kind.Least, Edit{"/nonsense": 1, "/metadata/nonsense": true})))
	body = strings.Replace(body, `"nonsense":1`, `"nonsense":1,"kind":"`+e.kind.Least["kind"].(string)+`"`, 1)
	for _, way := range []string{"Strict", "Warn", "Ignore"} {
		at := e.at(e.kind.Least)
		e.step("fields-"+way, "PUT", at+"?dryRun=All&fieldValidation="+way, body)
	}
}

func (e *expansion) apply() {
	full := e.kind.Full
	applied := e.renamed(full, "applied")
	at := e.at(applied)
	second := merged(e.kind.Apply, "golden")
	second["apiVersion"], second["kind"] = full["apiVersion"], full["kind"]
	without := e.edit(applied, Edit{"/metadata/annotations": nil})
	for _, step := range []struct {
		name, query string
		body        any
	}{
		{"apply-create", "fieldManager=first", applied},
		{"apply-again", "fieldManager=first", applied},
		{"apply-conflict", "fieldManager=second", second},
		{"apply-force", "fieldManager=second&force=true", second},
		{"apply-over", "fieldManager=first", applied},
		{"apply-less", "fieldManager=first&force=true", without},
		{"apply-unknown", "fieldManager=first&force=true", e.edit(applied, Edit{"/nonsense": 1})},
	} {
		e.step(step.name, "PATCH", at+"?"+step.query, step.body, "Content-Type", applyType)
	}
}

func (e *expansion) subresources() {
	full := e.kind.Full
	if e.kind.Status != nil {
		at := e.at(full) + "/status"
		filled := e.edit(full, Edit{"/status": e.kind.Status})
		e.revision("status")
		e.step("status-put", "PUT", at, e.next(filled))
		e.step("status-get", "GET", at, nil)
		e.step("status-of-object", "PUT", e.at(full), e.edit(full, Edit{"/status": map[string]any{}}))
		e.step("status-merge", "PATCH", at, map[string]any{
			"metadata": map[string]any{"annotations": map[string]any{"status": "yes"}}, "status": e.kind.Status,
		}, "Content-Type", mergeType)
		e.step("status-apply", "PATCH", at+"?fieldManager=status&force=true", map[string]any{
			"apiVersion": full["apiVersion"], "kind": full["kind"], "status": e.kind.Status,
		}, "Content-Type", applyType)
		e.revision("status-changes")
		for _, name := range slices.Sorted(maps.Keys(e.kind.ChangeStatus)) {
			e.step("status/"+name, "PUT", at+"?dryRun=All", e.next(e.edit(filled, e.kind.ChangeStatus[name])))
		}
		e.step("table-of-status", "GET", e.at(full), nil, "Accept", asTable)
	}
	if e.kind.Scale {
		at := e.at(full) + "/scale"
		scale := map[string]any{
			"apiVersion": "autoscaling/v1", "kind": "Scale",
			"metadata": map[string]any{"name": nameOf(full), "namespace": space}, "spec": map[string]any{"replicas": 7},
		}
		e.step("scale-get", "GET", at, nil)
		e.step("scale-put", "PUT", at, scale)
		e.step("scale-patch", "PATCH", at, map[string]any{"spec": map[string]any{"replicas": 5}}, "Content-Type", mergeType)
		e.step("scale-negative", "PATCH", at, map[string]any{"spec": map[string]any{"replicas": -1}}, "Content-Type", mergeType)
		scale["metadata"].(map[string]any)["resourceVersion"] = "1"
		e.step("scale-stale", "PUT", at, scale)
	}
}

func (e *expansion) remove() {
	least, full := e.kind.Least, e.kind.Full
	e.step("delete-dry", "DELETE", e.at(least)+"?dryRun=All", nil)
	e.step("delete-other", "DELETE", e.at(least), map[string]any{
		"apiVersion": "v1", "kind": "DeleteOptions",
		"preconditions": map[string]any{"uid": "5ca1ab1e-0000-4000-8000-000000000000"},
	})
	e.step("delete-stale", "DELETE", e.at(least), map[string]any{"preconditions": map[string]any{"resourceVersion": "1"}})
	e.step("delete-badly", "DELETE", e.at(least)+"?propagationPolicy=Sideways", nil)
	e.step("delete", "DELETE", e.at(least), nil)
	e.step("delete-again", "DELETE", e.at(least), nil)
	e.step("hold", "PATCH", e.at(full), []any{
		map[string]any{"op": "add", "path": "/metadata/finalizers", "value": []any{"example.org/hold"}},
	}, "Content-Type", jsonType)
	// A patch begins with what its cache has, which may not know of the deletion yet.
	e.step("delete-held", "DELETE", e.at(full)+"?propagationPolicy=Foreground", nil).Settle = true
	e.step("get-held", "GET", e.at(full), nil)
	e.step("held-finalizer", "PATCH", e.at(full), []any{
		map[string]any{"op": "add", "path": "/metadata/finalizers/-", "value": "example.org/another"},
	}, "Content-Type", jsonType)
	e.step("let-go", "PATCH", e.at(full), []any{
		map[string]any{"op": "remove", "path": "/metadata/finalizers"},
	}, "Content-Type", jsonType)
	e.step("delete-collection", "DELETE", e.collection+"?labelSelector=golden", nil)
	e.step("list-none", "GET", e.collection+"?labelSelector=golden", nil)
}
