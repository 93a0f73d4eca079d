// Prints what a kube-apiserver of this version creates at its start, one object per line as compact JSON: RBAC roles and
// bindings, priority classes, flow schemas and priority levels; first the static rules of the node authorizer.
// Facts only: run by hack/update-bootstrap.sh, never by the build.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"

	flowcontrol "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	scheduling "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

func main() {
	var lines []string
	add := func(apiVersion, kind, namespace string, object any) {
		raw, err := json.Marshal(object)
		if err != nil {
			panic(err)
		}
		tree := map[string]any{}
		if err := json.Unmarshal(raw, &tree); err != nil {
			panic(err)
		}
		tree["apiVersion"], tree["kind"] = apiVersion, kind
		metadata := tree["metadata"].(map[string]any)
		delete(metadata, "creationTimestamp")
		if namespace != "" {
			metadata["namespace"] = namespace
		}
		delete(tree, "status")
		line, err := json.Marshal(tree)
		if err != nil {
			panic(err)
		}
		lines = append(lines, string(line))
	}
	const rbac = "rbac.authorization.k8s.io/v1"
	for _, role := range append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...) {
		add(rbac, "ClusterRole", "", role)
	}
	for _, binding := range append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...) {
		add(rbac, "ClusterRoleBinding", "", binding)
	}
	for namespace, roles := range bootstrappolicy.NamespaceRoles() {
		for _, role := range roles {
			add(rbac, "Role", namespace, role)
		}
	}
	for namespace, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		for _, binding := range bindings {
			add(rbac, "RoleBinding", namespace, binding)
		}
	}
	for _, class := range scheduling.SystemPriorityClasses() {
		add("scheduling.k8s.io/v1", "PriorityClass", "", class)
	}
	for _, list := range [][]any{
		anys(flowcontrol.MandatoryPriorityLevelConfigurations), anys(flowcontrol.SuggestedPriorityLevelConfigurations),
	} {
		for _, level := range list {
			add("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", "", level)
		}
	}
	for _, list := range [][]any{anys(flowcontrol.MandatoryFlowSchemas), anys(flowcontrol.SuggestedFlowSchemas)} {
		for _, schema := range list {
			add("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "", schema)
		}
	}
	sort.Strings(lines)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	rules, err := json.Marshal(bootstrappolicy.NodeRules())
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(out, "%s\n", rules)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, item := range list {
		out[i] = item
	}
	return out
}
