"""Many visitors of one page, hostile ones among them, and runs that want the same folder.

The page runs in a process of its own, as it does for visitors, and is spoken to by plain HTTP: what a program may send,
not what a browser would.
"""

import errno
import functools
import html.parser
import http.server
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from immersivedepth.checks import ConfigError, UserError
from immersivedepth.config import compose, run_of
from immersivedepth.files import write_text
from immersivedepth.nets.residual_unet import ResidualUNet
from immersivedepth.runs import RunFolder, hold, release
from tests.faults import children

ROOT = Path(__file__).parents[2]
LONG = 590  # seconds to wait for an answer
TRACES = ("Traceback", 'File "', "site-packages", "immersivedepth/", "None", "a fault of the program")


class Page:
    """The page in its own process, and what a visitor can ask of it."""

    def __init__(self, folder):
        torch.manual_seed(0)
        torch.save(ResidualUNet("linear").state_dict(), folder / "unet.pt")
        (folder / "weights").mkdir()
        given = {
            "mode": "demo", "app.port": 0, "app.folder": folder / "own", "app.unet_weights": folder / "unet.pt",
            "weights.folder": folder / "weights", "weights.offline": "true", "app.max_size": "[2048,1024]",
            "app.upload_mb": 2, "device.kind": "cpu", "app.seconds": 7000,
        }  # fmt: skip
        words = [f"{key}={value}" for key, value in given.items()]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "core_exp_runner.py", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
            )
        line = self.process.stdout.readline()
        assert "open http" in line, self.log.read_text()
        self.address = line.split()[1]
        self.config = json.loads(self.get("config")[1])
        self.functions = {d["api_name"]: d for d in self.config["dependencies"]}
        self.kinds = {c["id"]: c["type"] for c in self.config["components"]}
        self.inputs = {name: [self.kinds[i] for i in d["inputs"]] for name, d in self.functions.items()}

    def close(self):
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()

    def ask(self, path, body=None, kind="application/json"):
        """Status and body of an answer, whatever the status."""
        request = urllib.request.Request(f"{self.address}/{path}", body, {"Content-Type": kind} if body else {})
        try:
            with urllib.request.urlopen(request, timeout=LONG) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path):
        return self.ask(path)

    def upload(self, name, data):
        """A file as a component takes it."""
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
        status, found = self.ask("gradio_api/upload", body, f"multipart/form-data; boundary={mark}")
        assert status == 200, found
        return {"path": json.loads(found)[0], "meta": {"_type": "gradio.FileData"}, "orig_name": name}

    def run(self, function, *data):
        """What a function of the page says at its end, and whether a place in the queue was told before."""
        session = uuid.uuid4().hex
        number = self.functions[function]["id"]
        body = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
        status, text = self.ask("gradio_api/queue/join", body)
        if status != 200:
            return {"success": False, "output": {"error": text.decode()}}, False
        placed = False
        address = f"{self.address}/gradio_api/queue/data?session_hash={session}"
        with urllib.request.urlopen(address, timeout=LONG) as stream:
            for line in stream:
                if not line.startswith(b"data:"):
                    continue
                message = json.loads(line[5:])
                placed |= message["msg"] == "estimation" and message.get("rank") is not None
                if message["msg"] == "process_completed":
                    return message, placed
                assert message["msg"] != "unexpected_error", message
        raise AssertionError("the stream ended without an answer")

    def look(self, file):
        """A plain picture through the network."""
        return self.run("perspective", file, "unet", 60, "turbo")

    def filled(self, function, file):
        """What a visitor would send who has only put that file everywhere."""
        shown = {c["id"]: c.get("props", {}).get("value") for c in self.config["components"]}
        given = {"file": file, "checkboxgroup": ["unet"]}
        first = {"state": "", "dataset": 0}  # what holds nothing at first
        return [
            given.get(kind, first.get(kind) if shown[number] is None else shown[number])
            for number, kind in zip(self.functions[function]["inputs"], self.inputs[function], strict=True)
        ]

    def map_of(self, message):
        assert message["success"], message
        (path,) = (f["path"] for f in message["output"]["data"][2] if f["path"].endswith("map.npy"))
        status, content = self.get(f"gradio_api/file={urllib.parse.quote(path)}")
        assert status == 200
        return content

    def memory(self):
        """Megabytes that the process holds."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    found = Page(tmp_path_factory.mktemp("crowd"))
    yield found
    found.close()


def picture(seed, height=24, width=32):
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.imencode(".png", cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


# --- Many at once


def test_everybody_gets_their_own(page, size, record):
    for users in (6,)[: size(1, 0)] or (50, 100):
        files = [picture(seed) for seed in range(users)]
        alone = [page.map_of(page.look(page.upload("a.png", data))[0]) for data in files]
        assert len(set(alone)) == users
        together = threading.Barrier(users)

        def visit(data, together=together):
            together.wait()
            begun = time.monotonic()
            message, placed = page.look(page.upload("a.png", data))
            return page.map_of(message), placed, time.monotonic() - begun

        with ThreadPoolExecutor(users) as pool:
            found = list(pool.map(visit, files))
        assert [content for content, _, _ in found] == alone
        placed = sum(told for _, told, _ in found)
        assert placed >= users - 1  # everybody who had to wait was told their place
        slowest = round(max(seconds for _, _, seconds in found), 1)
        record(f"crowds: {users} visitors at once", own_results=users, errors=0, slowest_seconds=slowest)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_memory_stays_flat(page, size, record):
    jobs, warm = size(12, 500), size(4, 50)
    files = [page.upload("a.png", picture(1000 + i)) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:

        def do(count):
            for message, _ in pool.map(lambda i: page.look(files[i % len(files)]), range(count)):
                assert message["success"], message

        do(warm)
        before = page.memory()
        do(jobs - warm)
    after = page.memory()
    assert after < 1.1 * before, (before, after)
    record("crowds: memory of the page", jobs=jobs, MB_before=round(before), MB_after=round(after))


# --- Damaged and hostile


def damaged(count):
    """Pictures of every format, cut, overwritten and under wrong names; the same ones every time."""
    whole = np.random.default_rng(5).integers(0, 255, (24, 48, 3), np.uint8)
    formats = {
        "png": cv2.imencode(".png", whole)[1].tobytes(),
        "jpg": cv2.imencode(".jpg", whole)[1].tobytes(),
        "webp": cv2.imencode(".webp", whole)[1].tobytes(),
        "tif": cv2.imencode(".tiff", whole)[1].tobytes(),
        "bmp": cv2.imencode(".bmp", whole)[1].tobytes(),
        "hdr": cv2.imencode(".hdr", whole.astype(np.float32))[1].tobytes(),
        "exr": b"v/1\x01" + bytes(60),
        "pfm": b"PF\n48 24\n-1.0\n" + np.full((24, 48, 3), np.nan, "<f4").tobytes(),
    }
    if importlib.util.find_spec("pillow_heif"):  # the extra `heic`
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(whole)).save(buffer, quality=90)
        formats["heic"] = buffer.getvalue()
    random, names = np.random.default_rng(7), sorted(formats)
    for i in range(count):
        kind = names[i % len(names)]
        data = bytearray(formats[kind])
        how = ("cut", "bytes", "empty", "zeros", "wrong name", "page")[(i // len(names) + i) % 6]
        if how == "cut":
            data = data[: random.integers(1, max(2, len(data) - 1))]
        elif how == "bytes":
            for at in random.integers(0, min(len(data), 200), 12):
                data[at] = random.integers(256)
        elif how == "empty":
            data = b""
        elif how == "zeros":
            data = bytes(len(data))
        elif how == "page":
            data = b"<!doctype html><title>404</title>"
        other = names[(i + 1) % len(names)] if how == "wrong name" else kind
        yield f"{how} {i}.{other}".replace(" ", "_"), bytes(data)


def sentence(message, page):
    """The one thing that a refused visitor is told."""
    text = message["output"]["error"]
    assert isinstance(text, str), message
    assert 20 < len(text) < 400, text
    assert "\n" not in text
    assert not [trace for trace in TRACES if trace in text], text
    assert str(page.log.parent) not in text, text
    return text


def test_every_damaged_upload_is_answered_in_one_sentence(page, size, record):
    refused = worked = 0
    for name, data in damaged(size(16, 400)):
        message, _ = page.look(page.upload(name, data))
        if message["success"]:  # overwritten pixels, or a good picture under another name
            worked += 1
            values = np.load(io.BytesIO(page.map_of(message)))
            assert np.isfinite(values).all(), name
        else:
            refused += 1
            sentence(message, page)
    assert refused > worked
    assert "Traceback" not in page.log.read_text()
    assert page.look(page.upload("good.png", picture(0)))[0]["success"]
    record("crowds: damaged uploads", refused_in_one_sentence=refused, usable=worked)


class Canary(http.server.BaseHTTPRequestHandler):
    """Notes whoever comes."""

    visits: list = []  # noqa: RUF012

    def do_GET(self):
        self.visits.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(picture(0))

    do_HEAD = do_POST = do_GET

    def log_message(self, *words):
        pass


@pytest.fixture
def canary():
    Canary.visits.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Canary) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_addresses_of_this_machine_are_not_asked(page, canary, size, record):
    hosts = ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "0x7f000001", "2130706433", "127.1", "0177.0.0.1")
    addresses = [f"http://{host}:{canary}/a.png" for host in hosts]
    addresses += [f" HTTP://127.0.0.1:{canary}/a.png", f"//127.0.0.1:{canary}/a.png", f"ftp://127.0.0.1:{canary}/a.png"]
    addresses += [f"http:/127.0.0.1:{canary}/a.png", f"http://a@127.0.0.1:{canary}/a.png"]
    good = page.upload("a.png", picture(0, 32, 64))
    fields = [(name, k) for name, kinds in page.inputs.items() for k, kind in enumerate(kinds) if kind == "file"]
    assert {("_preview", 0), ("perspective", 0), ("estimate", 0), ("_estimate", 0)} <= set(fields)
    assert {(name, k) for name in ("stereo", "_stereo") for k in (0, 1)} <= set(fields)
    asked = 0
    for turn, address in enumerate(addresses):
        for key in ("path", "url"):
            file = {"path": "a.png", key: address, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
            for function, place in fields[turn % size(4, 1) :: size(4, 1)]:
                given = page.filled(function, good)
                given[place] = file
                message, _ = page.run(function, *given)
                assert not message["success"], (function, place, address)
                asked += 1
        for form in (address, urllib.parse.quote(address, safe=""), address.replace(":", "%3A", 1)):
            for door in ("file=", "file/", "proxy="):
                status, _ = page.get(f"gradio_api/{door}{form.strip().replace(' ', '%20')}")
                assert 400 <= status < 500, (door, form)
    assert not Canary.visits
    record(
        "crowds: addresses of this machine",
        forms=len(addresses),
        fields=len(fields),
        asked=asked,
        visits=len(Canary.visits),
    )


def test_only_own_results_can_be_read(page, record):
    message, _ = page.look(page.upload("a.png", picture(3)))
    result = Path(message["output"]["data"][2][0]["path"])
    job, jobs = result.parents[1], result.parents[2]
    assert page.get(f"gradio_api/file={result}")[0] == 200
    token = job.name
    others = [jobs / (token[:-1] + ("A" if token[-1] != "A" else "B")) / result.parent.name / result.name]
    outside = ["/etc/passwd", "/proc/self/environ", ROOT / "core_exp_runner.py", page.log, page.log.parent / "unet.pt"]
    paths = [job, jobs, jobs.parent, result.parent, *others, *outside]
    up = "../" * 12
    forms = [str(path) for path in paths]
    forms += [f"{result}/{up}etc/passwd", f"{result.parent}/{up}etc/passwd", f"{jobs}/../../log", f"{up}etc/passwd"]
    forms += [urllib.parse.quote(form, safe="") for form in forms]
    forms += ["..%2f" * 12 + "etc/passwd", "%2e%2e/" * 12 + "etc/passwd", "..%252f" * 12 + "etc/passwd"]
    forms += ["....//" * 12 + "etc/passwd", "..\\" * 12 + "etc/passwd", "file:///etc/passwd", "/etc/passwd%00.png"]
    asked = 0
    for form in forms:
        for door in ("gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/", "gradio_api/static/"):
            form = form.replace("\\", "%5C")
            status, body = page.get(f"{door}{form}")
            asked += 1
            assert 400 <= status < 500, (door, form, status)
            assert b"root:" not in body
        for path in (form, f" {form}"):  # as if it had been uploaded
            file = {"path": urllib.parse.unquote(path), "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
            assert not page.look(file)[0]["success"], path
            asked += 1
    record("crowds: files of others and of the server", asked=asked, refused=asked)


NAMES = [
    "<img src=x onerror=alert(1)>.png", "<script>alert(1)</script>.png", "a' onmouseover='alert(1).png",
    "a&quot; onload=alert(1).png", "javascript:alert(1).png", "{{7*7}}${7*7}.png", "</title><svg onload=alert(1)>.png",
    "深度 ñandú 🌍.png", "-rf --help.png", "a=b,c={d}.png",
]  # fmt: skip


class Tags(html.parser.HTMLParser):
    """What a browser would find in a text: handlers of events, and scripts with what they say; frames as well."""

    def __init__(self, text):
        super().__init__()
        self.handlers, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.handlers += [(tag, name) for name, _ in attributes if name.startswith("on")]
        for name, value in attributes:
            if name == "srcdoc":
                inner = Tags(value)
                self.handlers += inner.handlers
                self.scripts += inner.scripts
        self.script = tag == "script"

    def handle_data(self, data):
        if getattr(self, "script", False):
            self.scripts.append(data.strip())


def texts(value):
    """All texts of an answer."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(part)


