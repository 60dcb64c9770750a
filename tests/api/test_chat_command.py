"""`baton chat` against a server, as a script would use it."""

import subprocess

from server import BINARY


def chat(url, *options, text=""):
    command = [BINARY, "chat", "--url", url, *options]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)


def test_one_prompt(server):
    done = chat(server.url, "--prompt", "What is the capital of France?", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout and done.stdout.endswith("\n")
    assert done.stderr == "", "nothing but the answer when nobody watches"


def test_a_pipe_of_questions_is_one_conversation(server):
    before = server.metric("baton_prompt_tokens_total")
    done = chat(server.url, "--max-tokens", "8", "--temperature", "0", text="Hello!\n\nAgain, please.\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2
    first = chat(server.url, "--max-tokens", "8", "--temperature", "0", text="Hello!\n")
    assert done.stdout.startswith(first.stdout), "the first answer is the same, the second knows of it"
    assert server.metric("baton_prompt_tokens_total") > before


def test_what_is_wrong_is_said(server):
    done = chat("http://127.0.0.1:9", "--prompt", "Hi")
    assert done.returncode == 1 and "baton serve" in done.stderr
    done = chat(server.url, "--model", "gpt-5", "--prompt", "Hi")
    assert done.returncode == 1 and "gpt-5" in done.stderr
