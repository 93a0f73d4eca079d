//! Is this still the database that there was? Asked before it is opened, since opening it is writing: sled's recovery
//! overwrites what comes after the first part of its log that it cannot read. So a copy is opened and read from end to end,
//! and only where that holds what the mark says is the database itself touched.
//!
//! What is seen: a database that is missing or empty, another one in its place, one that lost its newest writes, one that
//! cannot be read, and after a clean stop each object that is missing or older. What is not: after kill -9 or a power cut, an
//! old object or an old value of one that sled's recovery passed over without a word, since by then the mark is older than
//! the database; and the loss of writes that are younger than the mark, of a minute at most.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use mk8s_supervisor::job;

use super::mark::{Content, Mark};
use super::sled::{FORMAT, FORMAT_KEY, REVISION_KEY, SledEngine, io, lock, read_u64};
use super::{Engine as _, EngineError, format1};
use crate::Terms;

/// Where the copy is, in the store's folder.
const COPY: &str = "check";
/// Reading a damaged copy may find no end: sled follows links between its pages. Far more than reading takes.
const PATIENCE: Duration = Duration::from_secs(60);
const BYTES_PER_SECOND: u64 = 4 << 20;

/// What was found in a database.
#[derive(Default)]
struct Found {
    format: Option<u64>,
    id: Option<String>,
    revision: u64,
    content: Content,
    /// Of format 1, which no mark counts.
    old: bool,
}

/// How a database that was not refused is to be opened.
pub(super) enum Checked {
    Whole,
    /// There was no room for a copy. A start may be what makes room, so it is opened all the same, and asked then.
    Not(Option<Mark>),
}

/// Refuses a database that is not what there was, or is not there. Leaves it as it is.
pub(super) fn check(dir: &Path, terms: &Terms) -> Result<Checked, EngineError> {
    let refused = |why: String| EngineError::Refused {
        path: dir.to_path_buf(),
        why,
    };
    let mark = match Mark::read(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(refused("has a file `mark` that is damaged".into()));
        }
        read => read.map_err(io(dir, "read the mark in"))?,
    };
    if mark.is_none() && terms.begins {
        return Ok(Checked::Whole);
    }
    let database = dir.join("db");
    if !database.try_exists().map_err(io(dir, "look for the database in"))? {
        return Err(refused("holds no database, and there was one".into()));
    }
    // Nobody writes while it is copied; where another process has it, opening it will say so.
    let Some(locked) = lock(&database) else {
        return Ok(Checked::Whole);
    };
    let copy = match Copy::of(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            tracing::warn!("store: no room for a copy of the database: it is opened unchecked");
            return Ok(Checked::Not(mark));
        }
        copy => copy.map_err(io(dir, "make a copy to check in"))?,
    };
    let found = read_whole(&copy, dir)?.map_err(refused)?;
    drop((copy, locked));
    match found.format {
        Some(format) if format > FORMAT => Err(EngineError::newer(dir, format)),
        _ => judge(&found, mark.as_ref(), terms)
            .map_err(refused)
            .map(|()| Checked::Whole),
    }
}

/// The same of one that is open already.
pub(super) fn check_opened(
    engine: &SledEngine,
    content: Content,
    mark: Option<&Mark>,
    terms: &Terms,
) -> Result<(), EngineError> {
    let found = Found {
        format: Some(FORMAT),
        id: engine.id()?,
        revision: engine.revision(),
        content,
        old: false,
    };
    judge(&found, mark, terms).map_err(|why| engine.refused(why))
}

fn judge(found: &Found, mark: Option<&Mark>, terms: &Terms) -> Result<(), String> {
    if found.format.is_none() {
        return Err("holds an empty database, and there was one with objects".into());
    }
    let Some(mark) = mark else {
        let empty = found.content.keys == 0 && !found.old;
        return if empty { Err("holds no object".into()) } else { Ok(()) };
    };
    if !mark.owner.is_empty() && !terms.owner.is_empty() && mark.owner != terms.owner {
        return Err(format!(
            "is another cluster's: that of {}, and this is that of {}",
            mark.owner, terms.owner
        ));
    }
    if found.id.as_deref() != Some(&mark.id) {
        return Err("holds another database than there was".into());
    }
    if found.revision < mark.revision {
        return Err(format!(
            "has lost acknowledged writes: it holds those up to revision {}, and there were {}",
            found.revision, mark.revision
        ));
    }
    match mark.content {
        Some(content) if found.revision == mark.revision && found.content != content => Err(format!(
            "has lost objects, or newer states of them: it holds {}, and there were {}",
            found.content.keys, content.keys
        )),
        _ => Ok(()),
    }
}

