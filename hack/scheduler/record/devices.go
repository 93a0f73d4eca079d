package main

import (
	"fmt"
	"strings"
)

func init() { families["devices"] = devices }

const driver = "gpu.example.com"

// claiming names claims of the pod's namespace.
func claiming(claims ...string) string {
	text := ""
	for _, claim := range claims {
		text += fmt.Sprintf("{name: %s, resourceClaimName: %s}, ", claim, claim)
	}
	return spec("resourceClaims: [" + text + "]")
}

// exactly is a request for count devices of the class gpu; more begins with a comma.
func exactly(name string, count int, more string) string {
	return fmt.Sprintf("{name: %s, exactly: {deviceClassName: gpu, allocationMode: ExactCount, count: %d%s}}", name, count, more)
}

func all(name, more string) string {
	return fmt.Sprintf("{name: %s, exactly: {deviceClassName: gpu, allocationMode: All%s}}", name, more)
}

func selecting(expressions ...string) string {
	text := ""
	for _, each := range expressions {
		text += fmt.Sprintf("{cel: {expression: %q}}, ", each)
	}
	return ", selectors: [" + text + "]"
}

// wants is a claim of requests; more stands beside them.
func wants(name, requests, more string, pieces ...string) object {
	return plain("resource.k8s.io/v1", "ResourceClaim", "default/"+name,
		append([]string{spec("devices: {requests: [" + requests + "]" + more + "}")}, pieces...)...)
}

func gpuClass(pieces ...string) object {
	return plain("resource.k8s.io/v1", "DeviceClass", "gpu", append([]string{
		fmt.Sprintf("{spec: {selectors: [{cel: {expression: 'device.driver == \"%s\"'}}]}}", driver)}, pieces...)...)
}

// slice is one of a pool with devices; where says which nodes reach it.
func slice(name, where string, devices []string, pieces ...string) object {
	return plain("resource.k8s.io/v1", "ResourceSlice", name, append([]string{fmt.Sprintf(`{spec: {driver: %s, %s,
		pool: {name: %s, generation: 1, resourceSliceCount: 1}, devices: [%s]}}`, driver, where, name, strings.Join(devices, ", "))}, pieces...)...)
}

func local(node string, devices ...string) object { return slice(node, "nodeName: "+node, devices) }

// device has a model, a place on a bus and memory.
func device(name, model string, bus, memory int) string {
	return fmt.Sprintf(`{name: %s, attributes: {model: {string: %s}, bus: {int: %d}, driverVersion: {version: 1.%d.0}, shared: {bool: %v}},
		capacity: {memory: {value: %dGi}}}`, name, model, bus, memory, memory > 20, memory)
}

// taken lets a claim have a device of a node for the pods that hold it.
func taken(node, device string, holders ...string) string {
	held := ""
	for _, each := range holders {
		held += fmt.Sprintf("{resource: pods, name: %s, uid: default/%s}, ", each, each)
	}
	return fmt.Sprintf(`{metadata: {finalizers: [resource.kubernetes.io/delete-protection]}, status: {reservedFor: [%s], allocation: {
		nodeSelector: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [%s]}]}]},
		devices: {results: [{request: r, driver: %s, pool: %s, device: %s}]}}}}`, held, node, driver, node, device)
}

// machines are three nodes: a has two small devices, b a large one beside a small one, and c none.
func machines() []object {
	return append(nodes("abc"), gpuClass(), local("a", device("a0", "small", 0, 8), device("a1", "small", 1, 8)),
		local("b", device("b0", "large", 0, 40), device("b1", "small", 0, 8)))
}

// devices: claims for what drivers publish.
func devices(f *family) {
	requestsOfDevices(f)
	deviceSelectors(f)
	allDevices(f)
	firstAvailable(f)
	deviceConstraints(f)
	allocatedClaims(f)
	brokenDeviceClaims(f)
	pools(f)
}

