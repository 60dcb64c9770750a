"""Each class of error, as the real client raises it: type, status, param and code."""

import threading

import httpx
import openai
import pytest
from conftest import LIMITED_KEY
from server import NAME

MESSAGES = [{"role": "user", "content": "Hi"}]
ENDLESS = {"max_tokens": 6000, "extra_body": {"ignore_eos": True}}


def check(error, status, param, code):
    assert (error.status_code, error.param, error.code) == (status, param, code), error.message
    assert error.body["message"] and error.type == error.body["type"]


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"top_p": -1}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 1000}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1_000_000}, "max_tokens", "context_length_exceeded"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "king", "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": "word " * 20_000}]}, "messages", "context_length_exceeded"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"extra_body": {"temprature": 1}}, "temprature", "unknown_parameter"),
    ],
)
def test_bad_requests(client, options, param, code):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**({"model": NAME, "messages": MESSAGES} | options))
    check(raised.value, 400, param, code)
    assert raised.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("prompt", "options", "param", "code"),
    [
        ([], {}, "prompt", "invalid_value"),
        ("", {}, "prompt", "invalid_value"),
        ([999_999], {}, "prompt", "invalid_value"),
        ([1.5], {}, "prompt", "invalid_type"),
        ([1] * 20_000, {}, "prompt", "context_length_exceeded"),
        ("Hi", {"best_of": 3}, "best_of", "unsupported_parameter"),
        ("Hi", {"max_tokens": 0}, "max_tokens", "invalid_value"),
        ("Hi", {"suffix": "x"}, "suffix", "unsupported_parameter"),
    ],
)
def test_bad_completions(client, prompt, options, param, code):
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(model=NAME, prompt=prompt, **options)
    check(raised.value, 400, param, code)


def test_a_model_that_is_not_there(client):
    for attempt in (
        lambda: client.chat.completions.create(model="gpt-5", messages=MESSAGES),
        lambda: client.models.retrieve("gpt-5"),
    ):
        with pytest.raises(openai.NotFoundError) as raised:
            attempt()
        check(raised.value, 404, "model", "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b"[]", 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b'"' + b"x" * (9 << 20) + b'"', 413, "request_too_large"),
        ("GET", "/v1/chat/completions", b"", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", b"{}", 404, "unknown_url"),
        ("GET", "/nothing", b"", 404, "unknown_url"),
    ],
)
def test_raw_requests(server, method, path, body, status, code):
    answer = httpx.request(method, server.url + path, content=body, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_error_in_a_streaming_request_is_no_stream(client):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=NAME, messages=MESSAGES, temperature=3, stream=True)


def test_keys(limited):
    for key in ("wrong", LIMITED_KEY + "x"):
        with pytest.raises(openai.AuthenticationError) as raised:
            limited.client(api_key=key).models.list()
        check(raised.value, 401, None, "invalid_api_key")
    assert limited.client(api_key=LIMITED_KEY).models.list().data
    assert httpx.get(f"{limited.url}/v1/models").status_code == 401, "no key at all"
    # Probes carry no key.
    assert httpx.get(f"{limited.url}/health").status_code == 200
    assert httpx.get(f"{limited.url}/metrics").status_code == 200


def test_one_request_too_many(limited):
    client = limited.client(api_key=LIMITED_KEY)
    running = client.chat.completions.create(model=NAME, messages=MESSAGES, stream=True, **ENDLESS)
    next(running)
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=1)
    check(raised.value, 429, None, "rate_limit_exceeded")
    assert raised.value.type == "rate_limit_error"
    assert int(raised.value.response.headers["retry-after"]) >= 1
    running.close()
    limited.wait_until_nothing_is_held(20)
    assert client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=1).choices


def test_the_clients_own_retries_get_through(limited):
    """What users of the client have by default: it waits as Retry-After says, and succeeds."""
    busy = limited.client(api_key=LIMITED_KEY)
    running = busy.chat.completions.create(model=NAME, messages=MESSAGES, stream=True, **ENDLESS)
    next(running)
    threading.Timer(0.5, running.close).start()
    patient = limited.client(api_key=LIMITED_KEY, max_retries=5)
    assert patient.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=1).choices


def test_nothing_is_left_of_refused_requests(server):
    server.wait_until_nothing_is_held()
