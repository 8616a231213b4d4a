"""Where files are looked for, in which order, and what is said when they are not there or not right."""

import dataclasses
import json
import logging
import subprocess
import sys
import typing
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from immersivedepth.checks import ConfigError, ResourceError, WeightsError
from immersivedepth.weights import REGISTRY, Weights, download_named, fetch, load, read, table
from immersivedepth.weights.finding import PIN, places
from immersivedepth.weights.reading import digest

from .server import flipped

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def put(body):
    def write(path):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return path

    return write


def test_order_of_the_places(toy, put, tmp_path, monkeypatch, server):
    monkeypatch.setenv("IMMERSIVEDEPTH_WEIGHTS", str(tmp_path / "env"))
    settings = Weights(folder=str(tmp_path / "folder"))
    given = put(tmp_path / "mine" / "any_name.pt")
    wanted = [put(tmp_path / place / "toy.pt") for place in ("folder", "env", "cache/immersivedepth")]
    assert fetch("toy", given, settings) == given
    for path in wanted:
        assert fetch("toy", None, settings) == path
        path.unlink()
    assert server.asked == []
    assert fetch("toy", None, settings) == wanted[0]  # now fetched, into the folder that was named
    assert len(server.asked) == 1


def test_weights_beside_the_working_directory(toy, put, tmp_path):
    path = put(tmp_path / "weights" / "toy.pt")
    assert fetch("toy").resolve() == path


@pytest.mark.parametrize(
    ("folder", "variable", "beside", "expected"),
    [
        ("named", "env", True, "named"),
        (None, "env", True, "weights"),
        (None, "env", False, "env"),
        (None, None, False, "cache/immersivedepth"),
    ],
)
def test_where_a_download_goes(toy, tmp_path, monkeypatch, folder, variable, beside, expected):
    if variable:
        monkeypatch.setenv("IMMERSIVEDEPTH_WEIGHTS", str(tmp_path / variable))
    if beside:
        (tmp_path / "weights").mkdir()
    settings = Weights(folder=folder and str(tmp_path / folder))
    assert fetch("toy", settings=settings).resolve() == tmp_path / expected / "toy.pt"


def test_cache_without_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert places()[-2] == tmp_path / "home" / ".cache" / "immersivedepth"


def test_explicit_path_may_be_a_folder(toy, put, tmp_path):
    path = put(tmp_path / "mine" / "toy.pt")
    assert fetch("toy", tmp_path / "mine") == path


def test_explicit_path_that_is_not_there_is_not_replaced(toy, put, tmp_path, server):
    put(tmp_path / "weights" / "toy.pt")
    with pytest.raises(WeightsError, match=r"gone\.pt not found.*predict\.depth_anything_v2\.weights"):
        fetch("toy", tmp_path / "gone.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty/toy\.pt not found"):
        fetch("toy", tmp_path / "empty")
    assert server.asked == []


def test_missing_file_names_everything(register, tmp_path):
    register(size=123, sha256="ab" * 32)  # without an address
    with pytest.raises(WeightsError) as caught:
        fetch("toy")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "weights/toy.pt not found",
        str(tmp_path / "cache" / "immersivedepth"),
        "123 bytes",
        "ab" * 32,
        "CC-BY-NC-4.0",
        "by hand from https://example.org/toy",
        "set predict.depth_anything_v2.weights",
        "predict=[midas]",
    ):
        assert part in message


def test_missing_file_names_the_command(register):
    register(url="https://example.org/x")
    with pytest.raises(WeightsError, match=r"`python core_exp_runner.py mode=weights weights.download=\[toy\]`"):
        fetch("toy", settings=Weights(offline=True))


def test_unknown_name():
    with pytest.raises(ConfigError, match="did you mean depth_anything_v2_vits"):
        fetch("depth_anything_v2_vitss")
    with pytest.raises(ConfigError, match="mode=weights lists all names"):
        fetch("qqqq")


def test_file_name_is_understood(toy, put):
    path = put("weights/toy.pt")
    assert fetch("toy.pt").resolve() == path.resolve()
    with pytest.raises(ConfigError):
        fetch("toy.ckpt")


@pytest.mark.parametrize("harm", ["cut", "flip", "zero", "empty", "longer"])
def test_wrong_file_in_a_place_is_refused(toy, put, body, harm):
    path = put("weights/toy.pt")
    harmed = {
        "cut": body[:-1],
        "flip": flipped(body, len(body) // 2),
        "zero": bytes(len(body)),
        "empty": b"",
        "longer": body + b"\0",
    }[harm]
    path.write_bytes(harmed)
    with pytest.raises(WeightsError) as caught:
        fetch("toy")
    message = str(caught.value)
    assert "\n" not in message
    expected = ("SHA-256 expected", toy.sha256, digest(path)) if len(harmed) == len(body) else (f"found {len(harmed)}",)
    for part in (*expected, "weights/toy.pt", "Delete it", "weights.download=[toy]"):
        assert part in message
    assert path.read_bytes() == harmed  # what a person put there is theirs to delete


def test_ones_own_weights_are_given_by_path(toy, tmp_path, caplog):
    own = tmp_path / "own" / "toy.pt"
    own.parent.mkdir()
    torch.save({"mine": torch.ones(3)}, own)
    assert list(load("toy", own)) == ["mine"]
    assert "taken as weights of your own" in caplog.text  # same name as the released file, another size


def test_load(toy, put, tensors):
    put("weights/toy.pt")
    state = load("toy")
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[k], tensors[k]) for k in tensors)


