//! CRI's log format: `<RFC3339Nano> stdout|stderr F|P <line>`, one record per line of the container's.
//!
//! Lines beyond 16 KiB come in pieces marked P (partial), the last one F (full), as containerd's CRI plugin cuts them.

/// containerd's max_container_log_line_size.
pub(super) const MAX_LINE: usize = 16 << 10;

/// Cuts one stream into records.
pub(super) struct Lines {
    stream: &'static str,
    /// A line that has not ended yet.
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: &'static str) -> Lines {
        Lines {
            stream,
            pending: Vec::new(),
        }
    }

    /// Appends to `out` the records of whatever lines `data` completes.
    pub(super) fn push(&mut self, mut data: &[u8], now: &str, out: &mut Vec<u8>) {
        while !data.is_empty() {
            let newline = memchr::memchr(b'\n', data);
            let (line, rest) = match newline {
                Some(at) => (&data[..at], &data[at + 1..]),
                None => (data, &data[data.len()..]),
            };
            let room = MAX_LINE - self.pending.len();
            if line.len() > room {
                self.pending.extend_from_slice(&line[..room]);
                self.flush(b'P', now, out);
                data = &data[room..];
                continue;
            }
            self.pending.extend_from_slice(line);
            data = rest;
            if newline.is_some() {
                self.flush(b'F', now, out);
            }
        }
    }

    /// At the end of the stream: a last line without newline is a partial one.
    pub(super) fn finish(&mut self, now: &str, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.flush(b'P', now, out);
        }
    }

    fn flush(&mut self, tag: u8, now: &str, out: &mut Vec<u8>) {
        for part in [
            now.as_bytes(),
            b" ",
            self.stream.as_bytes(),
            b" ",
            &[tag],
            b" ",
            &self.pending,
            b"\n",
        ] {
            out.extend_from_slice(part);
        }
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_become_records_across_reads() {
        let mut lines = Lines::new("stdout");
        let mut out = Vec::new();
        lines.push(b"one\ntw", "T", &mut out);
        lines.push(b"o\n\nrest", "T", &mut out);
        lines.finish("T", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "T stdout F one\nT stdout F two\nT stdout F \nT stdout P rest\n");
    }

    #[test]
    fn long_lines_are_cut_at_sixteen_kib() {
        let mut lines = Lines::new("stderr");
        let mut out = Vec::new();
        let mut data = vec![b'x'; MAX_LINE * 2 + 1];
        data.push(b'\n');
        lines.push(&data, "T", &mut out);
        let records: Vec<&[u8]> = out.split(|b| *b == b'\n').filter(|record| !record.is_empty()).collect();
        let tags: Vec<u8> = records.iter().map(|record| record["T stderr ".len()]).collect();
        assert_eq!(tags, b"PPF");
        assert_eq!(records[0].len() - "T stderr P ".len(), MAX_LINE);
        let mut exact = Vec::new();
        lines.push(&[vec![b'y'; MAX_LINE], b"\n".to_vec()].concat(), "T", &mut exact);
        assert!(exact.starts_with(b"T stderr F y"));
    }
}
