//! `baton pull`: fetches a model and prints its path.

use anyhow::Context;
use baton_hub::{HubOptions, progress};
use clap::Args;
use std::path::PathBuf;

/// Options of `baton pull`.
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// `demo`, or a name on the hub: `org/name`, `org/name@revision`, `org/name:file.gguf`.
    #[arg(default_value = "demo")]
    pub(crate) name: String,
}

/// Fetches what is missing; the path goes to standard output, progress to standard error.
pub(crate) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no event loop")?;
    let path = runtime.block_on(resolve(&args.name))?;
    println!("{}", path.display());
    Ok(())
}

/// The path of the model called `name`, fetched if need be.
#[expect(clippy::disallowed_methods, reason = "the program is where the environment is read")]
pub(crate) async fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    let options = HubOptions::from_env(|key| std::env::var(key).ok());
    let path = baton_hub::resolve(name, &options, &*progress::on_stderr()).await?;
    Ok(path)
}
