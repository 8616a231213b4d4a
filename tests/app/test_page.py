"""The page as programs see it: end points, refusals, and that nobody sees what is another's."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

# Gradio leaves event loops and sockets to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:::gradio", "ignore:::gradio_client", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def client(demo):
    from gradio_client import Client

    return Client(demo.address, verbose=False)


@pytest.fixture(scope="module")
def given():
    from gradio_client import handle_file

    return handle_file


def refusal(call):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert text != "None"
    return text


def test_only_the_demo_imports_gradio():
    code = "import sys, core_exp_runner, immersivedepth.batch, immersivedepth.dense; assert 'gradio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_end_points_have_names(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/estimate", "/stereo", "/perspective", "/networks", "/fetch"}
    names = [parameter["parameter_name"] for parameter in named["/estimate"]["parameters"]]
    assert names == ["file", "networks", "resolution", "alignment", "refinement", "colours"]


def test_a_run_gives_all_products(client, given, sample, quick, tmp_path):
    archive, figures = client.predict(given(str(sample)), *quick, api_name="/estimate")
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
        distance = cv2.imdecode(np.frombuffer(content.read("distance.png"), np.uint8), cv2.IMREAD_COLOR)
        meaning = json.loads(content.read("distance.json"))
    assert names >= {"distance.npy", "normal.exr", "mask.png", "instances.json", "quality.json", "report.html",
                     "mesh.glb", "points.ply", "splats.ply"}  # fmt: skip
    assert distance.shape == (256, 512, 3)
    assert meaning["metric"] is False
    assert figures["trusted"] > 0.8


def test_networks_are_told_with_their_licence(client):
    told = {row["name"]: row for row in client.predict(api_name="/networks")}
    assert told["oracle"]["present"]
    assert not told["depth_anything_v2_vitl"]["present"]
    assert "NOT for commercial use" in told["depth_anything_v2_vitl"]["about"]


def bad_files(folder):
    png = cv2.imencode(".png", np.zeros((64, 128, 3), np.uint8))[1].tobytes()
    bomb = bytearray(png)
    bomb[16:24] = (65000).to_bytes(4, "big") + (32500).to_bytes(4, "big")
    content = {
        "empty.png": b"",
        "zeros.jpg": bytes(1000),
        "page.jpg": b"<!doctype html><title>404</title>",
        "cut.png": png[:60],
        "bomb.png": bytes(bomb),
        "square.png": cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes(),
        "tiny.png": cv2.imencode(".png", np.zeros((1, 2, 3), np.uint8))[1].tobytes(),
        "large.png": cv2.imencode(".png", np.zeros((1050, 2100), np.uint8))[1].tobytes(),
        "no.exr": b"v/1\x01" + bytes(40),
        "nan.pfm": b"PF\n64 32\n-1.0\n" + np.full((32, 64, 3), np.nan, "<f4").tobytes(),
        "<img src=x onerror=alert(1)>.png": b"nothing",
    }
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in content]


def test_every_malformed_upload_is_met_with_one_sentence(client, given, quick, tmp_path, demo):
    for path in bad_files(tmp_path):
        text = refusal(lambda path=path: client.predict(given(str(path)), *quick, api_name="/estimate"))
        assert str(demo.keeper.folder) not in text, path
        assert "<" not in text, path
        assert len(text) > 20, path


def test_other_panoramas_have_no_exact_distances(client, given, quick, tmp_path):
    path = tmp_path / "mine.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8))
    assert "Choose a network" in refusal(lambda: client.predict(given(str(path)), *quick, api_name="/estimate"))


def test_no_upload_and_no_network(client, given, sample, quick):
    assert "upload one" in refusal(lambda: client.predict(None, *quick, api_name="/estimate"))
    none = refusal(lambda: client.predict(given(str(sample)), [], *quick[1:], api_name="/estimate"))
    assert "choose at least one" in none


def test_hostile_strings_are_no_choices(client, given, sample, quick):
    for place in range(5):
        for text in ("{_target_: os.system}", "${oc.env:HOME}", "a mode=train", "../../etc/passwd"):
            wrong = [*quick]
            wrong[place] = [text] if place == 0 else text
            refusal(lambda wrong=wrong: client.predict(given(str(sample)), *wrong, api_name="/estimate"))


def raw(demo, name, data):
    """What the server says to a client that keeps to no rules."""
    body = json.dumps({"data": data}).encode()
    request = urllib.request.Request(
        f"{demo.address}/gradio_api/call/{name}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{demo.address}/gradio_api/call/{name}/{event}", timeout=60) as answer:
        return answer.read().decode()


def test_paths_of_the_server_are_no_uploads(demo, quick, sample):
    for path in (
        "/etc/passwd",
        str(sample),
        __file__,
        "file:///etc/passwd",
        "../../etc/passwd",
        "http://127.0.0.1:9/a.png",
    ):
        data = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
        said = raw(demo, "estimate", [data, *quick])
        assert "event: error" in said, path
        assert "event: complete" not in said, path
        assert "root:" not in said, path


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../../etc/passwd",
        "gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        f"gradio_api/file={__file__}",
        "gradio_api/file={folder}",
        "gradio_api/file={folder}/jobs",
        "gradio_api/file={folder}/jobs/../../x",
        "gradio_api/file=http://127.0.0.1:{port}/config",
        "gradio_api/file=https://example.com/a.png",
        "gradio_api/file=%68ttps://example.com/a.png",
        "gradio_api/proxy=https://example.com/a.png",
    ],
)
def test_nothing_else_can_be_read(demo, path):
    port = demo.address.rpartition(":")[2]
    address = f"{demo.address}/{path.format(folder=demo.keeper.folder, port=port)}"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(address, timeout=20)
    with error.value:
        assert 400 <= error.value.code < 500


def test_large_uploads_are_refused(demo, client, given, quick, tmp_path):
    path = tmp_path / "noise.png"
    path.write_bytes(bytes(3 * 2**20))
    with pytest.raises(Exception, match="413|size|large"):
        client.predict(given(str(path)), *quick, api_name="/estimate")


def test_the_browser_is_told_to_ask_nobody_else(demo):
    with urllib.request.urlopen(demo.address, timeout=20) as answer:
        policy, text = answer.headers["Content-Security-Policy"], answer.read().decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "fonts.googleapis" not in text


def test_addresses_are_not_followed(demo, quick, monkeypatch):
    import socket

    asked, real = [], socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: asked.append(host) or real(host, *rest, **more)
    )
    for key in ("path", "url"):
        address = "https://example.com/a.png"
        data = {"path": address, key: address, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
        assert "event: error" in raw(demo, "estimate", [data, *quick])
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{demo.address}/gradio_api/file=https://example.com/a.png", timeout=20)
    assert not [host for host in asked if "example" in str(host)]


def test_stereo_and_plain_say_what_is_missing(client, given, sample):
    picture = given(str(sample))
    assert "trained network" in refusal(lambda: client.predict(picture, picture, api_name="/stereo"))
    refusal(lambda: client.predict(picture, None, api_name="/perspective"))


def test_fetching_asks_for_consent_first(client):
    line, _ = client.predict("depth_anything_v2_vits", False, [], api_name="/fetch")
    assert "agree to it first" in str(line)


def test_what_was_fetched_can_be_chosen(demo, client, monkeypatch, request):
    """The door to weights fetches and verifies (its own tests say so); here a file appears where it puts it."""
    from immersivedepth.app import page
    from immersivedepth.checks import WeightsError
    from immersivedepth.weights import REGISTRY

    def arrives(name, settings):
        path = Path(settings.folder) / REGISTRY[name].file
        path.touch()
        request.addfinalizer(path.unlink)

    def fails(name, settings):
        raise WeightsError(f"{settings.folder}/x not found. It could not be fetched: no route.")

    monkeypatch.setattr(page, "fetch", fails)
    line, _ = client.predict("midas_v21_small_256", True, [], api_name="/fetch")
    assert "could not be fetched" in str(line)
    monkeypatch.setattr(page, "fetch", arrives)
    line, networks = client.predict("midas_v21_small_256", True, ["oracle"], api_name="/fetch")
    assert "can be chosen" in str(line)
    assert networks["value"] == ["oracle", "midas_v21_small_256"]
    assert {row["name"] for row in client.predict(api_name="/networks") if row["present"]} == {
        *networks["value"],
        "bundled_dav2",
        "bundled_midas",
    }
