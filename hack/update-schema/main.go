// Command update-schema writes pkg/api/data/schema.tsv: what upstream's Go types and their OpenAPI definitions say of
// every kind that mk8s serves (field names, Go kinds, protobuf numbers, list types, merge keys, defaults). Facts only:
// no description is kept. The format is described in pkg/api/src/schema/load.rs, which reads it. A type of a removed
// version that looks as another does is left out: what holds it names the other (see twins.go).
//
// With -fixtures DIR it writes, for each kind, a filled object as upstream encodes it in JSON and in protobuf, and
// strategic merge patches with their results.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

// The group versions that v1.35 serves by default.
var served = []string{
	"/v1", "admissionregistration.k8s.io/v1", "apps/v1", "authentication.k8s.io/v1", "authorization.k8s.io/v1",
	"autoscaling/v1", "autoscaling/v2", "batch/v1", "certificates.k8s.io/v1", "coordination.k8s.io/v1",
	"discovery.k8s.io/v1", "events.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1", "networking.k8s.io/v1",
	"node.k8s.io/v1", "policy/v1", "rbac.authorization.k8s.io/v1", "resource.k8s.io/v1", "scheduling.k8s.io/v1",
	"storage.k8s.io/v1",
	"apiextensions.k8s.io/v1", "apiregistration.k8s.io/v1", "admission.k8s.io/v1", "apidiscovery.k8s.io/v2",
}

