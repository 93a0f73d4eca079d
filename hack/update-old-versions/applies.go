package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/registry/certificates/certificates"
	"k8s.io/kubernetes/pkg/registry/storage/volumeattachment"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// An applied object: upstream's own field manager works on it in the old version, its server takes what comes of that in the
// stored one. The managers are carried from one request to the next, as that server's own are those of other requests.
type applied struct {
	kind
	name    string
	manager *managedfields.FieldManager
	fields  []metav1.ManagedFieldsEntry
}

// applies is what server-side apply does: an object is made, applied again, by another manager in conflict, by force, and given
// up by one and by both.
func (k kind) applies(name string) []pair {
	kind := versioned(k.line.Kind)
	hub := kind.GroupVersion()
	hub.Version = runtime.APIVersionInternal
	scheme := legacyscheme.Scheme
	manager, err := managedfields.NewDefaultFieldManager(applyconfigurations.NewTypeConverter(scheme), scheme, scheme, scheme, kind, hub, "", k.reset())
	must(err)
	own := &applied{kind: k, name: name + "-applied", manager: manager}
	whole := func(label string) json.RawMessage { return labelled(named(k.line.Sent, own.name), label) }
	least := printed(map[string]any{"apiVersion": kind.GroupVersion().String(), "kind": kind.Kind, "metadata": map[string]any{"name": own.name}})
	return []pair{
		own.apply("apply", "one", false, whole("one")),
		own.apply("apply again", "one", false, whole("one")),
		own.apply("apply another's", "two", false, whole("two")),
		own.apply("apply by force", "two", true, whole("two")),
		own.apply("give up", "one", false, least),
		own.apply("apply what is left", "one", false, whole("two")),
		own.apply("give up all", "two", false, least),
		own.object("delete applied", "DELETE", own.name),
	}
}

// What nobody comes to own by writing it, of the kinds whose objects here have it, by their strategies.
var resets = map[string]rest.ResetFieldsStrategy{
	"CertificateSigningRequest": certificates.Strategy,
	"VolumeAttachment":          volumeattachment.Strategy,
}

func (k kind) reset() map[fieldpath.APIVersion]fieldpath.Filter {
	strategy := resets[k.line.storedKind().Kind]
	if strategy == nil {
		return nil
	}
	fields := strategy.GetResetFields()[fieldpath.APIVersion(k.line.storedKind().GroupVersion().String())]
	old := fieldpath.APIVersion(versioned(k.line.Kind).GroupVersion().String())
	return fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{old: fields})
}

func labelled(object json.RawMessage, label string) json.RawMessage {
	var tree map[string]any
	must(json.Unmarshal(object, &tree))
	metadata := tree["metadata"].(map[string]any)
	labels, _ := metadata["labels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
	}
	labels["applied"], metadata["labels"] = label, labels
	return printed(tree)
}

func (a *applied) apply(what, manager string, force bool, body json.RawMessage) pair {
	query := "?fieldManager=" + manager
	if force {
		query += "&force=true"
	}
	old, stored := a.paths("/" + a.name)
	request := request{Method: "PATCH", Path: old + query, Headers: map[string]string{"Content-Type": "application/apply-patch+yaml"}, Body: body}
	live, there := a.live(stored)
	patch := &unstructured.Unstructured{}
	must(patch.UnmarshalJSON(body))
	changed, err := a.manager.Apply(live, patch, manager, force)
	var conflict apierrors.APIStatus
	if errors.As(err, &conflict) {
		status := conflict.Status()
		status.Kind, status.APIVersion = "Status", "v1"
		answered, err := json.Marshal(status)
		must(err)
		return a.pair(what, request, int(status.Code), nil, answered)
	}
	must(err)
	accessor, err := meta.Accessor(changed)
	must(err)
	fields := accessor.GetManagedFields()
	accessor.SetManagedFields(nil)
	sent, err := runtime.Encode(legacyscheme.Codecs.EncoderForVersion(serializer(), a.line.storedKind().GroupVersion()), changed)
	must(err)
	method, path := "PUT", stored
	if !there {
		method, path = "POST", strings.TrimSuffix(stored, "/"+a.name)
	}
	code, warnings, answered := a.ask(method, path, sent)
	pair := a.pair(what, request, code, warnings, answered)
	if code < 300 {
		a.fields = fields
		pair.Request.Pick = append(slices.Clone(pair.Request.Pick), "/metadata/managedFields")
		pair.Answer.Body["/metadata/managedFields"] = masked(fields)
	}
	return pair
}

// live is the object as it is stored, with the managers that it would have; a new one where there is none.
func (a *applied) live(stored string) (runtime.Object, bool) {
	code, _, answered := a.ask("GET", stored, nil)
	if code != 200 {
		object, err := legacyscheme.Scheme.New(versioned(a.line.Kind))
		must(err)
		return object, false
	}
	object, _, err := legacyscheme.Codecs.UniversalDecoder().Decode(answered, nil, nil)
	must(err)
	accessor, err := meta.Accessor(object)
	must(err)
	accessor.SetManagedFields(a.fields)
	return object, true
}

// masked are managers as tests/api/golden/mask.rs leaves them: by name, as their order is that of time, in seconds.
func masked(fields []metav1.ManagedFieldsEntry) any {
	fields = slices.Clone(fields)
	slices.SortFunc(fields, func(a, b metav1.ManagedFieldsEntry) int { return strings.Compare(a.Manager, b.Manager) })
	text, err := json.Marshal(map[string]any{"fields": fields})
	must(err)
	return pick(text, []string{"/fields"})["/fields"]
}
