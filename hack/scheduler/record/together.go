package main

import "fmt"

func init() { families["together"] = together }

// together: several rules at once, since the first plugin that refuses is the one that is told of, and scores add up.
func together(f *family) {
	for i := range 30 {
		among := f.motley()
		there := f.lodgers(among)
		services := list(plain("v1", "Service", "default/web", spec("selector: {app: web}, ports: [{port: 80}]")))
		f.ask(fmt.Sprint("together ", i), pod("p", f.demands()...), among, there, services)
	}
}

// motley are nine nodes in three zones that differ in size, labels, taints and images.
func (f *family) motley() []object {
	all := zones([]int{3, 3, 3})
	for _, each := range all {
		pieces := []string{
			room(fmt.Sprintf("cpu: %d, memory: %dGi, pods: %d", f.between(2, 8), f.between(4, 16), f.between(6, 20))),
			labels("disk: " + f.pick("ssd", "ssd", "hdd")),
			f.pick("{}", "{}", "{}", tainted("{key: k, value: v, effect: NoSchedule}"), tainted("{key: k, effect: PreferNoSchedule}"), spec("unschedulable: true")),
			f.pick("{}", having("registry/app:1", 600)),
		}
		for _, piece := range pieces {
			lay(each, parse(piece))
		}
	}
	return all
}

// lodgers are pods of three apps, some of which keep others away or like them near.
func (f *family) lodgers(among []object) []object {
	var all []object
	for _, each := range among {
		name := each["metadata"].(object)["name"].(string)
		for range f.between(0, 3) {
			all = append(all, running(fmt.Sprint("v", len(all)), name, 10*f.between(0, 3), 60*len(all)+f.between(1, 50),
				labels("app: "+f.pick("web", "db", "cache")),
				requests(fmt.Sprintf("cpu: %dm, memory: %dMi", 100*f.between(1, 12), 256*f.between(1, 6))),
				f.pick("{}", "{}", "{}", "{}", apart(term("web", hostKey, "")), ratherApart("30", term("web", zoneKey, "")), ratherNear("20", term("web", hostKey, "")))))
		}
	}
	return all
}

// demands are what the pod asks for: always resources, and of each other rule now and then.
func (f *family) demands() []string {
	return []string{
		labels("app: web"),
		priority(10 * f.between(0, 3)),
		spec(fmt.Sprintf("containers: [{name: c, image: 'registry/app:1', resources: {requests: {cpu: %dm, memory: %dMi}}%s}]",
			250*f.between(1, 10), 256*f.between(1, 8), f.pick("", "", ", ports: [{containerPort: 80, hostPort: 80}]"))),
		f.pick("{}", tolerating("{key: k, operator: Exists}")),
		f.pick("{}", spec("nodeSelector: {disk: ssd}"), preferring("15", match("{key: disk, operator: In, values: [ssd]}"))),
		f.pick("{}", spreading(even(1, zoneKey, hard, web)), spreading(even(1, zoneKey, soft, web), even(2, hostKey, soft, web)),
			spreading(even(2, hostKey, hard, web), even(1, zoneKey, soft, web))),
		f.pick("{}", near(term("db", zoneKey, "")), apart(term("cache", hostKey, "")), ratherNear("40", term("cache", zoneKey, "")),
			ratherApart("60", term("db", hostKey, ""))),
	}
}
