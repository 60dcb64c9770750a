//! `baton serve`: every role in one process.

use crate::args::{LogFormat, ServeArgs};
use crate::backend::LocalBackend;
use crate::load::{Serving, load};
use crate::pull;
use anyhow::{Context, bail};
use baton_frontend::{Backend, Frontend, FrontendConfig, ServeConfig};
use baton_telemetry::{Metrics, init_logging};
use baton_types::{FinishReason, GenerateRequest, SamplingParams, SequenceEvent, TokenId};
use baton_worker::{DecodeWorker, PrefillWorker};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Longest that the first token of a freshly loaded model may take.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// After the last token: how long responses may take to reach their clients.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the engines may take to end the step under way, when nobody waits for it any more.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Runs until SIGTERM or Ctrl-C.
pub(crate) fn run(args: Box<ServeArgs>) -> anyhow::Result<()> {
    let format = match args.log_format {
        LogFormat::Auto => baton_telemetry::LogFormat::Auto,
        LogFormat::Human => baton_telemetry::LogFormat::Human,
        LogFormat::Json => baton_telemetry::LogFormat::Json,
    };
    init_logging(&args.log, format)?;
    let metrics = Metrics::install()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no event loop")?;
    let result = runtime.block_on(serve(args, metrics));
    // A load that was interrupted, or an engine that is stuck, must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(args: Box<ServeArgs>, metrics: Metrics) -> anyhow::Result<()> {
    // The address is taken before anything slow, so that a port in use is found at once; connections are accepted when
    // there is something to serve.
    let address = SocketAddr::new(args.host, args.port);
    let socket = reserve(address)?;
    let mut shutdown = Shutdown::listen()?;
    let (args, serving, backend) = tokio::select! {
        started = start(args) => started?,
        () = shutdown.requested() => bail!("stopped while loading"),
    };
    let decode = serving.decode.clone();
    let config = frontend_config(&args, &serving);
    let frontend = Frontend::new(config, serving.tokenizer, Arc::new(backend), metrics);
    let listener = socket.listen(BACKLOG).context("cannot listen")?;
    announce(&listener, &args, &serving.model_name)?;
    let drained = drain_when_asked(shutdown, frontend.clone(), decode.clone(), args.drain_timeout);
    let limits = ServeConfig { drain_timeout: FLUSH_TIMEOUT, ..ServeConfig::default() };
    let router = baton_frontend::router(frontend);
    baton_frontend::serve_with(listener, router, limits, drained).await.context("the server broke")?;
    stop(&decode, serving.prefill).await
}

/// Done when the server has been asked to stop and nothing runs any more, or it has run for too long. Until then
/// connections are accepted, so that probes see a server that is not ready rather than none.
async fn drain_when_asked(
    mut shutdown: Shutdown,
    frontend: Frontend,
    decode: Arc<DecodeWorker>,
    drain_timeout: Duration,
) {
    shutdown.requested().await;
    info!(running = decode.live(), "shutting down: no new requests, running ones may finish");
    frontend.begin_drain();
    decode.drain();
    let deadline = Instant::now() + drain_timeout;
    let idle = tokio::task::spawn_blocking(move || decode.wait_until_idle(deadline));
    tokio::select! {
        idle = idle => {
            if !idle.unwrap_or(false) {
                warn!(seconds = drain_timeout.as_secs(), "the time to finish is over");
            }
        }
        () = shutdown.requested() => warn!("asked to stop again: not waiting any longer"),
    }
}

/// A model that has computed a token, with everything around it.
async fn start(args: Box<ServeArgs>) -> anyhow::Result<(Box<ServeArgs>, Serving, LocalBackend)> {
    let (args, serving) = fetch_and_load(args).await?;
    let prefill = serving.prefill.as_ref().map(PrefillWorker::health);
    let backend = LocalBackend { decode: serving.decode.clone(), prefill };
    match tokio::time::timeout(SELF_TEST_TIMEOUT, self_test(&backend)).await {
        Ok(tested) => tested.context("the model's first token failed")?,
        Err(_) => bail!("the model's first token took more than {} s", SELF_TEST_TIMEOUT.as_secs()),
    }
    Ok((args, serving, backend))
}

