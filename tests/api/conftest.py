"""Servers that tests share. Each must end with exit status 0."""

import itertools

import pytest
from server import BINARY, MODEL, Server

LIMITED_KEY = "secret"


def pytest_configure(config):
    for what, path in {"BATON_BIN": BINARY, "BATON_TEST_MODEL": MODEL}.items():
        if not path.exists():
            pytest.exit(f"{what}: {path} does not exist; `cargo xtask test` builds and fetches it", returncode=2)


@pytest.fixture(scope="session")
def server():
    """Both phases in engines of their own; every prompt is handed over."""
    server = Server("--mode", "disaggregated", "--handoff-threshold", "0", "--kv-blocks", "2048")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def aggregated():
    """One engine."""
    server = Server("--mode", "aggregated", "--kv-blocks", "2048")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def limited():
    """Asks for a key and takes one request at a time."""
    server = Server("--mode", "aggregated", "--kv-blocks", "512", "--api-key", LIMITED_KEY, "--max-requests", "1")
    yield server
    server.stop()


@pytest.fixture
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def fresh_salt():
    """Gives a `cache_salt` that no request had before: nothing is in the cache for it."""
    numbers = itertools.count()
    return lambda: {"cache_salt": f"tests-{next(numbers)}"}