// The versions that upstream has removed and old documents still use: of each, the kinds that are served again. Their
// lists come with them.
var removed = map[string][]string{
	"extensions/v1beta1": {
		"DaemonSet", "Deployment", "DeploymentRollback", "Ingress", "NetworkPolicy", "ReplicaSet", "Scale",
	},
	"apps/v1beta1":                         {"ControllerRevision", "Deployment", "DeploymentRollback", "Scale", "StatefulSet"},
	"apps/v1beta2":                         {"ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "Scale", "StatefulSet"},
	"admissionregistration.k8s.io/v1beta1": {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"},
	"apiextensions.k8s.io/v1beta1":         {"CustomResourceDefinition"},
	"apiregistration.k8s.io/v1beta1":       {"APIService"},
	"authentication.k8s.io/v1beta1":        {"TokenReview"},
	"authorization.k8s.io/v1beta1": {
		"LocalSubjectAccessReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview",
	},
	"autoscaling/v2beta1":               {"HorizontalPodAutoscaler"},
	"autoscaling/v2beta2":               {"HorizontalPodAutoscaler"},
	"batch/v1beta1":                     {"CronJob"},
	"certificates.k8s.io/v1beta1":       {"CertificateSigningRequest"},
	"coordination.k8s.io/v1beta1":       {"Lease"},
	"events.k8s.io/v1beta1":             {"Event"},
	"networking.k8s.io/v1beta1":         {"Ingress"},
	"policy/v1beta1":                    {"Eviction", "PodDisruptionBudget"},
	"rbac.authorization.k8s.io/v1beta1": {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"},
	"scheduling.k8s.io/v1beta1":         {"PriorityClass"},
	"storage.k8s.io/v1beta1":            {"StorageClass", "VolumeAttachment"},
}

// isRemoved says whether a kind is one of `removed`, or the list of one.
func isRemoved(gvk schema.GroupVersionKind) bool {
	kinds := removed[gvk.GroupVersion().String()]
	return slices.Contains(kinds, gvk.Kind) || slices.Contains(kinds, strings.TrimSuffix(gvk.Kind, "List"))
}

// Kinds of metav1 that are kinds of "v1" (the options are kinds of every group version; the reader knows that).
var metaKinds = []any{
	metav1.APIGroup{}, metav1.APIGroupList{}, metav1.APIResourceList{}, metav1.APIVersions{}, metav1.CreateOptions{},
	metav1.DeleteOptions{}, metav1.GetOptions{}, metav1.List{}, metav1.ListOptions{}, metav1.PatchOptions{},
	metav1.Status{}, metav1.UpdateOptions{}, metav1.WatchEvent{},
}

// Kinds of meta.k8s.io/v1.
var metaGroupKinds = []any{
	metav1.PartialObjectMetadata{}, metav1.PartialObjectMetadataList{}, metav1.Table{}, metav1.TableOptions{},
}

// What encodes itself: a letter of its own.
var special = map[reflect.Type]string{
	reflect.TypeOf(metav1.Time{}):                                  "t",
	reflect.TypeOf(metav1.MicroTime{}):                             "m",
	reflect.TypeOf(metav1.FieldsV1{}):                              "f",
	reflect.TypeOf(runtime.RawExtension{}):                         "r",
	reflect.TypeOf(apiextensionsv1.JSON{}):                         "j",
	reflect.TypeOf(apiextensionsv1.JSONSchemaPropsOrBool{}):        "B",
	reflect.TypeOf(apiextensionsv1.JSONSchemaPropsOrArray{}):       "A",
	reflect.TypeOf(apiextensionsv1.JSONSchemaPropsOrStringArray{}): "S",

	reflect.TypeOf(apiextensionsv1beta1.JSON{}):                         "j",
	reflect.TypeOf(apiextensionsv1beta1.JSONSchemaPropsOrBool{}):        "B",
	reflect.TypeOf(apiextensionsv1beta1.JSONSchemaPropsOrArray{}):       "A",
	reflect.TypeOf(apiextensionsv1beta1.JSONSchemaPropsOrStringArray{}): "S",
}

func init() {
	for name, letter := range map[string]string{"Quantity": "q", "IntOrString": "o"} {
		specialNames[name] = letter
	}
}

var specialNames = map[string]string{}

type typeInfo struct {
	name   string
	goType reflect.Type
	kinds  []schema.GroupVersionKind
	index  int
	// The type that stands for this one.
	twin *typeInfo
}

type generator struct {
	types map[reflect.Type]*typeInfo
	defs  map[string]common.OpenAPIDefinition
}

func main() {
	out := flag.String("out", "schema.tsv", "file to write")
	fixtures := flag.String("fixtures", "", "directory to write fixtures into")
	flag.Parse()

	must(apiextensionsv1.AddToScheme(scheme.Scheme))
	must(apiextensionsv1beta1.AddToScheme(scheme.Scheme))
	must(apiregistrationv1.AddToScheme(scheme.Scheme))
	must(apiregistrationv1beta1.AddToScheme(scheme.Scheme))
	must(admissionv1.AddToScheme(scheme.Scheme))
	must(apidiscoveryv2.AddToScheme(scheme.Scheme))
	metav1.AddMetaToScheme(scheme.Scheme)

	g := &generator{types: map[reflect.Type]*typeInfo{}}
	g.defs = openapi.GetOpenAPIDefinitions(func(path string) spec.Ref {
		return spec.MustCreateRef("#/" + path)
	})
	kinds := g.collect()
	g.write(*out)
	if *fixtures != "" {
		writeFixtures(*fixtures, kinds)
		writePatches(*fixtures)
	}
}

// collect finds every type reachable from the served kinds.
func (g *generator) collect() []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	isServed := map[string]bool{}
	for _, gv := range served {
		isServed[gv] = true
	}
	for gvk, goType := range scheme.Scheme.AllKnownTypes() {
		if !isServed[gvk.Group+"/"+gvk.Version] && !isRemoved(gvk) || strings.HasSuffix(goType.PkgPath(), "apis/meta/v1") {
			continue
		}
		info := g.visit(goType)
		info.kinds = append(info.kinds, gvk)
		kinds = append(kinds, gvk)
	}
	for _, object := range metaKinds {
		goType := reflect.TypeOf(object)
		info := g.visit(goType)
		info.kinds = append(info.kinds, schema.GroupVersionKind{Version: "v1", Kind: goType.Name()})
	}
	for _, object := range metaGroupKinds {
		goType := reflect.TypeOf(object)
		info := g.visit(goType)
		info.kinds = append(info.kinds, schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: goType.Name()})
	}
	// In JSON the same as v1's; its fields have other numbers.
	list := g.visit(reflect.TypeOf(metav1beta1.PartialObjectMetadataList{}))
	list.kinds = append(list.kinds, metav1beta1.SchemeGroupVersion.WithKind("PartialObjectMetadataList"))
	g.visit(reflect.TypeOf(version.Info{}))
	g.visit(reflect.TypeOf(apiextensionsv1.JSONSchemaProps{}))
	sort.Slice(kinds, func(i, j int) bool { return kinds[i].String() < kinds[j].String() })
	return kinds
}

func (g *generator) visit(goType reflect.Type) *typeInfo {
	if info, known := g.types[goType]; known {
		return info
	}
	info := &typeInfo{name: modelName(goType), goType: goType}
	g.types[goType] = info
	for i := range goType.NumField() {
		field := goType.Field(i)
		if jsonName(field) == "-" || (field.Anonymous && field.Type == reflect.TypeOf(metav1.TypeMeta{})) {
			continue
		}
		if base := structOf(field.Type); base != nil {
			g.visit(base)
		}
	}
	return info
}

// structOf is the plain struct that a field's type holds, if any.
func structOf(goType reflect.Type) reflect.Type {
	for goType.Kind() == reflect.Pointer || goType.Kind() == reflect.Slice || goType.Kind() == reflect.Map {
		goType = goType.Elem()
	}
	if goType.Kind() != reflect.Struct || letterOf(goType) != "" {
		return nil
	}
	return goType
}

func letterOf(goType reflect.Type) string {
	if letter := special[goType]; letter != "" {
		return letter
	}
	switch goType.PkgPath() {
	case "k8s.io/apimachinery/pkg/api/resource", "k8s.io/apimachinery/pkg/util/intstr":
		return specialNames[goType.Name()]
	}
	return ""
}

func modelName(goType reflect.Type) string {
	if named, ok := reflect.New(goType).Elem().Interface().(interface{ OpenAPIModelName() string }); ok {
		return named.OpenAPIModelName()
	}
	path := strings.Split(goType.PkgPath(), "/")
	host := strings.Split(path[0], ".")
	for i, j := 0, len(host)-1; i < j; i, j = i+1, j-1 {
		host[i], host[j] = host[j], host[i]
	}
	return strings.Join(append(host, path[1:]...), ".") + "." + goType.Name()
}

func (g *generator) write(path string) {
	var infos []*typeInfo
	for _, info := range g.types {
		infos = append(infos, info)
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].name < infos[j].name })
	for index, info := range infos {
		info.index = index
	}
	g.pair(infos)
	infos = slices.DeleteFunc(infos, func(info *typeInfo) bool { return info.twin != nil })
	for index, info := range infos {
		info.index = index
	}
	file, err := os.Create(path)
	must(err)
	out := bufio.NewWriter(file)
	for _, info := range infos {
		g.writeType(out, info)
	}
	must(out.Flush())
	must(file.Close())
}

