//! A log file's lines in CRI form, and which of them, and what of each, a caller wants.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

use crate::names;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit: Option<u64>,
    /// stdout, stderr or both.
    pub stream: Option<&'static str>,
}

/// The lines of a log file from a place on.
pub struct Lines {
    reader: BufReader<std::fs::File>,
    /// A line of the file that the writer hasn't finished.
    partial: Vec<u8>,
    /// The last thing handed out was a piece of a container's line (they are cut at 16 KiB), not its end.
    mid_line: bool,
}

const BATCH: usize = 64 * 1024;
/// The log writer cuts lines at 16 KiB and begins a new file at 10 MiB. A pod to which the host lent its log directory can
/// put anything in their place: no more of a line is kept, and no further back is a last line looked for.
const LINE_LIMIT: u64 = 32 * 1024;
const LOOK_BACK: u64 = 16 * 1024 * 1024;

impl Lines {
    pub fn open(path: &Path, tail: Option<u64>) -> std::io::Result<Self> {
        let mut file = names::open_log(path)?;
        if let Some(tail) = tail {
            let start = tail_start(&mut file, tail)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Self {
            reader: BufReader::with_capacity(BATCH, file),
            partial: Vec::new(),
            mid_line: false,
        })
    }

    /// The lines of the file that the log went on in when this one was renamed.
    pub fn continued(&self, path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            mid_line: self.mid_line,
            ..Self::open(path, None)?
        })
    }

    /// What the next lines say, and whether there are more right now.
    pub fn batch(&mut self, options: &Options) -> std::io::Result<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        while out.len() < BATCH {
            let room = LINE_LIMIT.saturating_sub(self.partial.len() as u64);
            let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.partial)?;
            let is_cut = self.partial.len() as u64 >= LINE_LIMIT;
            if !is_cut && (read == 0 || self.partial.last() != Some(&b'\n')) {
                return Ok((out, false));
            }
            render(&self.partial, options, &mut self.mid_line, &mut out);
            self.partial.clear();
        }
        Ok((out, true))
    }
}

/// `TIME STREAM F|P CONTENT\n`, without what the caller doesn't want. A partial line has no end of its own, and what goes
/// on with it no time.
fn render(line: &[u8], options: &Options, mid_line: &mut bool, out: &mut Vec<u8>) {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let (Some(time), Some(stream), Some(flag), Some(content)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return;
    };
    if options.stream.is_some_and(|s| s.as_bytes() != stream) {
        return;
    }
    if let Some(since) = options.since {
        let at = std::str::from_utf8(time).ok().and_then(|t| t.parse::<Timestamp>().ok());
        if at.is_some_and(|at| at < since) {
            return;
        }
    }
    if options.timestamps && !*mid_line {
        out.extend_from_slice(time);
        out.push(b' ');
    }
    *mid_line = flag.starts_with(b"P");
    let content = if *mid_line {
        content.strip_suffix(b"\n").unwrap_or(content)
    } else {
        content
    };
    out.extend_from_slice(content);
}

/// Where the last `lines` lines begin, read from the end.
fn tail_start(file: &mut std::fs::File, lines: u64) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut at = end;
    let first = end.saturating_sub(LOOK_BACK);
    let mut found = 0;
    let mut block = vec![0u8; 16 * 1024];
    while at > first {
        let size = (block.len() as u64).min(at - first) as usize;
        at -= size as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block[..size])?;
        for index in (0..size).rev() {
            // The end of the last line doesn't begin another.
            if block[index] == b'\n' && at + (index as u64) + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(at + index as u64 + 1);
                }
            }
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.5Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n\
                       2026-01-01T00:00:01Z stderr F o\n2026-01-01T00:00:02Z stdout F three\n2026-01-01T00:00:03Z stdout F unfini";

    fn read(options: &Options) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LOG).unwrap();
        let mut lines = Lines::open(file.path(), options.tail).unwrap();
        String::from_utf8(lines.batch(options).unwrap().0).unwrap()
    }

    #[test]
    fn what_is_no_log_costs_no_more_than_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(&[b'x'; 100_000]).unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        // From the end, which is a terabyte away.
        let options = Options::default();
        let mut lines = Lines::open(file.path(), Some(5)).unwrap();
        assert_eq!(lines.reader.stream_position().unwrap(), (1 << 40) - LOOK_BACK);
        // From the beginning: no end of line comes.
        file.as_file().set_len(300_000).unwrap();
        let mut lines = Lines::open(file.path(), None).unwrap();
        assert_eq!(lines.batch(&options).unwrap(), (Vec::new(), false));
        assert!((lines.partial.len() as u64) < LINE_LIMIT);
    }

    #[test]
    fn readings() {
        let all = Options::default();
        for (options, expected) in [
            (all.clone(), "one\ntwo\nthree\n"),
            (
                Options {
                    tail: Some(2),
                    ..all.clone()
                },
                "three\n",
            ),
            (
                Options {
                    tail: Some(0),
                    ..all.clone()
                },
                "",
            ),
            (
                Options {
                    tail: Some(100),
                    ..all.clone()
                },
                "one\ntwo\nthree\n",
            ),
            (
                Options {
                    stream: Some("stdout"),
                    ..all.clone()
                },
                "one\nthree\n",
            ),
            (
                Options {
                    since: Some("2026-01-01T00:00:02Z".parse().unwrap()),
                    ..all.clone()
                },
                "three\n",
            ),
            (
                Options {
                    tail: Some(2),
                    timestamps: true,
                    ..all.clone()
                },
                "2026-01-01T00:00:02Z three\n",
            ),
            (
                Options {
                    timestamps: true,
                    ..all.clone()
                },
                "2026-01-01T00:00:00.5Z one\n2026-01-01T00:00:01Z two\n2026-01-01T00:00:02Z three\n",
            ),
        ] {
            assert_eq!(read(&options), expected, "{options:?}");
        }
    }
}