/// Reads a copy of `dir` from end to end, within a time. The inner error: what is wrong with it, in words.
fn read_whole(copy: &Copy, dir: &Path) -> Result<Result<Found, String>, EngineError> {
    let (result, results) = sync_channel(1);
    let (path, time) = (
        copy.path.clone(),
        PATIENCE + Duration::from_secs(copy.bytes / BYTES_PER_SECOND),
    );
    let reader = job::thread("store-check", move || {
        let _ = result.send(read(&path));
    });
    let reader = reader.map_err(io(dir, "start a thread for"))?;
    let unreadable = |why: String| Ok(Err(format!("cannot be read: {why}")));
    match results.recv_timeout(time) {
        Ok(Ok(found)) => Ok(Ok(found)),
        Ok(Err(EngineError::Io { what, source, .. })) => Err(io(dir, what)(source)),
        Ok(Err(EngineError::Sled { source, .. })) => unreadable(source.to_string()),
        Ok(Err(EngineError::Damaged { key, why, .. })) => unreadable(format!("record {key}: {why}")),
        Ok(Err(other)) => Err(other),
        Err(RecvTimeoutError::Timeout) => unreadable("reading it does not come to an end".into()),
        // A panic: sled's answer to what it did not expect.
        Err(RecvTimeoutError::Disconnected) => {
            let ended = reader.join();
            unreadable(ended.err().map_or_else(String::new, |error| error.to_string()))
        }
    }
}

fn read(dir: &Path) -> Result<Found, EngineError> {
    let engine = SledEngine::bare(dir)?;
    let db = engine.db();
    let number = |key| read_u64(db, key).map_err(engine.failed("read"));
    let mut found = Found {
        format: number(FORMAT_KEY)?,
        revision: number(REVISION_KEY)?.unwrap_or(0),
        id: engine.id()?,
        ..Found::default()
    };
    // Every page has a checksum, which reading it verifies.
    let (mut chunks, mut counted) = (0, 0);
    for record in db.iter() {
        let (key, value) = record.map_err(engine.failed("read"))?;
        match key.first() {
            Some(&super::sled::VALUE) => {
                let (name, revisions) = engine.indexed(&key, &value)?;
                found.revision = found.revision.max(revisions.modified);
                found.content.add(&name, revisions);
                counted += u64::from(revisions.chunks);
            }
            Some(&super::sled::CHUNK) => chunks += 1,
            Some(&format1::OBJECT) => found.old = true,
            _ => {}
        }
    }
    if chunks < counted {
        return Err(engine.damaged(b"of a large value", "a chunk is missing"));
    }
    Ok(found)
}

/// A copy of a store's files, for the time of a look.
struct Copy {
    path: PathBuf,
    bytes: u64,
}

impl Copy {
    fn of(dir: &Path) -> std::io::Result<Copy> {
        let path = dir.join(COPY);
        remove(&path)?;
        // From here on its end is seen to.
        let mut copy = Copy { path, bytes: 0 };
        std::fs::create_dir(&copy.path)?;
        copy.take(dir, PathBuf::new())?;
        Ok(copy)
    }

    /// sled's files: its log, its settings, its snapshot; and the folder of large leaves that format 1 had.
    fn take(&mut self, from: &Path, to: PathBuf) -> std::io::Result<()> {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let known = name.to_str().is_some_and(|name| {
                name == "db"
                    || name == "conf"
                    || name == "blobs"
                    || name.starts_with("snap.")
                    || !to.as_os_str().is_empty()
            });
            let target = self.path.join(&to).join(&name);
            if known && kind.is_dir() && to.as_os_str().is_empty() {
                std::fs::create_dir(&target)?;
                self.take(&entry.path(), PathBuf::from(&name))?;
            } else if known && kind.is_file() {
                self.bytes += std::fs::copy(entry.path(), target)?;
            }
        }
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "store: the copy that was checked stays");
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