async fn fetch_and_load(args: Box<ServeArgs>) -> anyhow::Result<(Box<ServeArgs>, Serving)> {
    let path = pull::resolve(&args.model).await?;
    tokio::task::spawn_blocking(move || load(&args, &path).map(|serving| (args, serving)))
        .await
        .context("loading the model panicked")?
}

fn reserve(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket =
        if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.context("no socket")?;
    socket.set_reuseaddr(true).context("no socket")?;
    socket
        .bind(address)
        .with_context(|| format!("cannot listen on {address}; choose another --host or --port"))?;
    Ok(socket)
}

fn frontend_config(args: &ServeArgs, serving: &Serving) -> FrontendConfig {
    let names = if args.served_model_name.is_empty() {
        vec![serving.model_name.clone()]
    } else {
        args.served_model_name.clone()
    };
    FrontendConfig {
        served_model_names: names,
        requests_max: args.max_requests,
        request_timeout: args.request_timeout,
        api_keys: args.api_key.clone(),
        sampling_defaults: serving.sampling_defaults,
        eos_ids: serving.end_tokens.clone(),
        ..FrontendConfig::new(serving.model_name.clone(), serving.max_model_len)
    }
}

/// One token through the whole engine: a server that says it is ready has computed something.
async fn self_test(backend: &LocalBackend) -> anyhow::Result<()> {
    let request = GenerateRequest {
        request_id: "self-test".into(),
        prompt: Arc::from([TokenId(0)]),
        sampling: SamplingParams { temperature: 0.0, max_tokens: 1, ..SamplingParams::default() },
        cache_salt: Arc::from(&b"self-test"[..]),
        deadline: Instant::now() + SELF_TEST_TIMEOUT,
    };
    let mut stream = backend.generate(request)?;
    while let Some(event) = stream.recv().await {
        if let SequenceEvent::Finished(finish) = event {
            return match finish.reason {
                FinishReason::Stop(_) | FinishReason::Length => Ok(()),
                FinishReason::Error(reason) => bail!(reason),
                other => bail!("{other:?}"),
            };
        }
    }
    bail!("the engine broke")
}

/// Tells a person where the server is. The first line is for programs too.
fn announce(listener: &TcpListener, args: &ServeArgs, model: &str) -> anyhow::Result<()> {
    let address = listener.local_addr().context("no address")?;
    let model = args.served_model_name.first().map_or(model, String::as_str);
    let url = if address.port() == 8000 { String::new() } else { format!(" --url http://{address}") };
    // As it was called: it may not be on the path.
    let program = std::env::args().next().unwrap_or_else(|| "baton".into());
    println!("listening on http://{address}");
    println!();
    println!("  curl http://{address}/v1/chat/completions -H 'content-type: application/json' \\");
    println!(
        "    -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}]}}'"
    );
    println!();
    println!("  talk to it:   {program} chat{url}");
    println!("  metrics:      http://{address}/metrics");
    Ok(())
}

/// The engines' end: those who pull first, then those who are pulled from.
async fn stop(decode: &Arc<DecodeWorker>, prefill: Option<PrefillWorker>) -> anyhow::Result<()> {
    let decode = decode.clone();
    let stopping = tokio::task::spawn_blocking(move || {
        // The HTTP side waited for its responses already; what is left has no reader.
        let all_ended = decode.stop(Instant::now());
        if let Some(prefill) = prefill {
            prefill.stop();
        }
        all_ended
    });
    match tokio::time::timeout(STOP_TIMEOUT, stopping).await {
        Ok(Ok(true)) => info!("stopped"),
        Ok(Ok(false)) => warn!("stopped; some requests were cut off"),
        Ok(Err(panic)) => return Err(panic).context("stopping the engines panicked"),
        Err(_) => warn!(seconds = STOP_TIMEOUT.as_secs(), "stopped; an engine did not end its step in time"),
    }
    Ok(())
}

/// SIGTERM and Ctrl-C.
struct Shutdown {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Shutdown {
    fn listen() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
