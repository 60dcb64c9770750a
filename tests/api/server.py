"""A Baton server as a child process, and what its metrics say."""

import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import httpx
import openai

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("BATON_BIN", REPOSITORY / "target/debug/baton"))
MODEL = Path(os.environ.get("BATON_TEST_MODEL", REPOSITORY / "target/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
# The name that requests use, whatever the model's file is called.
NAME = "demo"

# Loading takes a second or two; a debug build on a busy machine takes longer.
START_MAX = 120
# More than any --drain-timeout used here.
STOP_MAX = 90


class Server:
    """`baton serve` on a free port of this machine."""

    def __init__(self, *options: str, model: Path = MODEL):
        command = [str(BINARY), "serve", "--model", str(model), "--served-model-name", NAME, "--port", "0", *options]
        # Settings of whoever runs the tests are none of theirs.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BATON_")}
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, env=environment, text=True
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self._wait_for_address()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def _wait_for_address(self) -> str:
        deadline = time.monotonic() + START_MAX
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self.lines.get(timeout=left)
            except queue.Empty:
                break
            if found := re.match(r"listening on (http://\S+)", line):
                return found[1]
            if not line:
                break
        self.process.kill()
        raise AssertionError(f"the server did not start (exit status {self.process.wait()}):\n{self.log_tail()}")

    def log_tail(self) -> str:
        self.log.seek(0)
        return "\n".join(self.log.read().decode(errors="replace").splitlines()[-30:])

    def client(self, **options) -> openai.OpenAI:
        """The real client, without its own retries: a test sees what the server says."""
        options = {"api_key": "none", "timeout": 120.0, "max_retries": 0} | options
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def async_client(self, **options) -> openai.AsyncOpenAI:
        options = {"api_key": "none", "timeout": 120.0, "max_retries": 0} | options
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", **options)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = STOP_MAX) -> int:
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end within {seconds} s:\n{self.log_tail()}") from None

    def stop(self) -> None:
        """Ends it as an orchestrator would; it must leave in good order."""
        if self.process.poll() is None:
            self.terminate()
        status = self.wait()
        assert status == 0, f"exit status {status}:\n{self.log_tail()}"

    def metrics(self) -> dict[str, float]:
        """Samples by name with labels, as written: `baton_kv_blocks_held{role="decode"}`."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status().text
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def metric(self, name: str) -> float:
        """The sum over all labels; 0 if there is none."""
        samples = self.metrics().items()
        return sum(value for sample, value in samples if sample == name or sample.startswith(name + "{"))

    def wait_until_nothing_is_held(self, seconds: float = 60) -> None:
        """All sequences over, all blocks back: free + inactive = total in every pool."""
        deadline = time.monotonic() + seconds
        while True:
            metrics = self.metrics()
            pools = {key[key.index("{") :] for key in metrics if key.startswith("baton_kv_blocks_total{")}
            assert pools, "the server reports no pool"
            held = {pool: metrics[f"baton_kv_blocks_held{pool}"] for pool in pools}
            in_flight = metrics.get("baton_requests_in_flight", 0)
            if not any(held.values()) and not in_flight:
                break
            assert time.monotonic() < deadline, f"still held: {held}, requests in flight: {in_flight}"
            time.sleep(0.05)
        for pool in pools:
            parts = metrics[f"baton_kv_blocks_free{pool}"] + metrics[f"baton_kv_blocks_inactive{pool}"]
            assert parts == metrics[f"baton_kv_blocks_total{pool}"], f"blocks of {pool} are lost"
