"""Whatever goes wrong while a file is written, its name leads to the old content or to the new, and nothing is left."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from immersivedepth.checks import ResourceError, UserError
from immersivedepth.files import TEMPORARY, atomic, sweep, write_bytes, write_text

resource = pytest.importorskip("resource", reason="limits of this kind exist on POSIX systems only")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*"))


@contextmanager
def largest_file(size: int):
    """Writes beyond so many bytes fail with EFBIG, as they fail with ENOSPC on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "a.bin"
    assert write_bytes(path, b"one") == path
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.bin", "folder", "new"]


def test_the_temporary_file_is_hidden_beside_the_target_and_keeps_the_suffix(tmp_path):
    with atomic(tmp_path / "mesh.glb") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".glb"
        assert temporary.name.startswith(".mesh.")
        assert TEMPORARY in temporary.name
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["mesh.glb"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_in_the_block_keeps_the_old_file(tmp_path, fault):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def tear():
        with atomic(path) as temporary:
            temporary.write_bytes(b"torn")
            raise fault

    pytest.raises(fault, tear)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(ResourceError, match=r"a\.bin"), atomic(tmp_path / "a.bin"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "fsync", "replace", "close"])
def test_a_failing_call_leaves_the_old_or_the_new_state(tmp_path, monkeypatch, call, code):
    """Every call of the writer fails once, whichever it is: 0, 1, 2 ... until it runs through."""
    path, original = tmp_path / "a.bin", getattr(os, call)
    for failing in range(5):
        write_bytes(path, b"old")
        count = -1

        def sometimes(*args, failing=failing, **kwargs):
            nonlocal count
            count += 1
            if count == failing:
                if call == "close":  # as Linux does: the handle is gone, the error stays
                    original(*args)
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        monkeypatch.setattr(os, call, sometimes)
        message = None
        try:
            write_bytes(path, b"new")
        except ResourceError as error:
            message = str(error)
        monkeypatch.undo()
        assert path.read_bytes() in (b"old", b"new")
        assert names(tmp_path) == ["a.bin"]
        if message is not None:
            assert os.strerror(code) in message
            assert str(path) in message
        else:
            assert path.read_bytes() == b"new"
            assert failing > 0, f"os.{call} was never called"
            return
    pytest.fail(f"os.{call} was called more than five times")


def test_a_write_that_fails_midway_leaves_the_old_state(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with largest_file(1000), pytest.raises(ResourceError, match="File too large") as caught:
        write_bytes(path, bytes(5000))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]
    assert "\n" not in str(caught.value)


def test_data_reach_the_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (calls.append(("fsync", os.fstat(h).st_mode & 0o170000)), fsync(h))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("replace", 0)), replace(a, b))[1])
    write_bytes(tmp_path / "a.bin", b"x")
    assert calls == [("fsync", 0o100000), ("replace", 0), ("fsync", 0o040000)]


def test_a_disk_that_cannot_sync_folders_is_good_enough(tmp_path, monkeypatch):
    fsync = os.fsync

    def files_only(handle):
        if os.fstat(handle).st_mode & 0o040000:
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    assert write_bytes(tmp_path / "a.bin", b"x").read_bytes() == b"x"


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.bin", tmp_path / "folder", Path("/proc/nowhere/a.bin"), tmp_path / ("n" * 300)):
        with pytest.raises(ResourceError) as caught:
            write_bytes(path, b"x")
        assert str(path) in str(caught.value)
        assert caught.value.code == 5
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(
    "name",
    ["a=b,c.txt", "-rf", "with space.txt", "深度 ñ.json", "é" * 125 + ".txt", "a" * 255, "line\nbreak", "(1) {}'\"$"],
)
def test_odd_and_long_names(tmp_path, name):
    assert write_text(tmp_path / name, "x").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_text_with_an_undecodable_name_in_it_is_still_utf8(tmp_path):
    path = write_text(tmp_path / "a.json", "caf\udce9 é")
    assert path.read_text(encoding="utf-8") == "caf\\udce9 é"


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "input.txt").write_text("input")
    (tmp_path / "link.txt").symlink_to(tmp_path / "input.txt")
    write_text(tmp_path / "link.txt", "output")
    assert (tmp_path / "input.txt").read_text() == "input"
    assert (tmp_path / "link.txt").read_text() == "output"


