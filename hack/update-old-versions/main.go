// Command update-old-versions writes pkg/api/tests/old_versions.jsonl: what upstream's scheme makes of objects of the
// versions that it serves no more. It reads the file and writes it again: the cases that were written by hand (those with
// `sent` and no seed) are answered anew, those that it makes up itself are made anew.
//
// A line has `sent` (an object of the old version) or not, `stored` (it in the version that is stored, with both versions'
// defaults), `shown` (that in the old version again) and, where nothing was sent, `again`: what becomes of `shown` when it
// is sent as it is.
//
// It writes pkg/api/tests/old_versions.tsv too: the deprecation warning of each kind; and, given a file and the folder of a
// running server of upstream's, the answers to requests (requests.go).
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"
	"sort"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/deprecation"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/install"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/authentication/install"
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/certificates/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/extensions/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
)

// The old versions' kinds (and those of two that are served still), and the version that each is stored in.
var stored = map[string]string{
	"extensions/v1beta1 DaemonSet":                                        "apps/v1",
	"extensions/v1beta1 Deployment":                                       "apps/v1",
	"extensions/v1beta1 Ingress":                                          "networking.k8s.io/v1",
	"extensions/v1beta1 NetworkPolicy":                                    "networking.k8s.io/v1",
	"extensions/v1beta1 ReplicaSet":                                       "apps/v1",
	"apps/v1beta1 ControllerRevision":                                     "apps/v1",
	"apps/v1beta1 Deployment":                                             "apps/v1",
	"apps/v1beta1 StatefulSet":                                            "apps/v1",
	"apps/v1beta2 ControllerRevision":                                     "apps/v1",
	"apps/v1beta2 DaemonSet":                                              "apps/v1",
	"apps/v1beta2 Deployment":                                             "apps/v1",
	"apps/v1beta2 ReplicaSet":                                             "apps/v1",
	"apps/v1beta2 StatefulSet":                                            "apps/v1",
	"admissionregistration.k8s.io/v1beta1 MutatingWebhookConfiguration":   "admissionregistration.k8s.io/v1",
	"admissionregistration.k8s.io/v1beta1 ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
	"apiextensions.k8s.io/v1beta1 CustomResourceDefinition":               "apiextensions.k8s.io/v1",
	"apiregistration.k8s.io/v1beta1 APIService":                           "apiregistration.k8s.io/v1",
	"authentication.k8s.io/v1beta1 TokenReview":                           "authentication.k8s.io/v1",
	"authorization.k8s.io/v1beta1 LocalSubjectAccessReview":               "authorization.k8s.io/v1",
	"authorization.k8s.io/v1beta1 SelfSubjectAccessReview":                "authorization.k8s.io/v1",
	"authorization.k8s.io/v1beta1 SelfSubjectRulesReview":                 "authorization.k8s.io/v1",
	"authorization.k8s.io/v1beta1 SubjectAccessReview":                    "authorization.k8s.io/v1",
	"autoscaling/v1 HorizontalPodAutoscaler":                              "autoscaling/v2",
	"autoscaling/v2beta1 HorizontalPodAutoscaler":                         "autoscaling/v2",
	"autoscaling/v2beta2 HorizontalPodAutoscaler":                         "autoscaling/v2",
	"batch/v1beta1 CronJob":                                               "batch/v1",
	"certificates.k8s.io/v1beta1 CertificateSigningRequest":               "certificates.k8s.io/v1",
	"coordination.k8s.io/v1beta1 Lease":                                   "coordination.k8s.io/v1",
	"events.k8s.io/v1 Event":                                              "v1",
	"events.k8s.io/v1beta1 Event":                                         "v1",
	"networking.k8s.io/v1beta1 Ingress":                                   "networking.k8s.io/v1",
	"policy/v1beta1 PodDisruptionBudget":                                  "policy/v1",
	"rbac.authorization.k8s.io/v1beta1 ClusterRole":                       "rbac.authorization.k8s.io/v1",
	"rbac.authorization.k8s.io/v1beta1 ClusterRoleBinding":                "rbac.authorization.k8s.io/v1",
	"rbac.authorization.k8s.io/v1beta1 Role":                              "rbac.authorization.k8s.io/v1",
	"rbac.authorization.k8s.io/v1beta1 RoleBinding":                       "rbac.authorization.k8s.io/v1",
	"scheduling.k8s.io/v1beta1 PriorityClass":                             "scheduling.k8s.io/v1",
	"storage.k8s.io/v1beta1 StorageClass":                                 "storage.k8s.io/v1",
	"storage.k8s.io/v1beta1 VolumeAttachment":                             "storage.k8s.io/v1",
}

// Cases made up for each kind, for either way.
const seeds = 4

type line struct {
	Name   string          `json:"name"`
	Seed   int64           `json:"seed,omitempty"`
	Kind   string          `json:"kind"`
	Sent   json.RawMessage `json:"sent,omitempty"`
	Stored json.RawMessage `json:"stored,omitempty"`
	Shown  json.RawMessage `json:"shown,omitempty"`
	Again  json.RawMessage `json:"again,omitempty"`
}

