//! A server on a real socket, a backend that does what a test says, a tokenizer of one token a byte, a plain client.

use baton_frontend::{
    Backend, Frontend, FrontendConfig, Health, ServeConfig, TokenSink, TokenStream, router, serve_with,
};
use baton_telemetry::Metrics;
use baton_tokenizer::Tokenizer;
use baton_types::tokenizer_source::GgufTokenizer;
use baton_types::{
    AdmitError, Finish, FinishReason, GenerateRequest, OutputToken, SequenceEvent, TokenId, TokenLogprobs,
    TokenizerSource,
};
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) const MODEL: &str = "tiny";
pub(crate) const MAX_MODEL_LEN: usize = 256;
/// `<|im_start|>`, after one token for each byte.
pub(crate) const START: u32 = 256;
/// `<|im_end|>`: the end token.
pub(crate) const END: u32 = 257;
/// Longest any test waits for something that should happen at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Every byte is the token of its own number; then `<|im_start|>` and `<|im_end|>`.
pub(crate) fn tokenizer() -> Tokenizer {
    let mut next = 256;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| {
            // The alphabet of byte-level BPE: printable bytes stand for themselves, others for characters from 256 on.
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable { u32::from(byte) } else { next };
            next += u32::from(!printable);
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    tokens.extend(["<|im_start|>".to_owned(), "<|im_end|>".to_owned()]);
    let mut token_types = vec![1; 256];
    token_types.extend([3, 3]);
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                    {% if messages[0].content == 'refuse me' %}{{ raise_exception('no') }}{% endif %}\
                    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    Tokenizer::from_source(&TokenizerSource::Gguf(Box::new(GgufTokenizer {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens,
        token_types,
        eos: Some(TokenId(END)),
        chat_template: Some(template.into()),
        ..GgufTokenizer::default()
    })))
    .unwrap()
}

type Behaviour = Box<dyn Fn(&GenerateRequest, TokenSink) -> Result<(), AdmitError> + Send + Sync>;

/// Does with each request what the test says, and remembers it.
pub(crate) struct TestBackend {
    behaviour: Behaviour,
    pub(crate) requests: Mutex<Vec<GenerateRequest>>,
    pub(crate) health: Mutex<Health>,
    dropped: watch::Sender<usize>,
}

impl Backend for TestBackend {
    fn generate(&self, request: GenerateRequest) -> Result<TokenStream, AdmitError> {
        let dropped = self.dropped.clone();
        let capacity = request.sampling.max_tokens as usize + 4;
        let (sink, stream) = TokenStream::channel(capacity, move || dropped.send_modify(|count| *count += 1));
        (self.behaviour)(&request, sink)?;
        self.requests.lock().unwrap().push(request);
        Ok(stream)
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }
}

impl TestBackend {
    /// Waits until this many token streams were dropped.
    pub(crate) async fn wait_for_drops(&self, count: usize) {
        let mut dropped = self.dropped.subscribe();
        let waited = tokio::time::timeout(DEADLINE, dropped.wait_for(|dropped| *dropped >= count)).await;
        assert!(waited.is_ok(), "{} of {count} token streams were dropped", *self.dropped.borrow());
    }

    pub(crate) fn drops(&self) -> usize {
        *self.dropped.borrow()
    }

    pub(crate) fn request(&self, index: usize) -> GenerateRequest {
        self.requests.lock().unwrap()[index].clone()
    }
}

pub(crate) fn token(id: u32) -> SequenceEvent {
    SequenceEvent::Token(OutputToken { id: TokenId(id), logprobs: None })
}

pub(crate) fn finished(
    reason: FinishReason,
    request: &GenerateRequest,
    output_tokens: usize,
) -> SequenceEvent {
    let prompt_tokens = request.prompt.len();
    SequenceEvent::Finished(Finish { reason, prompt_tokens, cached_tokens: 3, output_tokens })
}

/// The log-probability of any token is -0.5; the most likely ones are it and those after it, half as likely each time.
fn logprobs(id: u32, top: u8) -> TokenLogprobs {
    let top = (0..u32::from(top)).map(|next| (TokenId(id + next), -0.5 - next as f32)).collect();
    TokenLogprobs { logprob: -0.5, top }
}

/// An engine whose model always says `text`, as far as `max_tokens` goes, all of it at once.
pub(crate) fn say(text: &'static str) -> Behaviour {
    Box::new(move |request, sink| {
        sink.send(SequenceEvent::Admitted { cached_tokens: 3 }).unwrap();
        if let Some(top) = request.sampling.prompt_logprobs {
            let entries = request.prompt[1..].iter().map(|id| logprobs(id.0, top)).collect();
            sink.send(SequenceEvent::PromptLogprobs(entries)).unwrap();
        }
        let ids: Vec<u32> = text.bytes().map(u32::from).chain([END]).collect();
        let shown = ids.len().min(request.sampling.max_tokens as usize);
        for id in &ids[..shown] {
            let logprobs = request.sampling.logprobs.map(|top| logprobs(*id, top));
            sink.send(SequenceEvent::Token(OutputToken { id: TokenId(*id), logprobs })).unwrap();
        }
        let reason = if shown == ids.len() { FinishReason::Stop(TokenId(END)) } else { FinishReason::Length };
        sink.send(finished(reason, request, shown)).unwrap();
        Ok(())
    })
}

/// An engine that sends `events` and then nothing more, without letting go.
pub(crate) fn hang_after(events: Vec<SequenceEvent>) -> Behaviour {
    let sinks = Mutex::new(Vec::new());
    Box::new(move |_, sink| {
        sink.send(SequenceEvent::Admitted { cached_tokens: 3 }).unwrap();
        events.iter().for_each(|event| sink.send(event.clone()).unwrap());
        sinks.lock().unwrap().push(sink);
        Ok(())
    })
}

/// An engine that ends each sequence for this reason, after one token.
pub(crate) fn end_with(reason: FinishReason) -> Behaviour {
    Box::new(move |request, sink| {
        sink.send(token(u32::from(b'a'))).unwrap();
        sink.send(finished(reason.clone(), request, 1)).unwrap();
        Ok(())
    })
}

/// An engine that takes nothing.
pub(crate) fn refuse(error: AdmitError) -> Behaviour {
    Box::new(move |_, _| Err(error.clone()))
}

/// An engine in the hands of the test: every request's sink arrives in the channel.
pub(crate) fn by_hand() -> (Behaviour, tokio::sync::mpsc::UnboundedReceiver<TokenSink>) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let behaviour: Behaviour = Box::new(move |_, sink| {
        sender.send(sink).unwrap();
        Ok(())
    });
    (behaviour, receiver)
}

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) backend: Arc<TestBackend>,
    pub(crate) frontend: Frontend,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::start_with(behaviour, |_, _| {}).await
    }

    pub(crate) async fn start_with(
        behaviour: Behaviour,
        change: impl FnOnce(&mut FrontendConfig, &mut ServeConfig),
    ) -> Self {
        let (mut config, mut serve_config) =
            (FrontendConfig::new(MODEL, MAX_MODEL_LEN), ServeConfig::default());
        change(&mut config, &mut serve_config);
        let backend = Arc::new(TestBackend {
            behaviour,
            requests: Mutex::default(),
            health: Mutex::new(Health::good()),
            dropped: watch::channel(0).0,
        });
        let frontend = Frontend::new(
            config,
            tokenizer(),
            Arc::clone(&backend) as Arc<dyn Backend>,
            Metrics::install().unwrap(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve_with(listener, router(frontend.clone()), serve_config, shutdown));
        Self { address, backend, frontend, stop: Some(stop), serving }
    }

    /// Begins the shutdown.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for the end of `serve`.
    pub(crate) async fn stopped(self) {
        tokio::time::timeout(DEADLINE, self.serving).await.expect("serve ends in time").unwrap().unwrap();
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "", body.to_string().as_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", b"").await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let mut stream = self.open(method, path, &format!("connection: close\r\n{headers}"), body).await;
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
        read.expect("the response ends in time").unwrap();
        Reply::parse(&bytes)
    }

    /// A connection on which a request was sent, and nothing was read.
    pub(crate) async fn open(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        stream
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let head_len =
            bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a response has a head");
        let head = std::str::from_utf8(&bytes[..head_len]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let raw = &bytes[head_len + 4..];
        let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let body = if chunked { dechunk(raw) } else { raw.to_vec() };
        Self { status, headers, body: String::from_utf8(body).unwrap() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The data of all events; the end mark is a string.
    pub(crate) fn events(&self) -> Vec<Value> {
        let events = self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        events.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }
}

/// Undoes the chunked coding (RFC 9112, section 7.1); what broke off is left out.
fn dechunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = raw.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..line]).unwrap(), 16).unwrap();
        if length == 0 || raw.len() < line + 4 + length {
            break;
        }
        body.extend_from_slice(&raw[line + 2..line + 2 + length]);
        raw = &raw[line + 4 + length..];
    }
    body
}

/// Reads until `pattern` has arrived, and gives all that was read.
pub(crate) async fn read_until(stream: &mut TcpStream, pattern: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(pattern) {
            let count = stream.read_buf(&mut seen).await.unwrap();
            assert!(count > 0, "the connection ended before {pattern:?}: {}", String::from_utf8_lossy(&seen));
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, reading).await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(in_time.is_ok(), "{pattern:?} did not arrive: {seen}");
    seen
}
