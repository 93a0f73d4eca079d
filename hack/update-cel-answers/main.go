// Answers what upstream's own code makes of expressions and rules. `functions` prints every overload that the API server's
// environment declares; `expressions` and `rules` read the lines of pkg/cel/tests/*.jsonl and write them again with answers.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	schemacel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/apiserver/pkg/warning"
)

// The schemas that expressions are in, by name, with values for self and oldSelf.
var schemas map[string]map[string]json.RawMessage

func main() {
	if raw, err := os.ReadFile("../../pkg/cel/tests/schemas.json"); err == nil {
		check(json.Unmarshal(raw, &schemas))
	}
	switch os.Args[1] {
	case "functions":
		functions()
	case "expressions":
		lines(expression)
	case "rules":
		lines(rules)
	default:
		panic("functions, expressions or rules")
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func base() *environment.EnvSet {
	return environment.MustBaseEnvSet(version.MajorMinor(1, 35))
}

func typeNames(list []*types.Type) string {
	var names []string
	for _, t := range list {
		names = append(names, checker.FormatCELType(t))
	}
	return strings.Join(names, "; ")
}

// One line per overload, in the order in which the checker tries them: function, id, style, arguments, result.
func functions() {
	env := base().StoredExpressionsEnv()
	var names []string
	for name := range env.Functions() {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		var f *decls.FunctionDecl = env.Functions()[name]
		if f.IsDeclarationDisabled() {
			continue
		}
		for _, o := range f.OverloadDecls() {
			style := "f"
			if o.IsMemberFunction() {
				style = "m"
			}
			fmt.Printf("%s\t%s\t%s\t%s\t%s\n", name, o.ID(), style, typeNames(o.ArgTypes()), checker.FormatCELType(o.ResultType()))
		}
	}
}

func lines(answer func(map[string]json.RawMessage) map[string]any) {
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for {
		line, err := in.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			var request map[string]json.RawMessage
			check(json.Unmarshal([]byte(line), &request))
			ordered := []string{"name", "expr", "in", "schema", "object", "old"}
			var b strings.Builder
			b.WriteString("{")
			for _, key := range ordered {
				if v, ok := request[key]; ok {
					if b.Len() > 1 {
						b.WriteString(",")
					}
					fmt.Fprintf(&b, "%q:%s", key, v)
				}
			}
			answers := answer(request)
			var keys []string
			for key := range answers {
				keys = append(keys, key)
			}
			sort.Strings(keys)
			for _, key := range keys {
				var v strings.Builder
				e := json.NewEncoder(&v)
				e.SetEscapeHTML(false)
				check(e.Encode(answers[key]))
				fmt.Fprintf(&b, ",%q:%s", key, strings.TrimSpace(v.String()))
			}
			b.WriteString("}\n")
			out.WriteString(b.String())
		}
		if err != nil {
			return
		}
	}
}

func structural(raw json.RawMessage) *schema.Structural {
	var v1 apiextensionsv1.JSONSchemaProps
	check(json.Unmarshal(raw, &v1))
	var internal apiextensions.JSONSchemaProps
	check(apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&v1, &internal, nil))
	s, err := schema.NewStructural(&internal)
	check(err)
	return s
}

func decode(raw json.RawMessage) any {
	if raw == nil {
		return nil
	}
	var v any
	check(utiljson.Unmarshal(raw, &v))
	return v
}

var selfType = regexp.MustCompile(`selfType[0-9]+`)

type estimator struct{ root *apiservercel.DeclType }

// The size estimator of the rules is private to its package: this one says the same.
func (c *estimator) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	if c.root == nil || len(element.Path()) == 0 {
		return nil
	}
	node := c.root
	for _, name := range element.Path()[1:] {
		switch name {
		case "@items", "@values":
			node = node.ElemType
		case "@keys":
			node = node.KeyType
		default:
			field, ok := node.Fields[name]
			if !ok {
				return nil
			}
			node = field.Type
		}
		if node == nil {
			return nil
		}
	}
	return &checker.SizeEstimate{Min: 0, Max: uint64(node.MaxElements)}
}

func (c *estimator) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

type activation struct {
	self, old ref.Val
}

func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "self":
		return a.self, a.self != nil
	case "oldSelf":
		return a.old, a.old != nil
	}
	return nil, false
}

func (a *activation) Parent() interpreter.Activation { return nil }