func main() {
	apiextensions.Install(legacyscheme.Scheme)
	apiregistration.Install(legacyscheme.Scheme)
	path := os.Args[1] + "/old_versions.jsonl"
	cases := written(path)
	if len(os.Args) > 2 {
		writeRequests(os.Args[2], cases, os.Args[3])
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for _, own := range cases {
		own.answerSent()
		must(encoder.Encode(own))
	}
	var kinds []string
	for kind := range stored {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	for _, kind := range kinds {
		for seed := int64(1); seed <= seeds; seed++ {
			own := line{Name: fmt.Sprintf("%s sent %d", kind, seed), Seed: seed, Kind: kind}
			own.Sent = made(versioned(kind), seed)
			own.answerSent()
			must(encoder.Encode(own))
			own = line{Name: fmt.Sprintf("%s stored %d", kind, seed), Seed: seed, Kind: kind}
			own.answerStored(made(own.storedKind(), seed+100))
			must(encoder.Encode(own))
		}
	}
	must(os.WriteFile(path, out.Bytes(), 0o644))
	writeWarnings(os.Args[1]+"/old_versions.tsv", kinds)
}

// written reads the cases that a person wrote.
func written(path string) []line {
	file, err := os.Open(path)
	must(err)
	defer file.Close()
	in := bufio.NewScanner(file)
	in.Buffer(nil, 1<<26)
	var all []line
	for in.Scan() {
		var own line
		must(json.Unmarshal(in.Bytes(), &own))
		if own.Seed == 0 {
			all = append(all, own)
		}
	}
	must(in.Err())
	return all
}

func (l *line) answerSent() {
	l.Stored = convert(l.Sent, l.storedKind().GroupVersion())
	l.Stored = convert(l.Stored, l.storedKind().GroupVersion())
	l.Shown = convert(l.Stored, versioned(l.Kind).GroupVersion())
	l.Again = nil
}

func (l *line) answerStored(object json.RawMessage) {
	l.Stored = convert(object, l.storedKind().GroupVersion())
	l.Shown = convert(l.Stored, versioned(l.Kind).GroupVersion())
	l.Again = convert(l.Shown, l.storedKind().GroupVersion())
	l.Again = convert(l.Again, l.storedKind().GroupVersion())
}

func (l *line) storedKind() schema.GroupVersionKind {
	gv, known := stored[l.Kind]
	if !known {
		log.Fatalf("%s: no such kind: %q", l.Name, l.Kind)
	}
	return schema.FromAPIVersionAndKind(gv, versioned(l.Kind).Kind)
}

// versioned reads "apps/v1beta1 Deployment".
func versioned(kind string) schema.GroupVersionKind {
	gv, name, _ := strings.Cut(kind, " ")
	return schema.FromAPIVersionAndKind(gv, name)
}

// convert decodes with the defaults of the object's version, and encodes in another one.
func convert(object json.RawMessage, to schema.GroupVersion) json.RawMessage {
	return plain(encoded(object, to))
}

// encoded is the same as it goes to clients.
func encoded(object json.RawMessage, to schema.GroupVersion) []byte {
	decoded, _, err := legacyscheme.Codecs.UniversalDecoder().Decode(object, nil, nil)
	if err != nil {
		log.Fatalf("%v\n%s", err, object)
	}
	encoder := legacyscheme.Codecs.EncoderForVersion(serializer(), to)
	printed, err := runtime.Encode(encoder, decoded)
	must(err)
	return printed
}

func serializer() runtime.Serializer {
	info, _ := runtime.SerializerInfoForMediaType(legacyscheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	return info.Serializer
}

// plain sorts keys and leaves out nulls: to clients, absent and null are the same.
func plain(object []byte) json.RawMessage {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	var tree any
	must(decoder.Decode(&tree))
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	must(encoder.Encode(withoutNulls(tree)))
	return bytes.TrimSpace(out.Bytes())
}

func withoutNulls(value any) any {
	switch tree := value.(type) {
	case map[string]any:
		for key, child := range tree {
			if child == nil {
				delete(tree, key)
			} else {
				tree[key] = withoutNulls(child)
			}
		}
	case []any:
		for i, child := range tree {
			tree[i] = withoutNulls(child)
		}
	}
	return value
}

// made makes up an object of a kind.
func made(kind schema.GroupVersionKind, seed int64) json.RawMessage {
	object, err := legacyscheme.Scheme.New(kind)
	must(err)
	newFiller(seed).fill(reflect.ValueOf(object).Elem(), 0, "")
	object.GetObjectKind().SetGroupVersionKind(kind)
	printed, err := json.Marshal(object)
	must(err)
	return plain(printed)
}

func writeWarnings(path string, kinds []string) {
	var out bytes.Buffer
	for _, kind := range append(kinds, "policy/v1beta1 Eviction", "extensions/v1beta1 Scale", "apps/v1beta1 Scale",
		"apps/v1beta2 Scale", "extensions/v1beta1 DeploymentRollback", "apps/v1beta1 DeploymentRollback") {
		object, err := legacyscheme.Scheme.New(versioned(kind))
		must(err)
		object.GetObjectKind().SetGroupVersionKind(versioned(kind))
		fmt.Fprintf(&out, "%s\t%s\n", kind, deprecation.WarningMessage(object))
	}
	must(os.WriteFile(path, out.Bytes(), 0o644))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
