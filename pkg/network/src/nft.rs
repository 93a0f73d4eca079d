//! nftables through its own program: one transaction is one run of `nft -f -`.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

use crate::error::{Error, Result};

/// Applies the text as one transaction: all of it or none.
pub async fn apply(text: &str) -> Result<()> {
    run("nft", &["-f", "-"], Some(text)).await.map(drop)
}

/// What `nft -j ARGS` prints.
pub async fn list(args: &[&str]) -> Result<serde_json::Value> {
    let mut all = vec!["-j"];
    all.extend_from_slice(args);
    let text = run("nft", &all, None).await?;
    serde_json::from_str(&text)
        .map_err(|source| Error::io(format!("read what nft {} prints", args.join(" ")), source.into()))
}

/// Removes the table (family ip) if it is there.
pub async fn delete_table(name: &str) -> Result<()> {
    // Declared first, so that the deletion finds it in any case.
    apply(&format!("table ip {name}\ndelete table ip {name}\n")).await
}

/// Runs a program of the firewall's to its end.
pub(crate) async fn run(program: &'static str, args: &[&str], input: Option<&str>) -> Result<String> {
    let what = || format!("`{}`", args.join(" "));
    let start = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Invalid(format!(
            "{program} is not installed (Debian: apt-get install {})",
            package(program)
        )),
        _ => Error::io(format!("run {program}"), source),
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(text)) = (stdin, input) {
            // A program that fails early closes its end: its own message tells more.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(|source| Error::io(format!("run {program} {}", what()), source))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Program {
            program,
            what: what(),
            stderr,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn package(program: &str) -> &str {
    if program == "nft" { "nftables" } else { "iptables" }
}
