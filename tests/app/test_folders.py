import os
import subprocess
import sys
import time

import pytest

from immersivedepth.app.folders import Keeper
from immersivedepth.checks import ResourceError


@pytest.fixture
def keeper(tmp_path):
    found = Keeper(str(tmp_path), keep_minutes=0.01, grace=0.0)
    yield found
    found.close()


def test_names_cannot_be_guessed_and_belong_to_one(keeper):
    jobs = [keeper.open("a") for _ in range(50)]
    assert len({job.folder.name for job in jobs}) == 50
    assert min(len(job.folder.name) for job in jobs) >= 32
    assert keeper.of("a", jobs[3].folder.name) is jobs[3]
    assert keeper.of("b", jobs[3].folder.name) is None
    assert jobs[0].folder.stat().st_mode & 0o077 == 0


def test_who_leaves_takes_everything_along(keeper):
    mine, other, busy = keeper.open("me"), keeper.open("you"), keeper.open("me")
    mine.running = other.running = False
    keeper.leave("me")
    assert not mine.folder.exists()
    assert other.folder.exists()
    assert busy.cancelled.is_set()
    assert busy.folder.exists()  # still written to
    assert not other.cancelled.is_set()
    busy.running = False
    keeper.sweep()
    assert not busy.folder.exists()
    assert other.folder.exists()


def test_a_file_on_its_way_is_not_taken_away(tmp_path):
    keeper = Keeper(str(tmp_path), keep_minutes=60)
    job = keeper.open("me")
    job.running = False
    keeper.leave("me")
    assert job.folder.exists()
    assert job.started < time.monotonic() - keeper.keep + keeper.grace + 0.1
    job.started -= keeper.grace
    keeper.sweep()
    assert not job.folder.exists()
    keeper.close()


def test_old_results_go(keeper):
    old, new = keeper.open("a"), keeper.open("a")
    old.running = new.running = False
    old.started -= 1
    keeper.sweep()
    assert not old.folder.exists()
    assert new.folder.exists()


def test_close_leaves_nothing(tmp_path):
    keeper = Keeper(str(tmp_path), 1)
    job = keeper.open("a")
    keeper.close()
    assert job.cancelled.is_set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="only POSIX tells whether a process lives")
def test_what_a_killed_server_left_is_swept(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = tmp_path / f"immersivedepth-demo-{int(gone.stdout)}-abc"
    alive = tmp_path / f"immersivedepth-demo-{os.getpid()}-abc"
    foreign = tmp_path / "immersivedepth-demo-notes"
    for folder in (dead, alive, foreign):
        folder.mkdir()
    Keeper(str(tmp_path), 1).close()
    assert not dead.exists()
    assert alive.exists()
    assert foreign.exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="app.folder"):
        Keeper(str(tmp_path / "file"), 1)
