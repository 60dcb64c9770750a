//! Whole responses: their shapes, texts, ends, and what reaches the engines.

use crate::common::{END, START, Server, say};
use baton_frontend::SamplingDefaults;
use baton_types::TokenId;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn chat(more: Value) -> Value {
    merged(json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}), more)
}

fn text(more: Value) -> Value {
    merged(json!({"model": "tiny", "prompt": "hi"}), more)
}

fn merged(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn a_chat_has_openais_shape() {
    let server = Server::start(say("héllo")).await;
    let reply = server.post(CHAT, &chat(json!({}))).await;
    let mut response = reply.json();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert!(response["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(response["created"].as_u64().unwrap() > 1_700_000_000);
    response["id"] = json!("");
    response["created"] = json!(0);
    let prompt_tokens = "*user\nhi*\n*assistant\n".len();
    let expected = json!({
        "id": "", "object": "chat.completion", "created": 0, "model": "tiny",
        "system_fingerprint": format!("baton-{}", env!("CARGO_PKG_VERSION")),
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": "héllo", "refusal": null},
            "logprobs": null, "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": prompt_tokens, "completion_tokens": 7, "total_tokens": prompt_tokens + 7,
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 3},
            "completion_tokens_details": {
                "accepted_prediction_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
    });
    assert_eq!(response, expected);
}

#[tokio::test]
async fn a_chat_is_rendered_and_parameters_reach_the_engine() {
    let defaults =
        SamplingDefaults { temperature: Some(0.25), top_k: Some(7), ..SamplingDefaults::default() };
    let server = Server::start_with(say("x"), |config, _| config.sampling_defaults = defaults).await;
    let request = chat(json!({
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "t", "tool_call_id": "1"},
        ],
        "top_p": 0, "min_p": 0.5, "seed": 5, "n": 2, "presence_penalty": 1, "frequency_penalty": -1,
        "repetition_penalty": 1.5, "logit_bias": {"3": 4}, "stop_token_ids": [9], "min_tokens": 2,
        "max_completion_tokens": 20, "ignore_eos": true, "cache_salt": "salt", "logprobs": true, "top_logprobs": 2,
    }));
    assert_eq!(
        server.send("POST", CHAT, "x-request-id: my-id\r\n", request.to_string().as_bytes()).await.status,
        200
    );
    let first = server.backend.request(0);
    let rendered = "<system\nd>\n<user\na\nb>\n<assistant\n>\n<tool\nt>\n<assistant\n";
    let expected: Vec<TokenId> = rendered
        .bytes()
        .map(|byte| match byte {
            b'<' => TokenId(START),
            b'>' => TokenId(END),
            byte => TokenId(u32::from(byte)),
        })
        .collect();
    assert_eq!(*first.prompt, *expected);
    assert_eq!((&*first.request_id, &*first.cache_salt), ("my-id", b"salt".as_slice()));
    let sampling = &first.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.min_p), (0.25, Some(7), 0.5));
    assert!(sampling.top_p > 0.0 && sampling.top_p < 1e-6, "0 keeps the most likely token only");
    assert_eq!(
        (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty),
        (1.0, -1.0, 1.5)
    );
    assert_eq!(
        (&sampling.logit_bias, &sampling.stop_token_ids),
        (&vec![(TokenId(3), 4.0)], &vec![TokenId(9)])
    );
    assert_eq!((sampling.min_tokens, sampling.max_tokens, sampling.ignore_eos), (2, 20, true));
    assert_eq!((sampling.logprobs, sampling.prompt_logprobs), (Some(2), None));
    assert_eq!(sampling.seed, 5, "the first choice has the seed that was given");
    assert_ne!(server.backend.request(1).sampling.seed, 5, "the second one another");
}

#[tokio::test]
async fn max_tokens_defaults_to_the_rest_in_chats_and_16_in_completions() {
    let server = Server::start(say("x")).await;
    let continued =
        json!({"messages": [{"role": "assistant", "content": "hi"}], "continue_final_message": true});
    for (path, request, expected) in [
        (CHAT, chat(json!({})), 256 - "*user\nhi*\n*assistant\n".len()),
        (CHAT, chat(continued), 256 - "*assistant\nhi".len()),
        (TEXT, text(json!({})), 16),
        (TEXT, text(json!({"prompt": "x".repeat(250)})), 6),
    ] {
        assert_eq!(server.post(path, &request).await.status, 200);
        let sent = server.backend.requests.lock().unwrap().pop().unwrap();
        assert_eq!(sent.sampling.max_tokens as usize, expected, "{request}");
    }
}

