//! Each class of error: status, param, code, and what the message tells.

use crate::common::{END, Server, end_with, refuse, say};
use baton_types::{AdmitError, FinishReason};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// A chat or completion that would be served, with these parameters added or, where `null`, taken away.
fn request(path: &str, changes: Value) -> Value {
    let mut request = match path {
        CHAT => json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}),
        _ => json!({"model": "tiny", "prompt": "hi"}),
    };
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => request.as_object_mut().unwrap().remove(name),
            value => request.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    request
}

fn messages(messages: Value) -> Value {
    json!({"messages": messages})
}

/// Sends each row's request; asserts status 400, param, code, and a part of the message.
async fn check(server: &Server, path: &str, rows: &[(Value, &str, &str, &str)]) {
    for (changes, param, code, part) in rows {
        let reply = server.post(path, &request(path, changes.clone())).await;
        let error = reply.json()["error"].clone();
        let got = (reply.status, error["type"].as_str(), error["param"].as_str(), error["code"].as_str());
        let expected = (400, Some("invalid_request_error"), Some(*param), Some(*code));
        assert_eq!(got, expected, "{path} {changes}: {}", reply.body);
        assert!(
            error["message"].as_str().unwrap().contains(part),
            "{changes}: {part:?} is not in {}",
            reply.body
        );
    }
}