def test_what_was_compared_is_not_searched_for_damage_again(toy, put, monkeypatch, body):
    """A second pass over a gigabyte costs seconds; but only the very file that was compared is spared it."""
    looked = []
    testzip = zipfile.ZipFile.testzip
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: (looked.append(self.filename), testzip(self))[1])
    path = put("weights/toy.pt")
    read(path)
    assert len(looked) == 1
    load("toy")
    assert len(looked) == 1
    path.write_bytes(flipped(body, 300))
    with pytest.raises(WeightsError, match="damaged"):
        read(path)


def test_damaged_file_is_not_trusted_at_first_use(register, put, body):
    register()
    path = put("weights/toy.pt")
    path.write_bytes(flipped(body, len(body) // 2))
    with pytest.raises(WeightsError, match="does not match its checksum"):
        fetch("toy")
    assert not Path(f"{path}{PIN}").exists()


def test_first_use_is_remembered(register, put, body, caplog):
    register()  # nobody published a hash
    path = put("weights/toy.pt")
    fetch("toy")
    assert "trusted at first use" in caplog.text
    record = json.loads(Path(f"{path}{PIN}").read_text())
    assert record == {"sha256": digest(path), "size": len(body), "source": "https://example.org/toy"}
    caplog.clear()
    fetch("toy")
    assert caplog.text == ""
    path.write_bytes(flipped(body, 99))
    for given in (None, path):
        with pytest.raises(WeightsError, match=r"changed since its first use.*delete toy\.pt\.sha256\.json"):
            fetch("toy", given)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\0", "3"])
def test_damaged_memory_is_not_trusted(register, put, text):
    register()
    path = put("weights/toy.pt")
    Path(f"{path}{PIN}").write_text(text)
    with pytest.raises(WeightsError, match="cannot be read"):
        fetch("toy")


def test_first_use_in_a_folder_that_cannot_be_written(register, put, monkeypatch, caplog):
    def read_only(path, text):
        raise ResourceError("read-only")

    monkeypatch.setattr("immersivedepth.weights.finding.write_text", read_only)
    register()
    path = put("weights/toy.pt")
    assert fetch("toy").resolve() == path.resolve()
    assert "would go unseen" in caplog.text


def test_folder_that_cannot_be_made(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"weights\.folder"):
        fetch("toy", settings=Weights(folder=str(tmp_path / "file" / "below")))


def test_download_named(toy, quick, server, register):
    settings = dataclasses.replace(quick, download=["toy"])
    assert download_named(settings) == [Path(quick.folder) / "toy.pt"]
    assert download_named(settings) == [Path(quick.folder) / "toy.pt"]
    assert len(server.asked) == 1
    with pytest.raises(ConfigError, match="'misspelt' is not a known file"):
        download_named(dataclasses.replace(quick, folder=quick.folder + "2", download=["toy", "misspelt"]))
    assert len(server.asked) == 1  # a misspelt name is found before anything is fetched


def test_table(toy, put, register):
    lines = table().splitlines()
    assert [line for line in lines if line.startswith("toy ")][0].endswith("  -")
    path = put("weights/toy.pt")
    text = table()
    assert str(Path("weights/toy.pt")) in text
    assert path.is_file()
    for name, source in REGISTRY.items():
        line = next(line for line in text.splitlines() if line.startswith(name + " "))
        assert source.licence in line
        assert (source.sha256 or "unknown")[:12] in line
    assert "by hand" in next(line for line in text.splitlines() if line.startswith("depth_anything_v2_vitg "))
    assert "Looked for in: weights," in text
    assert "Fetched into: weights" in text


def test_table_needs_no_torch():
    code = "import sys; from immersivedepth import weights; weights.table(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_yaml_holds_every_setting_with_its_default():
    node = yaml.safe_load((ROOT / "conf" / "weights" / "default.yaml").read_text())
    assert node.pop("_target_") == "immersivedepth.weights.Weights"
    assert node == dataclasses.asdict(Weights())


def test_settings_stay_in_their_ranges():
    hints = typing.get_type_hints(Weights, include_extras=True)
    ranges = {name: m for name, hint in hints.items() for m in getattr(hint, "__metadata__", ())}
    assert set(ranges) == {"timeout_s", "retries", "backoff_s", "limit_gb"}
    assert all(getattr(Weights(), name) in bound for name, bound in ranges.items())


def test_nothing_is_said_when_all_is_well(toy, put, caplog):
    caplog.set_level(logging.DEBUG)
    put("weights/toy.pt")
    load("toy")
    assert caplog.text == ""
