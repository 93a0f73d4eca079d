//! The mark beside the database: what was known to be durable at some time, so that a later start sees whether it still is.
//! sled's recovery ends in silence at the first part of its log that it cannot read, and what is left may look like a smaller
//! database, or an empty one. The mark is written with each opening and each clean stop, and now and then between: what it
//! says was on disk before it was written, so that a power cut is never taken for damage.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::Revisions;

/// Its name in the store's folder; so it goes along when the folder is copied.
pub(super) const NAME: &str = "mark";
/// Its first line: others' files are not read as one.
const HEADER: &str = "mk8s-store-mark 1";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The database's own, which stands in it too.
    pub id: String,
    /// Whose database it is, in its owner's words; empty: nobody said.
    pub owner: String,
    /// Durable when this was written.
    pub revision: u64,
    /// What there was at that revision; none where nobody took the time to count.
    pub content: Option<Content>,
}

/// All keys and their revisions, as a number: equal contents have equal ones, others almost never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub keys: u64,
    sum: u64,
}

impl Content {
    pub fn add(&mut self, key: &str, revisions: Revisions) {
        let numbers = [revisions.create, revisions.modified, u64::from(revisions.chunks)];
        let bytes = key.bytes().chain(numbers.into_iter().flat_map(u64::to_be_bytes));
        // FNV-1a; in whatever order they come the sum is the same.
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.keys += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    pub fn of<'a>(index: impl IntoIterator<Item = (&'a std::sync::Arc<str>, &'a Revisions)>) -> Content {
        let mut content = Content::default();
        for (key, revisions) in index {
            content.add(key, *revisions);
        }
        content
    }
}

impl Mark {
    /// The mark in a folder; none where there is none. An error of kind InvalidData: it is not one.
    pub fn read(dir: &Path) -> std::io::Result<Option<Mark>> {
        match std::fs::read(dir.join(NAME)) {
            Ok(bytes) => {
                let mark = std::str::from_utf8(&bytes).ok().and_then(Mark::parse);
                mark.map(Some).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts it in the place of the one before, durably: whenever the power goes, one of the two is there.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        let new = dir.join(format!("{NAME}.new"));
        let mut file = File::create(&new)?;
        file.write_all(self.print().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, dir.join(NAME))?;
        File::open(dir)?.sync_all()
    }

    fn print(&self) -> String {
        let Mark {
            id, owner, revision, ..
        } = self;
        let content = self.content.map(|Content { keys, sum }| format!("{keys} {sum:016x}"));
        let content = content.unwrap_or_default();
        format!("{HEADER}\nid {id}\nowner {owner}\nrevision {revision}\ncontent {content}\n")
    }

    fn parse(text: &str) -> Option<Mark> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        (lines.next()? == HEADER).then_some(())?;
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let (id, owner, revision, content) = (field("id")?, field("owner")?, field("revision")?, field("content")?);
        let content = match content.split_once(' ') {
            Some((keys, sum)) => Some(Content {
                keys: keys.parse().ok()?,
                sum: u64::from_str_radix(sum, 16).ok()?,
            }),
            None if content.is_empty() => None,
            None => return None,
        };
        Some(Mark {
            id: id.into(),
            owner: owner.into(),
            revision: revision.parse().ok()?,
            content,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), None);
        for content in [None, Some(Content { keys: 3, sum: u64::MAX })] {
            let mark = Mark {
                id: "one".into(),
                owner: String::new(),
                revision: 12,
                content,
            };
            mark.write(dir.path()).unwrap();
            assert_eq!(Mark::read(dir.path()).unwrap(), Some(mark));
        }
        let whole = std::fs::read(dir.path().join(NAME)).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(dir.path().join(NAME), &whole[..cut]).unwrap();
            assert!(Mark::read(dir.path()).is_err(), "{cut} of {} bytes", whole.len());
        }
    }

    #[test]
    fn contents_differ_in_each_part() {
        let revisions = |create, modified| Revisions {
            create,
            modified,
            chunks: 0,
        };
        let of = |entries: &[(&str, u64, u64)]| {
            let mut content = Content::default();
            for (key, create, modified) in entries {
                content.add(key, revisions(*create, *modified));
            }
            content
        };
        let whole = of(&[("a", 1, 1), ("b", 2, 3)]);
        assert_eq!(whole, of(&[("b", 2, 3), ("a", 1, 1)]));
        for other in [
            of(&[("a", 1, 1)]),
            of(&[("a", 1, 1), ("b", 2, 2)]),
            of(&[("a", 1, 1), ("c", 2, 3)]),
            of(&[("a", 1, 1), ("b", 1, 3)]),
        ] {
            assert_ne!(whole, other);
        }
    }
}
