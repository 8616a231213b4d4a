import dataclasses
import io

import pytest
import torch

from immersivedepth.weights import REGISTRY, Source, Weights

from .server import Liar


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No network, no proxy, no user folder: a place of its own for every test."""
    for name in ("IMMERSIVEDEPTH_WEIGHTS", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {"a.weight": torch.randn(50, 60, generator=generator), "b.bias": torch.randn(7, generator=generator)}


@pytest.fixture(scope="session")
def body(tensors):
    """A real weights file of a few kilobytes."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


@pytest.fixture
def server(body):
    with Liar(body) as liar:
        yield liar


@pytest.fixture
def register(monkeypatch):
    """Put a made-up file into the registry for the time of a test."""

    def put(**changes):
        source = Source(
            "toy", "depth_anything_v2", "toy", "toy.pt", "https://example.org/toy", "CC-BY-NC-4.0",
            "NOT for commercial use", "predict.depth_anything_v2.weights", sha256_from="this test",
        )  # fmt: skip
        source = dataclasses.replace(source, **changes)
        monkeypatch.setitem(REGISTRY, source.name, source)
        return source

    return put


@pytest.fixture
def toy(register, server):
    """The file that the server holds, with its size and hash published."""
    return register(url=server.url, size=len(server.body), sha256=server.sha256)


@pytest.fixture
def quick(tmp_path):
    """Settings that lose no time."""
    return Weights(folder=str(tmp_path / "weights"), timeout_s=0.3, retries=2, backoff_s=0.0)
