//! Token streams: their bytes, and how events become frames.

use crate::common::{DEADLINE, Server, by_hand, read_until, say, token};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncReadExt;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn chat(more: Value) -> Value {
    let mut request =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": true});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The body with its two random parts replaced.
fn normalised(body: &str) -> String {
    let id = body.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
    let created = body.split("\"created\":").nth(1).unwrap().split(',').next().unwrap();
    body.replace(id, "ID").replace(created, "0").replace(concat!("baton-", env!("CARGO_PKG_VERSION")), "FP")
}

#[tokio::test]
async fn a_chat_stream_has_exactly_these_bytes() {
    let (behaviour, mut sinks) = by_hand();
    let server = Server::start(behaviour).await;
    let request = chat(json!({"stream_options": {"include_usage": true}}));
    let reply = tokio::spawn(async move { (server.post(CHAT, &request).await, server) });
    let sink = sinks.recv().await.unwrap();
    // A character in two tokens, a quote, and the end token.
    for id in [0xc3, 0xa9, u32::from(b'"'), crate::common::END] {
        sink.send(token(id)).unwrap();
    }
    let finish = baton_types::Finish {
        reason: baton_types::FinishReason::Stop(baton_types::TokenId(crate::common::END)),
        prompt_tokens: 21,
        cached_tokens: 16,
        output_tokens: 4,
    };
    sink.send(baton_types::SequenceEvent::Finished(finish)).unwrap();
    let (reply, _server) = reply.await.unwrap();
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(reply.headers["cache-control"], "no-cache");
    let head = "data: {\"id\":\"ID\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"tiny\",\
                \"system_fingerprint\":\"FP\",\"choices\":[";
    let chunks = [
        "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}",
        "{\"index\":0,\"delta\":{\"content\":\"é\\\"\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}",
        "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}",
        "],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":4,\"total_tokens\":25,\
         \"prompt_tokens_details\":{\"audio_tokens\":0,\"cached_tokens\":16},\
         \"completion_tokens_details\":{\"accepted_prediction_tokens\":0,\"audio_tokens\":0,\
         \"reasoning_tokens\":0,\"rejected_prediction_tokens\":0}}}",
    ];
    let body = normalised(&reply.body);
    // All tokens were there before the server looked, so their text is one chunk.
    let expected: String = chunks.iter().map(|chunk| format!("{head}{chunk}\n\n")).collect();
    assert_eq!(body, format!("{expected}data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_completion_stream_has_texts_and_no_role() {
    let server = Server::start(say("ab")).await;
    let request = json!({"model": "tiny", "prompt": "hi", "stream": true, "logprobs": 0, "echo": true});
    let events = server.post(TEXT, &request).await.events();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "hiab");
    let offsets: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["text_offset"].as_array())
        .flatten()
        .collect();
    assert_eq!(offsets, [&json!(0), &json!(1), &json!(2), &json!(3)]);
    assert!(events.iter().all(|event| event["choices"][0].get("delta").is_none()));
    let last_chunk = &events[events.len() - 2];
    assert_eq!(
        (&last_chunk["choices"][0]["finish_reason"], &last_chunk["object"]),
        (&json!("stop"), &json!("text_completion"))
    );
    assert_eq!(events.last().unwrap(), "[DONE]");
}

#[tokio::test]
async fn tokens_are_sent_as_they_come_and_stop_strings_are_found_across_them() {
    let (behaviour, mut sinks) = by_hand();
    let server = Server::start(behaviour).await;
    let mut stream =
        server.open("POST", CHAT, "", chat(json!({"stop": "<end>"})).to_string().as_bytes()).await;
    let sink = sinks.recv().await.unwrap();
    let send = |text: &str| text.bytes().for_each(|byte| sink.send(token(u32::from(byte))).unwrap());
    send("a");
    let first = read_until(&mut stream, "\"content\":\"a\"").await;
    assert!(first.contains("\"role\":\"assistant\""));
    send("<e");
    send("x");
    read_until(&mut stream, "\"content\":\"<ex\"").await;
    send("b<en");
    let held = read_until(&mut stream, "\"content\":\"b\"").await;
    assert!(!held.contains('<'), "the start of a stop string is held back: {held}");
    send("d>");
    let rest = read_until(&mut stream, "[DONE]").await;
    assert!(rest.contains("\"finish_reason\":\"stop\"") && !rest.contains("content"), "{rest}");
    server.backend.wait_for_drops(1).await;
}

#[tokio::test]
async fn all_that_is_ready_goes_into_one_frame() {
    let server = Server::start(say("abcdefghij")).await;
    let mut stream =
        server.open("POST", CHAT, "connection: close\r\n", chat(json!({})).to_string().as_bytes()).await;
    let mut response = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
    let body = response.split_once("\r\n\r\n").unwrap().1;
    // One chunk of the chunked coding with everything, and the empty one that ends it.
    assert_eq!(body.matches("\r\n").count(), 4, "{body}");
    assert!(body.contains("\"content\":\"abcdefghij\""), "{body}");
}

#[tokio::test]
async fn several_choices_share_a_stream() {
    let server = Server::start(say("ok")).await;
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = server.post(CHAT, &chat(json!({"n": 3, "stream_options": options}))).await.events();
    for index in 0..3 {
        let own: Vec<&Value> = events
            .iter()
            .map(|event| &event["choices"][0])
            .filter(|choice| choice["index"] == index)
            .collect();
        assert_eq!(own.first().unwrap()["delta"]["role"], "assistant");
        assert_eq!(own.last().unwrap()["finish_reason"], "stop");
        let text: String = own.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, "ok");
    }
    let usage = &events[events.len() - 2];
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(9)));
    assert!(
        events.iter().filter(|event| event.is_object()).all(|event| event["usage"]["prompt_tokens"] == 21)
    );
}

#[tokio::test]
async fn a_silent_stream_shows_signs_of_life() {
    let (behaviour, mut sinks) = by_hand();
    let server =
        Server::start_with(behaviour, |config, _| config.keep_alive_interval = Duration::from_millis(20))
            .await;
    let mut stream = server.open("POST", CHAT, "", chat(json!({})).to_string().as_bytes()).await;
    let sink = sinks.recv().await.unwrap();
    let silent = read_until(&mut stream, ": keep-alive\n\n").await;
    assert!(!silent.contains("data:"), "{silent}");
    sink.send(token(u32::from(b'a'))).unwrap();
    read_until(&mut stream, "\"content\":\"a\"").await;
    read_until(&mut stream, ": keep-alive\n\n").await;
}

#[tokio::test]
async fn many_streams_run_at_once() {
    const CONNECTIONS: usize = 50;
    const STREAMS_EACH: usize = 40;
    let server =
        Server::start_with(say("hello"), |config, _| config.requests_max = CONNECTIONS * STREAMS_EACH).await;
    let body = chat(json!({})).to_string();
    let clients = (0..CONNECTIONS).map(|_| async {
        let (mut stream, mut seen) = (server.open("POST", CHAT, "", body.as_bytes()).await, String::new());
        for round in 0..STREAMS_EACH {
            seen = read_until(&mut stream, "0\r\n\r\n").await;
            assert!(seen.contains("[DONE]") && seen.contains("\"content\":\"hello\""), "{seen}");
            if round + 1 < STREAMS_EACH {
                use tokio::io::AsyncWriteExt;
                let head = format!(
                    "POST {CHAT} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
            }
        }
        seen.len()
    });
    let sizes = futures::future::join_all(clients).await;
    assert_eq!(sizes.len(), CONNECTIONS);
    server.backend.wait_for_drops(CONNECTIONS * STREAMS_EACH).await;
}
