//! Kubeconfig files: the copies of admin.conf that root and the sudo user get, and ones for other users.
//!
//! A home directory is its user's to fill with links, so that root does there only what the user could do too.

use std::path::{Path, PathBuf};

use mk8s_pki::kubeconfig::{Credential, Kubeconfig};
use mk8s_pki::{ca, files, issue};
use nix::unistd::{Gid, Uid, User, setfsgid, setfsuid};

use crate::cli;
use crate::failure::{Failure, Result};
use crate::settings::{ADMIN_CONF, Home, Role, Settings};

/// Beside a copy: the hash of what was written, so that an unmodified copy is known again.
const MARK: &str = ".mk8s-config.sha256";

/// Root's home, and that of who called sudo.
fn homes() -> Vec<Home> {
    let sudo_user = std::env::var("SUDO_USER").ok();
    let sudo_user = sudo_user.and_then(|name| User::from_name(&name).ok().flatten());
    let root = Home {
        directory: "/root".into(),
        uid: 0,
        gid: 0,
        made_directory: false,
    };
    let user = sudo_user.filter(|user| !user.uid.is_root()).map(|user| Home {
        directory: user.dir,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        made_directory: false,
    });
    std::iter::once(root).chain(user).collect()
}

/// Does something with the rights in the file system of the user whose home it is. They are the calling thread's, which
/// must not await in between.
fn in_home<T>(home: &Home, work: impl FnOnce(&Path) -> T) -> T {
    struct Back(Uid, Gid);
    impl Drop for Back {
        fn drop(&mut self) {
            setfsuid(self.0);
            setfsgid(self.1);
        }
    }
    // The group first: who is not root any more may not change it.
    let group = setfsgid(Gid::from_raw(home.gid));
    let _back = Back(setfsuid(Uid::from_raw(home.uid)), group);
    work(&home.directory.join(".kube"))
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

fn write_copy(directory: &Path, text: &str) -> Result<()> {
    files::write(&directory.join("config"), text.as_bytes(), 0o600)?;
    Ok(files::write(
        &directory.join(MARK),
        hash(text.as_bytes()).as_bytes(),
        0o600,
    )?)
}

/// Writes `~/.kube/config` where there is none, or an unmodified one of mk8s's, and notes in the settings for whom; returns
/// those that were left alone.
pub fn install_for_users(settings: &mut Settings, text: &str) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for mut home in homes().into_iter().filter(|home| home.directory.is_dir()) {
        let written = in_home(&home, |directory| {
            let config = directory.join("config");
            if config.symlink_metadata().is_ok() && !is_ours(directory) {
                left.push(config);
                return Ok(None);
            }
            let made_directory = !directory.exists();
            write_copy(directory, text).map(|()| Some(made_directory))
        });
        let Some(made_directory) = written? else { continue };
        let noted = settings.kubeconfigs.iter_mut().find(|noted| noted.uid == home.uid);
        if noted.is_none() {
            home.made_directory = made_directory;
            settings.kubeconfigs.push(home);
        }
    }
    Ok(left)
}

/// Gives the copies that their users did not change the text that admin.conf has now.
pub fn renew_copies(homes: &[Home], text: &str) {
    for home in homes {
        let renewed = in_home(home, |directory| match is_ours(directory) {
            true => write_copy(directory, text),
            false => Ok(()),
        });
        if let Err(failure) = renewed {
            tracing::warn!(home = %home.directory.display(), %failure, "the user's copy of admin.conf is not renewed");
        }
    }
}

/// Removes the copies that are still as mk8s wrote them, of all who got one, and of who calls.
pub fn remove_for_users(noted: &[Home]) {
    for home in noted.iter().chain(&homes()) {
        in_home(home, |directory| {
            if is_ours(directory) {
                let _ = std::fs::remove_file(directory.join("config"));
            }
            let _ = std::fs::remove_file(directory.join(MARK));
            if home.made_directory {
                let _ = std::fs::remove_dir(directory);
            }
        });
    }
}

/// `mk8s kubeconfig`: the administrator's file, or one with a certificate for a user.
pub async fn print(arguments: &cli::Kubeconfig) -> Result<()> {
    let settings = Settings::require(arguments.place.data_dir.as_deref())?;
    if settings.role != Role::Master {
        return Err(Failure::new(format!(
            "this host is a worker; kubeconfigs are on the master, {}",
            settings.server()
        )));
    }
    let Some(user) = &arguments.user else {
        print!("{}", crate::remote::read(ADMIN_CONF.as_ref())?);
        return Ok(());
    };
    let authority = ca::load(&settings.pki_dir(), "ca")?;
    if arguments.groups.len() > 1 {
        return Err(Failure::new(
            "a certificate made here holds one group: give --groups one name",
        ));
    }
    let group = arguments.groups.first().map(String::as_str);
    let issued = issue::client(&authority, user, group, issue::LIFE)?;
    let credential = Credential::Certificate {
        certificate_pem: &issued.certificate_pem,
        key_pem: &issued.key_pem,
    };
    let file = Kubeconfig::new(
        settings.server(),
        authority.certificate_pem(),
        "kubernetes",
        user,
        credential,
    );
    print!("{}", file.to_yaml()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    /// A user puts links where root writes a copy, gives it away, or removes it: root's files stay root's, and whole.
    #[test]
    fn links_in_a_home_lead_root_nowhere() {
        assert!(Uid::effective().is_root(), "this test acts as two users");
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (roots, directory) = (dir.path().join("roots"), dir.path().join("home"));
        std::fs::create_dir(&roots).unwrap();
        std::fs::create_dir(&directory).unwrap();
        chown(&directory, Some(4242), Some(4242)).unwrap();
        let home = Home {
            directory: directory.clone(),
            uid: 4242,
            gid: 4242,
            made_directory: true,
        };
        // The directory is a link to one of root's.
        symlink(&roots, directory.join(".kube")).unwrap();
        assert!(in_home(&home, |directory| write_copy(directory, "secret")).is_err());
        assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 0);
        // So it is when a copy of mk8s's is to be removed.
        write_copy(&roots, "secret").unwrap();
        remove_for_users(std::slice::from_ref(&home));
        assert!(roots.join("config").exists() && is_ours(&roots));

        std::fs::remove_file(directory.join(".kube")).unwrap();
        in_home(&home, |directory| write_copy(directory, "secret")).unwrap();
        let written = std::fs::metadata(directory.join(".kube/config")).unwrap();
        assert_eq!(
            (written.uid(), written.gid(), written.mode() & 0o777),
            (4242, 4242, 0o600)
        );
        renew_copies(std::slice::from_ref(&home), "fresh");
        assert_eq!(
            std::fs::read_to_string(directory.join(".kube/config")).unwrap(),
            "fresh"
        );
        std::fs::write(directory.join(".kube/config"), "changed").unwrap();
        renew_copies(std::slice::from_ref(&home), "fresh");
        assert_eq!(
            std::fs::read_to_string(directory.join(".kube/config")).unwrap(),
            "changed"
        );
        in_home(&home, |directory| write_copy(directory, "again")).unwrap();
        remove_for_users(std::slice::from_ref(&home));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
}
