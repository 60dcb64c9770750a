//! `baton chat`: a conversation with a running server, in a terminal or through a pipe.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Options of `baton chat`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChatArgs {
    /// Address of the server.
    #[arg(long, env = "BATON_URL", default_value = "http://127.0.0.1:8000")]
    pub(crate) url: String,
    /// Ask this, print the answer and leave. Without it, each line of standard input is a message.
    #[arg(long, short)]
    pub(crate) prompt: Option<String>,
    /// Name of the model. Default: the first one that the server has.
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// What the model is told before the conversation.
    #[arg(long, short)]
    pub(crate) system: Option<String>,
    /// 0 gives the most likely answer, more gives more variety. Default: the server's.
    #[arg(long, short)]
    pub(crate) temperature: Option<f32>,
    /// Longest answer, in tokens. Default: what is left of the context.
    #[arg(long)]
    pub(crate) max_tokens: Option<u32>,
    /// Key for a server that asks for one.
    #[arg(long, env = "BATON_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

/// A server on the same machine answers at once, one far away within seconds.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Servers say something every 15 s even while a request waits its turn.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Runs [`chat`] to its end.
///
/// # Errors
/// As [`chat`].
pub(crate) fn run(args: ChatArgs) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no event loop")?;
    runtime.block_on(Box::pin(chat(args)))
}

/// Talks until the input ends, or answers one prompt. Answers go to standard output, all else to standard error.
///
/// # Errors
/// If no server answers; without a person at the terminal also if a question fails.
pub(crate) async fn chat(args: ChatArgs) -> anyhow::Result<()> {
    let server = Server::find(&args).await?;
    let mut interrupts = signal(SignalKind::interrupt()).context("Ctrl-C cannot be caught")?;
    let mut conversation = Conversation::new(args.system.as_deref());
    if let Some(prompt) = &args.prompt {
        return conversation.turn(&server, prompt, &mut interrupts).await;
    }
    let is_person = io::stdin().is_terminal();
    let mut lines = lines_of_stdin()?;
    if is_person {
        eprintln!("Talking to {}. Ctrl-C stops an answer, /clear starts anew, Ctrl-D leaves.", server.model);
    }
    loop {
        if is_person {
            eprint!("> ");
        }
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = interrupts.recv() => None,
        };
        match line.as_deref().map(str::trim) {
            None | Some("/exit" | "/quit" | "/bye") => break,
            Some("") => {}
            Some("/clear") => conversation = Conversation::new(args.system.as_deref()),
            Some(text) => match conversation.turn(&server, text, &mut interrupts).await {
                Err(error) if is_person => eprintln!("{error:#}"),
                outcome => outcome?,
            },
        }
    }
    if is_person {
        eprintln!();
    }
    Ok(())
}

/// What was said so far.
struct Conversation {
    messages: Vec<Value>,
}

impl Conversation {
    fn new(system: Option<&str>) -> Self {
        Self { messages: system.map(|text| message("system", text)).into_iter().collect() }
    }

    /// Asks, and prints the answer while it comes. What Ctrl-C cuts short counts as said; what failed does not.
    async fn turn(&mut self, server: &Server, text: &str, interrupts: &mut Signal) -> anyhow::Result<()> {
        self.messages.push(message("user", text));
        let (mut answer, mut out) = (Answer::new(), io::stdout());
        let outcome = tokio::select! {
            outcome = server.ask(&self.messages, &mut answer, &mut out) => outcome,
            _ = interrupts.recv() => Ok(()),
        };
        if !answer.text.is_empty() {
            println!();
        }
        if io::stdout().is_terminal() {
            answer.report();
        }
        if answer.text.is_empty() {
            self.messages.pop();
        } else {
            self.messages.push(message("assistant", &answer.text));
        }
        outcome
    }
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// A server, and how we ask it.
struct Server {
    client: Client,
    /// Without `/v1`.
    url: String,
    model: String,
    api_key: Option<String>,
    temperature: Option<f32>,
    max_tokens: Option<u32>,
}

impl Server {
    async fn find(args: &ChatArgs) -> anyhow::Result<Self> {
        let client = Client::builder().connect_timeout(CONNECT_MAX).read_timeout(SILENCE_MAX).build()?;
        let url = args.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut server = Self {
            client,
            url,
            model: args.model.clone().unwrap_or_default(),
            api_key: args.api_key.clone(),
            temperature: args.temperature,
            max_tokens: args.max_tokens,
        };
        if args.model.is_none() {
            server.model = server.first_model().await?;
        }
        Ok(server)
    }

