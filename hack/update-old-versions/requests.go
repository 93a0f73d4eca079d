package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apiserver/pkg/endpoints/deprecation"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// What a server answers that serves the old versions: what upstream's answers to the same request in the version that it
// stores, between two conversions by its scheme, as its own handlers had them. A patch is laid over the object as the old
// version shows it. Each document of a person's is created; the first of each kind is read, listed, changed and deleted too.

// A pair is a line of tests/api/golden/removed.jsonl.
type pair struct {
	Name    string  `json:"name"`
	Request request `json:"request"`
	Answer  answer  `json:"answer"`
}

type request struct {
	Method  string            `json:"method,omitempty"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"`
	// What of the answer is kept: its managers are those of another request.
	Pick []string `json:"pick"`
}

type answer struct {
	Code    int               `json:"code"`
	Headers map[string]string `json:"headers"`
	Warning []string          `json:"warning,omitempty"`
	Body    map[string]any    `json:"body"`
}

// A server is upstream's, as hack/upstream.sh has started it.
type server struct {
	url, token string
	client     http.Client
}

func connect(dir string) *server {
	read := func(name string) string {
		content, err := os.ReadFile(dir + "/" + name)
		must(err)
		return strings.TrimSpace(string(content))
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read("ca.crt")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return &server{url: read("url"), token: read("token"), client: http.Client{Transport: transport}}
}

// ask gives code, warnings and body of an answer.
func (s *server) ask(method, path string, body []byte) (int, []string, []byte) {
	return s.askFor("application/json", method, path, body)
}

func (s *server) askFor(accept, method, path string, body []byte) (int, []string, []byte) {
	request, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	must(err)
	request.Header.Set("Accept", accept)
	request.Header.Set("Authorization", "Bearer "+s.token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "golden")
	response, err := s.client.Do(request)
	must(err)
	defer response.Body.Close()
	answered, err := io.ReadAll(response.Body)
	must(err)
	return response.StatusCode, response.Header.Values("Warning"), answered
}

// A kind is one of the old versions', with its plural and scope.
type kind struct {
	*server
	line       line
	plural     string
	namespaced bool
}

// Of these nothing is stored, what promises protection is not made, and a definition's status comes when it comes.
var without = regexp.MustCompile(`Review$|WebhookConfiguration$|NetworkPolicy$|APIService$|CustomResourceDefinition$|^events.k8s.io/v1 |^autoscaling/v1 `)

const namespace = `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"removed"}}`

func writeRequests(path string, cases []line, dir string) {
	server := connect(dir)
	server.ask("POST", "/api/v1/namespaces", []byte(namespace))
	all := []pair{{
		Name:    "namespace",
		Request: request{Method: "POST", Path: "/api/v1/namespaces", Body: json.RawMessage(namespace), Pick: []string{"/kind"}},
		Answer:  answer{Code: 201, Headers: isJSON, Body: map[string]any{"/kind": "Namespace"}},
	}}
	seen := map[string]bool{}
	for index, own := range cases {
		if without.MatchString(own.Kind) || len(own.Sent) == 0 {
			continue
		}
		name := fmt.Sprintf("case-%d", index)
		kind := server.kind(own)
		created := kind.create("create", name)
		if message, _ := created.Answer.Body["/message"].(string); strings.Contains(message, "not allowed via this API version") {
			// It was in the older one.
			continue
		}
		all = append(all, created)
		if created.Answer.Code == 201 && !seen[own.Kind] {
			seen[own.Kind] = true
			all = append(all, kind.life(name)...)
			all = append(all, kind.applies(name)...)
		}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for _, pair := range all {
		must(encoder.Encode(pair))
	}
	must(os.WriteFile(path, out.Bytes(), 0o644))
	fmt.Printf("%d pairs of requests\n", len(all))
}

// kind looks a kind up in the version that is stored.
func (s *server) kind(own line) kind {
	_, _, document := s.ask("GET", base(own.storedKind().GroupVersion().String()), nil)
	var listed metav1.APIResourceList
	must(json.Unmarshal(document, &listed))
	for _, resource := range listed.APIResources {
		if resource.Kind == own.storedKind().Kind && !strings.Contains(resource.Name, "/") {
			return kind{server: s, line: own, plural: resource.Name, namespaced: resource.Namespaced}
		}
	}
	log.Fatalf("%s is not served", own.storedKind())
	return kind{}
}

func base(groupVersion string) string {
	if strings.Contains(groupVersion, "/") {
		return "/apis/" + groupVersion
	}
	return "/api/" + groupVersion
}

// paths are where an object is (or the collection, without a name): in the old version, and in the stored one.
func (k kind) paths(rest string) (string, string) {
	within := "/"
	if k.namespaced {
		within = "/namespaces/removed/"
	}
	old, _, _ := strings.Cut(k.line.Kind, " ")
	return base(old) + within + k.plural + rest, base(k.line.storedKind().GroupVersion().String()) + within + k.plural + rest
}

func (k kind) create(what, name string) pair {
	body := named(k.line.Sent, name)
	old, stored := k.paths("")
	code, warnings, answered := k.ask("POST", stored, k.stored(body))
	return k.pair(what, request{Method: "POST", Path: old, Body: body}, code, warnings, answered)
}

// life is what may happen to an object that is there.
func (k kind) life(name string) []pair {
	change := json.RawMessage(`{"metadata":{"annotations":{"example.org/changed":"yes"},"labels":{"changed":"merged"}}}`)
	operations := json.RawMessage(`[{"op":"add","path":"/metadata/labels","value":{"changed":"replaced"}},{"op":"test","path":"/metadata/name","value":"` + name + `"}]`)
	return []pair{
		k.object("get", "GET", name),
		k.list(name),
		k.table(name),
		k.wholeTable(name),
		k.patch(name, "merge-patch", change, func(shown []byte) ([]byte, error) { return jsonpatch.MergePatch(shown, change) }),
		k.patch(name, "strategic-merge-patch", change, func(shown []byte) ([]byte, error) {
			object, err := legacyscheme.Scheme.New(versioned(k.line.Kind))
			must(err)
			return strategicpatch.StrategicMergePatch(shown, change, object)
		}),
		k.patch(name, "json-patch", operations, func(shown []byte) ([]byte, error) {
			patch, err := jsonpatch.DecodePatch(operations)
			must(err)
			return patch.Apply(shown)
		}),
		k.put(name),
		k.create("create again", name),
		k.object("delete", "DELETE", name),
		k.object("gone", "GET", name),
	}
}

func (k kind) object(what, method, name string) pair {
	old, stored := k.paths("/" + name)
	code, warnings, answered := k.ask(method, stored, nil)
	return k.pair(what, request{Method: method, Path: old}, code, warnings, answered)
}

func (k kind) list(name string) pair {
	old, stored := k.paths("?fieldSelector=metadata.name%3D" + name)
	code, warnings, answered := k.ask("GET", stored, nil)
	var list struct{ Items []map[string]any }
	must(json.Unmarshal(answered, &list))
	gv, kind, _ := strings.Cut(k.line.Kind, " ")
	tree := map[string]any{"/kind": kind + "List", "/apiVersion": gv}
	for index, item := range list.Items {
		item["apiVersion"], item["kind"] = k.line.storedKind().ToAPIVersionAndKind()
		object, err := json.Marshal(item)
		must(err)
		// Items of a list say nothing of their kind.
		for pointer, value := range pick(k.shown(object), parts[2:]) {
			tree[fmt.Sprintf("/items/%d%s", index, pointer)] = value
		}
	}
	return pair{
		Name:    k.name("list"),
		Request: request{Path: old, Pick: slices.Sorted(maps.Keys(tree))},
		Answer:  answer{Code: code, Headers: isJSON, Warning: k.warnings(warnings), Body: tree},
	}
}

// patch changes the object as the old version shows it, and sends it whole.
func (k kind) patch(name, way string, body json.RawMessage, change func([]byte) ([]byte, error)) pair {
	old, stored := k.paths("/" + name)
	_, _, live := k.ask("GET", stored, nil)
	changed, err := change(k.shown(live))
	must(err)
	code, warnings, answered := k.ask("PUT", stored, k.stored(changed))
	headers := map[string]string{"Content-Type": "application/" + way + "+json"}
	return k.pair(way, request{Method: "PATCH", Path: old, Headers: headers, Body: body}, code, warnings, answered)
}

// put sends what the old version shows, with another label, and nothing of what the server says of it.
func (k kind) put(name string) pair {
	old, stored := k.paths("/" + name)
	_, _, live := k.ask("GET", stored, nil)
	var object map[string]any
	must(json.Unmarshal(k.shown(live), &object))
	metadata := object["metadata"].(map[string]any)
	for _, key := range []string{"uid", "creationTimestamp", "resourceVersion", "managedFields"} {
		delete(metadata, key)
	}
	metadata["labels"] = map[string]any{"changed": "put"}
	body := printed(object)
	code, warnings, answered := k.ask("PUT", stored, k.stored(body))
	return k.pair("put", request{Method: "PUT", Path: old, Body: body}, code, warnings, answered)
}

func (k kind) stored(object json.RawMessage) []byte {
	return convert(object, k.line.storedKind().GroupVersion())
}

func (k kind) shown(object json.RawMessage) []byte {
	return encoded(object, versioned(k.line.Kind).GroupVersion())
}

// refused is a refusal in the words that the old version has: what is missing or there already is of the group that is asked.
func (k kind) refused(answered []byte) []byte {
	old, _, _ := strings.Cut(k.line.Kind, " ")
	group, _, _ := strings.Cut(old, "/")
	stored := schema.GroupResource{Group: k.line.storedKind().Group, Resource: k.plural}
	asked := schema.GroupResource{Group: group, Resource: k.plural}
	return bytes.ReplaceAll(answered, []byte(stored.String()+` \"`), []byte(asked.String()+` \"`))
}

func (k kind) name(what string) string {
	return fmt.Sprintf("%s: %s: %s", k.line.Kind, k.line.Name, what)
}

// warnings begin with that of the version.
func (k kind) warnings(others []string) []string {
	object, err := legacyscheme.Scheme.New(versioned(k.line.Kind))
	must(err)
	object.GetObjectKind().SetGroupVersionKind(versioned(k.line.Kind))
	return append([]string{fmt.Sprintf("299 - %q", deprecation.WarningMessage(object))}, others...)
}

func (k kind) pair(what string, request request, code int, warnings []string, answered []byte) pair {
	request.Pick = []string{"/kind", "/message", "/reason", "/status", "/details/causes"}
	var meta metav1.TypeMeta
	must(json.Unmarshal(answered, &meta))
	switch {
	case meta.Kind != "Status":
		answered, request.Pick = k.shown(answered), parts
	case code == 404 || code == 409:
		answered = k.refused(answered)
	}
	return pair{
		Name:    k.name(what),
		Request: request,
		Answer:  answer{Code: code, Headers: isJSON, Warning: k.warnings(warnings), Body: pick(answered, request.Pick)},
	}
}

var isJSON = map[string]string{"content-type": "application/json"}

// What is looked at of an object: everything but what the server says of it in its metadata.
var parts = []string{
	"/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/labels", "/metadata/annotations", "/metadata/generation",
	"/metadata/finalizers", "/spec", "/status", "/data", "/revision", "/rules", "/aggregationRule", "/roleRef", "/subjects", "/value",
	"/globalDefault", "/preemptionPolicy", "/provisioner", "/parameters", "/reclaimPolicy", "/mountOptions",
	"/allowVolumeExpansion", "/volumeBindingMode", "/allowedTopologies", "/eventTime", "/series", "/reportingController",
	"/reportingInstance", "/action", "/reason", "/regarding", "/related", "/note", "/type", "/deprecatedSource",
	"/deprecatedFirstTimestamp", "/deprecatedLastTimestamp", "/deprecatedCount",
}

// A moment of this run, as tests/api/golden/mask.rs has it.
var moment = regexp.MustCompile(`20[2-9][0-9]-[01][0-9]-[0-3][0-9]T[0-9:]{8}Z`)

func pick(object []byte, pointers []string) map[string]any {
	decoder := json.NewDecoder(bytes.NewReader(moment.ReplaceAll(object, []byte("<time>"))))
	decoder.UseNumber()
	var tree any
	must(decoder.Decode(&tree))
	out := map[string]any{}
	for _, pointer := range pointers {
		value := tree
		for _, key := range strings.Split(pointer[1:], "/") {
			fields, _ := value.(map[string]any)
			value = fields[key]
		}
		out[pointer] = value
	}
	return out
}

// named gives an object a name of its own, in the namespace of all.
func named(object json.RawMessage, name string) json.RawMessage {
	var tree map[string]any
	must(json.Unmarshal(object, &tree))
	metadata, _ := tree["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	delete(metadata, "namespace")
	metadata["name"], tree["metadata"] = name, metadata
	return printed(tree)
}

func printed(tree map[string]any) json.RawMessage {
	text, err := json.Marshal(tree)
	must(err)
	return plain(text)
}
