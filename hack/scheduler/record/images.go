package main

import "fmt"

func init() { families["images"] = images }

// having is a node's list of images: pairs of a name and a size in MiB.
func having(images ...any) string {
	text := ""
	for i := 0; i < len(images); i += 2 {
		text += fmt.Sprintf("{names: [%v], sizeBytes: %d}, ", images[i], images[i+1].(int)<<20)
	}
	return "{status: {images: [" + text + "]}}"
}

func image(name string) string {
	return fmt.Sprintf("{spec: {containers: [{name: c, image: %s}]}}", name)
}

// images: nodes that have what the pod's containers run, counted by size and by how many nodes have it.
func images(f *family) {
	digest := "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	three := list(node("a", having("registry/app:1", 500, "'registry/other:2'", 900)), node("b", having("registry/app:1", 500)),
		node("c", having("registry/other:2, registry/other"+digest, 900)), node("d"))
	for _, name := range []string{"registry/app:1", "registry/other:2", "registry/app", "registry/other" + digest, "registry/none:1"} {
		f.ask("image "+name, pod("p", image(name)), three)
	}
	f.ask("no tag is latest", pod("p", image("app")), list(node("a", having("app:latest", 700)), node("b", having("app", 700)), node("c")))
	two := spec("containers: [{name: c, image: 'registry/app:1'}, {name: d, image: 'registry/other:2'}]")
	f.ask("two containers", pod("p", two), three)
	f.ask("an init container", pod("p", image("registry/app:1"), spec("initContainers: [{name: i, image: 'registry/other:2'}]")), three)
	f.ask("an image volume", pod("p", image("registry/none:1"), spec("volumes: [{name: v, image: {reference: 'registry/other:2'}}]")), three)
	f.ask("small images do not count", pod("p", image("small:1")), list(node("a", having("small:1", 20)), node("b")))
	f.ask("the largest count no more", pod("p", image("large:1")), list(node("a", having("large:1", 2000)),
		node("b", having("large:1", 1200)), node("c")))
	for i := range 3 {
		var some []object
		for _, name := range "abcdef" {
			var has []any
			for _, each := range []string{"one:1", "two:1", "three:1"} {
				if f.between(0, 1) == 1 {
					has = append(has, each, map[string]int{"one:1": 100, "two:1": 400, "three:1": 950}[each])
				}
			}
			some = append(some, node(string(name), having(has...)))
		}
		f.ask(fmt.Sprint("spread images ", i), pod("p",
			spec("containers: [{name: c, image: 'one:1'}, {name: d, image: 'two:1'}, {name: e, image: 'three:1'}]")), some)
	}
}