def test_names_are_text_and_nothing_else(page, size):
    """Whatever comes back, a browser finds no tag out of a name in it, not even in the frame's own document."""
    assert Tags("<p><img src=x onerror=alert(1)></p>").handlers
    assert Tags('<iframe srcdoc="<script>alert(1)</script>">').scripts == ["alert(1)"]
    for turn, name in enumerate(NAMES):
        for data in (picture(2, 32, 64), b"rubbish"):
            ways = ({**page.upload("x.png", data), "orig_name": name}, page.upload(name.replace('"', ""), data))
            for file in ways[turn % size(2, 1) :: size(2, 1)]:
                messages = [page.run("_preview", file)[0], page.look(file)[0]]
                good = data != b"rubbish"
                assert messages[1]["success"] == good, messages[1]
                assert (": 64 x 32 pixels" in messages[0]["output"]["data"][0]) == good, messages[0]
                messages.append(page.run("_estimate", file, ["unet"], "no such size", "none", "none", "turbo")[0])
                for text in (text for message in messages for text in texts(message["output"])):
                    if text.startswith(str(page.log.parent)) or text.startswith(page.address) or text == name:
                        continue  # a path, an address, or the name as it was sent
                    found = Tags(text)
                    assert not found.handlers, text
                    assert not [script for script in found.scripts if script == "alert(1)"], text


