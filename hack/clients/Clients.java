import io.kubernetes.client.custom.V1Patch;
import io.kubernetes.client.informer.ResourceEventHandler;
import io.kubernetes.client.informer.SharedInformerFactory;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.openapi.ApiException;
import io.kubernetes.client.openapi.apis.ApiextensionsV1Api;
import io.kubernetes.client.openapi.apis.CoreV1Api;
import io.kubernetes.client.openapi.models.V1ConfigMap;
import io.kubernetes.client.openapi.models.V1ConfigMapList;
import io.kubernetes.client.openapi.models.V1CustomResourceDefinition;
import io.kubernetes.client.openapi.models.V1Namespace;
import io.kubernetes.client.openapi.models.V1ObjectMeta;
import io.kubernetes.client.util.Config;
import io.kubernetes.client.util.Yaml;
import io.kubernetes.client.util.generic.GenericKubernetesApi;
import io.kubernetes.client.util.generic.dynamic.DynamicKubernetesApi;
import io.kubernetes.client.util.generic.dynamic.DynamicKubernetesObject;
import io.kubernetes.client.util.generic.options.PatchOptions;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;

/** The official Java client: what a program does with it, each step checked. clients.sh runs it. */
public class Clients {
  static final String NAMESPACE = "clients-java";
  static final String GROUP = "java.clients.example.com";
  static final String CRD = """
      apiVersion: apiextensions.k8s.io/v1
      kind: CustomResourceDefinition
      metadata: {name: wheels.java.clients.example.com}
      spec:
        group: java.clients.example.com
        scope: Namespaced
        names: {plural: wheels, kind: Wheel}
        versions:
          - name: v1
            served: true
            storage: true
            schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {spokes: {type: integer, minimum: 3}}}}}}
      """;

  static void holds(String what, boolean is) {
    if (!is) throw new AssertionError("not so: " + what);
  }

  static void until(String what, Callable<Boolean> condition) throws Exception {
    for (int i = 0; i < 300; i++) {
      if (condition.call()) return;
      Thread.sleep(100);
    }
    throw new AssertionError("it did not come to be: " + what);
  }

  static void refused(int code, Callable<?> call) throws Exception {
    try {
      call.call();
    } catch (ApiException error) {
      holds("refused with " + code + ": " + error.getCode() + " " + error.getResponseBody(), error.getCode() == code);
      return;
    }
    throw new AssertionError("it was not refused with " + code);
  }

  static V1ConfigMap configMap(String name, Map<String, String> data) {
    return new V1ConfigMap().apiVersion("v1").kind("ConfigMap").data(data)
        .metadata(new V1ObjectMeta().name(name).namespace(NAMESPACE).labels(Map.of("x", "z")));
  }

