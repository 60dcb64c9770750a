//! Benchmarks of whole servers over HTTP. Every figure is a ratio of two servers measured in turns in one run on one
//! machine: wall-clock times of a shared machine mean little, their ratios more.

mod client;
mod report;
mod scenarios;
mod server;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options; `cargo xtask bench` gives them.
#[derive(Debug, Parser)]
struct Args {
    /// The `baton` program.
    #[arg(long)]
    baton: PathBuf,
    /// The model's GGUF file, for both servers.
    #[arg(long)]
    model: PathBuf,
    /// Python with the peer installed.
    #[arg(long)]
    peer_python: PathBuf,
    /// The peer's start script.
    #[arg(long)]
    peer_script: PathBuf,
    /// Threads of each server.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Measurements of each kind; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Further options of `baton serve`, e.g. `--extra=--weights=file`.
    #[arg(long, allow_hyphen_values = true)]
    extra: Vec<String>,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(scenarios::run(&args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
