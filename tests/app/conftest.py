"""One running page for all tests of it."""

import pytest


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The page with the exact distances of the sample room as its only network."""
    from immersivedepth.app.serving import Demo
    from immersivedepth.config import compose

    empty = tmp_path_factory.mktemp("weights")
    folder = tmp_path_factory.mktemp("demo")
    given = ["mode=demo", "app.port=0", f"app.folder='{folder}'", "app.upload_mb=2", "app.max_size=[2048,1024]"]
    with Demo.of(compose("config", [*given, f"weights.folder='{empty}'", "device.kind=cpu"])) as page:
        yield page


@pytest.fixture(scope="session")
def quick():
    """The choices of a quick run on the sample."""
    from immersivedepth.app import choices

    return [["oracle"], next(iter(choices.SIZES)), next(iter(choices.ALIGNMENTS)), "none", "turbo"]


@pytest.fixture(scope="session")
def sample():
    """The sample room."""
    from immersivedepth.app.work import samples

    return next(path for path in samples() if path.stem == "room")
