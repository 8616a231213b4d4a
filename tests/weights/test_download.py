"""Downloads from a server that lies, cuts, stalls and changes its mind: a whole, verified file or none at all."""

import hashlib
import io
import logging
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from immersivedepth.checks import ResourceError, WeightsError
from immersivedepth.weights import REGISTRY, Weights, fetch, read
from immersivedepth.weights.download import STALE, Patience, download

from .server import (
    Liar,
    becomes,
    claims,
    cut,
    drip,
    flipped,
    honest,
    ignores_range,
    sends,
    stall,
    status,
)

ROOT = Path(__file__).resolve().parents[2]


def left(folder):
    """What lies in the folder, but for the lock that stays."""
    return sorted(p.name for p in Path(folder).iterdir() if not p.name.endswith(".lock"))


def refused(settings, *parts):
    """The fetch fails in one line that holds all parts, and leaves nothing behind."""
    with pytest.raises(WeightsError) as caught:
        fetch("toy", settings=settings)
    message = str(caught.value)
    assert "\n" not in message
    for part in (*parts, "toy.pt not found", "predict.depth_anything_v2.weights", "weights.download=[toy]"):
        assert part in message
    assert left(settings.folder) == []
    return message


def arrived(settings, server):
    path = fetch("toy", settings=settings)
    assert path.read_bytes() == server.body
    pinned = [] if REGISTRY["toy"].sha256 else ["toy.pt.sha256.json"]
    assert left(settings.folder) == ["toy.pt", *pinned]
    return path


def test_honest_server(toy, quick, server, tensors, caplog):
    path = arrived(quick, server)
    assert path == Path(quick.folder) / "toy.pt"
    assert (read(path)["a.weight"] == tensors["a.weight"]).all()
    assert "CC-BY-NC-4.0" in caplog.text  # the licence is shown when a file is first fetched
    assert "NOT for commercial use" in caplog.text
    caplog.clear()
    fetch("toy", settings=quick)
    assert len(server.asked) == 1
    assert caplog.text == ""


def test_goes_on_where_it_was_cut(toy, quick, server):
    server.script = [cut(5000), cut(3000)]
    arrived(quick, server)
    assert [h.get("Range") for h in server.asked] == [None, "bytes=5000-", "bytes=8000-"]
    assert [h.get("If-Range") for h in server.asked] == [None, '"one"', '"one"']


