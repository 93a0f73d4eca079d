//! A container's environment: envFrom, env with its sources, and the variables of the Services beside it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use super::env_file;
use super::expansion::{PROCESS_LIMIT, TooLong, expand};
use crate::downward::{self, RuntimeValues};
use crate::pod;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Missing(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error("environment variable key {key:?} not found in file {path:?}")]
    FileKey { key: String, path: String },
    #[error(transparent)]
    File(#[from] env_file::Error),
    #[error(transparent)]
    Downward(#[from] downward::Error),
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// The ConfigMaps and Secrets that the container names: None where the API has none of that name. And its files.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub config_maps: BTreeMap<String, Option<std::sync::Arc<ConfigMap>>>,
    pub secrets: BTreeMap<String, Option<std::sync::Arc<Secret>>>,
    pub files: env_file::Files,
}

impl Objects {
    fn config_map(&self, name: &str, optional: bool) -> Result<Option<&ConfigMap>, Error> {
        match self.config_maps.get(name).and_then(Option::as_deref) {
            Some(found) => Ok(Some(found)),
            None if optional => Ok(None),
            None => Err(Error::Missing(format!("configmap \"{name}\" not found"))),
        }
    }

    fn secret(&self, name: &str, optional: bool) -> Result<Option<&Secret>, Error> {
        match self.secrets.get(name).and_then(Option::as_deref) {
            Some(found) => Ok(Some(found)),
            None if optional => Ok(None),
            None => Err(Error::Missing(format!("secret \"{name}\" not found"))),
        }
    }
}

/// (ConfigMaps, Secrets) that the container's environment names.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

pub type Env = BTreeMap<String, String>;

/// An environment, and what may be put into it yet. One ConfigMap may be named many times, and one variable set anew.
struct Bounded {
    env: Env,
    room: usize,
}

const TOO_LONG: TooLong = TooLong {
    what: "environment",
    limit: PROCESS_LIMIT,
};

impl Bounded {
    fn put(&mut self, name: String, value: &str) -> Result<(), TooLong> {
        self.room = self.room.checked_sub(name.len() + value.len()).ok_or(TOO_LONG)?;
        self.env.insert(name, value.to_owned());
        Ok(())
    }
}

pub fn environment(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    services: &Env,
    values: &RuntimeValues,
) -> Result<Env, Error> {
    let mut bounded = Bounded {
        env: Env::new(),
        room: PROCESS_LIMIT,
    };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(r) = &from.config_map_ref {
            let found = objects.config_map(&r.name, r.optional.unwrap_or(false))?;
            for (key, value) in found.and_then(|c| c.data.as_ref()).into_iter().flatten() {
                bounded.put(format!("{prefix}{key}"), value)?;
            }
        }
        if let Some(r) = &from.secret_ref {
            let found = objects.secret(&r.name, r.optional.unwrap_or(false))?;
            for (key, value) in found.and_then(|c| c.data.as_ref()).into_iter().flatten() {
                bounded.put(format!("{prefix}{key}"), &String::from_utf8_lossy(&value.0))?;
            }
        }
    }
    for var in container.env.iter().flatten() {
        let mut value = var.value.clone().unwrap_or_default();
        if !value.is_empty() {
            let Bounded { env, room } = &bounded;
            let known = |name: &str| env.get(name).or_else(|| services.get(name)).map(String::as_str);
            value = expand(&value, *room, known).ok_or(TOO_LONG)?;
        } else if let Some(source) = &var.value_from {
            let found = sourced(pod, container, source, objects, values)?;
            let Some(found) = found else { continue };
            value = found;
        }
        bounded.put(var.name.clone(), &value)?;
    }
    let mut env = bounded.env;
    for (name, value) in services {
        env.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(env)
}

/// None: an optional source that isn't there.
fn sourced(
    pod: &Pod,
    container: &Container,
    source: &k8s_openapi::api::core::v1::EnvVarSource,
    objects: &Objects,
    values: &RuntimeValues,
) -> Result<Option<String>, Error> {
    if let Some(selector) = &source.field_ref {
        return Ok(Some(downward::field(pod, selector, values)?));
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(downward::resource(pod, container, selector, values)?));
    }
    let missing = |kind, name: &str, key: &str| Error::Key {
        kind,
        namespace: pod::namespace(pod).to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional.unwrap_or(false);
        let Some(found) = objects.config_map(&r.name, optional)? else {
            return Ok(None);
        };
        return match found.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(missing("ConfigMap", &r.name, &r.key)),
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let optional = r.optional.unwrap_or(false);
        let Some(found) = objects.secret(&r.name, optional)? else {
            return Ok(None);
        };
        return match found.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(missing("Secret", &r.name, &r.key)),
        };
    }
    if let Some(selector) = &source.file_key_ref {
        let value = env_file::value(&objects.files, selector)?;
        return match value {
            None if !selector.optional.unwrap_or(false) => Err(Error::FileKey {
                key: selector.key.clone(),
                path: selector.path.clone(),
            }),
            value => Ok(value),
        };
    }
    Ok(None)
}