func (g *generator) writeType(out *bufio.Writer, info *typeInfo) {
	definition := g.defs[info.name]
	flags := ""
	if definition.Schema.Extensions["x-kubernetes-map-type"] == "atomic" {
		flags = "a"
	}
	row(out, "T", info.name, info.goType.String(), flags)
	sort.Slice(info.kinds, func(i, j int) bool { return info.kinds[i].String() < info.kinds[j].String() })
	for _, kind := range info.kinds {
		row(out, "K", kind.Group, kind.Version, kind.Kind)
	}
	g.writeFields(out, info.goType, "", definition.Schema)
}

// writeFields writes the JSON fields of a struct; those of inlined structs come with the number of their message.
func (g *generator) writeFields(out *bufio.Writer, goType reflect.Type, outer string, definition spec.Schema) {
	for i := range goType.NumField() {
		field := goType.Field(i)
		name := jsonName(field)
		switch {
		case name == "-" || !field.IsExported():
		case name == "" && field.Type == reflect.TypeOf(metav1.TypeMeta{}):
			row(out, "apiVersion", "s", "e", "0")
			row(out, "kind", "s", "e", "0")
		case name == "":
			number := protobufNumber(field)
			if outer == "" && number != "0" {
				row(out, "I", number, g.reference(field.Type))
			}
			g.writeFields(out, field.Type, outer+number+".", definition)
		default:
			g.writeField(out, field, name, outer, definition)
		}
	}
}