def test_many_cuts_with_progress_are_borne(toy, quick, server):
    server.script = [cut(len(server.body) // 9)] * 8  # more often than `retries`, but each brings a ninth
    arrived(quick, server)
    assert len(server.asked) == 9


def test_endless_cuts_without_progress_end(toy, quick, server):
    server.always = cut(0)
    refused(quick, "cut after 0 of", "tried 3 times")
    assert len(server.asked) == 3


def test_without_a_validator_it_starts_anew(toy, quick, server):
    server.etag, server.script = None, [cut(5000)]
    arrived(quick, server)
    assert [h.get("Range") for h in server.asked] == [None, None]


def test_weak_validator_is_not_used(toy, quick, server):
    server.etag, server.script = 'W/"one"', [cut(5000)]
    arrived(quick, server)
    assert [h.get("Range") for h in server.asked] == [None, None]


def test_server_that_ignores_ranges(toy, quick, server):
    server.script = [cut(5000), ignores_range]
    arrived(quick, server)


def test_stall(toy, quick, server):
    server.script = [stall(5000)]
    since = time.monotonic()
    arrived(quick, server)
    assert time.monotonic() - since < 4  # the server would have been silent for five seconds
    assert server.asked[1]["Range"] == "bytes=5000-"


def test_drip(toy, quick, server):
    server.always = drip
    refused(quick, "slower than 1024 bytes per second")


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_errors_are_tried_again(toy, quick, server, code):
    server.script = [status(code, Retry_After="0"), status(code)]
    arrived(quick, server)


@pytest.mark.parametrize("code", [401, 403, 404, 410, 418])
def test_final_errors_are_not(toy, quick, server, code):
    server.always = status(code)
    refused(quick, f"answered {code}")
    assert len(server.asked) == 1


def test_endless_500(toy, quick, server):
    server.always = status(500)
    refused(quick, "answered 500", "tried 3 times")


def test_416_starts_anew(toy, quick, server):
    server.script = [cut(5000), status(416)]
    arrived(quick, server)
    assert [h.get("Range") for h in server.asked] == [None, "bytes=5000-", None]


@pytest.mark.parametrize("offset", [-1, 1, 1000])
def test_length_that_is_not_the_published_one(toy, quick, server, offset):
    server.always = claims(len(server.body) + offset)
    refused(quick, f"holds {len(server.body) + offset} bytes, the released file has {len(server.body)}")


def test_promises_more_than_it_has(register, quick, server):
    register(url=server.url)
    server.always = claims(len(server.body) + 1000)
    refused(quick, "cut after")


def test_promises_less_than_it_has(register, quick, server):
    register(url=server.url)  # no size, no hash: only the file itself can tell that its end is missing
    server.always = claims(len(server.body) - 100)
    refused(quick, "cut short or damaged")


def test_states_no_length(toy, quick, server):
    server.script = [sends(server.body, length=False)]
    arrived(quick, server)


def test_states_no_length_and_is_cut(toy, quick, server):
    server.always = sends(server.body[:-5], length=False)
    refused(quick, "cut after")


def test_states_no_length_and_goes_on(toy, quick, server):
    server.always = sends(server.body + b"x", length=False)
    refused(quick, "sent more than")


def test_states_no_length_and_none_is_known(register, quick, server):
    register(url=server.url)
    server.always = sends(server.body, length=False)
    refused(quick, "states no size")


@pytest.mark.parametrize("at", [0, 5000, -1])
def test_one_flipped_bit(toy, quick, server, at):
    server.always = sends(flipped(server.body, at % len(server.body)))
    refused(quick, "SHA-256 expected", toy.sha256, "nothing was kept")


def test_zeroed(toy, quick, server):
    server.always = sends(bytes(len(server.body)))
    refused(quick, "SHA-256 expected")


@pytest.mark.parametrize("at", [100, 5000])
def test_one_flipped_bit_without_a_published_hash(register, quick, server, at):
    register(url=server.url)
    server.always = sends(flipped(server.body, at))
    refused(quick, "is not a weights file")


def test_file_changes_midway(register, quick, server):
    """The first part is of the old file: mixing both would be a file that never was."""
    new = flipped(server.body, 20)
    register(url=server.url, size=len(new), sha256=hashlib.sha256(new).hexdigest())
    server.script = [cut(5000), becomes(new, '"two"')]
    arrived(quick, server)


def test_file_changes_midway_to_another_size(register, quick, server, body):
    register(url=server.url)
    server.body = body[:9000]
    server.script = [cut(5000), becomes(body, '"two"')]
    arrived(quick, server)


def test_file_changes_midway_and_the_server_hides_it(toy, quick, server):
    good, bad = server.body, flipped(server.body, 20)
    server.body = bad
    server.script = [cut(5000), becomes(good, '"one"')]  # same ETag: the pieces are of two files
    arrived(quick, server)
    assert [h.get("Range") for h in server.asked] == [None, "bytes=5000-", None]


def test_answers_with_another_part(toy, quick, server):
    body = server.body
    wrong = sends(body[4000:], 206, Content_Range=f"bytes 4000-{len(body) - 1}/{len(body)}")
    server.script = [cut(5000), wrong]
    arrived(quick, server)
    assert server.asked[2].get("Range") is None


def test_answers_with_another_version(toy, quick, server):
    body = server.body
    wrong = sends(body[5000:], 206, Content_Range=f"bytes 5000-{len(body) - 1}/{len(body)}", ETag='"two"')
    server.script = [cut(5000), wrong]
    arrived(quick, server)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>quota exceeded</html>", b"  <html><body>log in</body></html>"])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("published", [True, False])
def test_web_page(register, quick, server, page, kind, published):
    sha256 = server.sha256 if published else None
    register(url=server.url, size=len(page), sha256=sha256)
    server.always = sends(page, Content_Type=kind)
    refused(quick, "SHA-256 expected" if published and kind.startswith("app") else "web page")


def test_pointer_instead_of_the_file(register, quick, server):
    register(url=server.url)
    server.always = sends(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    refused(quick, "Git LFS pointer")


def test_nothing_at_all(register, quick, server):
    register(url=server.url)
    server.always = sends(b"")
    refused(quick, "0 bytes")


def test_encoded_body(toy, quick, server):
    server.always = sends(server.body, Content_Encoding="gzip")
    refused(quick, "encoded")


def test_too_large(register, server, tmp_path):
    register(url=server.url)
    server.always = claims(10**9)
    refused(Weights(folder=str(tmp_path / "w"), limit_gb=0.5, retries=0), "limit_gb")


def test_follows_redirects(toy, quick, server):
    with Liar(server.body) as other:
        server.always = status(302, Location=other.url)
        arrived(quick, server)
        assert len(other.asked) == 1


@pytest.mark.parametrize("to", ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_never_redirected_to_something_weaker(toy, quick, server, to):
    server.always = status(302, Location=to)
    assert "not HTTPS: refused" in (message := refused(quick, to)) or "is not allowed" in message


def test_redirects_in_a_ring(toy, quick, server):
    server.always = status(302, Location=server.url)
    refused(quick, "answered 302")


@pytest.mark.parametrize(
    "url", ["http://example.org/x.pt", "ftp://example.org/x.pt", "file:///x.pt", "http://127.0.0.1.example.org/"]
)
def test_only_https_is_asked(register, quick, url):
    register(url=url)
    refused(quick, "not HTTPS")


def test_nobody_listens(register, tmp_path, caplog):
    """Out of reach: told at once and in one line, for that is how most people without a network meet it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        register(url=f"http://127.0.0.1:{taken.getsockname()[1]}/x")
        settings = Weights(folder=str(tmp_path / "w"), retries=50, backoff_s=0.1)
        since = time.monotonic()
        refused(settings, "refused")
    assert time.monotonic() - since < 3
    assert caplog.text == ""


def test_an_old_file_stays_when_a_download_fails(server, tmp_path):
    target = tmp_path / "toy.pt"
    target.write_bytes(b"old")
    server.always = sends(flipped(server.body, 9))
    with pytest.raises(WeightsError):
        download(server.url, target, len(server.body), server.sha256, Patience(timeout_s=1, retries=0))
    assert target.read_bytes() == b"old"
    assert left(tmp_path) == ["toy.pt"]


def test_any_sequence_of_faults(toy, quick, server):
    """Either the file as published, or none: 60 scripts of up to six faults drawn at random."""
    rng = random.Random(7)
    size = len(server.body)
    target = Path(quick.folder) / "toy.pt"
    outcomes = {True: 0, False: 0}
    for _ in range(60):
        faults = [
            lambda: cut(rng.randrange(size)),
            lambda: status(rng.choice([500, 503, 416])),
            lambda: ignores_range,
            lambda: sends(flipped(server.body, rng.randrange(size))),
            lambda: sends(server.body[: rng.randrange(size)]),
            lambda: sends(server.body[7:], 206, Content_Range=f"bytes 7-{size - 1}/{size}"),
            lambda: sends(b"<html>no</html>", Content_Type="text/html"),
            lambda: honest,
        ]
        server.script = [rng.choice(faults)() for _ in range(rng.randrange(7))]
        target.unlink(missing_ok=True)
        try:
            fetch("toy", settings=quick)
        except WeightsError:
            assert not target.exists()
        assert target.exists() is (left(quick.folder) == ["toy.pt"])
        if target.exists():
            assert target.read_bytes() == server.body
        outcomes[target.exists()] += 1
    assert min(outcomes.values()) > 10  # both ends were met, so the test tests both


def test_disk_too_small(toy, quick, server, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(ResourceError, match=r"toy\.pt: needs .* the disk has less"):
        fetch("toy", settings=quick)
    assert left(quick.folder) == []


def test_disk_full(toy, quick, monkeypatch):
    def full(handle, chunk):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("immersivedepth.weights.download._append", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        fetch("toy", settings=quick)
    assert left(quick.folder) == []


def test_synced_before_it_appears(toy, quick, monkeypatch):
    """A power cut must not leave the name without the data: fsync of the file, rename, fsync of the folder."""
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    fetch("toy", settings=quick)
    assert calls == ["fsync", "replace", "fsync"]


def test_abandoned_pieces_are_swept(toy, quick):
    folder = Path(quick.folder)
    folder.mkdir()
    old, new = folder / ".toy.1-ab.part.pt", folder / ".toy.2-cd.part.pt"
    for path in (old, new):
        path.write_bytes(b"piece")
    past = time.time() - STALE - 60
    os.utime(old, (past, past))
    fetch("toy", settings=quick)
    assert left(folder) == [new.name, "toy.pt"]  # another process may still be writing the young one


@pytest.fixture(scope="module")
def long():
    """A weights file of 400 kB."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(100_000.0)}, buffer)
    return buffer.getvalue()


CHILD = """
import sys
if sys.argv[5] == "nolock":
    import fcntl
    fcntl.flock = lambda *args: None
from immersivedepth.weights import REGISTRY, Source, Weights, fetch
url, folder, size, sha256 = sys.argv[1:5]
REGISTRY["toy"] = Source("toy", "p", "v", "toy.pt", "page", "MIT", "free", "k", url, int(size), sha256, "test")
fetch("toy", settings=Weights(folder=folder, timeout_s=20, backoff_s=0.01))
"""


def child(server, folder, lock="lock", size=None, sha256=None):
    arguments = [server.url, str(folder), str(size or len(server.body)), sha256 or server.sha256, lock]
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("lock", ["lock", "nolock"])
@pytest.mark.parametrize("processes", [2, 8])
def test_processes_at_once(server, long, tmp_path, processes, lock):
    folder = tmp_path / "w"
    folder.mkdir()
    server.body = long
    meeting = threading.Barrier(processes, timeout=30)

    def all_at_once(handler):
        meeting.wait()
        honest(handler)

    if lock == "nolock":
        server.always = all_at_once  # nobody is served before everybody has asked
    children = [child(server, folder, lock) for _ in range(processes)]
    assert [error for c in children for error in [c.communicate(timeout=60)[1]] if c.returncode] == []
    assert (folder / "toy.pt").read_bytes() == server.body
    assert left(folder) == ["toy.pt"]
    # with the lock, the others waited and used what came
    assert len(server.asked) == (1 if lock == "lock" else processes)


def test_the_network_is_not_touched_when_the_file_is_there(toy, quick, monkeypatch):
    path = fetch("toy", settings=quick)

    def no_socket(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    monkeypatch.setattr(socket, "create_connection", no_socket)
    monkeypatch.setattr(socket, "getaddrinfo", no_socket)
    assert fetch("toy", settings=quick) == path


def test_offline_asks_nobody(toy, quick, server, monkeypatch, caplog):
    offline = Weights(folder=quick.folder, offline=True)
    Path(quick.folder).mkdir()
    refused(offline, "weights.offline=true", f"{len(server.body)} bytes", server.sha256)
    assert server.asked == []
    caplog.set_level(logging.DEBUG)
    assert caplog.text == ""


def test_certificate_that_is_not_valid(register, quick, monkeypatch):
    register(url="https://example.org/x")

    def invalid(*args, **kwargs):
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr("urllib.request.OpenerDirector.open", invalid)
    refused(quick, "no valid certificate")


def test_mirror_is_not_trusted_without_a_hash(register, quick, server, monkeypatch):
    register(url="https://huggingface.co/a/b/resolve/c/file.pt")
    monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/file.pt"))
    asked = []

    def unreachable(opener, request, *args, **kwargs):
        asked.append(request.full_url)
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", unreachable)
    refused(quick, "unreachable")
    assert {urllib.parse.urlsplit(url).hostname for url in asked} == {"huggingface.co"}


def test_mirror_of_the_hub(register, quick, server, monkeypatch):
    register(url="https://huggingface.co/a/b/resolve/c/file.pt", size=len(server.body), sha256=server.sha256)
    monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/file.pt") + "/")
    arrived(quick, server)