def test_no_field_builds_an_object(page, tmp_path, record):
    """`_target_` in every field of every function that the page has, as text and as an object."""
    made = tmp_path / "made"
    payloads = [
        {"_target_": "os.mkdir", "path": str(made), "_args_": [str(made)]},
        f"{{_target_: os.mkdir, path: '{made}'}}",
        f"x _target_=os.mkdir path={made}",
        "${oc.env:HOME}",
        [{"_target_": "os.mkdir", "path": str(made)}],
    ]
    file = page.upload("a.png", picture(0, 32, 64))
    asked = refused = 0
    for name in page.functions:
        fields = page.filled(name, file)
        if name == "perspective":  # or it would be another field that is refused
            assert page.run(name, *fields)[0]["success"], page.run(name, *fields)
        for place in range(len(fields)):
            for payload in payloads:
                message, _ = page.run(name, *fields[:place], payload, *fields[place + 1 :])
                text = json.dumps(message)
                asked += 1
                refused += not message["success"]
                assert os.environ["HOME"] not in text.replace(str(page.log.parent), ""), (name, place)
                assert "Traceback" not in text
                if name in ("estimate", "perspective", "stereo"):
                    assert not message["success"], (name, place, payload)
    assert not made.exists()
    assert page.look(page.upload("good.png", picture(0)))[0]["success"]
    record("crowds: _target_ in every field", asked=asked, side_effects=0, refused_outright=refused)


