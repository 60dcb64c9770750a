"""`baton chat` against a server, as a script would use it."""

import os
import pty
import select
import subprocess
import time

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


class Terminal:
    """`baton chat` as a person has it."""

    def __init__(self, *options):
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen([BINARY, "chat", *options], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.fd = ours
        self.seen = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def read_until(self, wanted, seconds=60):
        """What came up to and with `wanted`."""
        deadline = time.monotonic() + seconds
        while wanted not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {wanted!r} in {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        end = self.seen.index(wanted) + len(wanted)
        text, self.seen = self.seen[:end], self.seen[end:]
        return text


def test_a_person_stops_an_answer_goes_on_and_leaves(server):
    terminal = Terminal("--url", server.url, "--temperature", "0")
    terminal.read_until("> ")
    terminal.type("What is the capital of France?\n")
    assert "Paris" in terminal.read_until("tokens/s]")
    terminal.read_until("> ")
    terminal.type("Now write the longest story that you can.\n")
    terminal.read_until("\n")
    # Some of the answer, then what Ctrl-C sends.
    terminal.read_until(" ")
    terminal.process.send_signal(2)
    terminal.read_until("[stopped;")
    terminal.read_until("> ")
    server.wait_until_nothing_is_held()
    terminal.process.send_signal(2)
    assert terminal.process.wait(timeout=20) == 0
    os.close(terminal.fd)
