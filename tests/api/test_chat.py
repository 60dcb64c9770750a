"""Chats by the real client."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from server import NAME

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
SEA = [{"role": "user", "content": "Write a haiku about the sea."}]
BLOCK_SIZE = 16


def ask(client, messages=CAPITAL, **options):
    return client.chat.completions.create(model=NAME, messages=messages, **({"temperature": 0} | options))


def text_of(client, messages=CAPITAL, **options):
    return ask(client, messages, **options).choices[0].message.content


def stream_of(client, messages=CAPITAL, **options):
    return list(ask(client, messages, stream=True, **options))


def joined(chunks, index=0):
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.object) == (NAME, "model")
    assert client.models.retrieve(NAME) == model


def test_an_answer(client):
    answer = ask(client)
    (choice,) = answer.choices
    assert answer.object == "chat.completion" and answer.model == NAME and answer.id.startswith("chatcmpl-")
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "stop")
    assert "Paris" in choice.message.content
    usage = answer.usage
    # The prompt has 37 tokens with the template's own system message.
    assert usage.prompt_tokens == 37 and usage.completion_tokens >= 2
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_says_the_same(client):
    whole = ask(client, max_tokens=24)
    chunks = stream_of(client, max_tokens=24, stream_options={"include_usage": True})
    assert joined(chunks) == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == [
        whole.choices[0].finish_reason
    ]
    *before, last = chunks
    assert last.choices == [] and all(chunk.usage is None for chunk in before)
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_no_usage_unless_asked_for(client):
    assert all(chunk.usage is None and chunk.choices for chunk in stream_of(client, max_tokens=3))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length(client, name):
    answer = ask(client, SEA, **{name: 5})
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 5


def test_cached_tokens(client, fresh_salt):
    messages = [{"role": "user", "content": "Count with me: " + ", ".join(map(str, range(60)))}]
    salt = fresh_salt()
    first = ask(client, messages, max_tokens=4, extra_body=salt)
    again = ask(client, messages, max_tokens=4, extra_body=salt)
    other = ask(client, messages, max_tokens=4, extra_body=fresh_salt())
    prompt_tokens = first.usage.prompt_tokens
    assert prompt_tokens > 4 * BLOCK_SIZE
    # All full blocks that leave one token to compute.
    most = (prompt_tokens - 1) // BLOCK_SIZE * BLOCK_SIZE
    cached = [answer.usage.prompt_tokens_details.cached_tokens for answer in (first, again, other)]
    assert cached == [0, most, 0]
    assert first.choices[0].message.content == again.choices[0].message.content == other.choices[0].message.content


def test_logprobs(client):
    answer = ask(client, SEA, max_tokens=6, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 6
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == answer.choices[0].message.content
    for entry in entries:
        top = [other.logprob for other in entry.top_logprobs]
        assert len(top) == 3 and top == sorted(top, reverse=True) and top[0] <= 0
        assert entry.logprob == top[0] and entry.token == entry.top_logprobs[0].token, "greedy takes the most likely"
    chunks = stream_of(client, SEA, max_tokens=6, logprobs=True, top_logprobs=3)
    streamed = [entry for chunk in chunks for choice in chunk.choices if choice.logprobs for entry in choice.logprobs.content]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]
    assert answer.choices[0].logprobs.content[0].logprob == pytest.approx(streamed[0].logprob, abs=1e-4)


def test_several_choices(client):
    answer = ask(client, SEA, n=3, temperature=1, seed=7, max_tokens=16)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3, "each choice draws its own numbers"
    assert answer.usage.completion_tokens <= 3 * 16 and answer.usage.prompt_tokens == 38
    chunks = stream_of(client, SEA, n=3, temperature=1, seed=7, max_tokens=16)
    assert [joined(chunks, index) for index in range(3)] == texts


def test_a_seed_decides(client):
    options = {"temperature": 1, "max_tokens": 16}
    one, same, other = (text_of(client, SEA, seed=seed, **options) for seed in (1, 1, 2))
    assert one == same != other
    unseeded = {text_of(client, SEA, **options) for _ in range(4)}
    assert len(unseeded) > 1


def test_stop_strings(client):
    full = text_of(client, SEA, max_tokens=24)
    # From the middle of one word into the next: no token ends there.
    stop = full[12:18]
    for got in (ask(client, SEA, max_tokens=24, stop=stop), ask(client, SEA, max_tokens=24, stop=["no such", stop])):
        assert got.choices[0].message.content == full[: full.index(stop)]
        assert got.choices[0].finish_reason == "stop"
    chunks = stream_of(client, SEA, max_tokens=24, stop=stop)
    assert joined(chunks) == full[: full.index(stop)]


def test_roles_and_parts(client):
    messages = [
        {"role": "system", "content": "You are a terse assistant."},
        {"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello."}]},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Again."},
    ]
    assert ask(client, messages, max_tokens=8).choices[0].message.content


def test_text_beyond_ascii_survives_streaming(client):
    messages = [{"role": "user", "content": "Résume en une phrase: le chat dort sur le canapé. 🐱"}]
    whole = text_of(client, messages, max_tokens=24)
    assert joined(stream_of(client, messages, max_tokens=24)) == whole
    assert "\ufffd" not in whole.rstrip("\ufffd")


def test_company_changes_nothing(client):
    """A sequence's tokens do not depend on what else is in the batch."""
    questions = [[{"role": "user", "content": f"Tell me about the number {number}."}] for number in range(8)]
    alone = [text_of(client, question, max_tokens=16) for question in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(lambda question: text_of(client, question, max_tokens=16), questions))
    assert together == alone
