// Answers what upstream's own strategies make of objects: reads pkg/api/tests/upstream.jsonl's lines and writes them
// again with the causes of a refusal, or with what the object becomes on create (or on update, where there is `old`).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/certificates/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/flowcontrol/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	_ "k8s.io/kubernetes/pkg/apis/resource/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/registry/apps/controllerrevision"
	"k8s.io/kubernetes/pkg/registry/apps/daemonset"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/apps/replicaset"
	"k8s.io/kubernetes/pkg/registry/apps/statefulset"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/batch/cronjob"
	"k8s.io/kubernetes/pkg/registry/batch/job"
	"k8s.io/kubernetes/pkg/registry/certificates/certificates"
	"k8s.io/kubernetes/pkg/registry/coordination/lease"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/endpoint"
	"k8s.io/kubernetes/pkg/registry/core/event"
	"k8s.io/kubernetes/pkg/registry/core/limitrange"
	"k8s.io/kubernetes/pkg/registry/core/namespace"
	"k8s.io/kubernetes/pkg/registry/core/node"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolume"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/podtemplate"
	"k8s.io/kubernetes/pkg/registry/core/replicationcontroller"
	"k8s.io/kubernetes/pkg/registry/core/resourcequota"
	"k8s.io/kubernetes/pkg/registry/core/secret"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/discovery/endpointslice"
	"k8s.io/kubernetes/pkg/registry/flowcontrol/flowschema"
	"k8s.io/kubernetes/pkg/registry/flowcontrol/prioritylevelconfiguration"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/ingressclass"
	"k8s.io/kubernetes/pkg/registry/networking/ipaddress"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/networking/servicecidr"
	"k8s.io/kubernetes/pkg/registry/node/runtimeclass"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrole"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrolebinding"
	"k8s.io/kubernetes/pkg/registry/rbac/role"
	"k8s.io/kubernetes/pkg/registry/rbac/rolebinding"
	"k8s.io/kubernetes/pkg/registry/resource/deviceclass"
	"k8s.io/kubernetes/pkg/registry/resource/resourceclaim"
	"k8s.io/kubernetes/pkg/registry/resource/resourceclaimtemplate"
	"k8s.io/kubernetes/pkg/registry/resource/resourceslice"
	"k8s.io/kubernetes/pkg/registry/scheduling/priorityclass"
	"k8s.io/kubernetes/pkg/registry/storage/csidriver"
	"k8s.io/kubernetes/pkg/registry/storage/csinode"
	"k8s.io/kubernetes/pkg/registry/storage/csistoragecapacity"
	"k8s.io/kubernetes/pkg/registry/storage/storageclass"
	"k8s.io/kubernetes/pkg/registry/storage/volumeattachment"
	"k8s.io/kubernetes/pkg/registry/storage/volumeattributesclass"
)

var strategies = map[string]any{
	"CSIDriver": csidriver.Strategy, "CertificateSigningRequest": certificates.Strategy, "ClusterRole": clusterrole.Strategy,
	"ClusterRoleBinding": clusterrolebinding.Strategy, "ConfigMap": configmap.Strategy, "CronJob": cronjob.Strategy,
	"DaemonSet": daemonset.Strategy, "Deployment": deployment.Strategy, "EndpointSlice": endpointslice.Strategy,
	"Endpoints": endpoint.Strategy, "Event": event.Strategy, "HorizontalPodAutoscaler": horizontalpodautoscaler.Strategy,
	"Ingress": ingress.Strategy, "Job": job.Strategy, "Lease": lease.Strategy, "Namespace": namespace.Strategy,
	"Node": node.Strategy, "PersistentVolume": persistentvolume.Strategy, "PersistentVolumeClaim": persistentvolumeclaim.Strategy,
	"Pod": pod.Strategy, "PodDisruptionBudget": poddisruptionbudget.Strategy, "PodTemplate": podtemplate.Strategy,
	"PriorityClass": priorityclass.Strategy, "ReplicaSet": replicaset.Strategy,
	"ReplicationController": replicationcontroller.Strategy, "Role": role.Strategy, "RoleBinding": rolebinding.Strategy,
	"RuntimeClass": runtimeclass.Strategy, "Secret": secret.Strategy, "Service": service.Strategy,
	"ServiceAccount": serviceaccount.Strategy, "StatefulSet": statefulset.Strategy, "StorageClass": storageclass.Strategy,
	"CSINode": csinode.Strategy, "CSIStorageCapacity": csistoragecapacity.Strategy, "ControllerRevision": controllerrevision.Strategy,
	"DeviceClass": deviceclass.Strategy, "FlowSchema": flowschema.Strategy, "IPAddress": ipaddress.Strategy,
	"IngressClass": ingressclass.Strategy, "LimitRange": limitrange.Strategy, "NetworkPolicy": networkpolicy.Strategy,
	"PriorityLevelConfiguration": prioritylevelconfiguration.Strategy, "ResourceClaim": resourceclaim.NewStrategy(nil),
	"ResourceClaimTemplate": resourceclaimtemplate.NewStrategy(nil), "ResourceQuota": resourcequota.Strategy,
	"ResourceSlice": resourceslice.Strategy, "ServiceCIDR": servicecidr.Strategy, "VolumeAttachment": volumeattachment.Strategy,
	"VolumeAttributesClass": volumeattributesclass.Strategy,
}

