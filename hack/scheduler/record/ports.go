package main

func init() { families["ports"] = ports }

func port(text string) string { return container("ports: [" + text + "]") }

// ports: a host's port is one pod's, by address and protocol.
func ports(f *family) {
	there := list(node("a"), node("b"))
	of := func(text string) []object { return bound("user", "a", 1, port(text)) }
	for name, both := range pairs(
		"same port", "{containerPort: 80, hostPort: 80}|{containerPort: 8080, hostPort: 80}",
		"another port", "{containerPort: 80, hostPort: 80}|{containerPort: 80, hostPort: 81}",
		"another protocol", "{containerPort: 80, hostPort: 80, protocol: UDP}|{containerPort: 80, hostPort: 80, protocol: TCP}",
		"the same protocol, said and not", "{containerPort: 80, hostPort: 80}|{containerPort: 80, hostPort: 80, protocol: TCP}",
		"sctp", "{containerPort: 80, hostPort: 80, protocol: SCTP}|{containerPort: 80, hostPort: 80, protocol: SCTP}",
		"another address", "{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}|{containerPort: 80, hostPort: 80, hostIP: 10.0.0.2}",
		"same address", "{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}|{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}",
		"all addresses there", "{containerPort: 80, hostPort: 80, hostIP: 0.0.0.0}|{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}",
		"all addresses wanted", "{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}|{containerPort: 80, hostPort: 80}",
		"all addresses of the other family", "{containerPort: 80, hostPort: 80, hostIP: '::'}|{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}",
		"no host port", "{containerPort: 80}|{containerPort: 80}",
		"one of two", "{containerPort: 80, hostPort: 80}|{containerPort: 1, hostPort: 1}, {containerPort: 80, hostPort: 80}",
	) {
		before, after := cut(both)
		f.ask(name, pod("p", port(after)), there, of(before))
	}
	f.ask("taken everywhere", pod("p", port("{containerPort: 80, hostPort: 80}")), there, of("{containerPort: 80, hostPort: 80}"),
		bound("user", "b", 1, port("{containerPort: 80, hostPort: 80, hostIP: 127.0.0.1}")))
	sidecar := spec("initContainers: [{name: s, image: app, restartPolicy: Always, ports: [{containerPort: 90, hostPort: 90}]}]")
	once := spec("initContainers: [{name: s, image: app, ports: [{containerPort: 90, hostPort: 90}]}]")
	f.ask("a sidecar's port", pod("p", sidecar), there, bound("user", "a", 1, sidecar))
	f.ask("an init container's port", pod("p", once), there, bound("user", "a", 1, once))
	f.ask("host network", pod("p", spec("hostNetwork: true"), port("{containerPort: 80, hostPort: 80}")), there,
		bound("user", "b", 1, spec("hostNetwork: true"), port("{containerPort: 80, hostPort: 80}")))
}