# --- Runs that want the same folder

SMALL = ("dataset.image_resize=[64,32]", "project.resolution=24", "align=identity", "export=[arrays]", "refine=[]")


def wait_for(path):
    while not path.exists():
        time.sleep(0.002)


def opens(base, go, out, end):
    """Continue the newest run, say what came of it, and stay at work until told to end."""
    config = compose("config", [f"device.base_exp_dir={base}", "is_continue=true"])
    wait_for(go)
    try:
        folder = RunFolder.open(run_of(config), config)
    except UserError as error:
        write_text(out, json.dumps({"code": error.code, "words": str(error)}))
        return
    write_text(out, json.dumps({"code": 0, "folder": str(folder.path), "continued": folder.continued}))
    wait_for(end)
    release()


def begun(base):
    """A run that somebody may continue."""
    config = compose("config", [f"device.base_exp_dir={base}"])
    folder = RunFolder.open(run_of(config), config).path
    release()
    return folder


def said(path):
    wait_for(path)
    return json.loads(path.read_text())


def test_two_runs_started_together_never_mix(tmp_path, size, record):
    pairs = size(2, 20)
    for number in range(pairs):
        base, go = tmp_path / str(number), tmp_path / f"go{number}"
        both = [
            children.command(
                tmp_path / f"said{number}{i}",
                *SMALL,
                f"device.base_exp_dir={base}",
                before=functools.partial(wait_for, go),
            )
            for i in range(2)
        ]
        time.sleep(0.5)
        go.touch()
        assert [children.ended(child) for child in both] == [0, 0]
        printed = [(tmp_path / f"said{number}{i}" / "stdout").read_text().splitlines() for i in range(2)]
        folders = [{Path(line).parents[1] for line in lines} for lines in printed]
        assert [len(folder) for folder in folders] == [1, 1]
        (one,), (other,) = folders
        assert one != other
        assert sorted((base / "default").iterdir()) == sorted([one, other])
        trees = [sorted(p.relative_to(f).as_posix() for p in f.rglob("*")) for f in (one, other)]
        assert trees[0] == trees[1]
        assert not any(".part" in name or "run.lock" in name for name in trees[0])
    record("crowds: pairs of runs in one folder", pairs=pairs, mixed=0)