/// The variables by which Services were found before there was DNS: those of the pod's namespace if it wants them, and
/// always the API server's.
pub fn service_env<'a>(services: impl IntoIterator<Item = &'a Service>, namespace: &str, links: bool) -> Env {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let spec = service.spec.as_ref();
        let ip = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let ns = service.metadata.namespace.as_deref().unwrap_or_default();
        if ns == namespace && links {
            chosen.insert(name, service);
        } else if ns == "default" && name == "kubernetes" {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut env = Env::new();
    for (name, service) in chosen {
        let prefix = name.to_uppercase().replace('-', "_");
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        env.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for (index, port) in ports.iter().enumerate() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let suffix = port_name.to_uppercase().replace('-', "_");
                env.insert(format!("{prefix}_SERVICE_PORT_{suffix}"), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_lowercase();
            let url = format!("{lower}://{}", join(ip, port.port));
            if index == 0 {
                env.insert(format!("{prefix}_PORT"), url.clone());
            }
            let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            env.insert(base.clone(), url);
            env.insert(format!("{base}_PROTO"), lower);
            env.insert(format!("{base}_PORT"), port.port.to_string());
            env.insert(format!("{base}_ADDR"), ip.to_owned());
        }
    }
    env
}

fn join(ip: &str, port: i32) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn pod(container: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [container]},
        }))
        .unwrap()
    }

    fn objects() -> Objects {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"k": "v", "K2": "w"}})).unwrap();
        let secret: Secret =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {"p": "c2VjcmV0"}})).unwrap();
        Objects {
            config_maps: [("m".to_owned(), Some(map.into())), ("gone".to_owned(), None)].into(),
            secrets: [("s".to_owned(), Some(secret.into()))].into(),
            files: [(("v".to_owned(), "f".to_owned()), Ok("A='one'\n".to_owned()))].into(),
        }
    }

    #[test]
    fn environments() {
        let services: Env = [("WEB_SERVICE_HOST".to_owned(), "10.96.0.5".to_owned())].into();
        for (spec, expected) in [
            (
                json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(WEB_SERVICE_HOST)-$(C)"}]}),
                Ok(vec![("A", "1"), ("B", "1-10.96.0.5-$(C)")]),
            ),
            (
                json!({"envFrom": [{"configMapRef": {"name": "m"}, "prefix": "X_"}], "env": [{"name": "X_k", "value": "over"}]}),
                Ok(vec![("X_K2", "w"), ("X_k", "over")]),
            ),
            (
                json!({"env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}]}),
                Ok(vec![("P", "secret")]),
            ),
            (
                json!({"env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": true}}}]}),
                Ok(vec![]),
            ),
            (
                json!({"env": [{"name": "P", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "no"}}}]}),
                Err("couldn't find key no in ConfigMap n/m"),
            ),
            (
                json!({"envFrom": [{"configMapRef": {"name": "gone"}}]}),
                Err("configmap \"gone\" not found"),
            ),
            (
                json!({"envFrom": [{"configMapRef": {"name": "gone", "optional": true}}]}),
                Ok(vec![]),
            ),
        ] {
            let mut container = spec.clone();
            container["name"] = json!("c");
            container["image"] = json!("i");
            let pod = pod(container);
            let got = environment(
                &pod,
                &pod::containers(&pod)[0],
                &objects(),
                &services,
                &RuntimeValues::default(),
            );
            match (got, expected) {
                (Ok(env), Ok(wanted)) => {
                    let mut wanted: Env = wanted.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
                    wanted.extend(services.clone());
                    assert_eq!(env, wanted, "{spec}");
                }
                (Err(error), Err(wanted)) => assert_eq!(error.to_string(), wanted),
                (got, wanted) => panic!("{got:?} is not {wanted:?} for {spec}"),
            }
        }
    }

    #[test]
    fn variables_of_files() {
        for (selector, expected) in [
            (json!({"volumeName": "v", "path": "f", "key": "A"}), Ok(Some("one"))),
            (
                json!({"volumeName": "v", "path": "f", "key": "B", "optional": true}),
                Ok(None),
            ),
            (
                json!({"volumeName": "v", "path": "f", "key": "B"}),
                Err("environment variable key \"B\" not found in file \"f\""),
            ),
            (
                json!({"volumeName": "w", "path": "f", "key": "A", "optional": true}),
                Err("cannot find the volume \"w\" referenced by FileKeyRef"),
            ),
        ] {
            let env = json!([{"name": "F", "valueFrom": {"fileKeyRef": selector}}]);
            let pod = pod(json!({"name": "c", "env": env}));
            let (own, values) = (&pod::containers(&pod)[0], RuntimeValues::default());
            let got = environment(&pod, own, &objects(), &Env::new(), &values).map_err(|error| error.to_string());
            let got = got.as_ref().map(|env| env.get("F").map(String::as_str));
            assert_eq!(got.map_err(String::as_str), expected, "{selector}");
        }
    }

    #[test]
    fn an_environment_is_no_longer_than_a_process_gets() {
        let of = |spec: serde_json::Value, objects: &Objects| {
            let mut container = spec;
            container["name"] = json!("c");
            let pod = pod(container);
            let container = &pod::containers(&pod)[0];
            environment(&pod, container, objects, &Env::new(), &RuntimeValues::default())
        };
        // Each twice the one before: the last would have 2^60 bytes.
        let mut doubled = vec![json!({"name": "V0", "value": "x"})];
        doubled.extend((0..60).map(|n| json!({"name": format!("V{}", n + 1), "value": format!("$(V{n})$(V{n})")})));
        let refused = of(json!({"env": doubled}), &Objects::default()).unwrap_err();
        assert!(matches!(refused, Error::TooLong(_)), "{refused}");
        // One object, again and again.
        let map: ConfigMap = serde_json::from_value(json!({"data": {"K": "x".repeat(1 << 20)}})).unwrap();
        let mut objects = Objects::default();
        objects
            .config_maps
            .insert("m".to_owned(), Some(std::sync::Arc::new(map)));
        let from = |count| {
            let each = |n| json!({"prefix": format!("P{n}"), "configMapRef": {"name": "m"}});
            json!({"envFrom": (0..count).map(each).collect::<Vec<_>>()})
        };
        assert_eq!(of(from(5), &objects).unwrap().len(), 5);
        assert!(matches!(of(from(6), &objects), Err(Error::TooLong(_))));
    }

    #[test]
    fn services() {
        let service = |ns: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({
                "metadata": {"namespace": ns, "name": name},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}, {"port": 53, "protocol": "UDP"}]},
            }))
            .unwrap()
        };
        let all = [
            service("default", "kubernetes", "10.96.0.1"),
            service("n", "my-web", "10.96.0.9"),
            service("n", "headless", "None"),
            service("other", "x", "10.96.0.8"),
        ];
        let env = service_env(&all, "n", true);
        for (name, value) in [
            ("KUBERNETES_SERVICE_HOST", Some("10.96.0.1")),
            ("MY_WEB_SERVICE_PORT_HTTP", Some("80")),
            ("MY_WEB_PORT", Some("tcp://10.96.0.9:80")),
            ("MY_WEB_PORT_53_UDP_ADDR", Some("10.96.0.9")),
            ("MY_WEB_PORT_53_UDP_PROTO", Some("udp")),
            ("HEADLESS_SERVICE_HOST", None),
            ("X_SERVICE_HOST", None),
        ] {
            assert_eq!(env.get(name).map(String::as_str), value, "{name}");
        }
        assert_eq!(
            service_env(&all, "n", false)
                .keys()
                .filter(|k| k.starts_with("MY_WEB"))
                .count(),
            0
        );
    }
}