#[tokio::test]
async fn texts_end_where_they_should() {
    let server = Server::start(say("one, two, three")).await;
    let rows = [
        (json!({}), "one, two, three", "stop"),
        (json!({"max_tokens": 5}), "one, ", "length"),
        (json!({"stop": "two"}), "one, ", "stop"),
        (json!({"stop": ["zzz", "three"]}), "one, two, ", "stop"),
        (json!({"stop": "one"}), "", "stop"),
        (json!({"stop": "two", "include_stop_str_in_output": true}), "one, two", "stop"),
        (json!({"stop": ["threefold"]}), "one, two, three", "stop"),
        (json!({"stop": "e,", "min_tokens": 5}), "one, two, three", "stop"),
        (json!({"stop": "wo, th", "max_tokens": 11}), "one, two, t", "length"),
        (json!({"stop": "one", "max_tokens": 3}), "", "stop"),
    ];
    for (more, expected, reason) in rows {
        for path in [CHAT, TEXT] {
            let request = if path == CHAT { chat(more.clone()) } else { text(more.clone()) };
            let response = server.post(path, &request).await.json();
            let choice = &response["choices"][0];
            let got = if path == CHAT { &choice["message"]["content"] } else { &choice["text"] };
            assert_eq!((got, &choice["finish_reason"]), (&json!(expected), &json!(reason)), "{path} {more}");
        }
    }
}

#[tokio::test]
async fn a_stop_string_cancels_the_sequence() {
    let server = Server::start(crate::common::hang_after(
        "a\nb".bytes().map(|b| crate::common::token(u32::from(b))).collect(),
    ))
    .await;
    let response = server.post(TEXT, &text(json!({"stop": "\n"}))).await.json();
    assert_eq!(response["choices"][0]["text"], "a");
    assert_eq!(response["usage"]["completion_tokens"], 2, "what was computed is counted");
    assert_eq!(response["usage"]["prompt_tokens_details"]["cached_tokens"], 3, "known before the end");
    server.backend.wait_for_drops(1).await;
}

#[tokio::test]
async fn end_tokens_are_no_text_and_special_ones_only_on_demand() {
    let server = Server::start(say("a.b")).await;
    for (more, expected) in
        [(json!({"stop_token_ids": [46]}), "a.b"), (json!({"skip_special_tokens": false}), "a.b")]
    {
        let response = server.post(TEXT, &text(more.clone())).await.json();
        assert_eq!(response["choices"][0]["text"], expected, "{more}");
    }
    let server = Server::start(crate::common::end_with(baton_types::FinishReason::Stop(TokenId(97)))).await;
    let response = server.post(TEXT, &text(json!({"stop_token_ids": [97]}))).await.json();
    assert_eq!(response["choices"][0]["text"], "", "a stop token of the request is not text");
    let server = Server::start(Box::new(|request, sink| {
        for id in [97, END, START, 98] {
            sink.send(crate::common::token(id)).unwrap();
        }
        sink.send(crate::common::finished(baton_types::FinishReason::Length, request, 4)).unwrap();
        Ok(())
    }))
    .await;
    for (skip, expected) in [(true, "ab"), (false, "a<|im_end|><|im_start|>b")] {
        let more = json!({"skip_special_tokens": skip, "ignore_eos": true});
        assert_eq!(server.post(TEXT, &text(more)).await.json()["choices"][0]["text"], expected);
    }
}

#[tokio::test]
async fn choices_are_numbered_prompt_by_prompt() {
    let server = Server::start(Box::new(|request, sink| {
        // Says the prompt's first token, so that choices can be told apart.
        sink.send(crate::common::token(request.prompt[0].0)).unwrap();
        sink.send(crate::common::finished(baton_types::FinishReason::Length, request, 1)).unwrap();
        Ok(())
    }))
    .await;
    for (prompt, prompt_tokens, n, expected) in [
        (json!(["ab", "c"]), 3, 2, vec!["a", "a", "c", "c"]),
        (json!([[97, 98], [99]]), 3, 1, vec!["a", "c"]),
        (json!([98, 97]), 2, 1, vec!["b"]),
    ] {
        let response = server.post(TEXT, &text(json!({"prompt": prompt, "n": n, "best_of": n}))).await.json();
        let choices = response["choices"].as_array().unwrap();
        let texts: Vec<&str> = choices.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(texts, expected);
        assert!(choices.iter().enumerate().all(|(index, choice)| choice["index"] == index));
        assert_eq!(response["usage"]["prompt_tokens"], prompt_tokens, "a prompt counts once");
        assert_eq!(response["usage"]["completion_tokens"], expected.len());
        assert_eq!(response["object"], "text_completion");
        assert!(response["id"].as_str().unwrap().starts_with("cmpl-"));
    }
}

