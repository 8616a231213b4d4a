"""Fixtures every test may use. All scenes are analytic: no weights, no downloads, no user folders."""

import os

import pytest

# Few threads: tests run side by side, and small problems are faster on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def compose():
    """Compose and check a config as the command line does."""
    from immersivedepth.config import compose

    return lambda *overrides, name="config": compose(name, overrides)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="tests/faults at the sizes of docs/reliability.md")
