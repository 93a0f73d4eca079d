//! The command line as a process: what it says, where, and how it ends. None of these commands needs a cluster.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

fn mk8s(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mk8s"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Its exit status and what it says on stderr.
fn ended(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// `mk8s completion bash | head -1`, at the worst moment: nobody reads even the first line.
#[test]
fn a_verb_whose_reader_has_gone_ends_quietly() {
    for arguments in [
        &["completion", "bash"][..],
        &["token", "generate"],
        &["version"],
        &["help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = mk8s(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(ended(&output), (Some(0), String::new()), "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let refused = mk8s(&["token", "create", "no token"]).stderr(writer).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn what_could_not_be_written_is_a_failure() {
    for arguments in [&["completion", "bash"][..], &["token", "generate"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = mk8s(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let (status, said) = ended(&output);
        assert_eq!(status, Some(1), "{arguments:?}");
        assert!(
            said.starts_with("error: cannot write to stdout: No space left"),
            "{said}"
        );
    }
}

#[test]
fn what_is_no_token_is_not_deleted() {
    for token in ["a/../b", "ABCDEF", "abcdef.", "abcdef.0123456789abcde", ""] {
        let arguments = ["token", "delete", "--kubeconfig", "/nowhere", token];
        let (status, said) = ended(&mk8s(&arguments).output().unwrap());
        assert_eq!(status, Some(1), "{token:?}");
        assert!(said.starts_with("error: a token is named by"), "{said}");
    }
    let unread = mk8s(&["token", "delete", "--kubeconfig", "/nowhere", "abcdef"])
        .output()
        .unwrap();
    assert!(ended(&unread).1.starts_with("error: cannot read /nowhere"));
}

/// Before anything is asked of a cluster: there is none behind this kubeconfig.
#[test]
fn a_token_of_no_use_is_not_made() {
    for (flags, named) in [
        (&["--usages", "foo"][..], "foo"),
        (&["--usages", "signing,bar"], "bar"),
        (&["--groups", "system:masters"], "system:masters"),
        (&["--groups", "system:bootstrappers:../x"], "../x"),
        (&["--ttl", "99999999h"], "99999999h"),
    ] {
        let arguments = [&["token", "create", "--kubeconfig", "/nowhere"][..], flags].concat();
        let (status, said) = ended(&mk8s(&arguments).output().unwrap());
        assert_eq!(status, Some(1), "{flags:?}");
        assert!(
            said.starts_with("error: ") && said.contains(named) && said.lines().count() == 1,
            "{said}"
        );
    }
}
