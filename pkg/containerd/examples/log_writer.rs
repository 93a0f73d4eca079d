//! A program that is nothing but the log writer, for the tests: `mk8s` itself calls the same function first thing.

fn main() -> std::process::ExitCode {
    mk8s_containerd::logs::run_if_writer().unwrap_or(std::process::ExitCode::from(64))
}
