// Asks upstream's own code what it makes of custom objects and of CustomResourceDefinitions: lines of JSON in, the same
// lines with answers out. A line has a schema and an object (and what it was before), or a definition (and what it was).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsinstall "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/common"
)

type answer struct {
	Name    string          `json:"name"`
	Schema  json.RawMessage `json:"schema,omitempty"`
	Object  json.RawMessage `json:"object,omitempty"`
	Old     json.RawMessage `json:"old,omitempty"`
	CRD     json.RawMessage `json:"crd,omitempty"`
	OldCRD  json.RawMessage `json:"oldCRD,omitempty"`
	Unknown []string        `json:"unknown,omitempty"`
	Becomes any             `json:"becomes,omitempty"`
	Refused string          `json:"refused,omitempty"`
	Causes  [][2]string     `json:"causes,omitempty"`
}

func main() {
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var line answer
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", in.Text(), err)
			os.Exit(1)
		}
		line.Unknown, line.Becomes, line.Refused, line.Causes = nil, nil, "", nil
		if line.CRD != nil {
			definition(&line)
		} else {
			object(&line)
		}
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(line); err != nil {
			panic(err)
		}
	}
	out.Flush()
}

func read(text json.RawMessage) map[string]any {
	var value map[string]any
	if err := utiljson.Unmarshal(text, &value); err != nil {
		panic(err)
	}
	return value
}

func object(line *answer) {
	var props v1.JSONSchemaProps
	var internal apiextensions.JSONSchemaProps
	if err := utiljson.Unmarshal(line.Schema, &props); err != nil {
		panic(fmt.Sprint(line.Name, err))
	}
	if err := v1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&props, &internal, nil); err != nil {
		panic(err)
	}
	schema, err := structural.NewStructural(&internal)
	if err != nil {
		panic(fmt.Sprint(line.Name, err))
	}
	validator, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		panic(err)
	}
	new := read(line.Object)
	unknown, refused := admit(new, schema)
	line.Unknown = unknown
	if refused != nil {
		line.Refused = refused.Error()
		return
	}
	defaulting.Default(new, schema)
	line.Becomes = runtime.DeepCopyJSON(new)
	var errs field.ErrorList
	if line.Old == nil {
		errs = append(errs, validation.ValidateCustomResource(nil, new, validator)...)
	} else {
		old := read(line.Old)
		correlated := common.NewCorrelatedObject(new, old, &model.Structural{Structural: schema})
		errs = append(errs, validation.ValidateCustomResourceUpdate(nil, new, old, validator, validation.WithRatcheting(correlated))...)
		if len(listtype.ValidateListSetsAndMaps(nil, schema, old)) != 0 {
			schema = nil
		}
	}
	if schema != nil {
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, schema, new)...)
		errs = append(errs, objectmeta.Validate(nil, new, schema, false)...)
	}
	line.Causes = causes(errs)
}

// As the handler's own coercer does.
func admit(object map[string]any, schema *structural.Structural) ([]string, *field.Error) {
	saved := map[string]any{}
	for _, key := range []string{"apiVersion", "kind", "metadata"} {
		if value, found := object[key]; found {
			saved[key] = value
		}
	}
	unknown := pruning.PruneWithOptions(object, schema, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	defaulting.PruneNonNullableNullsWithoutDefaults(object, schema)
	err, more := objectmeta.CoerceWithOptions(nil, object, schema, false, objectmeta.CoerceOptions{ReturnUnknownFieldPaths: true})
	for key, value := range saved {
		object[key] = value
	}
	return append(unknown, more...), err
}

// Upstream walks maps at random.
func causes(errs field.ErrorList) [][2]string {
	var all [][2]string
	for _, err := range errs {
		all = append(all, [2]string{err.Field, err.ErrorBody()})
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i][0] < all[j][0] || all[i][0] == all[j][0] && all[i][1] < all[j][1]
	})
	return all
}

var scheme = runtime.NewScheme()

func init() {
	apiextensionsinstall.Install(scheme)
}

func internalCRD(text json.RawMessage) *apiextensions.CustomResourceDefinition {
	var external v1.CustomResourceDefinition
	if err := utiljson.Unmarshal(text, &external); err != nil {
		panic(err)
	}
	scheme.Default(&external)
	var internal apiextensions.CustomResourceDefinition
	if err := scheme.Convert(&external, &internal, nil); err != nil {
		panic(err)
	}
	return &internal
}

func definition(line *answer) {
	new := internalCRD(line.CRD)
	var errs field.ErrorList
	if line.OldCRD == nil {
		errs = crdvalidation.ValidateCustomResourceDefinition(context.Background(), new)
	} else {
		old := internalCRD(line.OldCRD)
		errs = crdvalidation.ValidateCustomResourceDefinitionUpdate(context.Background(), new, old)
	}
	line.Causes = causes(errs)
}
