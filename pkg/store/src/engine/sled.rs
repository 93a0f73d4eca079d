//! The embedded engine. sled 0.34 has sharp edges that are designed around here:
//! `flush` alone is no fsync (so the log file is synced on our own descriptor), values above about 128 KB leak blob
//! files (so they are cut into chunks), an unfinished `snap.*.generating` blocks opening (so it is removed first), and
//! single inserts can tear in a crash (so everything goes through `apply_batch`). Finished `snap.*` files must stay: they
//! look like an accelerator, but without them recovery after a crash cuts the log too early and loses acknowledged
//! writes (the crash test shows it within a hundred kills).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Engine, EngineError, Write, WriteChange};
use crate::Entry;
use crate::committer::Revisions;

const FORMAT: u64 = 1;
const FORMAT_KEY: &[u8] = b"m/format";
const REVISION_KEY: &[u8] = b"m/revision";
/// Objects are under `o` + key; what does not fit into the first record under `p` + key + NUL + number.
const OBJECT: u8 = b'o';
const CHUNK: u8 = b'p';
const CHUNK_BYTES: usize = 64 * 1024;
/// create revision, mod revision, number of further chunks.
const HEADER: usize = 8 + 8 + 2;
/// Every object is in the watch cache too; sled's own cache only has to hold the pages under change.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

pub(crate) struct SledEngine {
    db: sled::Db,
    log: File,
    path: PathBuf,
    revision: u64,
}

impl SledEngine {
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        let io = |what| {
            move |source| EngineError::Io {
                what,
                path: dir.to_path_buf(),
                source,
            }
        };
        std::fs::create_dir_all(dir).map_err(io("create"))?;
        remove_unfinished_snapshots(dir).map_err(io("remove unfinished snapshots in"))?;
        let failed = |what| {
            move |source| EngineError::Sled {
                what,
                path: dir.to_path_buf(),
                source,
            }
        };
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open()
            .map_err(failed("open the database"))?;
        let log = File::open(dir.join("db")).map_err(io("open the log file in"))?;
        let format = read_u64(&db, FORMAT_KEY).map_err(failed("read the format"))?;
        match format {
            None => {
                db.insert(FORMAT_KEY, &FORMAT.to_be_bytes())
                    .map_err(failed("write the format"))?;
                db.flush().map_err(failed("write the format"))?;
                log.sync_data().map_err(io("sync the log file in"))?;
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync"))?;
            }
            Some(found) if found > FORMAT => {
                return Err(EngineError::NewerFormat {
                    path: dir.to_path_buf(),
                    found,
                    known: FORMAT,
                });
            }
            Some(_) => {}
        }
        let revision = read_u64(&db, REVISION_KEY)
            .map_err(failed("read the revision"))?
            .unwrap_or(0);
        Ok(SledEngine {
            db,
            log,
            path: dir.to_path_buf(),
            revision,
        })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(sled::Error) -> EngineError + '_ {
        move |source| EngineError::Sled {
            what,
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, key: &[u8], why: &'static str) -> EngineError {
        EngineError::Damaged {
            path: self.path.clone(),
            key: String::from_utf8_lossy(key).into_owned(),
            why,
        }
    }

    /// Key and header of one object record.
    fn record(&self, key: &[u8], value: &[u8]) -> Result<(Arc<str>, Revisions), EngineError> {
        let name = std::str::from_utf8(&key[1..]).map_err(|_| self.damaged(key, "the key is not UTF-8"))?;
        let header = Header::read(value).ok_or_else(|| self.damaged(key, "the header is short"))?;
        Ok((Arc::from(name), header.0))
    }
}

impl Engine for SledEngine {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn load(&self) -> Result<Vec<Entry>, EngineError> {
        let mut entries = Vec::new();
        for record in self.db.scan_prefix([OBJECT]) {
            let (key, value) = record.map_err(self.failed("read"))?;
            let (name, revisions) = self.record(&key, &value)?;
            let mut bytes = Vec::with_capacity(value.len() - HEADER + usize::from(revisions.chunks) * CHUNK_BYTES);
            bytes.extend_from_slice(&value[HEADER..]);
            for number in 0..revisions.chunks {
                let chunk = self.db.get(chunk_key(&name, number)).map_err(self.failed("read"))?;
                bytes.extend_from_slice(&chunk.ok_or_else(|| self.damaged(&key, "a chunk is missing"))?);
            }
            entries.push(Entry {
                key: name,
                value: Bytes::from(bytes),
                create_revision: revisions.create,
                mod_revision: revisions.modified,
            });
        }
        Ok(entries)
    }

    fn index(&self) -> Result<Vec<(Arc<str>, Revisions)>, EngineError> {
        let records = self.db.scan_prefix([OBJECT]);
        records
            .map(|record| {
                let (key, value) = record.map_err(self.failed("read"))?;
                self.record(&key, &value)
            })
            .collect()
    }

    fn chunks(&self, length: usize) -> u16 {
        // At most MAX_VALUE / CHUNK_BYTES, far below u16::MAX.
        (length.saturating_sub(1) / CHUNK_BYTES) as u16
    }

    fn apply(&mut self, batch: &[Write], revision: u64) -> Result<(), EngineError> {
        let mut records = sled::Batch::default();
        for write in batch {
            let chunks = match &write.change {
                WriteChange::Delete => {
                    records.remove(object_key(&write.key));
                    0
                }
                WriteChange::Put { value, create_revision } => {
                    let chunks = self.chunks(value.len());
                    let first = &value[..value.len().min(CHUNK_BYTES)];
                    let header = Header(Revisions {
                        create: *create_revision,
                        modified: write.revision,
                        chunks,
                    });
                    records.insert(object_key(&write.key), header.before(first));
                    for (number, chunk) in (0..chunks).zip(value[first.len()..].chunks(CHUNK_BYTES)) {
                        records.insert(chunk_key(&write.key, number), chunk);
                    }
                    chunks
                }
            };
            for number in chunks..write.stale_chunks {
                records.remove(chunk_key(&write.key, number));
            }
        }
        records.insert(REVISION_KEY, &revision.to_be_bytes());
        self.db.apply_batch(records).map_err(self.failed("write a batch"))?;
        self.db.flush().map_err(self.failed("flush a batch"))?;
        self.log.sync_data().map_err(|source| EngineError::Io {
            what: "sync the log file in",
            path: self.path.clone(),
            source,
        })?;
        self.revision = revision;
        Ok(())
    }
}

struct Header(Revisions);

impl Header {
    fn read(value: &[u8]) -> Option<Self> {
        let create = u64::from_be_bytes(value.get(..8)?.try_into().ok()?);
        let modified = u64::from_be_bytes(value.get(8..16)?.try_into().ok()?);
        let chunks = u16::from_be_bytes(value.get(16..HEADER)?.try_into().ok()?);
        Some(Header(Revisions {
            create,
            modified,
            chunks,
        }))
    }

    fn before(&self, payload: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEADER + payload.len());
        record.extend_from_slice(&self.0.create.to_be_bytes());
        record.extend_from_slice(&self.0.modified.to_be_bytes());
        record.extend_from_slice(&self.0.chunks.to_be_bytes());
        record.extend_from_slice(payload);
        record
    }
}

fn object_key(key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(OBJECT);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

fn chunk_key(key: &str, number: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len() + 3);
    bytes.push(CHUNK);
    bytes.extend_from_slice(key.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

fn read_u64(db: &sled::Db, key: &[u8]) -> Result<Option<u64>, sled::Error> {
    Ok(db
        .get(key)?
        .and_then(|value| value.as_ref().try_into().ok())
        .map(u64::from_be_bytes))
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
