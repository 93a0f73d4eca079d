//! Defaults < configuration file < environment < flags. The file's keys are the flags' names, so it is read as flags:
//! those that neither the command line nor the environment gives are put behind the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Failure, Result};

pub const DEFAULT_FILE: &str = "/etc/mk8s/config.yaml";

/// The verbs that read the file.
const VERBS: [&str; 2] = ["init", "join"];

/// The command line with what the configuration file adds to it.
pub fn with_file(command: clap::Command, arguments: Vec<String>) -> Result<Vec<String>> {
    let Some(verb) = arguments.get(1).filter(|verb| VERBS.contains(&verb.as_str())).cloned() else {
        return Ok(arguments);
    };
    let named = value_of(&arguments, "config").or_else(|| std::env::var("MK8S_CONFIG").ok());
    let path = PathBuf::from(named.clone().unwrap_or_else(|| DEFAULT_FILE.into()));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(arguments),
        Err(error) => return Err(Failure::of(format!("read {}", path.display()), error)),
    };
    let known: BTreeMap<&str, Vec<String>> = VERBS.iter().map(|verb| (*verb, flags(&command, verb))).collect();
    let settings = read(&path, &text, &known)?;
    let own = known.get(verb.as_str()).cloned().unwrap_or_default();
    let given = |flag: &str| {
        given_on(&arguments, flag)
            || std::env::var_os(format!("MK8S_{}", flag.to_uppercase().replace('-', "_"))).is_some()
    };
    let added: Vec<String> = settings
        .into_iter()
        .filter(|(flag, _)| own.contains(flag) && !given(flag))
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect();
    Ok(arguments.into_iter().chain(added).collect())
}

fn flags(command: &clap::Command, verb: &str) -> Vec<String> {
    let verb = command.find_subcommand(verb);
    let arguments = verb.into_iter().flat_map(clap::Command::get_arguments);
    arguments
        .filter_map(|argument| argument.get_long())
        .map(str::to_string)
        .collect()
}

fn given_on(arguments: &[String], flag: &str) -> bool {
    let flag = format!("--{flag}");
    arguments.iter().any(|argument| {
        argument
            .strip_prefix(&flag)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

fn value_of(arguments: &[String], flag: &str) -> Option<String> {
    let flag = format!("--{flag}");
    arguments
        .iter()
        .enumerate()
        .find_map(|(at, argument)| match argument.strip_prefix(&flag)? {
            "" => arguments.get(at + 1).cloned(),
            rest => rest.strip_prefix('=').map(str::to_string),
        })
}

/// The file's settings as flag values; a key that no verb has is refused with the nearest one.
fn read(path: &Path, text: &str, known: &BTreeMap<&str, Vec<String>>) -> Result<Vec<(String, String)>> {
    let at = path.display();
    if text.contains("kubeadm.k8s.io/") {
        return Err(Failure::new(format!(
            "{at} is a kubeadm configuration; mk8s takes flags, or a file with their names as keys: \
             networking.podSubnet is pod-network-cidr, networking.serviceSubnet is service-cidr, networking.dnsDomain is \
             service-dns-domain, localAPIEndpoint.advertiseAddress is apiserver-advertise-address, nodeRegistration.name \
             is node-name, apiServer.certSANs is apiserver-cert-extra-sans"
        )));
    }
    let document: Option<BTreeMap<String, Value>> =
        serde_saphyr::from_str(text).map_err(|error| Failure::of(format!("read {at}"), error))?;
    let mut settings = Vec::new();
    for (key, value) in document.unwrap_or_default() {
        let all: Vec<&String> = known.values().flatten().filter(|flag| *flag != "config").collect();
        if !all.contains(&&key) {
            let nearest = all.iter().min_by_key(|flag| strsim::levenshtein(flag, &key));
            let hint = nearest
                .map(|flag| format!("; the nearest is {flag:?}"))
                .unwrap_or_default();
            return Err(Failure::new(format!("{at}: there is no setting {key:?}{hint}")));
        }
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            }
            _ => {
                return Err(Failure::new(format!(
                    "{at}: {key} takes a text, a number or a list of texts"
                )));
            }
        };
        settings.push((key, text));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn known() -> BTreeMap<&'static str, Vec<String>> {
        BTreeMap::from([("init", vec!["pod-network-cidr".to_string(), "node-name".to_string()])])
    }

    #[test]
    fn reads_settings_and_names_the_nearest_for_an_unknown_key() {
        let path = Path::new("config.yaml");
        let settings = read(path, "node-name: one\npod-network-cidr: 10.1.0.0/16\n", &known()).unwrap();
        assert_eq!(settings[0], ("node-name".to_string(), "one".to_string()));
        let refused = read(path, "pod-network-cdr: 10.1.0.0/16\n", &known())
            .unwrap_err()
            .to_string();
        assert!(refused.contains("\"pod-network-cidr\""), "{refused}");
        let kubeadm = read(
            path,
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n",
            &known(),
        );
        assert!(kubeadm.unwrap_err().to_string().contains("pod-network-cidr"));
        assert!(read(path, "", &known()).unwrap().is_empty());
    }

    #[test]
    fn finds_flags_in_both_forms() {
        let arguments: Vec<String> = ["mk8s", "init", "--config", "a", "--token=b"]
            .map(String::from)
            .to_vec();
        assert_eq!(value_of(&arguments, "config").as_deref(), Some("a"));
        assert_eq!(value_of(&arguments, "token").as_deref(), Some("b"));
        assert!(given_on(&arguments, "token") && !given_on(&arguments, "token-ttl"));
    }
}
