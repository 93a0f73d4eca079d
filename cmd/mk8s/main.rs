//! The `mk8s` binary: picks the verb and runs it. Wiring only; what the verbs do stands in their own files and in pkg/.

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
    match parse().and_then(dispatch) {
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

fn dispatch(cli: Cli) -> Result<()> {
    let verb = match cli.verb {
        Verb::Version(arguments) => return status::version(&arguments),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mk8s", &mut std::io::stdout());
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
