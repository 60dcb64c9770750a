"""One engine or two, starting and stopping."""

import subprocess
import threading
import time

import httpx
import openai
import pytest
from server import BINARY, MODEL, NAME, Server

LONG = "Repeat after me: " + "the quick brown fox jumps over the lazy dog. " * 30
PROMPTS = ["What is the capital of France?", "List three fruits.", LONG, "Why is the sky blue?"]


def answers(server):
    client = server.client()
    ask = client.chat.completions.create
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    return [ask(model=NAME, messages=m, temperature=0, max_tokens=24).choices[0].message.content for m in messages]


def test_both_modes_say_the_same(server, aggregated):
    before = server.metric('baton_handoffs_total{outcome="completed"}')
    assert answers(server) == answers(aggregated)
    assert server.metric('baton_handoffs_total{outcome="completed"}') > before
    assert aggregated.metric("baton_handoffs_total") == 0
    server.wait_until_nothing_is_held()
    aggregated.wait_until_nothing_is_held()


def test_seeded_sampling_does_not_depend_on_the_mode(server, aggregated):
    def sample(of):
        return of.client().completions.create(
            model=NAME, prompt=PROMPTS[3] + " " + LONG, temperature=1, seed=11, max_tokens=24
        )

    assert sample(server).choices[0].text == sample(aggregated).choices[0].text


def test_probes(server):
    for path in ("/health", "/live"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert httpx.get(server.url + "/version").json()["version"]


def test_metrics_count(server):
    before = server.metrics()
    server.client().completions.create(model=NAME, prompt="One two three", max_tokens=5, extra_body={"ignore_eos": True})
    server.wait_until_nothing_is_held()
    after = server.metrics()

    def grown(name):
        return after.get(name, 0) - before.get(name, 0)

    assert grown("baton_output_tokens_total") == 5
    assert grown("baton_prompt_tokens_total") == 3
    assert grown("baton_time_to_first_token_seconds_count") == 1
    assert grown("baton_inter_token_latency_seconds_count") == 4
    assert grown("baton_request_duration_seconds_count") == 1


def test_shutdown_lets_streams_finish():
    """SIGTERM while a stream runs: not ready any more, nothing new, and the stream goes on to its end."""
    server = Server("--kv-blocks", "512", "--drain-timeout", "60")
    client = server.client()
    options = {"model": NAME, "prompt": "Once upon a time", "extra_body": {"ignore_eos": True}}
    stream = client.completions.create(stream=True, max_tokens=300, stream_options={"include_usage": True}, **options)
    chunks = [next(stream) for _ in range(3)]
    server.terminate()

    rest, done = [], threading.Event()

    def read():
        rest.extend(stream)
        done.set()

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 20
    while (status := httpx.get(f"{server.url}/health").status_code) == 200:
        assert time.monotonic() < deadline, "/health stays 200"
    assert status == 503 and not done.is_set(), "it turned while the stream ran"
    with pytest.raises(openai.InternalServerError) as raised:
        client.completions.create(max_tokens=1, **options)
    assert (raised.value.status_code, raised.value.code) == (503, "service_unavailable")

    reader.join(timeout=60)
    assert done.is_set(), "the stream did not end"
    chunks += rest
    assert chunks[-1].usage.completion_tokens == 300
    assert [choice.finish_reason for choice in chunks[-2].choices] == ["length"]
    assert server.wait(30) == 0, server.log_tail()


def test_shutdown_does_not_wait_for_ever():
    server = Server("--kv-blocks", "512", "--drain-timeout", "1", "--max-model-len", "8192")
    stream = server.client().completions.create(
        model=NAME, prompt="Once upon a time", stream=True, max_tokens=8000, extra_body={"ignore_eos": True}
    )
    next(stream)
    server.terminate()
    assert server.wait(30) == 0, server.log_tail()
    # The client is told, by an error in the stream or a connection that breaks: a cut answer must not look complete.
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        endings = [choice.finish_reason for chunk in stream for choice in chunk.choices if choice.finish_reason]
        pytest.fail(f"the stream ended as if it were complete: {endings}")


def test_a_port_in_use_and_a_missing_model_are_said_plainly(server):
    port = server.url.rsplit(":", 1)[1]
    for options, expected in (
        (["--model", str(MODEL), "--port", port], port),
        (["--model", "./no-such-model.gguf", "--port", "0"], "no-such-model.gguf"),
    ):
        done = subprocess.run([BINARY, "serve", *options], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and expected in done.stderr, done.stderr


def test_the_kernels_tier_can_be_named(server):
    portable = Server("--cpu-tier", "portable")
    try:
        ask = {"model": NAME, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 2}
        texts = [each.client().completions.create(**ask).choices[0].text for each in (portable, server)]
        assert texts[0] == texts[1], "the tiers differ in last bits only"
    finally:
        portable.stop()
