//! The `mk8s` binary: picks the verb and runs it. Wiring only; what the verbs do stands in their own files and in pkg/.

// First: its macros are for all that follow.
#[macro_use]
mod output;

mod admin;
mod cli;
mod config;
mod failure;
mod footprint;
mod host;
mod init;
mod join;
mod kubeconfig;
mod lifecycle;
mod log;
mod master;
mod node;
mod objects;
mod pidfile;
mod preflight;
mod remote;
mod reset;
mod run;
mod settings;
mod setup;
mod start;
mod status;
mod token;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use cli::{Cli, Verb};
use failure::{Failure, Result};

/// Trees of JSON are many small allocations; jemalloc takes a quarter off their cost.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // containerd's shims start this binary as the log writer of a container: before anything else exists.
    if let Some(code) = mk8s_containerd::logs::run_if_writer() {
        return code;
    }
    match parse().and_then(dispatch).and_then(|()| output::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Arguments over environment over configuration file.
fn parse() -> Result<Cli> {
    let arguments = config::with_file(Cli::command(), std::env::args().collect())?;
    let matches = Cli::command().get_matches_from(arguments);
    Ok(Cli::from_arg_matches(&matches)?)
}

/// The verb's name, if it can do nothing without root's rights: what it reads and writes is root's.
fn wants_root(verb: &Verb) -> Option<&'static str> {
    match verb {
        Verb::Init(_) => Some("init"),
        Verb::Join(_) => Some("join"),
        Verb::Start(_) => Some("start"),
        Verb::Stop(_) => Some("stop"),
        Verb::Run(_) => Some("run"),
        Verb::Reset(_) => Some("reset"),
        Verb::Status(_) => Some("status"),
        Verb::Kubeconfig(_) => Some("kubeconfig"),
        // A token is made by whoever may write it, with a kubeconfig of their own.
        Verb::Token(_) | Verb::Version(_) | Verb::Completion { .. } => None,
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    if let Some(name) = wants_root(&cli.verb)
        && !nix::unistd::Uid::effective().is_root()
    {
        let refused = format!("mk8s {name} has to run as root: use sudo");
        return Err(match cli.verb {
            Verb::Init(_) | Verb::Join(_) => Failure::preflight(refused),
            _ => Failure::new(refused),
        });
    }
    let verb = match cli.verb {
        Verb::Version(arguments) => return status::version(&arguments),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mk8s", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            return Ok(());
        }
        Verb::Run(arguments) => return run::run(&arguments),
        verb => verb,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of("start the async runtime", error))?;
    let done = runtime.block_on(async {
        match verb {
            Verb::Init(arguments) => init::init(arguments).await,
            Verb::Join(arguments) => join::join(arguments).await,
            Verb::Start(arguments) => start::start(&arguments).await,
            Verb::Stop(arguments) => start::stop(&arguments).await,
            Verb::Reset(arguments) => reset::reset(&arguments).await,
            Verb::Status(arguments) => status::status(&arguments).await,
            Verb::Token(arguments) => token::token(arguments).await,
            Verb::Kubeconfig(arguments) => kubeconfig::print(&arguments).await,
            Verb::Version(_) | Verb::Completion { .. } | Verb::Run(_) => Ok(()),
        }
    });
    // What still blocks (a wait for a process that does not end) must not keep this one.
    runtime.shutdown_background();
    done
}