def test_one_of_two_resumes_works_and_the_other_is_told(tmp_path, size, record):
    rounds = size(4, 20)
    for number in range(rounds):
        base = tmp_path / str(number)
        folder = begun(base)
        go, end = base / "go", base / "end"
        outs = [base / f"out{i}" for i in range(2)]
        both = [children.start(opens, base, go, out, end) for out in outs]
        go.touch()
        found = sorted((said(out) for out in outs), key=lambda f: f["code"])
        try:
            assert [f["code"] for f in found] == [0, 2]
            assert found[0] == {"code": 0, "folder": str(folder), "continued": True}
            holder = json.loads((folder / "run.lock").read_text())
            assert holder["process"] in {child.pid for child in both}
            assert holder["host"] == socket.gethostname()
            assert f"process {holder['process']} on {holder['host']} is at work there" in found[1]["words"]
            assert "is_continue=false" in found[1]["words"]
        finally:
            end.touch()  # or the winner would wait for ever
        assert [children.ended(child) for child in both] == [0, 0]
        assert not (folder / "run.lock").exists()
    record("crowds: two resumes of one run", rounds=rounds, refused=rounds)


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path, size, record, caplog):
    rounds = size(2, 20)
    for number in range(rounds):
        base = tmp_path / str(number)
        folder = begun(base)
        never = base / "never"
        holder = children.start(opens, base, folder, base / "first", never)
        assert said(base / "first")["code"] == 0
        config = compose("config", [f"device.base_exp_dir={base}", "is_continue=true"])
        with pytest.raises(ConfigError, match=f"process {holder.pid} on"):
            RunFolder.open(run_of(config), config)
        holder.kill()
        assert children.ended(holder) < 0
        assert (folder / "run.lock").exists()
        with caplog.at_level("INFO"):
            assert RunFolder.open(run_of(config), config).path == folder
        assert f"takes over from process {holder.pid}" in caplog.text
        release()
        assert not (folder / "run.lock").exists()
    record("crowds: locks of killed runs", taken_over=rounds)


@pytest.mark.parametrize(
    ("holder", "free"),
    [
        ({"process": os.getppid(), "host": socket.gethostname()}, False),
        ({"process": os.getpid(), "host": socket.gethostname()}, True),  # numbers come again, in containers above all
        ({"process": 2**22 + 5, "host": socket.gethostname()}, True),
        ({"process": os.getppid(), "host": "elsewhere"}, True),  # nobody can tell
        (None, True),
    ],
)
def test_a_disk_without_locks_is_judged_by_the_number_of_the_process(tmp_path, monkeypatch, holder, free):
    def refuses(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuses)
    (tmp_path / "run.lock").write_text(json.dumps(holder) if holder else "half a li")
    if free:
        hold(tmp_path)
        assert json.loads((tmp_path / "run.lock").read_text())["process"] == os.getpid()
        release()
    else:
        with pytest.raises(ConfigError, match="is at work there"):
            hold(tmp_path)
