//! From a path to running engines.

use crate::args::{Mode, ServeArgs};
use crate::memory::default_kv_blocks;
use anyhow::{Context, bail};
use baton_engine::{Engine, SchedulerConfig};
use baton_frontend::SamplingDefaults;
use baton_kernels::cpu::Tier;
use baton_model::{CpuRunner, CpuRunnerOptions, ModelFiles, Weights, WeightsFormat, kv_bytes_per_token};
use baton_tokenizer::Tokenizer;
use baton_types::{KvLayout, ModelRunner, Salt, TokenId};
use baton_worker::{DecodeWorker, PrefillWorker, WorkerConfig};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tracing::info;

/// A model, loaded, with its engines running.
pub(crate) struct Serving {
    pub(crate) model_name: String,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) max_model_len: usize,
    pub(crate) end_tokens: Vec<TokenId>,
    pub(crate) sampling_defaults: SamplingDefaults,
    pub(crate) decode: Arc<DecodeWorker>,
    pub(crate) prefill: Option<PrefillWorker>,
}

/// Opens the model at `path`, loads its weights and tokenizer side by side, and starts the engines. Blocks for as long
/// as that takes.
pub(crate) fn load(args: &ServeArgs, path: &Path) -> anyhow::Result<Serving> {
    let began = Instant::now();
    if let Some(tier) = args.cpu_tier {
        tier.choose()?;
    }
    let files = baton_model::open(path).context("the model cannot be opened")?;
    info!(
        model = files.name,
        architecture = %files.config.architecture,
        stored_as = files.stored_as,
        open_ms = files.open_time.as_millis() as u64,
        "opened the model"
    );
    let max_model_len = max_model_len(args, &files)?;
    let (tokenizer, weights) = load_side_by_side(&files, args.weights)?;
    let mut end_tokens = files.generation.eos.clone();
    end_tokens.extend(tokenizer.eos_ids());
    end_tokens.sort_unstable();
    end_tokens.dedup();
    let (decode, prefill) = start_engines(args, &weights, max_model_len, &end_tokens)?;
    info!(seconds = began.elapsed().as_secs_f32(), "loaded the model and started the engines");
    let generation = &files.generation;
    Ok(Serving {
        model_name: files.name.clone(),
        tokenizer,
        max_model_len,
        end_tokens,
        sampling_defaults: SamplingDefaults {
            temperature: generation.temperature,
            top_p: generation.top_p,
            top_k: generation.top_k,
            min_p: None,
            repetition_penalty: generation.repetition_penalty,
        },
        decode: Arc::new(decode),
        prefill,
    })
}

fn max_model_len(args: &ServeArgs, files: &ModelFiles) -> anyhow::Result<usize> {
    let made_for = files.config.max_position;
    match args.max_model_len {
        Some(wanted) if wanted > made_for => {
            bail!(
                "--max-model-len {wanted} is more than the {made_for} tokens that {} was made for",
                files.name
            )
        }
        Some(1) => bail!("--max-model-len must leave room for a prompt and an output token: at least 2"),
        Some(wanted) => Ok(wanted),
        None => Ok(made_for),
    }
}

fn load_side_by_side(files: &ModelFiles, format: WeightsFormat) -> anyhow::Result<(Tokenizer, Arc<Weights>)> {
    let source = files.tokenizer.clone();
    std::thread::scope(|scope| {
        let tokenizer = std::thread::Builder::new()
            .name("baton-tokenizer".into())
            .spawn_scoped(scope, move || Tokenizer::from_source(&source))?;
        let bar = weights_bar();
        let weights = files
            .load_weights(format, &|done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            })
            .context("the weights cannot be loaded")?;
        bar.finish_and_clear();
        let Ok(tokenizer) = tokenizer.join() else { bail!("building the tokenizer panicked") };
        let tokenizer = tokenizer.context("the tokenizer cannot be built")?;
        check_vocabulary(&tokenizer, files)?;
        Ok((tokenizer, weights))
    })
}

/// Every token that a prompt can have must have a row in the model: one without would fail the whole step it is in.
fn check_vocabulary(tokenizer: &Tokenizer, files: &ModelFiles) -> anyhow::Result<()> {
    let (tokens, rows) = (tokenizer.vocab_size(), files.config.vocab);
    if tokens > rows {
        bail!(
            "{}: the tokenizer has {tokens} tokens, but the model only {rows} rows of embeddings: \
             the tokenizer is of another model",
            files.path.display()
        );
    }
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
fn weights_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("loading weights {wide_bar} {pos}/{len} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn start_engines(
    args: &ServeArgs,
    weights: &Arc<Weights>,
    max_model_len: usize,
    end_tokens: &[TokenId],
) -> anyhow::Result<(DecodeWorker, Option<PrefillWorker>)> {
    let bytes_per_block = kv_bytes_per_token(weights.config()) * args.block_size;
    let blocks_per_sequence = max_model_len.div_ceil(args.block_size);
    let num_blocks =
        args.kv_blocks.unwrap_or_else(|| default_kv_blocks(bytes_per_block, blocks_per_sequence));
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let engine = |low_priority, handoff_threshold| -> anyhow::Result<Engine<CpuRunner>> {
        let options = CpuRunnerOptions { block_size: args.block_size, num_blocks, threads, low_priority };
        let runner = CpuRunner::new(weights.clone(), options)?;
        let config = SchedulerConfig {
            max_model_len,
            step_token_budget: args.step_token_budget,
            sequences_max: args.max_num_seqs,
            waiting_max: args.max_requests,
            end_tokens: end_tokens.to_vec(),
            handoff_threshold,
            handoffs_max: args.max_num_seqs,
        };
        Ok(Engine::new(config, runner)?)
    };
    let disaggregated = args.mode == Mode::Disaggregated;
    let decode = engine(false, disaggregated.then_some(args.handoff_threshold))?;
    let layout = decode.runner().kv_layout().clone();
    let config = WorkerConfig { requests_max: args.max_requests, ..WorkerConfig::new(salt(&layout)) };
    let prefill =
        if disaggregated { Some(PrefillWorker::start(engine(true, None)?, &config)?) } else { None };
    let decode = DecodeWorker::start(decode, config, prefill.as_ref().map(PrefillWorker::handle))?;
    info!(
        mode = ?args.mode,
        threads,
        cpu_tier = %Tier::current(),
        kv_blocks = num_blocks,
        kv_tokens = num_blocks * args.block_size,
        kv_mib = (num_blocks * bytes_per_block) >> 20,
        max_model_len,
        "started the engines"
    );
    Ok((decode, prefill))
}

/// Blocks are shared between sequences of the same model and layout only; the fingerprint covers both.
fn salt(layout: &KvLayout) -> Salt {
    Salt::new(&[&layout.fingerprint])
}
