//! The embedded engine. sled 0.34 has sharp edges that are designed around here:
//! `flush` alone is no fsync (so the log file is synced on our own descriptor), leaves above 128 KiB become blob files that
//! are neither synced nor removed (so values are cut into chunks), an unfinished `snap.*.generating` blocks opening (so it is removed first), and
//! single inserts can tear in a crash (so everything goes through `apply_batch`). Finished `snap.*` files must stay: they
//! look like an accelerator, but without them recovery after a crash cuts the log too early and loses acknowledged
//! writes (the crash test shows it within a hundred kills). A write that fails poisons the whole database until it is
//! opened again (so room on the disk is claimed before sled is asked to use it).

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice};

use super::inspect::Checked;
use super::mark::{Content, Mark};
use super::sled_faults::{self, FlushWatch};
use super::{Engine, EngineError, Index, Opened, Revisions, Write, WriteChange};
use super::{format1, inspect};
use crate::{Entry, Terms, value};

pub(super) const FORMAT: u64 = 2;
pub(super) const FORMAT_KEY: &[u8] = b"m/format";
/// The last revision, where no stored value has it: the last transaction of a batch was a delete. Any batch would do for
/// writing it, but the leaf that it is in is written whole every few times.
pub(super) const REVISION_KEY: &[u8] = b"m/revision";
/// The database's own name, random.
pub(super) const ID_KEY: &[u8] = b"m/id";
/// Values are under `v` + key; what does not fit into the first record is under `w` + key + NUL + number. (`o` and `p`
/// were these of format 1.)
pub(super) const VALUE: u8 = b'v';
pub(super) const CHUNK: u8 = b'w';
/// sled writes leaves whole, of up to some twenty records, and what is larger than 128 KiB into a blob file of its own, which
/// it never syncs and seldom removes. No leaf becomes as large.
pub(super) const CHUNK_BYTES: usize = 6 * 1024;
/// Every object is in the watch cache too; sled's own cache only has to hold the pages under change.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// sled notes which pages are used, and throws some out, when it has so many notes for one of its 256 shards of pages.
const NOTES: usize = 64;
/// Room that is claimed beyond the log's end: what a batch's values may become (leaves are written whole), and some
/// segments of half a MiB, so that it is not asked for at each batch.
const ROOM_PER_BYTE: u64 = 4;
const ROOM: u64 = 2 * 1024 * 1024;

pub(crate) struct SledEngine {
    watch: FlushWatch,
    config: sled::Config,
    db: sled::Db,
    log: File,
    path: PathBuf,
    /// As in the database, and in its mark.
    id: String,
    owner: String,
    revision: u64,
    /// The end of what is claimed of the disk, and the log's length when it was last looked at.
    claimed: (u64, u64),
    /// For the keys of records, one after the other.
    scratch: Vec<u8>,
}

impl SledEngine {
    /// Opens what is there, if it is what there was; see [`inspect`].
    pub fn open(dir: &Path, terms: &Terms) -> Result<Opened, EngineError> {
        let checked = inspect::check(dir, terms)?;
        let (engine, index) = SledEngine::opened(dir, terms)?;
        let content = Content::of(index.iter().map(|(key, revisions)| (key, revisions)));
        if let Checked::Not(mark) = &checked {
            inspect::check_opened(&engine, content, mark.as_ref(), terms)?;
        }
        match engine.mark(Some(content)) {
            Err(error) if !matches!(checked, Checked::Whole) => tracing::warn!(%error, "store: no mark is written"),
            marked => marked?,
        }
        Ok(Opened {
            engine: Box::new(engine),
            index,
        })
    }

    fn opened(dir: &Path, terms: &Terms) -> Result<(SledEngine, Index), EngineError> {
        let mut engine = SledEngine::bare(dir)?;
        engine.prepare(terms)?;
        let index = engine.index()?;
        let newest = index.iter().map(|(_, revisions)| revisions.modified).max();
        let written = read_u64(&engine.db, REVISION_KEY).map_err(engine.failed("read the revision"))?;
        engine.revision = newest.max(written).unwrap_or(0);
        Ok((engine, index))
    }

