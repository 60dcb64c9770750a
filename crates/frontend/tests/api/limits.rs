//! What happens at each limit: bodies, headers, slow clients, deadlines, shutdown.

use crate::common::{DEADLINE, END, Server, by_hand, finished, hang_after, read_until, say, token};
use baton_types::{FinishReason, TokenId};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CHAT: &str = "/v1/chat/completions";

fn chat(stream: bool) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": stream})
}

#[tokio::test]
async fn a_body_beyond_the_limit_gets_413() {
    let server = Server::start_with(say("x"), |config, _| config.body_bytes_max = 10_000).await;
    let fits = format!("{:<10000}", chat(false).to_string());
    assert_eq!(server.send("POST", CHAT, "", fits.as_bytes()).await.status, 200);
    for size in [10_001, 5_000_000] {
        let reply = server.send("POST", CHAT, "", &vec![b' '; size]).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (413, &json!("request_too_large")),
            "{size}"
        );
        assert!(reply.body.contains("10000 bytes"));
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 99999\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let reply = read_until(&mut stream, "request_too_large").await;
    assert!(reply.starts_with("HTTP/1.1 413"), "before any of it was sent: {reply}");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_gets_408() {
    let server =
        Server::start_with(say("x"), |config, _| config.body_timeout = Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    let reply = read_until(&mut stream, "request_timeout").await;
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
}

#[tokio::test]
async fn slow_and_large_headers_end_the_connection() {
    let server = Server::start_with(say("x"), |_, serve| {
        serve.header_timeout = Duration::from_millis(50);
        serve.header_bytes_max = 4096;
    })
    .await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /version HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, slow.read_to_end(&mut answer)).await.expect("closed in time").unwrap();
    let large = server.send("GET", "/version", &format!("x-large: {}\r\n", "x".repeat(5000)), b"").await;
    assert_eq!(large.status, 431);
    let many: String = (0..101).map(|index| format!("x-{index}: 1\r\n")).collect();
    assert_eq!(server.send("GET", "/version", &many, b"").await.status, 431);
}

#[tokio::test]
async fn a_deadline_that_no_engine_keeps_is_kept_here() {
    let server = Server::start_with(hang_after(vec![]), |config, _| {
        config.request_timeout = Duration::from_millis(10)
    })
    .await;
    let whole = server.post(CHAT, &chat(false)).await;
    assert_eq!((whole.status, &whole.json()["error"]["code"]), (504, &json!("deadline_exceeded")));
    let streamed = server.post(CHAT, &chat(true)).await;
    assert_eq!(streamed.events().last().unwrap()["error"]["code"], "deadline_exceeded");
    server.backend.wait_for_drops(2).await;
}

#[tokio::test]
async fn an_engine_that_vanishes_is_an_error() {
    let server = Server::start(Box::new(|_, _| Ok(()))).await;
    assert_eq!(server.post(CHAT, &chat(false)).await.status, 500);
    let events = server.post(CHAT, &chat(true)).await.events();
    assert_eq!(events.last().unwrap()["error"]["code"], "internal_error");
}

#[tokio::test]
async fn a_panic_is_an_error_and_ends_nothing_else() {
    let server =
        Server::start_with(Box::new(|_, _| panic!("on purpose")), |config, _| config.requests_max = 1).await;
    for _ in 0..2 {
        let reply = server.post(CHAT, &chat(false)).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &json!("internal_error")));
    }
}

#[tokio::test]
async fn a_refusal_of_one_choice_cancels_the_others() {
    let refuse_third = std::sync::atomic::AtomicUsize::new(0);
    let sinks = std::sync::Mutex::new(Vec::new());
    let server = Server::start(Box::new(move |_, sink| {
        sinks.lock().unwrap().push(sink);
        match refuse_third.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            2 => Err(baton_types::AdmitError::QueueFull { waiting: 2, limit: 2 }),
            _ => Ok(()),
        }
    }))
    .await;
    let mut request = chat(false);
    request["n"] = json!(3);
    assert_eq!(server.post(CHAT, &request).await.status, 429);
    server.backend.wait_for_drops(3).await;
}

#[tokio::test]
async fn a_shutdown_lets_requests_finish_and_takes_no_new_ones() {
    let (behaviour, mut sinks) = by_hand();
    let mut server = Server::start(behaviour).await;
    let mut stream = server.open("POST", CHAT, "", chat(true).to_string().as_bytes()).await;
    let mut idle = server.open("GET", "/version", "", b"").await;
    read_until(&mut idle, "version").await;
    let sink = sinks.recv().await.unwrap();
    server.frontend.begin_drain();
    assert_eq!(server.get("/health").await.status, 503);
    let refused = server.post(CHAT, &chat(false)).await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "5"));
    server.stop();
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, idle.read_to_end(&mut rest))
        .await
        .expect("an idle connection is closed")
        .unwrap();
    sink.send(token(u32::from(b'a'))).unwrap();
    read_until(&mut stream, "\"content\":\"a\"").await;
    sink.send(token(END)).unwrap();
    let request = server.backend.request(0);
    sink.send(finished(FinishReason::Stop(TokenId(END)), &request, 2)).unwrap();
    read_until(&mut stream, "[DONE]").await;
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed");
    server.stopped().await;
}

#[tokio::test]
async fn a_shutdown_cancels_what_takes_too_long() {
    let mut server = Server::start_with(hang_after(vec![token(97)]), |_, serve| {
        serve.drain_timeout = Duration::from_millis(50)
    })
    .await;
    let mut stream = server.open("POST", CHAT, "", chat(true).to_string().as_bytes()).await;
    read_until(&mut stream, "\"content\":\"a\"").await;
    server.stop();
    let backend = std::sync::Arc::clone(&server.backend);
    server.stopped().await;
    backend.wait_for_drops(1).await;
}
