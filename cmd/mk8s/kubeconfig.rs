//! Kubeconfig files: the administrator's, copies for root and the sudo user, and ones for other users.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use mk8s_pki::kubeconfig::{Credential, Kubeconfig};
use mk8s_pki::{ca, issue};

use crate::cli;
use crate::failure::{Failure, Result};
use crate::settings::{ADMIN_CONF, Role, Settings};

/// Beside a copy: the hash of what was written, so that an unmodified copy is known again.
const MARK: &str = ".mk8s-config.sha256";

struct Home {
    directory: PathBuf,
    owner: Option<(u32, u32)>,
}

/// Root's home, and that of who called sudo.
fn homes() -> Vec<Home> {
    let mut homes = vec![Home {
        directory: "/root".into(),
        owner: None,
    }];
    let user = std::env::var("SUDO_USER")
        .ok()
        .and_then(|name| nix::unistd::User::from_name(&name).ok().flatten());
    if let Some(user) = user.filter(|user| !user.uid.is_root()) {
        homes.push(Home {
            directory: user.dir,
            owner: Some((user.uid.as_raw(), user.gid.as_raw())),
        });
    }
    homes
}

fn hash(text: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_ours(directory: &Path) -> bool {
    let config = std::fs::read(directory.join("config"));
    let mark = std::fs::read_to_string(directory.join(MARK));
    matches!((config, mark), (Ok(config), Ok(mark)) if hash(&config) == mark.trim())
}

/// Writes `~/.kube/config` where there is none, or an unmodified one of mk8s's; returns those that were left alone.
pub fn install_for_users(text: &str) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for home in homes().into_iter().filter(|home| home.directory.is_dir()) {
        let directory = home.directory.join(".kube");
        let config = directory.join("config");
        if config.exists() && !is_ours(&directory) {
            left.push(config);
            continue;
        }
        let fresh_directory = !directory.exists();
        let broken = |error: mk8s_pki::PkiError| Failure::new(error.to_string());
        mk8s_pki::files::write(&config, text.as_bytes(), 0o600).map_err(broken)?;
        mk8s_pki::files::write(&directory.join(MARK), hash(text.as_bytes()).as_bytes(), 0o600).map_err(broken)?;
        if let Some((user, group)) = home.owner {
            let mut owned = vec![config.clone(), directory.join(MARK)];
            owned.extend(fresh_directory.then(|| directory.clone()));
            for path in owned {
                chown(&path, Some(user), Some(group))
                    .map_err(|error| Failure::of(format!("give {} to its user", path.display()), error))?;
            }
        }
    }
    Ok(left)
}

/// Removes the copies that are still as mk8s wrote them.
pub fn remove_for_users() {
    for home in homes() {
        let directory = home.directory.join(".kube");
        if is_ours(&directory) {
            let _ = std::fs::remove_file(directory.join("config"));
        }
        let _ = std::fs::remove_file(directory.join(MARK));
    }
}

/// `mk8s kubeconfig`: the administrator's file, or one with a certificate for a user.
pub async fn print(arguments: &cli::Kubeconfig) -> Result<()> {
    let settings = Settings::require(arguments.data_dir.as_deref())?;
    if settings.role != Role::Master {
        return Err(Failure::new(format!(
            "this host is a worker; kubeconfigs are on the master, {}",
            settings.server
        )));
    }
    let Some(user) = &arguments.user else {
        print!("{}", crate::remote::read(ADMIN_CONF.as_ref())?);
        return Ok(());
    };
    let broken = |error: mk8s_pki::PkiError| Failure::new(error.to_string());
    let authority = ca::load(&settings.pki_dir(), "ca").map_err(broken)?;
    if arguments.groups.len() > 1 {
        return Err(Failure::new(
            "a certificate made here holds one group: give --groups one name",
        ));
    }
    let group = arguments.groups.first().map(String::as_str);
    let issued = issue::client(&authority, user, group, issue::LIFE).map_err(broken)?;
    let credential = Credential::Certificate {
        certificate_pem: &issued.certificate_pem,
        key_pem: &issued.key_pem,
    };
    let file = Kubeconfig::new(
        &settings.server,
        authority.certificate_pem(),
        "kubernetes",
        user,
        credential,
    );
    print!("{}", file.to_yaml().map_err(broken)?);
    Ok(())
}