func expression(request map[string]json.RawMessage) map[string]any {
	var expr string
	check(json.Unmarshal(request["expr"], &expr))
	answers := map[string]any{}
	envs := base()
	vars := &activation{}
	est := &estimator{}
	if name, ok := request["in"]; ok {
		var in string
		check(json.Unmarshal(name, &in))
		request := schemas[in]
		s := structural(request["schema"])
		root := string(request["root"]) == "true"
		decl := model.SchemaDeclType(s, root)
		est.root = decl
		scoped := decl.MaybeAssignTypeName("selfType0")
		var err error
		envs, err = envs.Extend(environment.VersionedOptions{
			IntroducedVersion: version.MajorMinor(1, 0),
			EnvOptions: []cel.EnvOption{
				cel.Variable("self", scoped.CelType()), cel.Variable("oldSelf", scoped.CelType()),
			},
			DeclTypes: []*apiservercel.DeclType{scoped},
		})
		check(err)
		if root {
			s = model.WithTypeAndObjectMeta(s)
		}
		if raw, ok := request["self"]; ok {
			vars.self = schemacel.UnstructuredToVal(decode(raw), s)
		}
		if raw, ok := request["oldSelf"]; ok {
			vars.old = schemacel.UnstructuredToVal(decode(raw), s)
		}
	}
	env := envs.StoredExpressionsEnv()
	compiled, issues := env.Compile(expr)
	if issues != nil && issues.Err() != nil {
		answers["error"] = selfType.ReplaceAllString(issues.String(), "selfType")
		return answers
	}
	answers["type"] = selfType.ReplaceAllString(checker.FormatCELType(compiled.OutputType()), "selfType")
	costs := &library.CostEstimator{SizeEstimator: est}
	cost, err := env.EstimateCost(compiled, costs)
	check(err)
	answers["cost"] = []uint64{cost.Min, cost.Max}
	program, err := env.Program(compiled, cel.CostLimit(celconfig.PerCallLimit), cel.CostTracking(costs), cel.InterruptCheckFrequency(celconfig.CheckFrequency))
	if err != nil {
		answers["programError"] = err.Error()
		return answers
	}
	value, details, err := program.Eval(vars)
	if actual := details.ActualCost(); actual != nil {
		answers["actual"] = *actual
	}
	if err != nil {
		answers["evalError"] = err.Error()
	} else {
		answers["value"] = types.Format(value)
	}
	return answers
}

// What rules make of an object and of what it was, or of the definition that they are in.
func rules(request map[string]json.RawMessage) map[string]any {
	raw := request["schema"]
	if _, ok := request["object"]; !ok {
		return map[string]any{"causes": causes(definition(raw))}
	}
	s := structural(raw)
	validator := schemacel.NewValidator(s, true, celconfig.PerCallLimit)
	recorder := &warnings{}
	ctx := warning.WithWarningRecorder(context.Background(), recorder)
	object := decode(request["object"])
	var old any
	var options []schemacel.Option
	if raw, ok := request["old"]; ok {
		old = decode(raw)
		options = append(options, schemacel.WithRatcheting(common.NewCorrelatedObject(object, old, &model.Structural{Structural: s})))
	}
	errs, _ := validator.Validate(ctx, nil, s, object, old, celconfig.RuntimeCELCostBudget, options...)
	answers := map[string]any{"causes": causes(errs)}
	if len(recorder.texts) > 0 {
		sort.Strings(recorder.texts)
		answers["warnings"] = recorder.texts
	}
	return answers
}

type warnings struct{ texts []string }

func (w *warnings) AddWarning(_, text string) { w.texts = append(w.texts, text) }

func definition(schema json.RawMessage) field.ErrorList {
	text := fmt.Sprintf(`{"metadata":{"name":"things.example.org"},"spec":{"group":"example.org","scope":"Namespaced",
		"names":{"plural":"things","singular":"thing","kind":"Thing","listKind":"ThingList"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":%s}}]}}`, schema)
	var external apiextensionsv1.CustomResourceDefinition
	check(json.Unmarshal([]byte(text), &external))
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&external)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
	external.Status.StoredVersions = []string{"v1"}
	var internal apiextensions.CustomResourceDefinition
	check(apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, &internal, nil))
	return crdvalidation.ValidateCustomResourceDefinition(context.Background(), &internal)
}

// Upstream walks maps at random.
func causes(errs field.ErrorList) [][2]string {
	all := [][2]string{}
	for _, err := range errs {
		all = append(all, [2]string{err.Field, selfType.ReplaceAllString(err.ErrorBody(), "selfType")})
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i][0] < all[j][0] || all[i][0] == all[j][0] && all[i][1] < all[j][1]
	})
	return all
}