    /// Whatever is there, as it is.
    pub(super) fn bare(dir: &Path) -> Result<SledEngine, EngineError> {
        let io = |what| io(dir, what);
        std::fs::create_dir_all(dir).map_err(io("create"))?;
        remove_unfinished_snapshots(dir).map_err(io("remove unfinished snapshots in"))?;
        // Given back at once: sled takes it itself.
        drop(lock(&dir.join("db")));
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = config.open().map_err(failed(dir, "open the database"))?;
        let watch = FlushWatch::start(config.clone(), db.clone());
        let log = File::open(dir.join("db")).map_err(io("open the log file in"))?;
        Ok(SledEngine {
            watch: watch.map_err(io("start a thread for"))?,
            config,
            db,
            log,
            path: dir.to_path_buf(),
            id: String::new(),
            owner: String::new(),
            revision: 0,
            claimed: (0, 0),
            scratch: Vec::new(),
        })
    }

    /// Opens what failed. What the system could not write it may still hold in memory, and forget later: only what a read
    /// from the disk finds counts.
    pub fn reopen(dir: &Path, terms: &Terms) -> Result<Opened, EngineError> {
        let io = |what| io(dir, what);
        // sled is asked only when the disk takes something: an attempt that fails may cost the memory of a database.
        write_scratch(dir).map_err(io("claim room in"))?;
        let log = File::options().write(true).open(dir.join("db"));
        let log = log.map_err(io("open the log file in"))?;
        log.sync_data().map_err(io("sync the log file in"))?;
        nix::fcntl::posix_fadvise(&log, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|errno| io("drop what is cached of the log file in")(errno.into()))?;
        let terms = Terms {
            begins: false,
            ..terms.clone()
        };
        let (engine, index) = SledEngine::opened(dir, &terms)?;
        Ok(Opened {
            engine: Box::new(engine),
            index,
        })
    }

    /// Marks a new database with its format and a name of its own, and converts an old one.
    fn prepare(&mut self, terms: &Terms) -> Result<(), EngineError> {
        let found = read_u64(&self.db, FORMAT_KEY).map_err(self.failed("read the format"))?;
        match found {
            None if !terms.begins => {
                return Err(self.refused("holds an empty database".into()));
            }
            None => {
                self.mark_format()?;
                let dir = File::open(&self.path).and_then(|dir| dir.sync_all());
                dir.map_err(io(&self.path, "sync"))?;
            }
            Some(found) if found > FORMAT => return Err(EngineError::newer(&self.path, found)),
            // A conversion that was broken off has left the mark, and records of the old format.
            Some(_) => format1::convert(self, &mut |_| {})?,
        }
        self.id = match self.id()? {
            Some(id) => id,
            None => {
                let id = uuid::Uuid::new_v4().to_string();
                let mut named = sled::Batch::default();
                named.insert(ID_KEY, id.as_bytes());
                self.write(named)?;
                id
            }
        };
        self.owner.clone_from(&terms.owner);
        Ok(())
    }

    /// The database's own name, which those of earlier versions lack.
    pub(super) fn id(&self) -> Result<Option<String>, EngineError> {
        let id = self.db.get(ID_KEY).map_err(self.failed("read"))?;
        let id = id.map(|id| String::from_utf8(id.to_vec()));
        id.transpose().map_err(|_| self.damaged(ID_KEY, "it is not UTF-8"))
    }

    pub(super) fn mark_format(&self) -> Result<(), EngineError> {
        let mut mark = sled::Batch::default();
        mark.insert(FORMAT_KEY, &FORMAT.to_be_bytes());
        self.write(mark)
    }

    /// Writes records all or nothing, and returns when they are on disk.
    pub(super) fn write(&self, records: sled::Batch) -> Result<(), EngineError> {
        self.watch.during(|| {
            self.db.apply_batch(records).map_err(self.failed("write a batch"))?;
            self.db.flush().map_err(self.failed("flush a batch"))
        })?;
        let synced = self.log.sync_data();
        synced.map_err(io(&self.path, "sync the log file in"))
    }

