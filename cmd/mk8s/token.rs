//! `mk8s token`: the bootstrap tokens that hosts join with, and the command they join by.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, PostParams};
use mk8s_client::Api;
use mk8s_client::Remote;
use mk8s_pki::bootstrap::{self, SECRET_TYPE, Token};
use mk8s_pki::kubeconfig::Kubeconfig;
use mk8s_pki::rotation::Holder;
use mk8s_pki::{ca, issue};

use crate::cli::{self, TokenVerb};
use crate::failure::{Failure, Result};
use crate::objects;
use crate::settings::Settings;

pub async fn token(arguments: cli::Token) -> Result<()> {
    match arguments.verb {
        TokenVerb::Generate => {
            println!("{}", Token::generate());
            Ok(())
        }
        TokenVerb::Create {
            token,
            ttl,
            print_join_command,
            description,
            usages,
            groups,
        } => {
            let token = match token {
                Some(text) => text.parse()?,
                None => Token::generate(),
            };
            check(&usages, &groups)?;
            let secret = secret(&token, duration(&ttl)?, &description, &usages, &groups)?;
            create(&client(&arguments.kubeconfig)?, &token, &secret).await?;
            if print_join_command {
                println!("{}", join_command_from(&arguments.kubeconfig, &token)?);
            } else {
                println!("{token}");
            }
            Ok(())
        }
        TokenVerb::List => list(&client(&arguments.kubeconfig)?).await,
        TokenVerb::Delete { tokens } => {
            let ids = tokens.iter().map(|token| id(token)).collect::<Result<Vec<String>>>()?;
            delete(&client(&arguments.kubeconfig)?, &ids).await
        }
    }
}

/// Reads a kubeconfig, which may be a pipe of the shell's.
fn kubeconfig(path: &Path) -> Result<Kubeconfig> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let path = path.display();
            return Err(Failure::new(format!(
                "you may not read {path}: use sudo, or a kubeconfig of your own by --kubeconfig or KUBECONFIG"
            )));
        }
        Err(error) => return Err(Failure::of(format!("read {}", path.display()), error)),
    };
    Ok(Kubeconfig::from_yaml(&text, &path.display().to_string())?)
}

/// A client as the file's user.
pub fn client(path: &Path) -> Result<kube::Client> {
    let file = kubeconfig(path)?;
    let server = file.cluster().map(|cluster| cluster.server.clone()).unwrap_or_default();
    let certificate = match file.certificate()? {
        Some((certificate, key)) => Some(Holder::new(issue::certified_key(&certificate, &key)?)),
        None => None,
    };
    let remote = Remote {
        servers: vec![server],
        ca: issue::certificates(&file.ca_pem()?)?,
        certificate: certificate.map(|holder| std::sync::Arc::new(holder) as _),
        token: file.user().and_then(|user| user.token.clone()),
        user_agent: format!("mk8s/{}", mk8s_apiserver::config::VERSION),
    };
    Ok(mk8s_client::remote(remote)?)
}

/// A length of time as kubeadm's flags write it, such as `24h0m0s`, `90m` or `0`. None: for ever.
pub fn duration(text: &str) -> Result<Option<Duration>> {
    // Go's notation, and jiff's but for two things: jiff has no zero without a unit, and knows more units than hours.
    let units = text.bytes().filter(u8::is_ascii_alphabetic);
    let parsed = match text {
        "0" => Some(SignedDuration::ZERO),
        _ if units.clone().all(|unit| b"hms".contains(&unit)) => text.parse::<SignedDuration>().ok(),
        _ => None,
    };
    // At most what Go's holds, 292 years: a date that far off can still be written.
    let longest = Duration::from_nanos(i64::MAX as u64);
    let length = parsed.and_then(|length| Duration::try_from(length).ok());
    let length = length.filter(|length| *length <= longest);
    let length = length.ok_or_else(|| Failure::new(format!("{text:?} is not a duration such as 24h, 90m or 0")))?;
    Ok((!length.is_zero()).then_some(length))
}

/// Refuses what kubeadm refuses: a token of such usages or groups is of no use.
fn check(usages: &[String], groups: &[String]) -> Result<()> {
    if let Some(unknown) = usages.iter().find(|usage| !bootstrap::USAGES.contains(&usage.as_str())) {
        return Err(Failure::new(format!(
            "{unknown:?} is no usage of a token: {}",
            bootstrap::USAGES.join(", ")
        )));
    }
    match groups.iter().find(|group| !bootstrap::is_group(group)) {
        None => Ok(()),
        Some(other) => Err(Failure::new(format!(
            "{other:?} is no group of tokens: system:bootstrappers: and then letters, digits, \":\" and \"-\", as {}",
            bootstrap::NODE_GROUP
        ))),
    }
}

