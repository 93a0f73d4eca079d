package main

import (
	"fmt"
	"math/rand"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// filler gives fields values, leaving out about every third: what is absent takes a default, and is converted too.
type filler struct {
	random *rand.Rand
	count  int32
}

func newFiller(seed int64) *filler {
	return &filler{random: rand.New(rand.NewSource(seed))}
}

// What a named string may be where conversions and defaults look at it.
var words = map[string][]string{
	"DeploymentStrategyType":        {"", "RollingUpdate", "Recreate"},
	"DaemonSetUpdateStrategyType":   {"", "RollingUpdate", "OnDelete"},
	"StatefulSetUpdateStrategyType": {"", "RollingUpdate", "OnDelete"},
	"PodManagementPolicyType":       {"", "OrderedReady", "Parallel"},
	"MetricSourceType":              {"Resource", "Pods", "Object", "External", "ContainerResource"},
	"MetricTargetType":              {"Utilization", "Value", "AverageValue"},
	"ResourceScope":                 {"", "Namespaced", "Cluster"},
	"ConversionStrategyType":        {"None", "Webhook"},
	"PathType":                      {"Exact", "Prefix", "ImplementationSpecific"},
	"ConcurrencyPolicy":             {"", "Forbid"},
	"Protocol":                      {"TCP", "UDP"},
}

func (f *filler) fill(value reflect.Value, level int, field string) {
	f.count++
	if f.special(value) {
		return
	}
	switch value.Kind() {
	case reflect.Pointer:
		if f.random.Intn(3) > 0 && level < 12 {
			value.Set(reflect.New(value.Type().Elem()))
			f.fill(value.Elem(), level, field)
		}
	case reflect.Struct:
		f.fillStruct(value, level)
	case reflect.Slice:
		if value.Type().Elem().Kind() == reflect.Uint8 {
			value.SetBytes([]byte{byte(f.count), 0xff})
			return
		}
		length := f.random.Intn(3)
		if length == 0 || level > 12 {
			return
		}
		value.Set(reflect.MakeSlice(value.Type(), length, length))
		for i := range length {
			f.fill(value.Index(i), level+1, field)
		}
	case reflect.Map:
		if f.random.Intn(2) == 0 {
			return
		}
		value.Set(reflect.MakeMap(value.Type()))
		element := reflect.New(value.Type().Elem()).Elem()
		f.fill(element, level+1, field)
		value.SetMapIndex(reflect.ValueOf(fmt.Sprint("key", f.count)).Convert(value.Type().Key()), element)
	case reflect.String:
		text := fmt.Sprint("s", f.count)
		if own := words[value.Type().Name()]; own != nil {
			text = own[f.random.Intn(len(own))]
		}
		value.SetString(text)
	case reflect.Bool:
		value.SetBool(f.random.Intn(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		value.SetInt(int64(f.random.Intn(3)) * int64(f.count))
	case reflect.Float64:
		value.SetFloat(float64(f.count) + 0.5)
	}
}

func (f *filler) fillStruct(value reflect.Value, level int) {
	for i := range value.NumField() {
		own := value.Type().Field(i)
		name, options, _ := strings.Cut(own.Tag.Get("json"), ",")
		if !own.IsExported() || name == "-" {
			continue
		}
		if strings.Contains(options, "omitempty") && f.random.Intn(3) == 0 {
			continue
		}
		f.fill(value.Field(i), level+1, name)
	}
}

// special fills what has its own form, or what is not looked at here.
func (f *filler) special(value reflect.Value) bool {
	switch target := value.Addr().Interface().(type) {
	case *metav1.TypeMeta, *corev1.PersistentVolumeSpec:
	case *metav1.ObjectMeta:
		target.Name = fmt.Sprint("n", f.count)
		if f.random.Intn(2) == 0 {
			target.Annotations = map[string]string{"a": "b"}
		}
		if f.random.Intn(2) == 0 {
			target.Labels = map[string]string{"own": "label"}
		}
	case *corev1.PodTemplateSpec:
		if f.random.Intn(4) > 0 {
			target.Labels = map[string]string{"app": "x"}
		}
		target.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	case *corev1.PersistentVolumeClaim:
		target.Name = fmt.Sprint("claim", f.count)
		target.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}
	case *metav1.Time:
		*target = metav1.NewTime(time.Unix(1700000000+int64(f.count), 0).UTC())
	case *metav1.MicroTime:
		*target = metav1.NewMicroTime(time.Unix(1700000000+int64(f.count), 123456000).UTC())
	case *resource.Quantity:
		*target = resource.MustParse(fmt.Sprintf("%dm", f.count))
	case *intstr.IntOrString:
		*target = intstr.FromInt32(f.count)
		if f.random.Intn(2) == 0 {
			*target = intstr.FromString(fmt.Sprint("port-", f.count))
		}
	case *runtime.RawExtension:
		target.Raw = []byte(fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"K%d"}`, f.count))
	case *apiextensionsv1.JSONSchemaProps:
		*target = apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
			fmt.Sprint("field", f.count): {Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"x"`)}},
		}}
	case *apiextensionsv1beta1.JSONSchemaProps:
		*target = apiextensionsv1beta1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1beta1.JSONSchemaProps{
			fmt.Sprint("field", f.count): {Type: "string", Default: &apiextensionsv1beta1.JSON{Raw: []byte(`"x"`)}},
		}}
	default:
		return false
	}
	return true
}