    pub(super) fn db(&self) -> &sled::Db {
        &self.db
    }

    pub(super) fn failed(&self, what: &'static str) -> impl FnOnce(sled::Error) -> EngineError {
        failed(&self.path, what)
    }

    pub(super) fn damaged(&self, key: &[u8], why: &'static str) -> EngineError {
        EngineError::Damaged {
            path: self.path.clone(),
            key: String::from_utf8_lossy(key).into_owned(),
            why,
        }
    }

    pub(super) fn refused(&self, why: String) -> EngineError {
        EngineError::Refused {
            path: self.path.clone(),
            why,
        }
    }

    fn index(&self) -> Result<Index, EngineError> {
        let records = self.db.scan_prefix([VALUE]);
        records
            .map(|record| {
                let (key, value) = record.map_err(self.failed("read"))?;
                self.indexed(&key, &value)
            })
            .collect()
    }

    /// What the index holds of a value's first record.
    pub(super) fn indexed(&self, key: &[u8], value: &[u8]) -> Result<(Arc<str>, Revisions), EngineError> {
        let (_, trailer) = self.record(key, value)?;
        Ok((self.name(key)?, trailer.revisions))
    }

    /// The key that a record is of.
    pub(super) fn name(&self, key: &[u8]) -> Result<Arc<str>, EngineError> {
        let name = std::str::from_utf8(&key[1..]).map_err(|_| self.damaged(key, "the key is not UTF-8"))?;
        Ok(Arc::from(name))
    }

    /// A record's part of the text, and what stands behind it.
    fn record<'a>(&self, key: &[u8], value: &'a [u8]) -> Result<(&'a [u8], Trailer), EngineError> {
        let (text, trailer) = value
            .split_last_chunk()
            .ok_or_else(|| self.damaged(key, "it is too short"))?;
        Ok((text, Trailer::read(trailer)))
    }

    fn entry(&self, name: Arc<str>, key: &[u8], value: &[u8]) -> Result<Entry, EngineError> {
        let (first, Trailer { revisions, hole }) = self.record(key, value)?;
        let further = usize::from(revisions.chunks) * CHUNK_BYTES;
        let mut text = Vec::with_capacity(first.len() + further + value::SPARE);
        text.extend_from_slice(first);
        for number in 0..revisions.chunks {
            let chunk = self.db.get(numbered(CHUNK, &name, number));
            let chunk = chunk.map_err(self.failed("read"))?;
            text.extend_from_slice(&chunk.ok_or_else(|| self.damaged(key, "a chunk is missing"))?);
        }
        let revision_at = usize::try_from(hole).unwrap_or(usize::MAX);
        if revision_at > text.len() {
            return Err(self.damaged(key, "its hole is behind its end"));
        }
        Ok(Entry {
            key: name,
            value: value::splice(text, revision_at, revisions.modified),
            revision_at,
            create_revision: revisions.create,
            mod_revision: revisions.modified,
        })
    }

    /// Adds a value's records to a batch. The trailer is written behind the text in its own buffer, for the time of a copy.
    pub(super) fn put(
        &mut self,
        records: &mut sled::Batch,
        key: &str,
        value: &mut Vec<u8>,
        trailer: Trailer,
    ) -> Result<(), EngineError> {
        let trailer = trailer.bytes();
        let length = value.len();
        let record = if length <= CHUNK_BYTES {
            value.reserve_exact(trailer.len());
            value.extend_from_slice(&trailer);
            sled::IVec::from(&value[..])
        } else {
            let mut first = Vec::with_capacity(CHUNK_BYTES + trailer.len());
            first.extend_from_slice(&value[..CHUNK_BYTES]);
            first.extend_from_slice(&trailer);
            sled::IVec::from(first)
        };
        value.truncate(length);
        records.insert(self.object_key(key), record);
        for (number, chunk) in (0u16..).zip(value.chunks(CHUNK_BYTES).skip(1)) {
            records.insert(numbered(CHUNK, key, number), chunk);
        }
        Ok(())
    }

    fn object_key(&mut self, key: &str) -> sled::IVec {
        self.scratch.clear();
        self.scratch.push(VALUE);
        self.scratch.extend_from_slice(key.as_bytes());
        sled::IVec::from(&self.scratch[..])
    }

    /// Whether a later opening would find this very log. One that was removed or replaced takes writes all the same.
    fn is_in_place(&self) -> bool {
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let found = std::fs::metadata(self.path.join("db")).map(inode);
        matches!((found, self.log.metadata().map(inode)), (Ok(found), Ok(open)) if found == open)
    }

    /// The log's length.
    fn length(&self) -> Result<u64, EngineError> {
        let metadata = self.log.metadata();
        Ok(metadata.map_err(io(&self.path, "look at the log file in"))?.len())
    }
}