    async fn first_model(&self) -> anyhow::Result<String> {
        let answer: Value = self
            .send(self.client.get(format!("{}/v1/models", self.url)))
            .await?
            .json()
            .await
            .with_context(|| format!("{} does not speak the OpenAI API", self.url))?;
        let model = answer["data"][0]["id"].as_str();
        model.map(str::to_owned).with_context(|| format!("{} has no model", self.url))
    }

    /// Streams the answer to `messages` into `answer` and `out`.
    async fn ask(&self, messages: &[Value], answer: &mut Answer, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(max_tokens) = self.max_tokens {
            body["max_tokens"] = json!(max_tokens);
        }
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).json(&body);
        let mut response = self.send(request).await?;
        let mut events = Events::default();
        while let Some(bytes) = response.chunk().await.context("the answer broke off")? {
            for event in events.push(&bytes) {
                if event == "[DONE]" {
                    return Ok(());
                }
                answer.add(&event, out)?;
            }
        }
        bail!("the answer broke off: the server closed the connection")
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true => anyhow!(
                "no server answers at {}; start one with `baton serve`, or say with --url where it is",
                self.url
            ),
            false => anyhow!(error).context(format!("asking {} failed", self.url)),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body: Value = response.json().await.unwrap_or_default();
        let why = body["error"]["message"].as_str().unwrap_or("it gave no reason");
        match status {
            StatusCode::UNAUTHORIZED => bail!("{} wants a key ({why}); give it with --api-key", self.url),
            _ => bail!("{} answered {status}: {why}", self.url),
        }
    }
}

/// An answer while it comes.
struct Answer {
    text: String,
    tokens: u64,
    asked: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Answer {
    fn new() -> Self {
        Self { text: String::new(), tokens: 0, asked: Instant::now(), first: None, last: None }
    }

    /// Takes one chunk of the token stream.
    fn add(&mut self, event: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let chunk: Value = serde_json::from_str(event).context("the server sent a chunk that is no JSON")?;
        if let Some(why) = chunk["error"]["message"].as_str() {
            bail!("the server gave up: {why}");
        }
        if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
            self.first.get_or_insert_with(Instant::now);
            self.last = Some(Instant::now());
            self.text.push_str(text);
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .context("the answer cannot be printed")?;
        }
        if let Some(tokens) = chunk["usage"]["completion_tokens"].as_u64() {
            self.tokens = tokens;
        }
        Ok(())
    }

    /// One line on how fast it came; an answer that was stopped has no count of tokens.
    fn report(&self) {
        let (Some(first), Some(last)) = (self.first, self.last) else { return };
        let wait = first.duration_since(self.asked).as_secs_f64();
        let seconds = last.duration_since(first).as_secs_f64();
        match self.tokens {
            0 => eprintln!("[stopped; first token after {wait:.2} s]"),
            tokens if tokens > 1 && seconds > 0.0 => {
                let rate = (tokens - 1) as f64 / seconds;
                eprintln!("[{tokens} tokens, first after {wait:.2} s, then {rate:.1} tokens/s]");
            }
            tokens => eprintln!("[{tokens} tokens after {wait:.2} s]"),
        }
    }
}

/// Cuts server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) out of pieces of any size.
/// Only `data` lines are of use here; the server puts a whole chunk in one.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        let lines = String::from_utf8_lossy(&lines);
        lines
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.trim().to_owned())
            .collect()
    }
}

