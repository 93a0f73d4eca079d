//! Kubeconfig files: the copies of admin.conf that root and the sudo user get, and ones for other users.
//!
//! A home directory is its user's to fill with links, pipes and whole disks, so that root does there only what the user could
//! do too, follows no link below it, and reads no more than a kubeconfig can be.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use mk8s_dirfd::{Dir, found};
use mk8s_pki::kubeconfig::{Credential, Kubeconfig};
use mk8s_pki::{ca, issue};
use nix::unistd::{Gid, Uid, User, setfsgid, setfsuid, setgroups};

use crate::cli;
use crate::failure::{Failure, Result};
use crate::settings::{ADMIN_CONF, Home, Role, Settings};

/// In every home.
const DIRECTORY: &str = ".kube";
const COPY: &str = "config";
/// Beside a copy: the hashes, a line each, of what was written, so that an unmodified copy is known again.
const MARK: &str = ".mk8s-config.sha256";
/// What is longer is no copy of mk8s's.
const LIMIT: u64 = 1 << 20;

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
fn in_home<T>(home: &Home, work: impl FnOnce(&Home) -> Result<T>) -> Result<T> {
    struct Back(Uid, Gid);
    impl Drop for Back {
        fn drop(&mut self) {
            setfsuid(self.0);
            setfsgid(self.1);
        }
    }
    // Those of root are the whole process's, which needs none of them: they are not taken again.
    setgroups(&[]).map_err(|error| Failure::of("give up the supplementary groups", error))?;
    // The group first: who is not root any more may not change it.
    let group = setfsgid(Gid::from_raw(home.gid));
    let _back = Back(setfsuid(Uid::from_raw(home.uid)), group);
    // Neither says whether it was done: what it is now is what another call finds.
    let now = (setfsuid(Uid::from_raw(home.uid)), setfsgid(Gid::from_raw(home.gid)));
    if now != (Uid::from_raw(home.uid), Gid::from_raw(home.gid)) {
        let user = home.uid;
        return Err(Failure::new(format!(
            "this host can't act as the user {user}: its home is left alone"
        )));
    }
    work(home)
}

