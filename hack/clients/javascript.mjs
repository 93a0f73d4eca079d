// The official JavaScript client: what a program does with it, each step checked. clients.sh runs it, beside the client.
import assert from 'node:assert';
import { Writable } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const namespace = 'clients-javascript';
const group = 'javascript.clients.example.com';
const kubeconfig = new k8s.KubeConfig();
kubeconfig.loadFromDefault();
const core = kubeconfig.makeApiClient(k8s.CoreV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(kubeconfig);
const definitions = kubeconfig.makeApiClient(k8s.ApiextensionsV1Api);
const customs = kubeconfig.makeApiClient(k8s.CustomObjectsApi);

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function until(what, holds) {
  for (let i = 0; i < 300; i++) {
    if (await holds()) return;
    await sleep(100);
  }
  assert.fail(`it did not come to be: ${what}`);
}

async function refused(code, call) {
  const error = await call.then(() => assert.fail('it was not refused'), (error) => error);
  assert.strictEqual(error.code, code, error);
}

const configMap = (name, data) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels: { x: 'y' } }, data });

async function reads() {
  await core.createNamespacedConfigMap({ namespace, body: configMap('a', { k: '1' }) });
  await refused(409, core.createNamespacedConfigMap({ namespace, body: configMap('a') }));
  await refused(404, core.readNamespacedConfigMap({ namespace, name: 'none' }));
  const list = await core.listNamespacedConfigMap({ namespace, labelSelector: 'x=y' });
  assert.deepStrictEqual(list.items.map((item) => item.metadata.name), ['a']);
}

async function informs() {
  const seen = [];
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'x=y' });
  const informer = k8s.makeInformer(kubeconfig, `/api/v1/namespaces/${namespace}/configmaps`, list, 'x=y');
  for (const event of ['add', 'update', 'delete']) informer.on(event, (object) => seen.push(`${event} ${object.data.k}`));
  await informer.start();
  await objects.patch(configMap('a', { k: '2' }), undefined, undefined, undefined, undefined, k8s.PatchStrategy.StrategicMergePatch);
  await until('the change is seen', () => seen.includes('update 2'));
  await core.deleteNamespacedConfigMap({ namespace, name: 'a' });
  await until('the deletion is seen', () => seen.includes('delete 2'));
  await informer.stop();
  assert.deepStrictEqual(seen, ['add 1', 'update 2', 'delete 2']);
}

async function patches() {
  const apply = (data, manager, force) =>
    objects.patch(configMap('b', data), undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
  const made = await apply({ k: '1', l: '1' }, 'me');
  assert.strictEqual(made.metadata.managedFields[0].operation, 'Apply');
  await refused(409, apply({ k: '2' }, 'other', false));
  assert.strictEqual((await apply({ k: '2' }, 'other', true)).data.k, '2');
  const merged = await objects.patch(configMap('b', { m: '1' }), undefined, undefined, undefined, undefined, k8s.PatchStrategy.MergePatch);
  assert.deepStrictEqual(merged.data, { k: '2', l: '1', m: '1' });
  const json = [{ op: 'test', path: '/data/m', value: '1' }, { op: 'remove', path: '/data/l' }];
  const options = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch);
  const patched = await core.patchNamespacedConfigMap({ namespace, name: 'b', body: json }, options);
  assert.deepStrictEqual(patched.data, { k: '2', m: '1' });
}

async function custom() {
  const name = `wheels.${group}`;
  const schema = { openAPIV3Schema: { type: 'object', properties: { spec: { type: 'object', properties: { spokes: { type: 'integer', minimum: 3 } } } } } };
  await definitions.createCustomResourceDefinition({ body: {
    metadata: { name },
    spec: { group, scope: 'Namespaced', names: { plural: 'wheels', kind: 'Wheel' }, versions: [{ name: 'v1', served: true, storage: true, schema }] },
  } });
  try {
    await customized(name);
  } finally {
    await definitions.deleteCustomResourceDefinition({ name });
  }
}

async function customized(name) {
  const established = async () => (await definitions.readCustomResourceDefinition({ name })).status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True');
  await until('the CRD is established', established);
  const at = { group, version: 'v1', namespace, plural: 'wheels' };
  const wheel = (spokes) => ({ apiVersion: `${group}/v1`, kind: 'Wheel', metadata: { name: 'w', namespace }, spec: { spokes } });
  await customs.createNamespacedCustomObject({ ...at, body: wheel(8) });
  await refused(422, objects.patch(wheel(1), undefined, undefined, 'me', true, k8s.PatchStrategy.ServerSideApply));
  assert.strictEqual((await objects.read(wheel(0))).spec.spokes, 8);
  assert.strictEqual((await customs.listNamespacedCustomObject(at)).items.length, 1);
}

async function containers(image) {
  const container = { name: 'c', image, imagePullPolicy: 'IfNotPresent', command: ['sh', '-c', 'echo begun; sleep 600'] };
  await core.createNamespacedPod({ namespace, body: { metadata: { name: 'p' }, spec: { terminationGracePeriodSeconds: 0, containers: [container] } } });
  await until('the pod runs', async () => (await core.readNamespacedPod({ namespace, name: 'p' })).status.phase === 'Running');
  await until('it has said so', async () => (await core.readNamespacedPodLog({ namespace, name: 'p' })) === 'begun\n');
  let said = '';
  const output = new Writable({ write: (chunk, _, done) => { said += chunk; done(); } });
  const status = await new Promise((done, failed) =>
    new k8s.Exec(kubeconfig).exec(namespace, 'p', 'c', ['sh', '-c', 'echo here; exit 3'], output, null, null, false, done).catch(failed));
  assert.strictEqual(said, 'here\n');
  assert.strictEqual(status.details.causes[0].message, '3');
}

await core.createNamespace({ body: { metadata: { name: namespace } } });
try {
  await until('the namespace has its account', async () => (await core.listNamespacedServiceAccount({ namespace })).items.length > 0);
  await reads();
  await informs();
  await patches();
  await custom();
  if (process.env.MK8S_CLIENTS_IMAGE !== 'none') await containers(process.env.MK8S_CLIENTS_IMAGE);
} finally {
  await core.deleteNamespace({ name: namespace });
}