func requestsOfDevices(f *family) {
	p := pod("p", claiming("c"))
	f.ask("one device", p, machines(), list(wants("c", exactly("r", 1, ""), "")))
	f.ask("two devices", p, machines(), list(wants("c", exactly("r", 2, ""), "")))
	f.ask("three devices", p, machines(), list(wants("c", exactly("r", 3, ""), "")))
	f.ask("two requests", p, machines(), list(wants("c", exactly("r", 1, "")+", "+exactly("s", 1, ""), "")))
	f.ask("two claims", pod("p", claiming("c", "d")), machines(), list(wants("c", exactly("r", 1, ""), ""), wants("d", exactly("r", 1, ""), "")))
	f.ask("two claims for three", pod("p", claiming("c", "d")), machines(), list(wants("c", exactly("r", 1, ""), ""), wants("d", exactly("r", 2, ""), "")))
	f.ask("a taken device", p, machines(), list(wants("c", exactly("r", 2, ""), ""), wants("other", exactly("r", 1, ""), "", taken("a", "a0", "x"))))
	f.ask("all devices are taken", p, machines()[:5], list(wants("c", exactly("r", 1, ""), ""), wants("o", exactly("r", 1, ""), "", taken("a", "a0", "x")),
		wants("q", exactly("r", 1, ""), "", taken("a", "a1", "x"))))
	f.ask("all devices are taken by one of less", pod("p", claiming("c"), priority(100)), machines()[:5], list(wants("c", exactly("r", 2, ""), ""),
		wants("o", exactly("r", 1, ""), "", taken("a", "a0", "v")), running("v", "a", 10, 1, claiming("o"))))
	admin := ", adminAccess: true"
	f.ask("access of an administrator", p, machines(), list(wants("c", exactly("r", 2, admin), ""), wants("other", exactly("r", 1, ""), "", taken("a", "a0", "x"))))
	f.ask("a device an administrator has", p, machines(), list(wants("c", exactly("r", 2, ""), ""), wants("other", exactly("r", 1, admin), "",
		strings.Replace(taken("a", "a0", "x"), "device: a0", "device: a0, adminAccess: true", 1))))
	f.ask("devices and cpu", pod("p", claiming("c"), requests("cpu: 3")), machines(), list(wants("c", exactly("r", 1, ""), "")),
		bound("there", "a", 1, requests("cpu: 2")))
	f.ask("too many devices", p, machines(), list(wants("c", exactly("r", 20, "")+", "+exactly("s", 20, ""), "")))
	f.ask("the configuration of class and claim", p, append(nodes("a"), gpuClass(`{spec: {config: [{opaque: {driver: gpu.example.com, parameters: {of: class}}}]}}`),
		local("a", device("a0", "small", 0, 8))), list(wants("c", exactly("r", 1, ""), `, config: [{requests: [r], opaque: {driver: gpu.example.com, parameters: {of: claim}}}]`)))
}

func deviceSelectors(f *family) {
	p := pod("p", claiming("c"))
	for name, expression := range pairs(
		"of a model", `device.attributes["gpu.example.com"].model == "large"`,
		"of a place", `device.attributes["gpu.example.com"].bus == 1`,
		"of a size", `device.capacity["gpu.example.com"].memory.compareTo(quantity("10Gi")) > 0`,
		"of a version", `device.attributes["gpu.example.com"].driverVersion.isGreaterThan(semver("1.10.0"))`,
		"of a flag", `device.attributes["gpu.example.com"].shared`,
		"of a driver", `device.driver == "other.example.com"`,
		"of an attribute there may be", `"model" in device.attributes["gpu.example.com"] && !("rack" in device.attributes["gpu.example.com"])`,
		"of an attribute there is not", `device.attributes["gpu.example.com"].rack == "x"`,
	) {
		f.ask("devices "+name, p, machines(), list(wants("c", exactly("r", 1, selecting(expression)), "")))
	}
	f.ask("two selectors", p, machines(), list(wants("c", exactly("r", 1, selecting(`device.attributes["gpu.example.com"].model == "small"`,
		`device.attributes["gpu.example.com"].bus == 0`)), "")))
	f.ask("a selector of the class", p, append(nodes("ab"), gpuClass(fmt.Sprintf("{spec: {selectors: [{cel: {expression: %q}}]}}",
		`device.attributes["gpu.example.com"].model == "large"`)), local("a", device("a0", "small", 0, 8)), local("b", device("b0", "large", 0, 40))),
		list(wants("c", exactly("r", 1, ""), "")))
	f.ask("two requests that want the same device", p, machines(), list(wants("c", exactly("r", 1, "")+", "+
		exactly("s", 1, selecting(`device.attributes["gpu.example.com"].bus == 0`)), "")))
}

func allDevices(f *family) {
	p := pod("p", claiming("c"))
	f.ask("all", p, machines(), list(wants("c", all("r", ""), "")))
	f.ask("all, where one is taken", p, machines(), list(wants("c", all("r", ""), ""), wants("other", exactly("r", 1, ""), "", taken("a", "a0", "x"))))
	f.ask("all of a model", p, machines(), list(wants("c", all("r", selecting(`device.attributes["gpu.example.com"].model == "small"`)), "")))
	f.ask("all of none", p, machines(), list(wants("c", all("r", selecting(`false`)), "")))
	f.ask("all for an administrator", p, machines(), list(wants("c", all("r", ", adminAccess: true"), ""),
		wants("other", exactly("r", 1, ""), "", taken("a", "a0", "x"))))
	f.ask("all and one more", p, machines(), list(wants("c", all("r", "")+", "+exactly("s", 1, ""), "")))
}
