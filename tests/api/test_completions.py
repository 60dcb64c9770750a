"""Completions by the real client."""

import json

import pytest
from server import NAME, REPOSITORY

PROMPT = "The capital of France is"


def complete(client, prompt=PROMPT, **options):
    return client.completions.create(model=NAME, prompt=prompt, **({"temperature": 0, "max_tokens": 8} | options))


def test_a_completion(client):
    answer = complete(client)
    (choice,) = answer.choices
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert "Paris" in choice.text and choice.finish_reason == "length" and choice.logprobs is None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 8)


def test_sixteen_tokens_by_default(client):
    answer = client.completions.create(model=NAME, prompt=PROMPT, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16


def test_a_stream_says_the_same(client):
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == complete(client).choices[0].text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 8


def test_several_prompts_times_several_choices(client):
    prompts = [PROMPT, "Once upon a time"]
    answer = complete(client, prompts, n=2)
    texts = [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]
    one, two = (complete(client, prompt).choices[0].text for prompt in prompts)
    assert texts == [one, one, two, two], "greedy: each prompt's choices are alike, in the prompts' order"


def test_echo(client):
    answer = complete(client, echo=True)
    assert answer.choices[0].text == PROMPT + complete(client).choices[0].text


def test_logprobs_of_the_prompt(client):
    answer = complete(client, echo=True, max_tokens=0, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == PROMPT and "".join(logprobs.tokens) == PROMPT
    assert len(logprobs.tokens) == answer.usage.prompt_tokens == 5
    assert logprobs.token_logprobs[0] is None and all(value < 0 for value in logprobs.token_logprobs[1:])
    assert logprobs.text_offset == [0, 3, 11, 14, 21]
    for token, logprob, top in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs))[1:]:
        assert 2 <= len(top) <= 3, "the two most likely, and the prompt's own if it is another"
        assert top[token] == pytest.approx(logprob, abs=1e-4)


def test_logprobs_of_the_output(client):
    choice = complete(client, logprobs=2, max_tokens=4).choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text and len(choice.logprobs.tokens) == 4
    assert all(logprob == max(top.values()) for logprob, top in zip(choice.logprobs.token_logprobs, choice.logprobs.top_logprobs))
    assert choice.logprobs.text_offset[0] == 0, "offsets count from the start of the text that is returned"


def test_a_prompt_of_token_ids(client):
    """`The capital of France is`, as its tokenizer has it, alone and among others."""
    ids = [504, 3575, 282, 4649, 314]
    want = complete(client).choices[0].text
    assert complete(client, ids).choices[0].text == want
    assert [choice.text for choice in complete(client, [ids, ids]).choices] == [want, want]
    assert complete(client, ids, echo=True).choices[0].text == PROMPT + want


def test_a_rendered_chat_is_the_chat(client):
    """What the reference tokenizer and template made of a chat gives the same answer as the chat itself."""
    golden = json.loads((REPOSITORY / "tests/golden/smollm2_greedy.json").read_text())
    case = next(case for case in golden["cases"] if len(case["prompt_ids"]) > 300)
    chat = client.chat.completions.create(model=NAME, messages=case["messages"], temperature=0, max_tokens=16)
    assert chat.usage.prompt_tokens == len(case["prompt_ids"])
    assert complete(client, case["prompt_ids"], max_tokens=16).choices[0].text == chat.choices[0].message.content
    assert case["text"].startswith(chat.choices[0].message.content), "the reference implementation's answer"


def test_a_logit_bias_forbids_and_forces(client):
    first = complete(client, max_tokens=1, logprobs=1).choices[0].text
    assert "Paris" in first
    assert complete(client, max_tokens=1, logit_bias={"7042": -100}).choices[0].text != first
    forced = complete(client, max_tokens=3, logit_bias={"282": 100}).choices[0].text
    assert forced == " of of of"


def test_min_tokens_and_ignored_ends(client):
    prompt = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    free = complete(client, prompt, max_tokens=64)
    assert free.choices[0].finish_reason == "stop"
    least = free.usage.completion_tokens + 5
    longer = complete(client, prompt, max_tokens=64, extra_body={"min_tokens": least})
    assert longer.usage.completion_tokens >= least
    endless = complete(client, prompt, max_tokens=64, extra_body={"ignore_eos": True})
    assert (endless.usage.completion_tokens, endless.choices[0].finish_reason) == (64, "length")