/// How many further records a value of this length is cut into.
pub(super) fn chunks(length: usize) -> u16 {
    // At most MAX_VALUE / CHUNK_BYTES, far below u16::MAX.
    (length.saturating_sub(1) / CHUNK_BYTES) as u16
}

impl Engine for SledEngine {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn load(&self) -> Result<Vec<Entry>, EngineError> {
        let records = self.db.scan_prefix([VALUE]);
        records
            .map(|record| {
                let (key, value) = record.map_err(self.failed("read"))?;
                self.entry(self.name(&key)?, &key, &value)
            })
            .collect()
    }

    fn read(&self, key: &Arc<str>) -> Result<Option<Entry>, EngineError> {
        let mut record = vec![VALUE];
        record.extend_from_slice(key.as_bytes());
        let value = self.db.get(&record).map_err(self.failed("read"))?;
        value.map(|value| self.entry(key.clone(), &record, &value)).transpose()
    }

    fn chunks(&self, length: usize) -> u16 {
        chunks(length)
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), EngineError> {
        let length = self.length()?;
        let (claimed, length_then) = self.claimed;
        let need = length + ROOM + ROOM_PER_BYTE * bytes as u64;
        // sled shortens its file when it opens it; whatever shortened it took back what was claimed.
        if claimed >= need && length >= length_then {
            self.claimed.1 = length;
            return Ok(());
        }
        let end = need + ROOM;
        let as_off = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        let log = File::options().write(true).open(self.path.join("db"));
        let log = log.map_err(io(&self.path, "open the log file in"))?;
        // From the end on: inside, sled leaves nothing unwritten.
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match nix::fcntl::fallocate(&log, keep, as_off(length), as_off(end - length)) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                self.claimed = (end, length);
                Ok(())
            }
            Err(errno) => Err(io(&self.path, "claim room for the log file in")(errno.into())),
        }
    }

    fn apply(&mut self, batch: &mut [Write], revision: u64) -> Result<(), EngineError> {
        let mut records = sled::Batch::default();
        let mut carried = false;
        for write in batch {
            let chunks = match &mut write.change {
                WriteChange::Delete => {
                    records.remove(self.object_key(&write.key));
                    0
                }
                WriteChange::Put {
                    value,
                    hole,
                    create_revision,
                } => {
                    carried |= write.revision == revision;
                    let revisions = Revisions {
                        create: *create_revision,
                        modified: write.revision,
                        chunks: chunks(value.len()),
                    };
                    let hole = u32::try_from(*hole).unwrap_or(u32::MAX);
                    self.put(&mut records, &write.key, value, Trailer { revisions, hole })?;
                    revisions.chunks
                }
            };
            for number in chunks..write.stale_chunks {
                records.remove(numbered(CHUNK, &write.key, number));
            }
        }
        if !carried {
            records.insert(REVISION_KEY, &revision.to_be_bytes());
        }
        self.write(records)?;
        self.revision = revision;
        Ok(())
    }

    /// A page that is asked for so often that its shard is looked through: it alone stays of that.
    fn trim(&self, keys: &[Arc<str>]) -> Result<(), EngineError> {
        for key in keys {
            let record = [&[VALUE], key.as_bytes()].concat();
            for _ in 0..NOTES {
                self.db.get(&record).map_err(self.failed("read"))?;
            }
        }
        Ok(())
    }

    fn mark(&self, content: Option<Content>) -> Result<(), EngineError> {
        if !self.is_in_place() {
            return Err(self.refused("no longer holds the database that was opened".into()));
        }
        let mark = Mark {
            id: self.id.clone(),
            owner: self.owner.clone(),
            revision: self.revision,
            content,
        };
        mark.write(&self.path).map_err(io(&self.path, "write the mark in"))
    }

    fn abandon(self: Box<Self>) {
        let SledEngine {
            watch, config, db, log, ..
        } = *self;
        drop(watch);
        // One that knows that it has failed waits for nothing.
        if config.global_error().is_err() {
            drop(db);
        } else {
            sled_faults::leave(db, log);
        }
    }
}

