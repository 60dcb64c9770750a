//! A streaming client that notes when each token arrives.

use anyhow::{Context, bail};
use futures::StreamExt;
use rand::Rng;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// What both servers are told to call the model.
pub(crate) const MODEL: &str = "bench";

/// A server to measure.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) url: String,
    /// Added to every request: what makes this server do the same work as the other.
    pub(crate) extra: Value,
    http: reqwest::Client,
}

/// One streamed answer.
pub(crate) struct Answer {
    pub(crate) sent: Instant,
    /// Tokens that were asked for, and came: end tokens are ignored.
    pub(crate) tokens: usize,
    /// When each piece of text came. Mostly one a token; a token that ends within a character sends none.
    pub(crate) arrivals: Vec<Instant>,
}

impl Answer {
    pub(crate) fn ttft(&self) -> Duration {
        self.arrivals[0] - self.sent
    }

    /// Tokens a second after the first.
    pub(crate) fn decode_rate(&self) -> f64 {
        let span = *self.arrivals.last().expect("an answer has tokens") - self.arrivals[0];
        (self.tokens - 1) as f64 / span.as_secs_f64()
    }
}

impl Target {
    pub(crate) fn new(url: String, extra: Value) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).tcp_nodelay(true).build()?;
        Ok(Self { url, extra, http })
    }

    /// Whether it answers requests.
    pub(crate) async fn is_ready(&self) -> bool {
        match self.http.get(format!("{}/health", self.url)).send().await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        }
    }

    /// Streams a completion of `output_tokens` tokens, end tokens ignored; `on_token` is called at each with its number.
    pub(crate) async fn complete(
        &self,
        prompt: &[u32],
        output_tokens: usize,
        mut on_token: impl FnMut(usize),
    ) -> anyhow::Result<Answer> {
        let mut body = json!({
            "model": MODEL, "prompt": prompt, "max_tokens": output_tokens, "temperature": 0.0, "stream": true, "ignore_eos": true,
        });
        if let (Value::Object(body), Value::Object(extra)) = (&mut body, &self.extra) {
            body.extend(extra.clone());
        }
        let sent = Instant::now();
        let response = self.http.post(format!("{}/v1/completions", self.url)).json(&body).send().await?;
        if !response.status().is_success() {
            bail!("{}: {}: {}", self.url, response.status(), response.text().await.unwrap_or_default());
        }
        let mut arrivals = Vec::with_capacity(output_tokens);
        let (mut stream, mut buffer) = (response.bytes_stream(), Vec::new());
        while let Some(chunk) = stream.next().await {
            let now = Instant::now();
            buffer.extend_from_slice(&chunk.context("the stream broke")?);
            while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = buffer.drain(..end + 2).collect();
                if is_token(&event)? {
                    arrivals.push(now);
                    on_token(arrivals.len());
                }
            }
        }
        if arrivals.len() < output_tokens.div_ceil(2) {
            bail!("{}: {} events for {output_tokens} tokens", self.url, arrivals.len());
        }
        Ok(Answer { sent, tokens: output_tokens, arrivals })
    }
}

/// Whether an SSE event is a token: a choice that has not ended. Text may be empty, in the middle of a character.
fn is_token(event: &[u8]) -> anyhow::Result<bool> {
    let Some(data) = event.strip_prefix(b"data: ") else { return Ok(false) };
    if data.starts_with(b"[DONE]") {
        return Ok(false);
    }
    let value: Value = serde_json::from_slice(data).context("an event is not JSON")?;
    if let Some(error) = value.get("error") {
        bail!("the server says: {error}");
    }
    let choice = &value["choices"][0];
    Ok(choice.is_object() && (choice["finish_reason"].is_null() || choice["text"] != ""))
}

/// Tokens that nobody has cached. From the part of the vocabulary where all are plain text.
pub(crate) fn random_prompt(len: usize) -> Vec<u32> {
    let mut rng = rand::rng();
    (0..len).map(|_| rng.random_range(1000..40_000)).collect()
}