#[tokio::test]
async fn parameters_are_checked_on_both_endpoints() {
    let server = Server::start(say("x")).await;
    let rows = [
        (json!({"model": null}), "model", "missing_required_parameter", "'model' is required"),
        (json!({"model": 1}), "model", "invalid_type", "a string, not an integer"),
        (json!({"temperature": 2.1}), "temperature", "invalid_value", "between 0 and 2, not 2.1"),
        (json!({"temperature": "1"}), "temperature", "invalid_type", "a number, not a string"),
        (json!({"temperature": true}), "temperature", "invalid_type", "a number, not a boolean"),
        (json!({"top_p": 1.5}), "top_p", "invalid_value", "between 0 and 1"),
        (json!({"top_k": -2}), "top_k", "invalid_value", "between -1"),
        (json!({"top_k": 1.0}), "top_k", "invalid_type", "an integer, not a number with a fraction"),
        (json!({"min_p": -0.1}), "min_p", "invalid_value", "between 0 and 1"),
        (json!({"presence_penalty": 3}), "presence_penalty", "invalid_value", "between -2 and 2"),
        (json!({"frequency_penalty": -3}), "frequency_penalty", "invalid_value", "between -2 and 2"),
        (json!({"repetition_penalty": 0}), "repetition_penalty", "invalid_value", "0.01"),
        (
            json!({"logit_bias": {"1": 101}}),
            "logit_bias",
            "invalid_value",
            "between -100 and 100 for token 1",
        ),
        (json!({"logit_bias": {"258": 1}}), "logit_bias", "invalid_value", "'258'"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias", "invalid_value", "'x'"),
        (json!({"logit_bias": [1]}), "logit_bias", "invalid_type", "an object, not a list"),
        (json!({"seed": 1.5}), "seed", "invalid_type", "an integer"),
        (json!({"seed": 18446744073709551615u64}), "seed", "invalid_value", "18446744073709551615"),
        (json!({"n": 0}), "n", "invalid_value", "between 1 and 128"),
        (json!({"n": 129}), "n", "invalid_value", "between 1 and 128"),
        (json!({"stop": 1}), "stop", "invalid_type", "a string or a list of strings"),
        (json!({"stop": [1]}), "stop", "invalid_type", "a string or a list of strings"),
        (json!({"stop": ""}), "stop", "invalid_value", "empty"),
        (json!({"stop": vec!["x"; 17]}), "stop", "invalid_value", "at most 16"),
        (json!({"stop": "x".repeat(1025)}), "stop", "invalid_value", "at most 1024"),
        (json!({"stop_token_ids": [258]}), "stop_token_ids", "invalid_value", "258"),
        (json!({"stop_token_ids": ["a"]}), "stop_token_ids", "invalid_type", "a string"),
        (json!({"stop_token_ids": vec![1; 129]}), "stop_token_ids", "invalid_value", "at most 128"),
        (json!({"min_tokens": 17, "max_tokens": 16}), "min_tokens", "invalid_value", "more than the 16"),
        (json!({"ignore_eos": 1}), "ignore_eos", "invalid_type", "a boolean"),
        (json!({"stream": "yes"}), "stream", "invalid_type", "a boolean"),
        (json!({"stream_options": {}}), "stream_options", "invalid_value", "'stream' is true"),
        (
            json!({"stream": true, "stream_options": {"usage": true}}),
            "stream_options.usage",
            "unknown_parameter",
            "'stream_options.usage'",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
            "invalid_type",
            "a boolean",
        ),
        (json!({"user": 1}), "user", "invalid_type", "a string"),
        (json!({"metadata": []}), "metadata", "invalid_type", "an object"),
        (json!({"cache_salt": 1}), "cache_salt", "invalid_type", "a string"),
        (json!({"max_tokens": -1}), "max_tokens", "invalid_value", "between"),
        (json!({"max_tokens": 1.5}), "max_tokens", "invalid_type", "an integer"),
        (json!({"max_tokens": 255}), "max_tokens", "context_length_exceeded", "256"),
        (json!({"temprature": 1}), "temprature", "unknown_parameter", "'temprature'"),
    ];
    check(&server, CHAT, &rows).await;
    check(&server, TEXT, &rows).await;
    assert_eq!(server.backend.requests.lock().unwrap().len(), 0, "none of them reached an engine");
}

#[tokio::test]
async fn what_is_known_and_not_supported_is_refused_by_name() {
    let server = Server::start(say("x")).await;
    let rows: Vec<_> = [
        ("tools", json!([{"type": "function"}])),
        ("functions", json!([{}])),
        ("tool_choice", json!("required")),
        ("function_call", json!({"name": "f"})),
        ("response_format", json!({"type": "json_object"})),
        ("modalities", json!(["text", "audio"])),
        ("service_tier", json!("flex")),
        ("store", json!(true)),
        ("use_beam_search", json!(true)),
        ("audio", json!({})),
        ("prediction", json!({})),
        ("reasoning_effort", json!("low")),
        ("web_search_options", json!({})),
        ("guided_json", json!({})),
        ("structured_outputs", json!({})),
        ("suffix", json!("x")),
        ("prompt_logprobs", json!(1)),
        ("return_tokens_as_token_ids", json!(true)),
        ("bad_words", json!(["x"])),
    ]
    .into_iter()
    .map(|(name, value)| (json!({name: value}), name, "unsupported_parameter", "not supported"))
    .collect();
    check(&server, CHAT, &rows).await;
    check(&server, TEXT, &rows).await;
    check(&server, TEXT, &[(json!({"best_of": 2}), "best_of", "unsupported_parameter", "equals 'n'")]).await;
    check(&server, CHAT, &[(json!({"echo": true}), "echo", "unsupported_parameter", "in chats")]).await;
}

#[tokio::test]
async fn chats_are_checked() {
    let server = Server::start(say("x")).await;
    let (missing, invalid) = ("missing_required_parameter", "invalid_value");
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let rows = [
        (json!({"messages": null}), "messages", missing, "'messages' is required"),
        (messages(json!("hi")), "messages", "invalid_type", "a list, not a string"),
        (messages(json!([])), "messages", invalid, "at least one"),
        (messages(json!(["hi"])), "messages[0]", "invalid_type", "an object"),
        (messages(json!([{"content": "hi"}])), "messages[0].role", missing, "role"),
        (messages(json!([{"role": "robot", "content": "hi"}])), "messages[0].role", invalid, "one of"),
        (messages(json!([{"role": "user"}])), "messages[0].content", missing, "content"),
        (
            messages(json!([{"role": "user", "content": 1}])),
            "messages[0].content",
            "invalid_type",
            "a list of parts",
        ),
        (messages(image), "messages[0].content[0]", "unsupported_parameter", "image_url"),
        (
            messages(json!([{"role": "user", "content": "x", "mood": 1}])),
            "messages[0].mood",
            "unknown_parameter",
            "mood",
        ),
        (
            messages(json!([{"role": "tool", "content": "x"}])),
            "messages[0].tool_call_id",
            missing,
            "tool_call_id",
        ),
        (messages(json!([{"role": "user", "content": "refuse me"}])), "messages", invalid, "no"),
        (json!({"logprobs": 1}), "logprobs", "invalid_type", "a boolean"),
        (json!({"top_logprobs": 1}), "top_logprobs", invalid, "'logprobs' is true"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", invalid, "between 0 and 20"),
        (json!({"max_tokens": 0}), "max_tokens", invalid, "between 1"),
        (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_tokens", invalid, "differs"),
        (
            json!({"continue_final_message": true, "add_generation_prompt": true}),
            "continue_final_message",
            invalid,
            "together",
        ),
        (json!({"chat_template_kwargs": 1}), "chat_template_kwargs", "invalid_type", "an object"),
        (json!({"prompt": "x"}), "prompt", "unknown_parameter", "'prompt'"),
        (
            messages(json!([{"role": "user", "content": "x".repeat(250)}])),
            "messages",
            "context_length_exceeded",
            "maximum context length is 256 tokens",
        ),
    ];
    check(&server, CHAT, &rows).await;
}

#[tokio::test]
async fn completions_are_checked() {
    let server = Server::start(say("x")).await;
    let invalid = "invalid_value";
    let rows = [
        (json!({"prompt": null}), "prompt", "missing_required_parameter", "required"),
        (json!({"prompt": 1}), "prompt", "invalid_type", "a string, a list of strings"),
        (json!({"prompt": ""}), "prompt", invalid, "at least one token"),
        (json!({"prompt": []}), "prompt", invalid, "empty list"),
        (json!({"prompt": [[]]}), "prompt", invalid, "empty list"),
        (json!({"prompt": ["a", 1]}), "prompt", "invalid_type", "a list of strings with an integer"),
        (json!({"prompt": [1, "a"]}), "prompt", "invalid_type", "a string"),
        (json!({"prompt": [1, 258]}), "prompt", invalid, "the token id 258"),
        (json!({"prompt": [-1]}), "prompt", invalid, "-1"),
        (json!({"prompt": vec!["a"; 129]}), "prompt", invalid, "at most 128"),
        (json!({"prompt": vec!["a"; 65], "n": 2}), "prompt", invalid, "at most 128"),
        (json!({"max_tokens": 0}), "max_tokens", invalid, "unless 'echo'"),
        (json!({"logprobs": true}), "logprobs", "invalid_type", "an integer"),
        (json!({"logprobs": 21}), "logprobs", invalid, "between 0 and 20"),
        (json!({"messages": []}), "messages", "unknown_parameter", "'messages'"),
        (json!({"prompt": "x".repeat(256)}), "prompt", "context_length_exceeded", "has 256 tokens"),
        (
            json!({"prompt": "x".repeat(250), "max_tokens": 7}),
            "max_tokens",
            "context_length_exceeded",
            "at most 6 are left",
        ),
    ];
    check(&server, TEXT, &rows).await;
}

#[tokio::test]
async fn bodies_that_are_not_json_objects_are_refused() {
    let server = Server::start(say("x")).await;
    let deep = "[".repeat(200);
    let rows: [(&[u8], &str); 6] = [
        (b"", "line 1 column 0"),
        (b"{\"model\": \"tiny\",\n oops}", "line 2 column 2"),
        (b"{\"model\": \"\xff\"}", "line 1 column"),
        (b"[]", "must be a JSON object, not a list"),
        (b"{\"model\": 1e999}", "number out of range"),
        (deep.as_bytes(), "recursion limit"),
    ];
    for (body, part) in rows {
        let reply = server.send("POST", CHAT, "", body).await;
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["code"]), (400, &json!("invalid_json")), "{}", reply.body);
        assert!(error["message"].as_str().unwrap().contains(part), "{part:?} is not in {}", reply.body);
    }
}

#[tokio::test]
async fn routes_models_and_keys_are_checked() {
    let server =
        Server::start_with(say("x"), |config, _| config.api_keys = vec!["k1".into(), "key2".into()]).await;
    let body = request(CHAT, json!({})).to_string();
    let other = request(CHAT, json!({"model": "gpt"})).to_string();
    let key = "authorization: Bearer key2\r\n";
    let rows = [
        ("POST", CHAT, "", body.as_str(), 401, "invalid_api_key"),
        ("POST", CHAT, "authorization: Bearer key3\r\n", &body, 401, "invalid_api_key"),
        ("POST", CHAT, "authorization: Basic key2\r\n", &body, 401, "invalid_api_key"),
        ("GET", "/v1/models", "", "", 401, "invalid_api_key"),
        ("POST", CHAT, key, &other, 404, "model_not_found"),
        ("GET", "/v1/models/gpt", key, "", 404, "model_not_found"),
        ("GET", "/v1/nothing", key, "", 404, "unknown_url"),
        ("GET", "/healthz", "", "", 404, "unknown_url"),
        ("GET", CHAT, key, "", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/tiny", key, "", 405, "method_not_allowed"),
    ];
    for (method, path, headers, body, status, code) in rows {
        let reply = server.send(method, path, headers, body.as_bytes()).await;
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["code"]), (status, &json!(code)), "{method} {path}: {}", reply.body);
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(reply.headers["content-type"], "application/json");
    }
    for (headers, path, method) in
        [(key, CHAT, "POST"), ("authorization: bearer k1\r\n", CHAT, "POST"), ("", "/health", "GET")]
    {
        let reply = server.send(method, path, headers, body.as_bytes()).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
}

#[tokio::test]
async fn refusals_of_the_engines_become_statuses() {
    let rows = [
        (AdmitError::QueueFull { waiting: 5, limit: 5 }, 429, "rate_limit_exceeded", Some("1")),
        (AdmitError::ShuttingDown, 503, "service_unavailable", Some("5")),
        (AdmitError::EngineDown("it broke".into()), 503, "service_unavailable", Some("5")),
        (AdmitError::PromptTooLong { prompt_tokens: 9, limit: 8 }, 400, "context_length_exceeded", None),
        (AdmitError::PromptEmpty, 400, "invalid_value", None),
    ];
    for (error, status, code, retry_after) in rows {
        let server = Server::start(refuse(error.clone())).await;
        for stream in [false, true] {
            let reply = server.post(CHAT, &request(CHAT, json!({"stream": stream}))).await;
            assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!(code)), "{error}");
            assert_eq!(reply.headers.get("retry-after").map(String::as_str), retry_after, "{error}");
            assert!(reply.body.contains(&error.to_string()), "{}", reply.body);
        }
    }
}