fn hash(text: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of the user's own, if it is one and no longer than a kubeconfig can be.
fn read(directory: &Dir, name: &str, home: &Home) -> Option<Vec<u8>> {
    let file = directory.file(name).ok()?;
    let about = file.metadata().ok()?;
    let mut bytes = Vec::new();
    let fits = about.is_file() && about.uid() == home.uid && about.len() <= LIMIT;
    // It may grow while it is read.
    let read = fits.then(|| file.take(LIMIT + 1).read_to_end(&mut bytes))?;
    (read.ok()? as u64 <= LIMIT).then_some(bytes)
}

fn is_ours(directory: &Dir, home: &Home) -> bool {
    let (config, mark) = (read(directory, COPY, home), read(directory, MARK, home));
    let (Some(config), Some(mark)) = (config, mark) else {
        return false;
    };
    let own = hash(&config);
    mark.split(|byte| *byte == b'\n').any(|known| known == own.as_bytes())
}

/// A name that is nobody else's, for what is not whole yet.
fn fresh(name: &str) -> String {
    format!(".mk8s-new.{name}")
}

/// Whole or not at all.
fn write(directory: &Dir, name: &str, bytes: &[u8]) -> Result<()> {
    let fresh = fresh(name);
    found(directory.remove_file(&fresh))?;
    let file = directory.create_file(&fresh, bytes, 0o600, None, None)?;
    let synced = file.sync_all();
    synced.map_err(|error| Failure::of(format!("write {}", directory.path().join(&fresh).display()), error))?;
    Ok(directory.rename(&fresh, name)?)
}

/// Writes a copy where there is none of others'. The mark first, and in it what stands there still: wherever this is
/// interrupted, the copy is known.
fn write_copy(directory: &Dir, home: &Home, text: &str) -> Result<()> {
    let standing = read(directory, COPY, home);
    let known: Vec<String> = standing
        .iter()
        .map(Vec::as_slice)
        .chain([text.as_bytes()])
        .map(hash)
        .collect();
    write(directory, MARK, known.join("\n").as_bytes())?;
    write(directory, COPY, text.as_bytes())
}

/// `.kube` of a home, if there is one.
fn open(home: &Home) -> Result<Option<Dir>> {
    Ok(found(Dir::open(&home.directory)?.dir(DIRECTORY))?)
}

/// Whether there is something of the name of `.kube`.
fn has_directory(home: &Home) -> Result<bool> {
    Ok(found(Dir::open(&home.directory)?.stat_of(DIRECTORY))?.is_some())
}

/// Writes a copy where there is none, or an unmodified one of mk8s's.
fn install(home: &Home, text: &str) -> Result<()> {
    let (directory, _) = Dir::open(&home.directory)?.ensure_dir(DIRECTORY, 0o700)?;
    if found(directory.stat_of(COPY))?.is_some() && !is_ours(&directory, home) {
        return Err(Failure::new("mk8s did not write it"));
    }
    write_copy(&directory, home, text)
}

/// Gives users a copy; returns those that were left alone, and why. For whom is noted in the settings, and saved before
/// the first is written: a reset finds those that an interrupted set-up wrote.
pub fn install_for_users(settings: &mut Settings, text: &str) -> Result<Vec<(PathBuf, Failure)>> {
    let earlier: Vec<u32> = settings.kubeconfigs.iter().map(|home| home.uid).collect();
    for mut home in homes().into_iter().filter(|home| home.directory.is_dir()) {
        if !settings.kubeconfigs.iter().any(|noted| noted.uid == home.uid) {
            home.made_directory = !in_home(&home, has_directory).unwrap_or(true);
            settings.kubeconfigs.push(home);
        }
    }
    settings.save()?;
    let mut left = Vec::new();
    settings.kubeconfigs.retain(|home| {
        let installed = in_home(home, |home| install(home, text));
        let failed = installed.map_err(|failure| (home.directory.join(DIRECTORY).join(COPY), failure));
        failed.map_err(|failed| left.push(failed)).is_ok() || earlier.contains(&home.uid)
    });
    Ok(left)
}

/// Gives the copies that their users did not change the text that admin.conf has now.
pub fn renew_copies(homes: &[Home], text: &str) {
    let renew = |home: &Home| match open(home)? {
        Some(directory) if is_ours(&directory, home) => write_copy(&directory, home, text),
        _ => Ok(()),
    };
    for home in homes {
        if let Err(failure) = in_home(home, renew) {
            tracing::warn!(home = %home.directory.display(), %failure, "the user's copy of admin.conf is not renewed");
        }
    }
}

/// Removes the copies that are still as mk8s wrote them, of all who got one, and of who calls. A home that does not let it
/// ends no reset.
pub fn remove_for_users(noted: &[Home]) {
    for home in noted.iter().chain(&homes()).filter(|home| home.directory.is_dir()) {
        if let Err(failure) = in_home(home, remove) {
            eprintln!("[reset] {failure}");
        }
    }
}

fn remove(home: &Home) -> Result<()> {
    let Some(directory) = open(home)? else { return Ok(()) };
    if is_ours(&directory, home) {
        found(directory.remove_file(COPY))?;
    }
    for name in [MARK, &fresh(MARK), &fresh(COPY)] {
        found(directory.remove_file(name))?;
    }
    if home.made_directory {
        // Not where others have something in it: kubectl keeps its cache there.
        let _ = Dir::open(&home.directory)?.remove_dir(DIRECTORY);
    }
    Ok(())
}

/// Refuses a name that no certificate can have so that its holder is known by it.
fn name_of_a_subject(name: &str) -> Result<()> {
    // X.509's own limit is 64 characters, which nobody keeps, since nodes' names are longer.
    const LONGEST: usize = 253;
    if name.trim().is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
        return Err(Failure::new(format!(
            "--user and --groups take names of 1 to {LONGEST} characters that can be printed"
        )));
    }
    Ok(())
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
    for name in std::iter::once(user).chain(&arguments.groups) {
        name_of_a_subject(name)?;
    }
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
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::Path;

    use nix::sys::stat::Mode;

    use super::*;

    const USER: u32 = 4242;

    #[test]
    fn a_name_that_nobody_could_log_in_by_is_refused() {
        for (name, good) in [
            ("jane", true),
            ("system:serviceaccount:a:b", true),
            ("Zoë", true),
            ("", false),
            (" ", false),
            ("a\nb", false),
            (&"x".repeat(254), false),
        ] {
            assert_eq!(name_of_a_subject(name).is_ok(), good, "{name:?}");
        }
    }

    /// A folder that all may look into, and a user's home and a folder of root's in it.
    fn a_home() -> (tempfile::TempDir, Home, PathBuf) {
        assert!(Uid::effective().is_root(), "this test acts as two users");
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (roots, directory) = (dir.path().join("roots"), dir.path().join("home"));
        fs::create_dir(&roots).unwrap();
        fs::create_dir(&directory).unwrap();
        chown(&directory, Some(USER), Some(USER)).unwrap();
        let home = Home {
            directory,
            uid: USER,
            gid: USER,
            made_directory: true,
        };
        (dir, home, roots)
    }

    fn put(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        chown(path, Some(USER), Some(USER)).unwrap();
    }

    #[test]
    fn a_copy_is_the_users_until_they_change_it() {
        let (_dir, home, _) = a_home();
        let copy = home.directory.join(".kube/config");
        in_home(&home, |home| install(home, "secret")).unwrap();
        let written = fs::metadata(&copy).unwrap();
        assert_eq!(
            (written.uid(), written.gid(), written.mode() & 0o777),
            (USER, USER, 0o600)
        );
        // A file of the user's own, of a name that others use for what is half written.
        put(&home.directory.join(".kube/config.new"), "mine");
        renew_copies(std::slice::from_ref(&home), "fresh");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "fresh");
        fs::write(&copy, "changed").unwrap();
        renew_copies(std::slice::from_ref(&home), "again");
        assert!(in_home(&home, |home| install(home, "again")).is_err());
        assert_eq!(fs::read_to_string(&copy).unwrap(), "changed");
        fs::remove_file(&copy).unwrap();
        in_home(&home, |home| install(home, "again")).unwrap();
        assert_eq!(
            fs::read_to_string(home.directory.join(".kube/config.new")).unwrap(),
            "mine"
        );
        fs::remove_file(home.directory.join(".kube/config.new")).unwrap();
        remove_for_users(std::slice::from_ref(&home));
        assert_eq!(fs::read_dir(&home.directory).unwrap().count(), 0);
    }

    /// Killed before the first, between the two, and in each of the two writes.
    #[test]
    fn what_a_killed_write_left_is_removed() {
        let (_dir, home, _) = a_home();
        let kube = home.directory.join(".kube");
        in_home(&home, |home| install(home, "secret")).unwrap();
        let marks = |kube: &Path| fs::read_to_string(kube.join(MARK)).unwrap();
        // The mark of a renewal is there, and its copy is not.
        let old = marks(&kube);
        renew_copies(std::slice::from_ref(&home), "fresh");
        put(&kube.join(COPY), "secret");
        assert!(marks(&kube).contains(&old) && is_ours(&open(&home).unwrap().unwrap(), &home));
        renew_copies(std::slice::from_ref(&home), "fresh");
        assert_eq!(fs::read_to_string(kube.join(COPY)).unwrap(), "fresh");
        for name in [fresh(COPY), fresh(MARK)] {
            put(&kube.join(name), "secret");
        }
        remove_for_users(std::slice::from_ref(&home));
        assert_eq!(fs::read_dir(&home.directory).unwrap().count(), 0);
    }

    /// The directory is a link: to one of root's, or to one of the user's own.
    #[test]
    fn a_linked_directory_leads_root_nowhere() {
        let (_dir, home, roots) = a_home();
        let theirs = home.directory.join("theirs");
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(USER), Some(USER)).unwrap();
        for target in [&roots, &theirs] {
            let kube = home.directory.join(".kube");
            symlink(target, &kube).unwrap();
            assert!(in_home(&home, |home| install(home, "secret")).is_err());
            assert_eq!(fs::read_dir(target).unwrap().count(), 0);
            write_copy(&Dir::open(target).unwrap(), &home, "secret").unwrap();
            remove_for_users(std::slice::from_ref(&home));
            assert_eq!(fs::read_dir(target).unwrap().count(), 2);
            fs::remove_file(kube).unwrap();
        }
    }

    /// What stands under the two names is no file of the user's own of a kubeconfig's length: nothing is done to it, nor is
    /// it waited for.
    #[test]
    fn what_is_no_copy_is_left_alone() {
        let (_dir, home, roots) = a_home();
        in_home(&home, |home| install(home, "secret")).unwrap();
        let kube = home.directory.join(".kube");
        let secret = roots.join("secret");
        fs::write(&secret, "secret").unwrap();
        let long = "x".repeat(LIMIT as usize + 1);
        type Case<'a> = (&'a str, &'a dyn Fn(&Path));
        let cases: [Case<'_>; 5] = [
            ("a pipe", &|path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap()),
            ("a link to root's file", &|path| symlink(&secret, path).unwrap()),
            ("root's file", &|path| fs::hard_link(&secret, path).unwrap()),
            ("a directory", &|path| fs::create_dir(path).unwrap()),
            ("a long file", &|path| put(path, &long)),
        ];
        for (what, make) in cases {
            let copy = kube.join(COPY);
            fs::remove_file(&copy).or_else(|_| fs::remove_dir(&copy)).unwrap();
            make(&copy);
            put(
                &kube.join(MARK),
                &hash(if what == "a long file" {
                    long.as_bytes()
                } else {
                    b"secret"
                }),
            );
            let before = fs::symlink_metadata(&copy).unwrap();
            assert!(!is_ours(&open(&home).unwrap().unwrap(), &home), "{what}");
            assert!(in_home(&home, |home| install(home, "again")).is_err(), "{what}");
            renew_copies(std::slice::from_ref(&home), "again");
            remove_for_users(std::slice::from_ref(&home));
            let after = fs::symlink_metadata(&copy).unwrap();
            assert_eq!((after.ino(), after.len()), (before.ino(), before.len()), "{what}");
        }
        assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
    }
}
