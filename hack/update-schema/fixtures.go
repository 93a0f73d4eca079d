package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"bytes"
	"encoding/base64"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// writeFixtures writes one line per kind: apiVersion, kind, JSON, base64 of protobuf.
func writeFixtures(dir string, kinds []schema.GroupVersionKind) {
	must(os.MkdirAll(dir, 0o755))
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	var out bytes.Buffer
	for _, kind := range kinds {
		object, err := scheme.Scheme.New(kind)
		must(err)
		filler := &filler{}
		value := reflect.ValueOf(object).Elem()
		// A list's items would only repeat its kind.
		if items := value.FieldByName("Items"); items.IsValid() {
			continue
		}
		filler.fill(value, 0)
		object.GetObjectKind().SetGroupVersionKind(kind)
		printed, err := json.Marshal(object)
		must(err)
		var encoded bytes.Buffer
		if err := serializer.Encode(object, &encoded); err != nil {
			fmt.Fprintln(os.Stderr, "no protobuf:", kind, err)
			continue
		}
		fmt.Fprintf(&out, "%s\t%s\t%s\t%s\n", kind.GroupVersion(), kind.Kind, printed,
			base64.StdEncoding.EncodeToString(encoded.Bytes()))
	}
	must(os.WriteFile(filepath.Join(dir, "objects.tsv"), out.Bytes(), 0o644))
}

// filler gives each field a value of its own, so that two fields taken for each other show. Where a type holds itself
// it stops at depth.
type filler struct {
	count   int64
	schemas int
}

const depth = 9

// What a removed version of CRDs says of schemas: filled as the type that it became.
var schemaTwins = map[reflect.Type]reflect.Type{
	reflect.TypeOf(apiextensionsv1beta1.JSONSchemaProps{}): reflect.TypeOf(apiextensionsv1.JSONSchemaProps{}),
}

func (f *filler) fill(value reflect.Value, level int) {
	f.count++
	if twin := schemaTwins[value.Type()]; twin != nil {
		filled := reflect.New(twin)
		f.fill(filled.Elem(), level)
		printed, err := json.Marshal(filled.Interface())
		must(err)
		must(json.Unmarshal(printed, value.Addr().Interface()))
		return
	}
	switch target := value.Addr().Interface().(type) {
	case *metav1.TypeMeta:
		return
	case *corev1.PodTemplateSpec:
		// Pod shows what a template holds.
		target.Labels = map[string]string{"app": "x"}
		target.Spec.Containers = []corev1.Container{{Name: "c"}}
		return
	case *apiextensionsv1.JSONSchemaProps:
		f.schemas++
		defer func() { f.schemas-- }()
		if f.schemas > 1 {
			target.Type = fmt.Sprint("type", f.count)
			return
		}
	case *metav1.Time:
		*target = metav1.NewTime(time.Unix(1700000000+f.count, 0).UTC())
		return
	case *metav1.MicroTime:
		*target = metav1.NewMicroTime(time.Unix(1700000000+f.count, 123456000).UTC())
		return
	case *resource.Quantity:
		*target = resource.MustParse(fmt.Sprintf("%dm", f.count))
		return
	case *intstr.IntOrString:
		if f.count%2 == 0 {
			*target = intstr.FromInt32(int32(f.count))
		} else {
			*target = intstr.FromString(fmt.Sprintf("port-%d", f.count))
		}
		return
	case *metav1.FieldsV1:
		target.Raw = []byte(fmt.Sprintf(`{"f:field%d":{}}`, f.count))
		return
	case *runtime.RawExtension:
		target.Raw = []byte(fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"K%d"}`, f.count))
		return
	case *apiextensionsv1.JSON:
		target.Raw = []byte(fmt.Sprintf(`{"key":%d}`, f.count))
		return
	case *apiextensionsv1.JSONSchemaPropsOrBool:
		*target = apiextensionsv1.JSONSchemaPropsOrBool{Allows: true}
		if f.count%2 == 0 {
			target.Schema = &apiextensionsv1.JSONSchemaProps{Type: "string"}
		}
		return
	case *apiextensionsv1.JSONSchemaPropsOrArray:
		one := apiextensionsv1.JSONSchemaProps{Type: fmt.Sprint("type", f.count)}
		if f.count%2 == 0 {
			target.Schema = &one
		} else {
			target.JSONSchemas = []apiextensionsv1.JSONSchemaProps{one}
		}
		return
	case *apiextensionsv1.JSONSchemaPropsOrStringArray:
		if f.count%2 == 0 {
			target.Schema = &apiextensionsv1.JSONSchemaProps{Type: "string"}
		} else {
			target.Property = []string{"a", "b"}
		}
		return
	}
	switch value.Kind() {
	case reflect.Pointer:
		if level < depth || value.Type().Elem().Kind() != reflect.Struct {
			value.Set(reflect.New(value.Type().Elem()))
			f.fill(value.Elem(), level)
		}
	case reflect.Struct:
		for i := range value.NumField() {
			if jsonName(value.Type().Field(i)) == "-" || !value.Type().Field(i).IsExported() {
				continue
			}
			f.fill(value.Field(i), level+1)
		}
	case reflect.Slice:
		if value.Type().Elem().Kind() == reflect.Uint8 {
			value.SetBytes([]byte{0, byte(f.count), 0xff, byte(f.count >> 8)})
			return
		}
		value.Set(reflect.MakeSlice(value.Type(), 1, 1))
		f.fill(value.Index(0), level)
	case reflect.Map:
		value.Set(reflect.MakeMap(value.Type()))
		key := reflect.New(value.Type().Key()).Elem()
		key.SetString(fmt.Sprint("key", f.count))
		element := reflect.New(value.Type().Elem()).Elem()
		f.fill(element, level)
		value.SetMapIndex(key, element)
	case reflect.String:
		value.SetString(fmt.Sprint("v", f.count))
	case reflect.Bool:
		value.SetBool(true)
	case reflect.Int32, reflect.Int64, reflect.Int:
		value.SetInt(f.count)
	case reflect.Float64:
		value.SetFloat(float64(f.count) + 0.5)
	case reflect.Interface:
		value.Set(reflect.ValueOf(fmt.Sprint("v", f.count)))
	default:
		panic(fmt.Sprint("cannot fill ", value.Type()))
	}
}