/// The Secret that makes a token known.
pub fn secret(
    token: &Token,
    ttl: Option<Duration>,
    description: &str,
    usages: &[String],
    groups: &[String],
) -> Result<Secret> {
    let expiration = ttl.map(|ttl| Timestamp::now().checked_add(ttl)).transpose()?;
    objects::of(token.to_secret(expiration, description, usages, groups))
}

async fn create(client: &kube::Client, token: &Token, secret: &Secret) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    match api.create(&PostParams::default(), secret).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refusal)) if refusal.is_already_exists() => {
            let id = &token.id;
            Err(Failure::new(format!(
                "a token with the id {id:?} exists already: take another, or `mk8s token delete {id}` first"
            )))
        }
        Err(error) => Err(Failure::of("create the token", error)),
    }
}

async fn list(client: &kube::Client) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let params = ListParams::default().fields(&format!("type={SECRET_TYPE}"));
    let secrets = api
        .list(&params)
        .await
        .map_err(|error| Failure::of("list tokens", error))?;
    println!(
        "{:<25} {:<8} {:<22} {:<24} DESCRIPTION",
        "TOKEN", "TTL", "EXPIRES", "USAGES"
    );
    for secret in secrets.items {
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| {
            data.get(key)
                .map(|value| String::from_utf8_lossy(&value.0).into_owned())
                .unwrap_or_default()
        };
        let expires = text("expiration");
        let left = match expires.parse::<Timestamp>() {
            Ok(at) => {
                let seconds = (at.as_second() - Timestamp::now().as_second()).max(0);
                if seconds == 0 {
                    "<invalid>".into()
                } else {
                    format!("{}h{}m", seconds / 3600, seconds / 60 % 60)
                }
            }
            Err(_) => "<forever>".to_string(),
        };
        let expires = if expires.is_empty() {
            "<never>".to_string()
        } else {
            expires
        };
        let usages: Vec<&str> = bootstrap::USAGES
            .into_iter()
            .filter(|usage| text(&format!("usage-bootstrap-{usage}")) == "true")
            .collect();
        let token = format!("{}.{}", text("token-id"), text("token-secret"));
        println!(
            "{token:<25} {left:<8} {expires:<22} {:<24} {}",
            usages.join(","),
            text("description")
        );
    }
    Ok(())
}

/// Of a token that is named by its id or whole.
fn id(token: &str) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if token.len() == 6 && token.bytes().all(plain) {
        return Ok(token.into());
    }
    let parsed = token.parse::<Token>();
    parsed
        .map(|token| token.id)
        .map_err(|_| Failure::new("a token is named by its id, six characters of [a-z0-9], or whole"))
}

async fn delete(client: &kube::Client, ids: &[String]) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    for id in ids {
        let deleted = api
            .delete(&format!("bootstrap-token-{id}"), &DeleteParams::default())
            .await;
        deleted.map_err(|error| Failure::of(format!("delete token {id}"), error))?;
        println!("bootstrap token {id:?} deleted");
    }
    Ok(())
}

/// The line that init prints and that is typed on a worker.
pub fn join_command(settings: &Settings, token: &Token) -> Result<String> {
    let hash = ca::load(&settings.pki_dir(), "ca")?.hash()?;
    Ok(command(settings.server(), token, &hash))
}

fn join_command_from(path: &Path, token: &Token) -> Result<String> {
    let file = kubeconfig(path)?;
    let hashes = ca::hashes_of_pem(&file.ca_pem()?)?;
    let server = file.cluster().map(|cluster| cluster.server.clone()).unwrap_or_default();
    Ok(command(&server, token, hashes.first().map_or("", String::as_str)))
}

fn command(server: &str, token: &Token, hash: &str) -> String {
    let endpoint = server.trim_start_matches("https://");
    format!("mk8s join {endpoint} --token {token} --discovery-token-ca-cert-hash {hash}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("24h0m0s", Some(86_400)),
            ("90m", Some(5_400)),
            ("0", None),
            ("0s", None),
            ("1h1s", Some(3601)),
        ] {
            assert_eq!(duration(text).unwrap(), seconds.map(Duration::from_secs), "{text}");
        }
        for text in [
            "",
            "h",
            "12",
            "1d",
            "-1h",
            "1y",
            "2w",
            "1h 2",
            "99999999999999999999h",
            "99999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        let longest = duration("2562047h").unwrap();
        secret(&Token::generate(), longest, "", &[], &[]).unwrap();
    }

    #[test]
    fn what_no_token_can_be_used_for_is_refused() {
        let check = |usage: &str, group: &str| check(&[usage.to_string()], &[group.to_string()]);
        check("signing", bootstrap::NODE_GROUP).unwrap();
        for (usage, group) in [
            ("foo", bootstrap::NODE_GROUP),
            ("signing", "system:masters"),
            ("", bootstrap::NODE_GROUP),
        ] {
            assert!(check(usage, group).is_err(), "{usage:?} {group:?}");
        }
    }
}
