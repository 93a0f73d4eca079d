//! differences.tsv: `AREA/NAME of pairs ⇥ places ⇥ reason ⇥ pin`, where `*` stands for anything and the pin for what mk8s
//! gives at all these places. The differences of an area that no row names, its rows that name none, and those whose pin
//! is another's, are the judgement.

use std::fmt::Write as _;

use parking_lot::Mutex;

use crate::compare::Difference;
use crate::folder;
use crate::pair::Pair;

/// Most differences that a failure prints.
const SHOWN: usize = 40;

/// Areas are judged side by side, and with GOLDEN_WRITE each rewrites its rows.
static FILE: Mutex<()> = Mutex::new(());

struct Row {
    pair: String,
    place: String,
    reason: String,
    pin: String,
    /// What is found where it says, in order: pairs, places, and what stands there.
    found: ring::digest::Context,
    used: bool,
}

impl Row {
    fn new(pair: &str, place: &str, reason: &str, pin: &str) -> Row {
        Row {
            pair: pair.into(),
            place: place.into(),
            reason: reason.into(),
            pin: pin.into(),
            found: ring::digest::Context::new(&ring::digest::SHA256),
            used: false,
        }
    }

    fn take(&mut self, pair: &str, difference: &Difference) {
        self.used = true;
        let found = difference.found.as_ref().map(ToString::to_string).unwrap_or_default();
        for text in [pair, &difference.place, &found] {
            self.found.update(text.as_bytes());
            self.found.update(b"\n");
        }
    }

    /// Eight hex digits.
    fn pinned(&self) -> String {
        let digest = self.found.clone().finish();
        digest
            .as_ref()
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

pub struct Differences;

impl Differences {
    /// What is wrong with an area, in words; nothing where all is as it should be.
    pub fn judge(area: &str, pairs: &[Pair], found: Vec<Vec<Difference>>) -> String {
        let _one_at_a_time = FILE.lock();
        let path = folder().join("differences.tsv");
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, mut rows, others) = rows_of(area, &text);
        let mut unlisted: Vec<(String, &Pair, Vec<Difference>)> = Vec::new();
        for (pair, mut differences) in pairs.iter().zip(found) {
            let name = format!("{area}/{}", pair.name);
            differences.retain(|difference| !listed(&mut rows, &name, difference));
            if !differences.is_empty() {
                unlisted.push((name, pair, differences));
            }
        }
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            rows.retain(|row| row.used);
            for (name, _, differences) in &unlisted {
                rows.extend(differences.iter().map(|difference| {
                    let mut row = Row::new(name, &difference.place, "?", "");
                    row.take(name, difference);
                    row
                }));
            }
            let mut lines = others;
            for row in &mut rows {
                row.pin = row.pinned();
                lines.push([&*row.pair, &row.place, &row.reason, &row.pin].join("\t"));
            }
            lines.sort();
            std::fs::write(&path, format!("{head}{}\n", lines.join("\n"))).unwrap();
        }
        words(&unlisted, &rows)
    }
}

/// The comment, the area's rows, and the lines of the others.
fn rows_of(area: &str, text: &str) -> (String, Vec<Row>, Vec<String>) {
    let (mut head, mut rows, mut others) = (String::new(), Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            head += line;
            head += "\n";
            continue;
        }
        let cells: Vec<&str> = line.split('\t').collect();
        let (pair, place, reason, pin) = match cells[..] {
            [pair, place, reason, pin] => (pair, place, reason, pin),
            // Written by hand, to be pinned.
            [pair, place, reason] => (pair, place, reason, ""),
            _ => panic!("differences.tsv: four cells are wanted in {line}"),
        };
        assert!(
            !place.starts_with('*'),
            "differences.tsv: a code may differ by its own row alone: {line}"
        );
        if pair.split('/').next() != Some(area) {
            others.push(line.to_string());
            continue;
        }
        rows.push(Row::new(pair, place, reason, pin));
    }
    (head, rows, others)
}

fn listed(rows: &mut [Row], pair: &str, difference: &Difference) -> bool {
    let mut any = false;
    for row in rows {
        if fits(&row.pair, pair) && fits(&row.place, &difference.place) {
            row.take(pair, difference);
            any = true;
        }
    }
    any
}

/// Whether a pattern, in which `*` stands for any text, fits.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(left) = text.strip_prefix(start) else {
        return false;
    };
    (0..=left.len()).any(|at| left.is_char_boundary(at) && fits(rest, &left[at..]))
}

fn words(unlisted: &[(String, &Pair, Vec<Difference>)], rows: &[Row]) -> String {
    let mut words = String::new();
    for row in rows.iter().filter(|row| !row.used) {
        let _ = writeln!(
            words,
            "mended, but still listed: {}\t{}\t{}",
            row.pair, row.place, row.reason
        );
    }
    for row in rows.iter().filter(|row| row.used && row.pin != row.pinned()) {
        let _ = writeln!(
            words,
            "listed, but not what it was (GOLDEN_WRITE=1 pins it anew): {}\t{}\t{}\t{}",
            row.pair,
            row.place,
            row.reason,
            row.pinned()
        );
    }
    let count: usize = unlisted.iter().map(|(.., differences)| differences.len()).sum();
    if count > 0 {
        let _ = writeln!(words, "{count} differences (upstream → mk8s):");
    }
    let most = if std::env::var_os("GOLDEN_ALL").is_some() {
        usize::MAX
    } else {
        SHOWN
    };
    let mut shown = 0;
    for (name, pair, differences) in unlisted {
        if shown >= most {
            break;
        }
        let _ = writeln!(words, "{name}: {} {}", pair.request.method, pair.request.path);
        for difference in differences.iter().take(6) {
            let _ = writeln!(words, "    {difference}");
        }
        shown += differences.len().min(6);
    }
    words
}