  static void objects(ApiClient client, CoreV1Api core) throws Exception {
    var maps = new GenericKubernetesApi<>(V1ConfigMap.class, V1ConfigMapList.class, "", "v1", "configmaps", client);
    List<String> seen = new CopyOnWriteArrayList<>();
    var factory = new SharedInformerFactory(client);
    var informer = factory.sharedIndexInformerFor(maps, V1ConfigMap.class, 0, NAMESPACE);
    informer.addEventHandler(new ResourceEventHandler<V1ConfigMap>() {
      void note(String event, V1ConfigMap map) {
        if (map.getMetadata().getName().equals("a")) seen.add(event + " " + map.getData().get("k"));
      }
      @Override public void onAdd(V1ConfigMap map) { note("add", map); }
      @Override public void onUpdate(V1ConfigMap old, V1ConfigMap map) { note("update", map); }
      @Override public void onDelete(V1ConfigMap map, boolean unknown) { note("delete", map); }
    });
    factory.startAllRegisteredInformers();
    until("the informer has begun", informer::hasSynced);
    V1ConfigMap made = core.createNamespacedConfigMap(NAMESPACE, configMap("a", Map.of("k", "1"))).execute();
    refused(409, () -> core.createNamespacedConfigMap(NAMESPACE, configMap("a", Map.of())).execute());
    refused(404, () -> core.readNamespacedConfigMap("none", NAMESPACE).execute());
    holds("it is listed", core.listNamespacedConfigMap(NAMESPACE).labelSelector("x=z").execute().getItems().size() == 1);
    Map<String, String> patches = Map.of(
        V1Patch.PATCH_FORMAT_JSON_PATCH, "[{\"op\":\"replace\",\"path\":\"/data/k\",\"value\":\"2\"}]",
        V1Patch.PATCH_FORMAT_JSON_MERGE_PATCH, "{\"data\":{\"k\":\"2\"}}",
        V1Patch.PATCH_FORMAT_STRATEGIC_MERGE_PATCH, "{\"data\":{\"k\":\"2\"}}");
    for (var patch : patches.entrySet()) {
      var changed = maps.patch(NAMESPACE, "a", patch.getKey(), new V1Patch(patch.getValue())).throwsApiException().getObject();
      holds("it is patched", changed.getData().get("k").equals("2"));
    }
    refused(409, () -> core.replaceNamespacedConfigMap("a", NAMESPACE, made).execute());
    core.deleteNamespacedConfigMap("a", NAMESPACE).execute();
    until("each change is seen once: " + seen, () -> seen.equals(List.of("add 1", "update 2", "delete 2")));
    factory.stopAllRegisteredInformers();
    for (String manager : List.of("me", "other")) {
      PatchOptions options = new PatchOptions();
      options.setFieldManager(manager);
      String applied = Yaml.dump(configMap("b", Map.of("k", manager)));
      Callable<?> apply = () -> maps.patch(NAMESPACE, "b", V1Patch.PATCH_FORMAT_APPLY_YAML, new V1Patch(applied), options).throwsApiException();
      if (manager.equals("me")) {
        apply.call();
        continue;
      }
      refused(409, apply);
      options.setForce(true);
      apply.call();
    }
    holds("it is the other's", core.readNamespacedConfigMap("b", NAMESPACE).execute().getData().get("k").equals("other"));
  }

  static void custom(ApiClient client) throws Exception {
    var definitions = new ApiextensionsV1Api(client);
    definitions.createCustomResourceDefinition(Yaml.loadAs(CRD, V1CustomResourceDefinition.class)).execute();
    String name = "wheels." + GROUP;
    try {
      customized(client, definitions, name);
    } finally {
      definitions.deleteCustomResourceDefinition(name).execute();
    }
  }

  static void customized(ApiClient client, ApiextensionsV1Api definitions, String name) throws Exception {
    until("the CRD is established", () -> {
      var status = definitions.readCustomResourceDefinition(name).execute().getStatus();
      return status != null && status.getConditions() != null
          && status.getConditions().stream().anyMatch(c -> c.getType().equals("Established") && c.getStatus().equals("True"));
    });
    var wheels = new DynamicKubernetesApi(GROUP, "v1", "wheels", client);
    var wheel = new DynamicKubernetesObject(com.google.gson.JsonParser.parseString(
        "{\"apiVersion\":\"" + GROUP + "/v1\",\"kind\":\"Wheel\",\"metadata\":{\"name\":\"w\",\"namespace\":\"" + NAMESPACE + "\"},\"spec\":{\"spokes\":8}}")
        .getAsJsonObject());
    wheels.create(wheel).throwsApiException();
    refused(422, () -> wheels.patch(NAMESPACE, "w", V1Patch.PATCH_FORMAT_JSON_MERGE_PATCH, new V1Patch("{\"spec\":{\"spokes\":1}}")).throwsApiException());
    holds("it is listed", wheels.list(NAMESPACE).throwsApiException().getObject().getItems().size() == 1);
    wheels.delete(NAMESPACE, "w").throwsApiException();
  }

  public static void main(String[] arguments) throws Exception {
    ApiClient client = Config.defaultClient();
    client.setReadTimeout(0);
    CoreV1Api core = new CoreV1Api(client);
    core.createNamespace(new V1Namespace().metadata(new V1ObjectMeta().name(NAMESPACE))).execute();
    try {
      objects(client, core);
      custom(client);
    } finally {
      core.deleteNamespace(NAMESPACE).execute();
    }
    System.exit(0);
  }
}
