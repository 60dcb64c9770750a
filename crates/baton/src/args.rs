//! The command line. Every option of a server can also be given as `BATON_<OPTION>` in the environment.

use crate::chat::ChatArgs;
use crate::pull::PullArgs;
use baton_kernels::cpu::Tier;
use baton_model::WeightsFormat;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::time::Duration;

/// An inference server for large language models, prefill and decode disaggregated.
#[derive(Debug, Parser)]
#[command(name = "baton", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a model on this machine: every role in one process, an OpenAI-compatible API.
    Serve(Box<ServeArgs>),
    /// Fetch a model, verify it, and print where it is.
    Pull(PullArgs),
    /// Talk to a running server from the terminal.
    Chat(ChatArgs),
}

/// Options of `baton serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// A GGUF file, a Hugging Face directory, or a name on the hub (`org/name`, `org/name:file.gguf`).
    #[arg(long, short, env = "BATON_MODEL", default_value = "demo", help_heading = "Model")]
    pub(crate) model: String,
    /// Names that requests may ask for; the first one is reported. Default: the model's own name.
    #[arg(long, env = "BATON_SERVED_MODEL_NAME", value_delimiter = ',', help_heading = "Model")]
    pub(crate) served_model_name: Vec<String>,
    /// How weights are kept: auto (4 or 8 bits as in the file, otherwise q8_0: the fastest here), f32 (the reference),
    /// bf16, q8_0, or file (as in the file wherever a kernel reads it).
    #[arg(long, env = "BATON_WEIGHTS", default_value = "auto", help_heading = "Model")]
    pub(crate) weights: WeightsFormat,
    /// Most tokens of a sequence, prompt and output together. Default: what the model was made for.
    #[arg(long, env = "BATON_MAX_MODEL_LEN", value_parser = positive, help_heading = "Model")]
    pub(crate) max_model_len: Option<usize>,

    /// Address to listen on. 127.0.0.1 is this machine only; 0.0.0.0 is everybody who can reach it.
    #[arg(long, env = "BATON_HOST", default_value = "127.0.0.1", help_heading = "Server")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, short, env = "BATON_PORT", default_value_t = 8000, help_heading = "Server")]
    pub(crate) port: u16,
    /// Keys of which a request must carry one (`Authorization: Bearer KEY`). Default: none is needed.
    #[arg(
        long,
        env = "BATON_API_KEY",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub(crate) api_key: Vec<String>,
    /// Most requests at once, running or waiting; one more gets 429.
    #[arg(long, env = "BATON_MAX_REQUESTS", default_value_t = 1024, value_parser = positive, help_heading = "Server")]
    pub(crate) max_requests: usize,
    /// Longest a request may take, in seconds.
    #[arg(long, env = "BATON_REQUEST_TIMEOUT", default_value = "600", value_parser = seconds, help_heading = "Server")]
    pub(crate) request_timeout: Duration,
    /// After SIGTERM or Ctrl-C: how long running requests may go on, in seconds.
    #[arg(long, env = "BATON_DRAIN_TIMEOUT", default_value = "30", value_parser = seconds, help_heading = "Server")]
    pub(crate) drain_timeout: Duration,

    /// Whether prompts are prefilled by an engine of their own.
    #[arg(long, env = "BATON_MODE", value_enum, default_value_t = Mode::Disaggregated, help_heading = "Engine")]
    pub(crate) mode: Mode,
    /// Prompts with more uncached tokens than this go to the prefill engine.
    #[arg(long, env = "BATON_HANDOFF_THRESHOLD", default_value_t = 64, help_heading = "Engine")]
    pub(crate) handoff_threshold: usize,
    /// KV blocks of each engine. Default: what fits a quarter of the free memory, at most 4 GiB an engine.
    #[arg(long, env = "BATON_KV_BLOCKS", value_parser = positive, help_heading = "Engine")]
    pub(crate) kv_blocks: Option<usize>,
    /// Tokens in a KV block.
    #[arg(long, env = "BATON_BLOCK_SIZE", default_value_t = 16, value_parser = positive, help_heading = "Engine")]
    pub(crate) block_size: usize,
    /// Most tokens computed in one step, prompts and running sequences together.
    #[arg(long, env = "BATON_STEP_TOKEN_BUDGET", default_value_t = 512, value_parser = positive, help_heading = "Engine")]
    pub(crate) step_token_budget: usize,
    /// Most sequences that hold KV blocks at once in one engine.
    #[arg(long, env = "BATON_MAX_NUM_SEQS", default_value_t = 256, value_parser = positive, help_heading = "Engine")]
    pub(crate) max_num_seqs: usize,
    /// Threads of each engine. Default: one a core.
    #[arg(long, env = "BATON_THREADS", value_parser = positive, help_heading = "Engine")]
    pub(crate) threads: Option<usize>,

    /// Instructions that the CPU kernels use: avx512, avx2 or portable. Default: the best that this machine has. Sums
    /// differ in their last bits between them: name one where several kinds of machines must agree.
    #[arg(long, env = "BATON_CPU_TIER", help_heading = "Engine")]
    pub(crate) cpu_tier: Option<Tier>,

    /// Log level, e.g. `info`, `debug` or `info,baton_worker=debug`.
    #[arg(long, env = "BATON_LOG", default_value = "info", help_heading = "Logs")]
    pub(crate) log: String,
    /// How log lines look; auto: for people on a terminal, JSON otherwise.
    #[arg(long, env = "BATON_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto, help_heading = "Logs")]
    pub(crate) log_format: LogFormat,
}

/// Which engines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A prefill engine and a decode engine; KV blocks are handed over.
    Disaggregated,
    /// One engine for both phases.
    Aggregated,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One object a line.
    Json,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be more than 0 seconds".into()),
    }
}
