//! Users and groups of an image: its /etc/passwd and /etc/group, and how a container's user is found in them.

use std::collections::HashSet;

use super::{Security, SpecError};

/// The two files, parsed. Both may be missing in an image; then only numbers work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Who a container's process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

impl Accounts {
    /// Lines that are not well formed are passed over, as libc does.
    pub fn parse(passwd: &str, group: &str) -> Accounts {
        let users = passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
                return None;
            };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            Some(User {
                name: (*name).to_owned(),
                uid,
                gid,
                home: (*home).to_owned(),
            })
        });
        let groups = group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, ..] = fields.as_slice() else {
                return None;
            };
            let members = fields.get(3).copied().unwrap_or_default();
            let members = members
                .split(',')
                .map(str::trim)
                .filter(|m| !m.is_empty())
                .map(str::to_owned)
                .collect();
            Some(Group {
                name: (*name).to_owned(),
                gid: gid.parse().ok()?,
                members,
            })
        });
        Accounts {
            users: users.collect(),
            groups: groups.collect(),
        }
    }

    fn named(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    fn with_uid(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// The uid that an image's USER stands for; what runAsNonRoot asks. `None`: a name that the image doesn't know.
    pub fn uid_of(&self, user: &str) -> Option<u32> {
        let name = user.split(':').next().unwrap_or_default();
        match name {
            "" => Some(0),
            number if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
            name => self.named(name).map(|user| user.uid),
        }
    }

    /// $HOME of a user as containers of this image would have it.
    pub fn home_of(&self, uid: u32) -> Option<&str> {
        self.with_uid(uid).map(|user| user.home.as_str())
    }

    /// Resolves `user[:group]`, names or numbers.
    fn resolve(&self, user: &str) -> Result<(u32, u32), SpecError> {
        let mut parts = user.split(':');
        let (name, group) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() {
            return Err(SpecError::InvalidUser(user.to_owned()));
        }
        let (uid, own_gid) = match name.parse::<u32>() {
            Ok(uid) => (uid, self.with_uid(uid).map_or(0, |user| user.gid)),
            Err(_) if name.is_empty() => (0, self.with_uid(0).map_or(0, |user| user.gid)),
            Err(_) => {
                let found = self
                    .named(name)
                    .ok_or_else(|| SpecError::UnknownUser(name.to_owned()))?;
                (found.uid, found.gid)
            }
        };
        let gid = match group {
            None | Some("") => own_gid,
            Some(group) => match group.parse::<u32>() {
                Ok(gid) => gid,
                Err(_) => {
                    let found = self.groups.iter().find(|known| known.name == group);
                    found.ok_or_else(|| SpecError::UnknownGroup(group.to_owned()))?.gid
                }
            },
        };
        Ok((uid, gid))
    }

    /// Groups that list the user, by name or number. The group of the user's own name counts as any other (Docker and
    /// CRI-O have it so): containerd's CRI plugin passes it over, and with it the files that the image made for it.
    fn memberships(&self, uid: u32) -> impl Iterator<Item = u32> {
        let name = self.with_uid(uid).map(|user| user.name.as_str());
        let is_user = move |member: &String| Some(member.as_str()) == name || member.parse() == Ok(uid);
        let of_user = move |group: &&Group| group.members.iter().any(is_user);
        self.groups.iter().filter(of_user).map(|group| group.gid)
    }

    /// The process's user: what the pod says, else what the image says, else root. Own group first, then those of
    /// the image's /etc/group (unless the policy is Strict), then the pod's supplemental groups.
    pub(super) fn identity(&self, image_user: &str, security: &Security) -> Result<Identity, SpecError> {
        let asked = match (security.run_as_user, security.run_as_group) {
            (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
            (Some(uid), None) => uid.to_string(),
            // A group alone keeps the image's user.
            (None, Some(gid)) => format!("{}:{gid}", image_user.split(':').next().unwrap_or_default()),
            (None, None) => image_user.to_owned(),
        };
        let (uid, gid) = self.resolve(&asked)?;
        let mut additional_gids = vec![gid];
        let mut known = HashSet::from([gid]);
        let mut push = |gid: u32| {
            if known.insert(gid) {
                additional_gids.push(gid);
            }
        };
        if !security.strict_supplemental_groups {
            self.memberships(uid).for_each(&mut push);
        }
        security.supplemental_groups.iter().copied().for_each(&mut push);
        Ok(Identity {
            uid,
            gid,
            additional_gids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/false\nmongodb:x:999:65534::/:\nbroken\n";
    const GROUP: &str = "root:x:0:\nwebgrp:x:102:\nlogs:x:44:web,other\nroot-too:x:55:root\nmongodb:x:999:mongodb\nbackup:x:34:mongodb\nnumbers:x:70:5,999\n";

    #[test]
    fn a_user_is_in_every_group_that_the_image_lists_it_in() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        let who = |image: &str, user: Option<u32>, group: Option<u32>, extra: &[u32], strict: bool| {
            let security = Security {
                run_as_user: user,
                run_as_group: group,
                supplemental_groups: extra.to_vec(),
                strict_supplemental_groups: strict,
                ..Default::default()
            };
            accounts
                .identity(image, &security)
                .map(|i| (i.uid, i.gid, i.additional_gids))
        };
        assert_eq!(who("", None, None, &[], false), Ok((0, 0, vec![0, 55])));
        assert_eq!(who("web", None, None, &[], false), Ok((101, 102, vec![102, 44])));
        assert_eq!(who("web:logs", None, None, &[7], false), Ok((101, 44, vec![44, 7])));
        assert_eq!(who("web", Some(101), None, &[7, 7], true), Ok((101, 102, vec![102, 7])));
        // Its primary group is not that of its own name, which lists it nevertheless.
        let mongodb = |strict| who("mongodb", None, None, &[], strict);
        assert_eq!(mongodb(false), Ok((999, 65534, vec![65534, 999, 34, 70])));
        assert_eq!(mongodb(true), Ok((999, 65534, vec![65534])));
        assert_eq!(who("999", None, None, &[], false), mongodb(false));
        assert_eq!(who("5", None, None, &[], false), Ok((5, 0, vec![0, 70])));
        assert_eq!(who("web", Some(9), None, &[], false), Ok((9, 0, vec![0])));
        assert_eq!(who("web", Some(9), Some(8), &[], false), Ok((9, 8, vec![8])));
        assert_eq!(who("web", None, Some(8), &[], false), Ok((101, 8, vec![8, 44])));
        assert_eq!(
            who("nobody", None, None, &[], false),
            Err(SpecError::UnknownUser("nobody".into()))
        );
        assert_eq!(
            who("1:nope", None, None, &[], false),
            Err(SpecError::UnknownGroup("nope".into()))
        );
        assert_eq!(accounts.uid_of("web:x"), Some(101));
        assert_eq!(accounts.uid_of("ghost"), None);
    }
}
