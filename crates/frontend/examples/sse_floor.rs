//! What a streamed token costs here, next to the least it could cost.
//!
//! Two servers, each in a process of its own, send the same bytes to the same clients at the same pace, one token a
//! connection a step: this crate behind an engine that does nothing, and a bare tokio task a connection that writes a
//! prepared chunk. Printed is the CPU time of each server's threads (but for the one that plays the engine) per 1,000
//! tokens, and the ratio.
//!
//! `cargo run --release -p baton-frontend --example sse_floor [CONNECTIONS [TOKENS [STEP_MICROSECONDS]]]`

#![expect(clippy::disallowed_methods, reason = "a measurement: its tasks end with its process")]

use baton_frontend::{Backend, Frontend, FrontendConfig, Health, TokenSink, TokenStream, router, serve};
use baton_telemetry::Metrics;
use baton_tokenizer::Tokenizer;
use baton_types::tokenizer_source::GgufTokenizer;
use baton_types::{
    AdmitError, Finish, FinishReason, GenerateRequest, OutputToken, SequenceEvent, TokenId, TokenizerSource,
};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    tokens: usize,
    step: Duration,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let role = args.first().filter(|arg| arg.starts_with("serve-")).cloned();
    let numbers: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let number = |index: usize, default: usize| numbers.get(index).copied().unwrap_or(default);
    let load = Load {
        connections: number(0, 64),
        tokens: number(1, 1000),
        step: Duration::from_micros(number(2, 5000) as u64),
    };
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match role.as_deref() {
        Some("serve-baton") => runtime().block_on(serve_baton(load)),
        Some("serve-floor") => runtime().block_on(serve_floor(load)),
        _ => compare(load, &runtime()),
    }
}

fn compare(load: Load, runtime: &tokio::runtime::Runtime) {
    let total = load.connections * load.tokens;
    println!("{} connections, {} tokens each, a step every {:?}", load.connections, load.tokens, load.step);
    for round in 1..=3 {
        let [floor, baton] = ["serve-floor", "serve-baton"].map(|role| {
            let (mut child, address) = start(role, load);
            let (before, began) = (cpu_time(child.id()), Instant::now());
            let bytes = runtime.block_on(async {
                let clients = (0..load.connections).map(|_| tokio::spawn(client(address)));
                let mut bytes = 0;
                for client in clients.collect::<Vec<_>>() {
                    bytes += client.await.unwrap();
                }
                bytes
            });
            let cpu = cpu_time(child.id()) - before;
            child.kill().unwrap();
            child.wait().unwrap();
            let per_1000 = cpu.as_secs_f64() * 1e6 / total as f64;
            let per_token = bytes / total;
            println!(
                "{role:12} {per_1000:6.2} ms CPU per 1,000 tokens ({per_token} bytes a token, {:?})",
                began.elapsed()
            );
            per_1000
        });
        println!("round {round}: ratio {:.2}", baton / floor);
    }
}

fn start(role: &str, load: Load) -> (Child, SocketAddr) {
    let numbers =
        [load.connections, load.tokens, load.step.as_micros() as usize].map(|number| number.to_string());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(role)
        .args(numbers)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

/// Nanoseconds on a CPU of all threads but the engine's, from the scheduler's own count.
fn cpu_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanoseconds = tasks.map(|task| {
        let path = task.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let counts = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let on_cpu: u64 = counts.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
        if name.trim() == "engine" { 0 } else { on_cpu }
    });
    Duration::from_nanos(nanoseconds.sum())
}

const BODY: &str = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"stream":true}"#;

/// Reads a whole response; its length.
async fn client(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{BODY}", BODY.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return total,
            count => total += count,
        }
    }
}

/// Once all connections are there: a token for each of them every step, from a thread of its own.
fn run_engine<S: Send + 'static>(
    load: Load,
    streams: Vec<S>,
    token: impl Fn(&S) + Send + 'static,
    end: impl Fn(&S) + Send + 'static,
) {
    let engine = move || {
        let mut next = Instant::now();
        for _ in 0..load.tokens {
            next += load.step;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            streams.iter().for_each(&token);
        }
        streams.iter().for_each(&end);
    };
    std::thread::Builder::new().name("engine".into()).spawn(engine).unwrap();
}

struct IdleEngine {
    load: Load,
    waiting: Mutex<Vec<TokenSink>>,
}

impl Backend for IdleEngine {
    fn generate(&self, request: GenerateRequest) -> Result<TokenStream, AdmitError> {
        let (sink, stream) = TokenStream::channel(self.load.tokens + 4, || {});
        let mut waiting = self.waiting.lock().unwrap();
        waiting.push(sink);
        if waiting.len() == self.load.connections {
            let finish = Finish {
                reason: FinishReason::Length,
                prompt_tokens: request.prompt.len(),
                cached_tokens: 0,
                output_tokens: self.load.tokens,
            };
            let token = SequenceEvent::Token(OutputToken { id: TokenId(u32::from(b'a')), logprobs: None });
            let send = move |sink: &TokenSink| sink.send(token.clone()).unwrap();
            let end = move |sink: &TokenSink| sink.send(SequenceEvent::Finished(finish.clone())).unwrap();
            run_engine(self.load, std::mem::take(&mut *waiting), send, end);
        }
        Ok(stream)
    }

    fn health(&self) -> Health {
        Health::good()
    }
}

async fn serve_baton(load: Load) {
    let backend = Arc::new(IdleEngine { load, waiting: Mutex::default() });
    let config = FrontendConfig::new("tiny", 1 << 20);
    let frontend = Frontend::new(config, tokenizer(), backend, Metrics::install().unwrap());
    let listener = listen().await;
    serve(listener, router(frontend), std::future::pending()).await.unwrap();
}

/// The least a streaming server can do: wait for a message, write its bytes.
async fn serve_floor(load: Load) {
    let listener = listen().await;
    let mut streams = Vec::new();
    for _ in 0..load.connections {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(load.tokens + 4);
        streams.push(sender);
        tokio::spawn(async move {
            stream.read_buf(&mut Vec::with_capacity(1024)).await.unwrap();
            let chunk = chunk();
            while receiver.recv().await.is_some() {
                stream.write_all(&chunk).await.unwrap();
            }
        });
    }
    run_engine(load, streams, |sender| sender.try_send(()).unwrap(), |_| {});
    std::future::pending().await
}

async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    listener
}

/// What the other server sends for a token, byte for byte but for the id.
fn chunk() -> Vec<u8> {
    let id = "0".repeat(32);
    let version = env!("CARGO_PKG_VERSION");
    let event = format!(
        "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"tiny\",\
         \"system_fingerprint\":\"baton-{version}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"a\"}},\
         \"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    );
    format!("{:X}\r\n{event}\r\n", event.len()).into_bytes()
}

/// The printable ASCII characters, each a token of its own number.
fn tokenizer() -> Tokenizer {
    let tokens = (0..128u32)
        .map(|code| char::from_u32(if code > 32 { code } else { code + 256 }).unwrap().to_string());
    let source = GgufTokenizer {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: tokens.collect(),
        chat_template: Some("{{ messages[0].content }}".into()),
        ..GgufTokenizer::default()
    };
    Tokenizer::from_source(&TokenizerSource::Gguf(Box::new(source))).unwrap()
}