#[tokio::test]
async fn failures_while_generating_are_never_an_ordinary_end() {
    let rows = [
        (FinishReason::Error("the device broke".into()), 500, "internal_error", "the device broke"),
        (FinishReason::DeadlineExceeded, 504, "deadline_exceeded", "600 s"),
        (FinishReason::Cancelled, 503, "service_unavailable", "cancelled"),
    ];
    for (reason, status, code, part) in rows {
        let server = Server::start(end_with(reason)).await;
        let whole = server.post(CHAT, &request(CHAT, json!({}))).await;
        let error = whole.json()["error"].clone();
        assert_eq!((whole.status, &error["code"]), (status, &json!(code)), "{}", whole.body);
        assert!(error["message"].as_str().unwrap().contains(part), "{}", whole.body);

        let streamed = server.post(CHAT, &request(CHAT, json!({"stream": true}))).await;
        assert_eq!(streamed.status, 200, "the stream had begun");
        let events = streamed.events();
        assert_eq!(events.last().unwrap()["error"]["code"], code, "{}", streamed.body);
        assert!(!streamed.body.contains("[DONE]"), "{}", streamed.body);
        assert!(!streamed.body.contains("\"finish_reason\":\""), "{}", streamed.body);
    }
}

#[tokio::test]
async fn what_asks_for_nothing_is_accepted() {
    let server = Server::start(say("x")).await;
    let neutral = json!({
        "tools": [], "tool_choice": "none", "parallel_tool_calls": true, "response_format": {"type": "text"},
        "modalities": ["text"], "service_tier": "auto", "store": false, "metadata": {"a": "b"}, "user": "u",
        "temperature": 0, "top_p": 1, "top_k": -1, "n": 1, "logit_bias": {"5": -100}, "stop": [], "seed": -1,
        "stop_token_ids": [END], "skip_special_tokens": true, "max_tokens": 3,
    });
    for path in [CHAT, TEXT] {
        let reply = server.post(path, &request(path, neutral.clone())).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let mut nulls = request(CHAT, json!({}));
    for name in
        ["temperature", "tools", "stop", "stream", "stream_options", "max_tokens", "guided_json", "logprobs"]
    {
        nulls[name] = Value::Null;
    }
    assert_eq!(server.post(CHAT, &nulls).await.status, 200, "null is the same as absent");
    assert_eq!(server.backend.request(0).sampling.seed, u64::MAX);
    assert_eq!(server.backend.request(0).sampling.top_k, None);
}