func (g *generator) writeField(out *bufio.Writer, field reflect.StructField, name, outer string, definition spec.Schema) {
	goType, flags := field.Type, ""
	if goType.Kind() == reflect.Pointer {
		goType, flags = goType.Elem(), "p"
	}
	options := field.Tag.Get("json")
	if strings.Contains(options, ",omitempty") {
		flags += "e"
	}
	if strings.Contains(options, ",omitzero") {
		flags += "z"
	}
	for _, required := range definition.Required {
		if required == name {
			flags += "r"
		}
	}
	property := definition.Properties[name]
	switch property.Extensions["x-kubernetes-map-type"] {
	case "atomic":
		flags += "a"
	case "granular":
		flags += "g"
	}
	number := protobufNumber(field)
	if number == "0" {
		outer = ""
	}
	cells := []string{name, g.kind(goType), flags, outer + number}
	add := func(key, value string) {
		if value != "" {
			cells = append(cells, key+"="+value)
		}
	}
	add("l", text(property.Extensions["x-kubernetes-list-type"]))
	add("k", text(property.Extensions["x-kubernetes-list-map-keys"]))
	add("m", field.Tag.Get("patchMergeKey"))
	add("s", field.Tag.Get("patchStrategy"))
	add("d", defaultOf(property, strings.ContainsAny(flags, "pe")))
	add("g", namedScalar(goType))
	if goType.PkgPath() != "" && (goType.Kind() == reflect.Slice || goType.Kind() == reflect.Map) {
		add("G", goType.String())
	}
	enum := property.Enum
	if len(enum) == 0 && property.Items != nil && property.Items.Schema != nil {
		enum = property.Items.Schema.Enum
	}
	if len(enum) == 0 && property.AdditionalProperties != nil && property.AdditionalProperties.Schema != nil {
		enum = property.AdditionalProperties.Schema.Enum
	}
	var values []string
	for _, value := range enum {
		values = append(values, fmt.Sprint(value))
	}
	add("n", strings.Join(values, "|"))
	row(out, cells...)
}

// kind is a field's shape and base as the table writes it.
func (g *generator) kind(goType reflect.Type) string {
	if letter := letterOf(goType); letter != "" {
		return letter
	}
	switch goType.Kind() {
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int32:
		return "i"
	case reflect.Int64, reflect.Int:
		return "l"
	case reflect.Float64:
		return "d"
	case reflect.Interface:
		return "x"
	case reflect.Struct:
		return g.reference(goType)
	case reflect.Slice:
		if goType.Elem().Kind() == reflect.Uint8 {
			return "y"
		}
		// A named list that is a message of its own.
		if _, message := reflect.New(goType).Interface().(interface{ Marshal() ([]byte, error) }); message {
			if goType.Elem().Kind() != reflect.String {
				log.Fatalf("%v: only lists of strings are known as messages", goType)
			}
			return "w"
		}
		return "[]" + g.element(goType.Elem())
	case reflect.Map:
		if goType.Key().Kind() != reflect.String {
			log.Fatalf("%v: keys must be strings", goType)
		}
		return "{}" + g.element(goType.Elem())
	}
	log.Fatalf("%v: unknown kind", goType)
	return ""
}

func (g *generator) element(goType reflect.Type) string {
	if goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	kind := g.kind(goType)
	if strings.HasPrefix(kind, "[]") || strings.HasPrefix(kind, "{}") {
		log.Fatalf("%v: nested lists are not known", goType)
	}
	return kind
}

// namedScalar is the Go name of a scalar (or of the items of a list or map of them) that is not plain.
func namedScalar(goType reflect.Type) string {
	if goType.Kind() == reflect.Slice || goType.Kind() == reflect.Map {
		goType = goType.Elem()
	}
	switch goType.Kind() {
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64, reflect.Slice:
		if goType.PkgPath() != "" {
			return goType.String()
		}
	}
	return ""
}

// defaultOf leaves out the zero values that follow from the Go type; those of optional scalars do not.
func defaultOf(property spec.Schema, optional bool) string {
	if property.Default == nil {
		return ""
	}
	encoded, err := json.Marshal(property.Default)
	must(err)
	switch string(encoded) {
	case "{}", "null":
		return ""
	case `""`, "0", "false":
		if !optional {
			return ""
		}
	}
	return string(encoded)
}

func jsonName(field reflect.StructField) string {
	tag := field.Tag.Get("json")
	name, _, _ := strings.Cut(tag, ",")
	if tag == "" && !field.Anonymous {
		return field.Name
	}
	return name
}

func protobufNumber(field reflect.StructField) string {
	parts := strings.Split(field.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return "0"
	}
	return parts[1]
}

func text(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case []any:
		var parts []string
		for _, part := range value {
			parts = append(parts, fmt.Sprint(part))
		}
		return strings.Join(parts, " ")
	default:
		return fmt.Sprint(value)
	}
}

func row(out *bufio.Writer, cells ...string) {
	for _, cell := range cells {
		if strings.ContainsAny(cell, "\t\n") {
			log.Fatalf("a cell holds a separator: %q", cell)
		}
	}
	_, err := out.WriteString(strings.TrimRight(strings.Join(cells, "\t"), "\t") + "\n")
	must(err)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
