//! A client that leaves cancels its sequences, whatever it was waiting for.

use crate::common::{Server, hang_after, read_until, token};
use serde_json::json;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

fn body(stream: bool, n: usize) -> Vec<u8> {
    let messages = json!([{"role": "user", "content": "hi"}]);
    json!({"model": "tiny", "messages": messages, "stream": stream, "n": n}).to_string().into_bytes()
}

/// Waits until the engines have this many sequences.
async fn wait_for_requests(server: &Server, count: usize) {
    let waiting = async {
        while server.backend.requests.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::common::DEADLINE, waiting).await.expect("the request reaches the engines");
}

#[tokio::test]
async fn before_the_first_byte_of_a_stream() {
    let server = Server::start(hang_after(vec![])).await;
    let stream = server.open("POST", CHAT, "", &body(true, 3)).await;
    wait_for_requests(&server, 3).await;
    assert_eq!(server.backend.drops(), 0);
    drop(stream);
    server.backend.wait_for_drops(3).await;
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    let server = Server::start(hang_after(vec![token(97)])).await;
    let mut stream = server.open("POST", CHAT, "", &body(true, 1)).await;
    read_until(&mut stream, "\"content\":\"a\"").await;
    assert_eq!(server.backend.drops(), 0);
    drop(stream);
    server.backend.wait_for_drops(1).await;
}

#[tokio::test]
async fn while_waiting_for_a_whole_response() {
    let server = Server::start(hang_after(vec![token(97)])).await;
    let stream = server.open("POST", CHAT, "", &body(false, 2)).await;
    wait_for_requests(&server, 2).await;
    assert_eq!(server.backend.drops(), 0);
    drop(stream);
    server.backend.wait_for_drops(2).await;
}

#[tokio::test]
async fn a_place_is_free_again_when_the_client_has_left() {
    let server = Server::start_with(hang_after(vec![]), |config, _| config.requests_max = 1).await;
    for round in 1..=3 {
        let stream = server.open("POST", CHAT, "", &body(true, 1)).await;
        wait_for_requests(&server, round).await;
        let refused = server.send("POST", CHAT, "", &body(true, 1)).await;
        assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (429, "1"), "{}", refused.body);
        drop(stream);
        server.backend.wait_for_drops(round).await;
        // The place is given back right after the token stream.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_left() {
    let endless = Box::new(|_: &baton_types::GenerateRequest, sink: baton_frontend::TokenSink| {
        tokio::spawn(async move {
            while sink.send(token(97)).is_ok() {
                tokio::task::yield_now().await;
            }
        });
        Ok(())
    });
    let server = Server::start_with(endless, |config, serve| {
        config.max_model_len = 1 << 24;
        serve.write_stall = Duration::from_millis(200);
    })
    .await;
    let stream = server.open("POST", CHAT, "", &body(true, 1)).await;
    server.backend.wait_for_drops(1).await;
    drop(stream);
}
