//! `baton`: an inference server for large language models in one program.
//!
//! This crate is the top: it reads arguments and the environment, starts the parts below in their order, and stops them
//! in the reverse one. It knows no request.

mod args;
mod backend;
mod chat;
mod load;
mod memory;
mod pull;
mod serve;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Pull(args) => pull::run(&args),
        Command::Chat(args) => chat::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baton: {error:#}");
            ExitCode::FAILURE
        }
    }
}