// Of the status, and of other subresources.
var statusStrategies = map[string]rest.RESTUpdateStrategy{
	"CertificateSigningRequest": certificates.StatusStrategy, "CronJob": cronjob.StatusStrategy,
	"DaemonSet": daemonset.StatusStrategy, "Deployment": deployment.StatusStrategy, "FlowSchema": flowschema.StatusStrategy,
	"HorizontalPodAutoscaler": horizontalpodautoscaler.StatusStrategy, "Ingress": ingress.StatusStrategy,
	"Job": job.StatusStrategy, "Namespace": namespace.StatusStrategy, "Node": node.StatusStrategy,
	"PersistentVolume": persistentvolume.StatusStrategy, "PersistentVolumeClaim": persistentvolumeclaim.StatusStrategy,
	"Pod": pod.StatusStrategy, "PodDisruptionBudget": poddisruptionbudget.StatusStrategy,
	"PriorityLevelConfiguration": prioritylevelconfiguration.StatusStrategy, "ReplicaSet": replicaset.StatusStrategy,
	"ReplicationController": replicationcontroller.StatusStrategy, "Service": service.StatusStrategy,
	"ServiceCIDR": servicecidr.StatusStrategy, "StatefulSet": statefulset.StatusStrategy,
	"VolumeAttachment": volumeattachment.StatusStrategy,
}

type line struct {
	Name    string          `json:"name"`
	Object  json.RawMessage `json:"object"`
	Old     json.RawMessage `json:"old,omitempty"`
	Causes  [][2]string     `json:"causes,omitempty"`
	Becomes any             `json:"becomes,omitempty"`
}

// decode makes the internal object, defaulted.
func decode(raw json.RawMessage) (runtime.Object, *schema.GroupVersionKind, error) {
	var internal []runtime.GroupVersioner
	for _, gv := range legacyscheme.Scheme.PrioritizedVersionsAllGroups() {
		internal = append(internal, schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal})
	}
	var versions schema.GroupVersions
	for _, gv := range internal {
		versions = append(versions, gv.(schema.GroupVersion))
	}
	return legacyscheme.Codecs.DecoderToVersion(legacyscheme.Codecs.UniversalDeserializer(), versions).Decode(raw, nil, nil)
}

// judge runs the strategy and answers the object as it would be stored.
func judge(l line, status bool) (any, error) {
	object, gvk, err := decode(l.Object)
	if err != nil {
		return nil, err
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	ctx := request.WithNamespace(request.NewContext(), accessor.GetNamespace())
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{APIGroup: gvk.Group, APIVersion: gvk.Version, Verb: "create", IsResourceRequest: true})
	strategy, ok := strategies[gvk.Kind]
	if !ok {
		return nil, fmt.Errorf("no strategy for %s", gvk.Kind)
	}
	if status {
		strategy = statusStrategies[gvk.Kind]
	}
	if l.Old == nil {
		rest.FillObjectMetaSystemFields(accessor)
		accessor.SetUID(types.UID("u"))
		err = rest.BeforeCreate(strategy.(rest.RESTCreateStrategy), ctx, object)
	} else {
		old, _, decodeErr := decode(l.Old)
		if decodeErr != nil {
			return nil, decodeErr
		}
		for _, one := range []runtime.Object{object, old} {
			if accessor, err := meta.Accessor(one); err == nil && accessor.GetResourceVersion() == "" {
				accessor.SetResourceVersion("1")
			}
		}
		err = rest.BeforeUpdate(strategy.(rest.RESTUpdateStrategy), ctx, object, old)
	}
	if err != nil {
		return nil, err
	}
	out, err := runtime.Encode(legacyscheme.Codecs.LegacyCodec(gvk.GroupVersion()), object)
	if err != nil {
		return nil, err
	}
	// As it is read from where it was stored: that defaults it once more.
	if object, _, err = decode(out); err != nil {
		return nil, err
	}
	if out, err = runtime.Encode(legacyscheme.Codecs.LegacyCodec(gvk.GroupVersion()), object); err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := json.Unmarshal(out, &tree); err != nil {
		return nil, err
	}
	if metadata, ok := tree["metadata"].(map[string]any); ok {
		for _, key := range []string{"uid", "creationTimestamp", "resourceVersion", "generation"} {
			delete(metadata, key)
		}
	}
	if status, ok := tree["status"].(map[string]any); ok {
		delete(status, "lastPhaseTransitionTime")
		conditions, _ := status["conditions"].([]any)
		for _, condition := range conditions {
			delete(condition.(map[string]any), "lastTransitionTime")
		}
	}
	return withoutNulls(tree), nil
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

func main() {
	capabilities.Initialize(capabilities.Capabilities{AllowPrivileged: true})
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<26)
	if len(os.Args) > 1 && os.Args[1] == "mutate" {
		mutate(in)
		return
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			panic(err)
		}
		becomes, err := judge(l, false)
		l.Causes, l.Becomes = nil, becomes
		if status, ok := err.(apierrors.APIStatus); ok && status.Status().Details != nil {
			for _, cause := range status.Status().Details.Causes {
				l.Causes = append(l.Causes, [2]string{cause.Field, cause.Message})
			}
		} else if err != nil {
			panic(fmt.Sprintf("%s: %v", l.Name, err))
		}
		if err := out.Encode(l); err != nil {
			panic(err)
		}
	}
}