def test_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([k]) * 100_000 for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda data: write_bytes(path, data), contents * 5):
            assert path.read_bytes() in contents
    assert names(tmp_path) == ["a.bin"]


WRITER = """
import sys
from pathlib import Path
from immersivedepth.files import write_bytes
print("ready", flush=True)
while True:
    for letter in b"ab":
        write_bytes(Path(sys.argv[1]), bytes([letter]) * 2_000_000)
"""


def test_killed_at_any_moment(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"a" * 2_000_000)
    left = 0
    for turn in range(6):
        child = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.003 * turn)
        child.kill()
        child.wait()
        child.stdout.close()
        data = path.read_bytes()
        assert len(data) == 2_000_000
        assert len(set(data)) == 1
        left += len(sweep(tmp_path))
        assert names(tmp_path) == ["a.bin"]
    assert left > 0, "no kill came in the middle of a write, so that this test showed nothing"


def test_sweeping_spares_other_files_and_living_processes(tmp_path):
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = [
        f".a.{dead.pid}-0123abcd.part.png",
        f".no suffix.{dead.pid}-0123abcd.part",
        f".own.{os.getpid()}-0123abcd.part.x",
    ]
    kept = [f".b.{alive.pid}-0123abcd.part.png", ".the.party.txt", "a.part.png", ".a.12-xyz.part.png", "b.png"]
    for name in gone + kept:
        (inside / name).write_text("x")
    try:
        assert sorted(p.name for p in sweep(tmp_path)) == sorted(gone)
        assert names(inside) == sorted(kept)
    finally:
        alive.communicate(b"\n")
    assert [p.name for p in sweep(tmp_path)] == kept[:1]


def test_a_stale_file_that_cannot_be_removed_is_left(tmp_path, monkeypatch):
    (tmp_path / f".a.{os.getpid()}-0123abcd.part").write_text("x")
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(PermissionError(1, "no")))
    assert sweep(tmp_path) == []


FULL_DISK = """
import os, sys
from pathlib import Path
import numpy as np
from immersivedepth.checks import ResourceError
from immersivedepth.data import images
from immersivedepth.files import write_bytes
folder = Path(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 256, (700, 1400, 3), np.uint8)
light = noise.astype(np.float32)
writers = {
    "a.bin": lambda path: write_bytes(path, bytes(3_000_000)),
    "a.png": lambda path: images.write_png(path, noise),
    "a.exr": lambda path: images.write_exr(path, light),
    "a.npy": lambda path: images.write_npy(path, light),
    "a.pfm": lambda path: images.write_pfm(path, light),
}
for name, write in writers.items():
    (folder / name).write_bytes(b"old")
    try:
        write(folder / name)
    except ResourceError as error:
        assert "No space left" in str(error), error
    else:
        sys.exit(f"{name} was written to a full disk")
    assert (folder / name).read_bytes() == b"old", name
    assert sorted(p.name for p in folder.iterdir()) == [name], name
    (folder / name).unlink()
free = os.statvfs(folder)
assert free.f_bfree * free.f_bsize > 1_900_000, "space stays taken"
print("all refused")
"""


def test_a_full_disk(tmp_path):
    """On a small disk of our own, in a mount namespace of its own, so that it vanishes with the test."""
    script = tmp_path / "full_disk.py"
    script.write_text(FULL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=2M tmpfs "$1" || exit 77; exec "$2" "$3" "$1"'
    command = ["sh", "-c", mount, "sh", str(disk), sys.executable, str(script)]
    prefix = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    try:
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, env=environment, timeout=120)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "all refused" in done.stdout


def test_errors_have_their_exit_code():
    assert issubclass(ResourceError, UserError)
    assert ResourceError.code == 5
    assert signal.SIGXFSZ in signal.valid_signals()  # Python ignores it, so that a limit is an OSError
