package main

import "fmt"

func softSpread(f *family) {
	six := zones([]int{2, 2, 2})
	uneven := zones([]int{1, 2, 4})
	p := func(constraints ...string) object { return pod("p", labels("app: web"), spreading(constraints...)) }
	f.ask("soft over zones", p(even(1, zoneKey, soft, web)), six, webs(six, []int{2, 1, 1, 0, 1, 0}))
	f.ask("soft over hosts", p(even(1, hostKey, soft, web)), six, webs(six, []int{2, 1, 1, 0, 1, 0}))
	f.ask("soft over zones and hosts", p(even(1, zoneKey, soft, web), even(1, hostKey, soft, web)), six, webs(six, []int{2, 1, 1, 0, 1, 0}))
	f.ask("soft with a large skew", p(even(5, zoneKey, soft, web)), six, webs(six, []int{4, 1, 1, 0, 1, 0}))
	f.ask("soft and hard", p(even(1, zoneKey, hard, web), even(1, hostKey, soft, web)), six, webs(six, []int{2, 1, 1, 1, 3, 0}))
	f.ask("soft over uneven zones", p(even(1, zoneKey, soft, web)), uneven, webs(uneven, []int{1, 1, 0, 1, 2, 0, 0}))
	f.ask("soft where none is", p(even(1, zoneKey, soft, web)), six)
	f.ask("soft over one zone of those feasible", pod("p", labels("app: web"), spec("nodeSelector: {"+zoneKey+": a}"),
		spreading(even(1, zoneKey, soft, web), even(1, hostKey, soft, web))), six, webs(six, []int{2, 1, 1, 0, 1, 0}))
	for i := range 4 {
		counts := make([]int, 7)
		for each := range counts {
			counts[each] = f.between(0, 5)
		}
		f.ask(fmt.Sprint("soft over any zones ", i), p(even(f.between(1, 4), zoneKey, soft, web), even(f.between(1, 4), hostKey, soft, web)),
			uneven, webs(uneven, counts))
	}
}

// defaultSpread: what the scheduler spreads by without being told, by what selects the pod.
func defaultSpread(f *family) {
	six := zones([]int{2, 2, 2})
	there := webs(six, []int{2, 1, 1, 0, 1, 0})
	owned := func(kind, name string) string {
		version := "apps/v1"
		if kind == "ReplicationController" {
			version = "v1"
		}
		return fmt.Sprintf("{metadata: {ownerReferences: [{apiVersion: %s, kind: %s, name: %s, uid: default/%s, controller: true}]}}",
			version, kind, name, name)
	}
	selecting := func(kind string) []object {
		return list(plain("apps/v1", kind, "default/web", spec("selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: app}]}}")))
	}
	service := list(plain("v1", "Service", "default/web", spec("selector: {app: web}, ports: [{port: 80}]")))
	f.ask("selected by nothing", pod("p", labels("app: web")), six, there)
	f.ask("selected by a service", pod("p", labels("app: web")), six, there, service)
	f.ask("selected by a service elsewhere", pod("p", labels("app: web")), six, there,
		list(plain("v1", "Service", "far", namespace("far"), spec("selector: {app: web}, ports: [{port: 80}]"))))
	f.ask("selected by two services", pod("p", labels("app: web, tier: front")), six, there, service,
		list(plain("v1", "Service", "default/front", spec("selector: {tier: front}, ports: [{port: 80}]"))),
		bound("front", "b1", 2, labels("app: web, tier: front")))
	f.ask("a service that selects nothing", pod("p", labels("app: web")), six, there,
		list(plain("v1", "Service", "default/web", spec("ports: [{port: 80}]"))))
	f.ask("of a replica set", pod("p", labels("app: web"), owned("ReplicaSet", "web")), six, there, selecting("ReplicaSet"))
	f.ask("of a replica set of another name", pod("p", labels("app: web"), owned("ReplicaSet", "other")), six, there, selecting("ReplicaSet"))
	f.ask("of a stateful set", pod("p", labels("app: web"), owned("StatefulSet", "web")), six, there, selecting("StatefulSet"))
	f.ask("of a replication controller", pod("p", labels("app: web"), owned("ReplicationController", "web")), six, there,
		list(plain("v1", "ReplicationController", "default/web", spec("selector: {app: web}"))))
	f.ask("own constraints instead of the default", pod("p", labels("app: web"), spreading(even(1, hostKey, soft, web))), six, there, service)
	f.ask("own hard constraints and a service", pod("p", labels("app: web"), spreading(even(3, hostKey, hard, web))), six, there, service)
	f.ask("default over nodes without zones", pod("p", labels("app: web")), nodes("abc"), bound("web", "a", 2, labels("app: web")), service)
	f.ask("default where some nodes have no zone", pod("p", labels("app: web")), append(zones([]int{1, 1}), node("none")),
		bound("web", "a0", 2, labels("app: web")), bound("web", "none", 1, labels("app: web")), service)
}

// listedSpread: constraints a profile gives instead of the default ones.
func listedSpread(f *family) {
	six := zones([]int{2, 2, 2})
	there := webs(six, []int{2, 1, 1, 0, 1, 0})
	service := list(plain("v1", "Service", "default/web", spec("selector: {app: web}, ports: [{port: 80}]")))
	listed := func(constraints string) string {
		return "{defaultingType: List, defaultConstraints: [" + constraints + "]}"
	}
	f.ask("a listed hard constraint", pod("p", labels("app: web")), six, there, service).
		with("PodTopologySpread", listed(even(1, zoneKey, hard, "")))
	f.ask("a listed soft constraint", pod("p", labels("app: web")), six, there, service).
		with("PodTopologySpread", listed(even(1, hostKey, soft, "")))
	f.ask("a listed constraint and no service", pod("p", labels("app: web")), six, there).
		with("PodTopologySpread", listed(even(1, zoneKey, hard, "")))
	f.ask("an empty list", pod("p", labels("app: web")), six, there, service).with("PodTopologySpread", listed(""))
}
