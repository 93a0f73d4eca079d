"""The official Python client: what a program does with it, each step checked. clients.sh runs it."""
import os
import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

NAMESPACE = "clients-python"
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "wheels.python.clients.example.com"},
    "spec": {
        "group": "python.clients.example.com", "scope": "Namespaced",
        "names": {"plural": "wheels", "singular": "wheel", "kind": "Wheel"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"spokes": {"type": "integer", "minimum": 3}}},
                "status": {"type": "object", "properties": {"turns": {"type": "integer"}}}}}},
        }],
    },
}


def refused(code, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ApiException as error:
        assert error.status == code, error
        return
    raise AssertionError(f"{call.__name__} was not refused")


def until(what, holds):
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"it did not come to be: {what}")


def objects(core):
    made = core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "1"}})
    refused(409, core.create_namespaced_config_map, NAMESPACE, {"metadata": {"name": "a"}})
    refused(404, core.read_namespaced_config_map, "none", NAMESPACE)
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="x=y")
    assert [item.metadata.name for item in listed.items] == ["a"], listed
    core.replace_namespaced_config_map("a", NAMESPACE, made)
    made.data = {"k": "2"}
    made.metadata.resource_version = "1"
    refused(409, core.replace_namespaced_config_map, "a", NAMESPACE, made)
    return listed.metadata.resource_version


def watches(core, version):
    def change():
        core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"k": "3"}})
        core.delete_namespaced_config_map("a", NAMESPACE)
    other = threading.Timer(0.3, change)
    other.start()
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, label_selector="x=y",
                                      resource_version=version, timeout_seconds=10):
        seen.append((event["type"], (event["object"].data or {}).get("k")))
        if event["type"] == "DELETED":
            break
    other.join()
    assert seen == [("MODIFIED", "3"), ("DELETED", "3")], seen


def patches(api):
    """Each manner, through the dynamic client, which finds everything by discovery."""
    found = dynamic.DynamicClient(api)
    deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}},
    }
    made = found.server_side_apply(deployments, body, field_manager="me", namespace=NAMESPACE)
    assert made.metadata.managedFields[0].operation == "Apply", made

    def patch(kind, body):
        changed = deployments.patch(body=body, name="d", namespace=NAMESPACE, content_type=f"application/{kind}+json")
        return changed.spec.template.spec.containers
    containers = patch("strategic-merge-patch", {"spec": {"template": {"spec": {"containers": [{"name": "e", "image": "e:1"}]}}}})
    assert sorted(c.name for c in containers) == ["c", "e"], containers
    containers = patch("json-patch", [{"op": "test", "path": "/spec/replicas", "value": 0}, {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "f", "image": "f"}}])
    assert len(containers) == 3, containers
    containers = patch("merge-patch", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}})
    assert [c.image for c in containers] == ["i:2"], containers
    try:
        found.server_side_apply(deployments, body, field_manager="other", namespace=NAMESPACE)
        raise AssertionError("no conflict")
    except ApiException as error:
        assert error.status == 409 and "image" in str(error.body), error
    found.server_side_apply(deployments, body, field_manager="other", namespace=NAMESPACE, force_conflicts=True)
    apps = client.AppsV1Api(api)
    assert apps.patch_namespaced_deployment_scale("d", NAMESPACE, {"spec": {"replicas": 0}}).status.replicas == 0
    apps.delete_namespaced_deployment("d", NAMESPACE, propagation_policy="Foreground")


def custom(api):
    definitions = client.ApiextensionsV1Api(api)
    definitions.create_custom_resource_definition(CRD)
    try:
        customized(api, definitions)
    finally:
        definitions.delete_custom_resource_definition(CRD["metadata"]["name"])


def customized(api, definitions):
    wheels = client.CustomObjectsApi(api)
    at = ("python.clients.example.com", "v1", NAMESPACE, "wheels")

    def served():
        conditions = definitions.read_custom_resource_definition(CRD["metadata"]["name"]).status.conditions or []
        return any(c.type == "Established" and c.status == "True" for c in conditions)
    until("the CRD is established", served)
    wheel = {"apiVersion": "python.clients.example.com/v1", "kind": "Wheel", "metadata": {"name": "w"}, "spec": {"spokes": 8}}
    wheels.create_namespaced_custom_object(*at, wheel)
    refused(422, wheels.patch_namespaced_custom_object, *at, "w", {"spec": {"spokes": 1}})
    wheels.patch_namespaced_custom_object_status(*at, "w", {"status": {"turns": 5}})
    assert wheels.get_namespaced_custom_object(*at, "w")["status"] == {"turns": 5}
    assert len(wheels.list_namespaced_custom_object(*at)["items"]) == 1


def containers(core, image):
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", "echo begun; sleep 600"]}]}})
    until("the pod runs", lambda: core.read_namespaced_pod("p", NAMESPACE).status.phase == "Running")
    until("it has said so", lambda: core.read_namespaced_pod_log("p", NAMESPACE) == "begun\n")
    said = stream(core.connect_get_namespaced_pod_exec, "p", NAMESPACE, command=["sh", "-c", "echo here; echo there >&2"],
                  stdout=True, stderr=True, stdin=False, tty=False)
    assert sorted(said.split()) == ["here", "there"], said


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    until("the namespace has its account", lambda: core.list_namespaced_service_account(NAMESPACE).items)
    try:
        watches(core, objects(core))
        patches(api)
        custom(api)
        if os.environ["MK8S_CLIENTS_IMAGE"] != "none":
            containers(core, os.environ["MK8S_CLIENTS_IMAGE"])
    finally:
        core.delete_namespace(NAMESPACE)


if __name__ == "__main__":
    sys.exit(main())