/// What stands behind the text in a value's first record: create and mod revision, the hole's offset, and the number of
/// further records. Big endian.
pub(super) struct Trailer {
    pub revisions: Revisions,
    pub hole: u32,
}

const TRAILER: usize = 8 + 8 + 4 + 2;

impl Trailer {
    fn read(bytes: &[u8; TRAILER]) -> Trailer {
        let number = |from: usize, to: usize| bytes[from..to].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Trailer {
            revisions: Revisions {
                create: number(0, 8),
                modified: number(8, 16),
                chunks: number(20, 22) as u16,
            },
            hole: number(16, 20) as u32,
        }
    }

    fn bytes(&self) -> [u8; TRAILER] {
        let mut bytes = [0; TRAILER];
        bytes[..8].copy_from_slice(&self.revisions.create.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.revisions.modified.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.hole.to_be_bytes());
        bytes[20..].copy_from_slice(&self.revisions.chunks.to_be_bytes());
        bytes
    }
}

/// The key of a value's further record.
pub(super) fn numbered(kind: u8, key: &str, number: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len() + 3);
    bytes.push(kind);
    bytes.extend_from_slice(key.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

pub(super) fn io(dir: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = dir.to_path_buf();
    move |source| EngineError::Io { what, path, source }
}

fn failed(dir: &Path, what: &'static str) -> impl FnOnce(sled::Error) -> EngineError {
    let path = dir.to_path_buf();
    move |source| EngineError::Sled { what, path, source }
}

pub(super) fn read_u64(db: &sled::Db, key: &[u8]) -> Result<Option<u64>, sled::Error> {
    Ok(db
        .get(key)?
        .and_then(|value| value.as_ref().try_into().ok())
        .map(u64::from_be_bytes))
}

/// Takes the lock that sled takes on its log; none where another process keeps it, or the file can't be had. One of sled's
/// threads may hold on to a database, and with it to the lock, a moment after that was closed. Where another process holds
/// it sled says so.
pub(super) fn lock(file: &Path) -> Option<Locked> {
    let file = File::options().read(true).write(true).open(file).ok()?;
    for _ in 0..100 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            locked => return locked.is_ok().then(|| Locked(file)),
        }
    }
    None
}

/// The lock, until it is dropped.
pub(super) struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Not by closing alone: a process that is just being started has a descriptor of it too, until it runs its program.
        let _ = self.0.unlock();
    }
}

/// Writes, syncs and removes as much as is claimed for a batch.
fn write_scratch(dir: &Path) -> std::io::Result<()> {
    let path = dir.join("scratch");
    let written = File::create(&path).and_then(|mut file| {
        let zeros = [0; 64 * 1024];
        for _ in 0..ROOM / zeros.len() as u64 {
            file.write_all(&zeros)?;
        }
        file.sync_all()
    });
    std::fs::remove_file(&path).and(written)
}

fn remove_unfinished_snapshots(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