/// Lines as they are typed. The thread may be left waiting for input that never comes: it holds nothing.
fn lines_of_stdin() -> anyhow::Result<mpsc::Receiver<String>> {
    // One line ahead: a pipe is read as fast as its lines are answered.
    let (sender, receiver) = mpsc::channel(1);
    let read = move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(read)
        .context("no thread to read the input")?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn args(url: &str) -> ChatArgs {
        ChatArgs {
            url: url.to_owned(),
            prompt: None,
            model: None,
            system: None,
            temperature: Some(0.0),
            max_tokens: None,
            api_key: Some("key".to_owned()),
        }
    }

    /// Answers one connection after the other with these bodies and gives back what was asked.
    async fn serve(listener: TcpListener, answers: &[(&str, &str)]) -> Vec<String> {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request_is_whole(&request) {
                let count = socket.read(&mut buffer).await.expect("reads");
                assert_ne!(count, 0, "the request broke off");
                request.extend_from_slice(&buffer[..count]);
            }
            asked.push(String::from_utf8(request).expect("text"));
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            socket.write_all(head.as_bytes()).await.expect("writes");
            socket.write_all(body.as_bytes()).await.expect("writes");
        }
        asked
    }

    fn request_is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        body.len() >= length.unwrap_or(0)
    }

    const MODELS: (&str, &str) = ("200 OK", r#"{"data": [{"id": "tiny"}]}"#);

    #[tokio::test]
    async fn an_answer_is_streamed_and_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/v1/", listener.local_addr().expect("has an address"));
        let stream = "data: {\"choices\": [{\"delta\": {\"content\": \"Grüß\"}}]}\n\n: still there\n\n\
            data: {\"choices\": [{\"delta\": {\"content\": \" Gott\"}}]}\n\n\
            data: {\"choices\": [], \"usage\": {\"completion_tokens\": 7}}\n\ndata: [DONE]\n\n";
        let client = async {
            let server = Server::find(&args(&url)).await.expect("a server");
            let (mut answer, mut out) = (Answer::new(), Vec::new());
            server.ask(&[message("user", "hi")], &mut answer, &mut out).await.expect("an answer");
            assert_eq!(String::from_utf8(out).expect("text"), "Grüß Gott");
            assert_eq!((answer.text.as_str(), answer.tokens), ("Grüß Gott", 7));
        };
        let answers = [MODELS, ("200 OK", stream)];
        let (asked, ()) = tokio::join!(serve(listener, &answers), client);
        assert!(asked[0].starts_with("GET /v1/models "), "{}", asked[0]);
        assert!(asked[1].contains("authorization: Bearer key"), "{}", asked[1]);
        let body: Value =
            serde_json::from_str(asked[1].split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
        assert_eq!(body["model"], "tiny");
        assert_eq!(body["messages"], json!([{"role": "user", "content": "hi"}]));
        assert_eq!((&body["temperature"], &body["max_tokens"]), (&json!(0.0), &Value::Null));
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        let cut = "data: {\"choices\": [{\"delta\": {\"content\": \"a\"}}]}\n\n";
        let failed = "data: {\"error\": {\"message\": \"out of luck\"}}\n\n";
        let refused = r#"{"error": {"message": "too many"}}"#;
        let answers =
            [MODELS, ("200 OK", cut), ("200 OK", failed), ("429 Busy", refused), ("401 No", refused)];
        let client = async {
            let server = Server::find(&args(&url)).await.expect("a server");
            let mut told = Vec::new();
            for _ in 1..answers.len() {
                let outcome = server.ask(&[], &mut Answer::new(), &mut Vec::new()).await;
                told.push(outcome.expect_err("fails").to_string());
            }
            assert!(told[0].contains("closed the connection"), "{}", told[0]);
            assert!(told[1].contains("out of luck"), "{}", told[1]);
            assert!(told[2].contains("429") && told[2].contains("too many"), "{}", told[2]);
            assert!(told[3].contains("--api-key"), "{}", told[3]);
        };
        tokio::join!(serve(listener, &answers), client);
        let Err(error) = Server::find(&args(&url)).await else { panic!("nobody listens any more") };
        assert!(error.to_string().contains("baton serve"), "{error}");
    }

    #[test]
    fn events_come_in_pieces_of_any_size() {
        let stream = "data: {\"a\": \"ü\"}\r\n\r\n: comment\n\ndata: [DONE]\n\n".as_bytes();
        for size in 1..stream.len() {
            let mut events = Events::default();
            let got: Vec<_> = stream.chunks(size).flat_map(|piece| events.push(piece)).collect();
            assert_eq!(got, ["{\"a\": \"ü\"}", "[DONE]"], "in pieces of {size}");
        }
    }
}
