"""Models of every architecture from Hugging Face directories, and directories that cannot be served."""

import json
import shutil
import subprocess

import pytest
from server import BINARY, MODEL, NAME, REPOSITORY, Server

GOLDEN = REPOSITORY / "tests/golden"
END_TOKEN = "<|end|>"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"


def byte_characters() -> dict[int, str]:
    """The character that stands for each byte in byte-level BPE: itself if it prints, otherwise one from 256 on."""
    prints = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in prints]
    return {byte: chr(byte) for byte in prints} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def word(token: int) -> str:
    """The text of a token that is no byte."""
    return f"<word {token}>"


def write_tokenizer(directory, tokens: int = 320) -> None:
    """One token a byte, an end token, and words up to the tiny models' vocabulary of 320."""
    vocabulary = {character: byte for byte, character in sorted(byte_characters().items())}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": 256, "content": END_TOKEN, "special": True} | flags]
    added += [{"id": token, "content": word(token), "special": False} | flags for token in range(257, tokens)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": END_TOKEN, "chat_template": TEMPLATE}))


def token_bytes(token: int) -> bytes:
    if token < 256:
        return bytes([token])
    return (END_TOKEN if token == 256 else word(token)).encode()


def copy(name, tmp_path):
    directory = tmp_path / name
    shutil.copytree(GOLDEN / name, directory)
    return directory


@pytest.mark.parametrize("name", ["llama-tied", "llama3-rope-scaling", "mistral", "qwen2-bias", "qwen3-qknorm"])
def test_a_directory_is_served(name, tmp_path):
    directory = copy(name, tmp_path)
    write_tokenizer(directory)
    golden = json.loads((directory / "golden.json").read_text())
    # Up to the first choice that another order of summation might make differently.
    safe = next((i for i, margin in enumerate(golden["margins"]) if margin < 0.005), len(golden["margins"]))
    assert safe >= 4
    server = Server("--weights", "f32", "--handoff-threshold", "16", "--kv-blocks", "64", model=directory)
    try:
        client = server.client()
        answer = client.completions.create(
            model=NAME,
            prompt=golden["prompt_ids"],
            max_tokens=safe,
            temperature=0,
            extra_body={"ignore_eos": True, "skip_special_tokens": False},
        )
        assert answer.usage.completion_tokens == safe
        expected = b"".join(token_bytes(token) for token in golden["greedy_ids"][:safe])
        assert answer.choices[0].text == expected.decode(errors="replace")
        assert server.metric('baton_handoffs_total{outcome="completed"}') == 1
        chat = client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "héllo"}], max_tokens=5, temperature=0
        )
        assert chat.usage.prompt_tokens == len("user: héllo\nassistant:".encode())
        server.wait_until_nothing_is_held()
    finally:
        server.stop()


def refusal(model, *options) -> str:
    command = [str(BINARY), "serve", "--model", str(model), "--port", "0", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stdout == "", "nothing is announced"
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("baton: ")
    return last


def test_what_cannot_be_served_is_told_at_start(tmp_path):
    assert "qwen3_moe" in refusal(GOLDEN / "qwen3-moe")

    no_tokenizer = refusal(GOLDEN / "llama-tied")
    assert "tokenizer.json" in no_tokenizer

    foreign = copy("mistral", tmp_path)
    write_tokenizer(foreign)
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 4}))
    wrong_shape = refusal(foreign)
    assert "k_proj" in wrong_shape and "model.safetensors" in wrong_shape

    cut = copy("llama3-rope-scaling", tmp_path)
    write_tokenizer(cut)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "model.safetensors" in refusal(cut)

    assert "there is no model at" in refusal(tmp_path / "nothing" / "here.gguf")


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    directory = copy("qwen2-bias", tmp_path)
    write_tokenizer(directory, tokens=400)
    message = refusal(directory)
    assert "400 tokens" in message and "320 rows" in message


def test_sizes_that_do_not_fit_are_refused():
    too_small = refusal(MODEL, "--kv-blocks", "2")
    assert "--kv-blocks" in too_small and "--max-model-len" in too_small
    too_long = refusal(MODEL, "--max-model-len", "100000")
    assert "100000" in too_long and "8192" in too_long