#[tokio::test]
async fn chat_logprobs_have_tokens_bytes_and_alternatives() {
    let server = Server::start(say("hé")).await;
    let response = server.post(CHAT, &chat(json!({"logprobs": true, "top_logprobs": 2}))).await.json();
    let entry = |text: &str, next: &str, byte: u8| {
        json!({"token": text, "logprob": -0.5, "bytes": [byte], "top_logprobs": [
            {"token": text, "logprob": -0.5, "bytes": [byte]},
            {"token": next, "logprob": -1.5, "bytes": [byte + 1]},
        ]})
    };
    let content = json!([
        entry("h", "i", b'h'),
        entry("\u{fffd}", "\u{fffd}", 0xc3),
        entry("\u{fffd}", "\u{fffd}", 0xa9)
    ]);
    assert_eq!(
        response["choices"][0]["logprobs"],
        json!({"content": content, "refusal": null}),
        "without the end token"
    );
    let response = server.post(CHAT, &chat(json!({"logprobs": true}))).await.json();
    assert_eq!(response["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn completion_logprobs_have_offsets_in_characters() {
    let server = Server::start(say("é, b; c")).await;
    let response = server.post(TEXT, &text(json!({"logprobs": 1, "stop": "; "}))).await.json();
    let choice = &response["choices"][0];
    assert_eq!(choice["text"], "é, b");
    let expected = json!({
        "text_offset": [0, 0, 1, 2, 3],
        "token_logprobs": [-0.5, -0.5, -0.5, -0.5, -0.5],
        "tokens": ["\u{fffd}", "\u{fffd}", ",", " ", "b"],
        "top_logprobs": [{"\u{fffd}": -0.5}, {"\u{fffd}": -0.5}, {",": -0.5}, {" ": -0.5}, {"b": -0.5}],
    });
    assert_eq!(choice["logprobs"], expected, "no token of the stop string is reported");
}

#[tokio::test]
async fn echo_puts_the_prompt_first() {
    let server = Server::start(say("xy")).await;
    let choice = |response: Value| response["choices"][0].clone();
    let plain = choice(server.post(TEXT, &text(json!({"echo": true, "stop": "i"}))).await.json());
    assert_eq!(plain["text"], "hixy", "stop strings do not look at the prompt");
    let by_ids = choice(server.post(TEXT, &text(json!({"echo": true, "prompt": [104, 105]}))).await.json());
    assert_eq!(by_ids["text"], "hixy");

    let scored = choice(server.post(TEXT, &text(json!({"echo": true, "logprobs": 0}))).await.json());
    let expected = json!({
        "text_offset": [0, 1, 2, 3],
        "token_logprobs": [null, -0.5, -0.5, -0.5],
        "tokens": ["h", "i", "x", "y"],
        "top_logprobs": [null, {"i": -0.5}, {"x": -0.5}, {"y": -0.5}],
    });
    assert_eq!((&scored["text"], &scored["logprobs"]), (&json!("hixy"), &expected));

    let requests = server.backend.requests.lock().unwrap().len();
    let only = server.post(TEXT, &text(json!({"echo": true, "max_tokens": 0}))).await.json();
    assert_eq!(
        (&only["choices"][0]["text"], &only["choices"][0]["finish_reason"]),
        (&json!("hi"), &json!("length"))
    );
    assert_eq!(only["usage"]["completion_tokens"], 0);
    assert_eq!(server.backend.requests.lock().unwrap().len(), requests, "no engine is needed for that");

    let only = server.post(TEXT, &text(json!({"echo": true, "max_tokens": 0, "logprobs": 1}))).await.json();
    assert_eq!(only["choices"][0]["text"], "hi");
    assert_eq!(only["choices"][0]["logprobs"]["token_logprobs"], json!([null, -0.5]));
    assert_eq!(only["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn the_other_routes_tell() {
    let server =
        Server::start_with(say("x"), |config, _| config.served_model_names.push("org/alias".into())).await;
    let models = server.get("/v1/models").await.json();
    let names: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((names, &models["object"]), (vec!["tiny", "org/alias"], &json!("list")));
    for path in ["/v1/models/org/alias", "/v1/models/org%2Falias"] {
        let model = server.get(path).await.json();
        assert_eq!(
            (&model["id"], &model["object"], &model["max_model_len"]),
            (&json!("org/alias"), &json!("model"), &json!(256))
        );
    }
    let alias = server.post(CHAT, &chat(json!({"model": "org/alias"}))).await.json();
    assert_eq!(alias["model"], "org/alias", "a response repeats the name that was asked for");
    assert_eq!(server.get("/version").await.json()["version"], env!("CARGO_PKG_VERSION"));
    let metrics = server.get("/metrics").await;
    assert!(metrics.headers["content-type"].starts_with("text/plain"));
    for name in
        ["baton_time_to_first_token_seconds_count", "baton_output_tokens_total", "baton_requests_in_flight"]
    {
        assert!(metrics.body.contains(name), "{name} is missing");
    }
    assert!(metrics.body.contains("baton_http_requests_total{endpoint=\"chat_completions\",status=\"200\"}"));

    assert_eq!(server.get("/health").await.status, 200);
    server.backend.health.lock().unwrap().ready = Err("the weights are loading".into());
    let health = server.get("/health").await;
    assert_eq!((health.status, &health.json()["reason"]), (503, &json!("the weights are loading")));
    assert_eq!(server.get("/live").await.status, 200);
    server.backend.health.lock().unwrap().live = Err("no step for 60 s".into());
    assert_eq!(server.get("/live").await.status, 503);
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let server = Server::start(say("x")).await;
    let long = "x".repeat(129);
    for (given, kept) in [("abc-1", true), (long.as_str(), false), ("has space", false)] {
        let reply = server.send("GET", "/version", &format!("x-request-id: {given}\r\n"), b"").await;
        assert_eq!(reply.headers["x-request-id"] == given, kept, "{given}");
        assert!(!reply.headers["x-request-id"].is_empty());
    }
}
