"""mode=evaluate and mode=compare on small rooms, from data to page."""

import csv
import json
from dataclasses import replace

import pytest
import torch

import core_exp_runner
from immersivedepth import config as configs
from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images
from immersivedepth.data.synthetic import make_world, render_erp
from immersivedepth.evaluation import compare, records, running, tables
from immersivedepth.files import write_text
from immersivedepth.geometry.sphere import erp_rays
from immersivedepth.runs import RunFolder
from immersivedepth.scene import Kind, Prediction

HEIGHT = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four panoramas with distances, and a line without a map."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(4):
        world = make_world("cube_room", half=[1.0 + i, 2.0, 1.2])
        images.write_png(folder / f"{i}.png", render_erp(world, HEIGHT, 2 * HEIGHT).image)
        images.write_exr(folder / f"{i}.exr", world.trace(erp_rays(HEIGHT, 2 * HEIGHT)).distance[None])
    write_text(folder / "list.txt", "".join(f"{i}.png {i}.exr\n" for i in range(4)) + "# no pair\n9.png None\n")
    return folder


def arguments(data, base, *more):
    small = (
        "predict=[oracle]",
        "project=cube",
        "project.resolution=32",
        "predict.oracle.reduce=1",
        "evaluation.samples=50",
    )
    place = ("mode=evaluate", "dataset=list", f"dataset.list={data}/list.txt", f"device.base_exp_dir={base}")
    return [*place, *small, *more]


def evaluate(data, base, *more, job=""):
    config = configs.compose("config", arguments(data, base, *more))
    return running.evaluate(config, lambda: RunFolder.open(configs.run_of(config), config, job, alike=True), job)


def test_the_solver_brings_back_what_the_oracle_spoiled(data, tmp_path):
    good = evaluate(data, tmp_path)
    assert good.figures["abs_rel"].value < 0.01
    assert good.figures["abs_rel"].low <= good.figures["abs_rel"].value <= good.figures["abs_rel"].high
    assert good.figures["coverage"].value > 0.9
    summary = json.loads((good.folder.path / "evaluation.json").read_text())
    assert summary["images"] == ["0", "1", "2", "3"]
    assert "abs_rel = E[|p - g| / g]" in summary["protocol"]["definition"]
    rows = list(csv.DictReader((good.folder.path / "evaluation.csv").read_text().splitlines()))
    mean = sum(float(row["abs_rel"]) for row in rows) / 4
    assert mean == pytest.approx(good.figures["abs_rel"].value, rel=1e-4)


def test_a_run_goes_on_where_it_was_and_processes_agree(data, tmp_path, monkeypatch):
    first = evaluate(data, tmp_path)
    before = {p.name: p.read_text() for p in (first.folder.path / "images").glob("*.json")}
    (first.folder.path / "images" / "2.json").unlink()
    evaluate(data, tmp_path, "align=identity")  # another kind of run in between
    looked = []
    one = running.Work.one
    monkeypatch.setattr(running.Work, "one", lambda work, source: looked.append(source.name) or one(work, source))
    again = evaluate(data, tmp_path, "is_continue=true")
    assert again.folder.path == first.folder.path
    assert looked == ["2.png"]
    assert again.skipped == 3
    figures = {name: json.loads(text)["figures"] for name, text in before.items()}
    assert figures == {p.name: json.loads(p.read_text())["figures"] for p in again.folder.path.glob("images/*.json")}


@pytest.mark.slow
def test_several_processes_find_the_same(data, tmp_path):
    one, two = evaluate(data, tmp_path), evaluate(data, tmp_path, "evaluation.workers=2")
    assert one.figures["abs_rel"].value == pytest.approx(two.figures["abs_rel"].value, rel=1e-6)


def test_a_damaged_image_is_left_out_and_told(data, tmp_path, capsys):
    write_text(data / "bad.txt", "0.png 0.exr\n1.png gone.exr\n")
    config = configs.compose("config", arguments(data, tmp_path, f"dataset.list={data}/bad.txt"))
    with pytest.raises(InputError, match="1 images could not be used.*gone.exr"):
        core_exp_runner.evaluate(config, "")
    assert "abs_rel = " in capsys.readouterr().out


def test_a_multirun_keeps_one_table(data, tmp_path):
    evaluate(data, tmp_path, job="0")
    done = evaluate(data, tmp_path, "align=identity", job="1")
    evaluate(data, tmp_path, "protocol=moge_scale", job="2")  # by another protocol: not in the table of the others
    home = done.folder.path.parent
    compare.grid_of(done.folder.path, running.Settings(samples=50))
    rows = list(csv.DictReader((home / "comparison.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["align=global_affine", "align=identity"]
    assert float(rows[1]["abs_rel_behind"]) == pytest.approx(float(rows[1]["abs_rel"]) - float(rows[0]["abs_rel"]))
    text = (home / "comparison.md").read_text()
    assert "| align=identity |" in text
    assert "(sure)" in text
    tex = (home / "comparison.tex").read_text()
    assert r"align=global\_affine & \textbf{" in tex
    curves = list(csv.DictReader((home / "comparison_curves.csv").read_text().splitlines()))
    assert {(row["run"], row["over"]) for row in curves} >= {
        ("align=identity", "latitude"),
        ("align=identity", "distance"),
    }
    assert sum(row["over"] == "latitude" and row["run"] == "align=identity" for row in curves) == 12
    page = (home / "comparison.html").read_text()
    assert "The oracle reads the truth" in page
    assert "The oracle reads the truth" in text
    assert page.count("<img") == 2 + 2 * 3
    assert "http" not in page.replace('http-equiv="Content', "")


def test_runs_of_different_times_are_compared_and_mixing_is_refused(data, tmp_path):
    a, b = evaluate(data, tmp_path, "exp_name=a"), evaluate(data, tmp_path, "exp_name=b", "predict.oracle.noise=0.1")
    config = configs.compose("config", ["mode=compare", f"runs=[{a.folder.path},{tmp_path}/b/*]"])
    config["device"]["base_exp_dir"] = str(tmp_path)
    config["exp_name"] = "table"
    files = compare.compare(config, lambda: RunFolder.open(configs.run_of(config), config))
    assert [path.suffix for path in files] == [".csv", ".md", ".tex", ".csv", ".html"]
    assert "predict.oracle.noise=0.1" in files[0].read_text()
    other = evaluate(data, tmp_path, "protocol=moge_scale")
    config["runs"] = [str(a.folder.path), str(other.folder.path)]
    with pytest.raises(ConfigError, match="protocol moge_scale is not protocol sphere"):
        compare.compare(config, lambda: pytest.fail("a folder was opened"))
    write_text(data / "two.txt", "0.png 0.exr\n1.png 1.exr\n")
    fewer = evaluate(data, tmp_path, f"dataset.list={data}/two.txt")
    config["runs"] = [str(a.folder.path), str(fewer.folder.path)]
    with pytest.raises(ConfigError, match="2 images are in one of them only"):
        compare.compare(config, lambda: pytest.fail("a folder was opened"))
    smaller = evaluate(data, tmp_path, "dataset.image_resize=[48,24]")
    config["runs"] = [str(b.folder.path), str(smaller.folder.path)]
    with pytest.raises(ConfigError, match="the truth of 0 is not the same"):
        compare.compare(config, lambda: pytest.fail("a folder was opened"))
    config["runs"] = [str(tmp_path / "nowhere")]
    with pytest.raises(InputError, match="no folder of a finished"):
        compare.compare(config, lambda: pytest.fail("a folder was opened"))


def test_uneven_coverage_is_told_of():
    rows = [tables.Row(name, {"coverage": records.Figure(v, None, None)}, 1.0) for name, v in (("a", 0.99), ("b", 0.9))]
    (warning,) = compare.warnings_of(
        rows, [{"predict": {"midas": {"_target_": "immersivedepth.stages.predict.midas.Midas"}}}]
    )
    assert "from 90.0 to 99.0 %" in warning
    assert compare.warnings_of(rows[:1], [{}]) == []


def test_a_changed_preset_needs_a_name_of_its_own(data, tmp_path):
    with pytest.raises(ConfigError, match=r"protocol.most=20.0 is not what unifuse says \(10.0\)"):
        running.protocol_of(configs.compose("config", ["protocol=unifuse", "protocol.most=20.0"]))
    own = running.protocol_of(configs.compose("config", ["protocol=unifuse", "protocol.most=20.0", "protocol.name=my"]))
    assert own.most == 20
    with pytest.raises(ConfigError, match="needs a protocol"):
        running.protocol_of({"protocol": None})


def test_a_protocol_in_metres_refuses_a_result_without(data, tmp_path):
    with pytest.raises(ConfigError, match="known only up to a factor"):
        evaluate(data, tmp_path, "protocol=unifuse")
    found = evaluate(data, tmp_path, "protocol=unifuse", "predict.oracle.kind=metric_distance")
    assert found.figures["abs_rel"].value < 0.01


def test_the_truth_beside_pictures_serves_too(tmp_path):
    """dataset=wild: the sample with its recipe."""
    place = [f"device.base_exp_dir={tmp_path}", "dataset.image_resize=[64,32]", "project=cube", "project.resolution=32"]
    config = configs.compose("config", ["mode=evaluate", *place])
    found = running.evaluate(config, lambda: RunFolder.open(configs.run_of(config), config))
    assert list(found.figures)[0] == "abs_rel"
    assert found.figures["abs_rel"].low is None  # one image tells nothing of others
    picture = tmp_path / "bare.png"
    images.write_png(picture, torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(0)))
    config["dataset"]["image_path"] = str(picture)
    with pytest.raises(InputError, match="has no truth beside it"):
        running.evaluate(config, lambda: RunFolder.open(configs.run_of(config), config))


@pytest.fixture(scope="module")
def diode(tmp_path_factory):
    """A scan as DIODE stores it: depth of a slope, some of it not measured."""
    folder = tmp_path_factory.mktemp("diode")
    scan = folder / "val" / "indoors" / "scene_00019" / "scan_00183"
    depth = torch.linspace(1, 4, 64).expand(48, 64)[..., None].numpy()
    mask = (depth[..., 0] > 1.1).astype("float64")
    for stem in ("00019_00183_indoors_000_010", "00019_00183_indoors_010_010"):
        images.write_png(scan / f"{stem}.png", torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(1)))
        images.write_npy(scan / f"{stem}_depth.npy", depth)
        images.write_npy(scan / f"{stem}_depth_mask.npy", mask)
    return folder


def view_run(diode, base, *more):
    place = ["mode=evaluate", "dataset=diode", f"dataset.root={diode}", f"device.base_exp_dir={base}"]
    config = configs.compose("config", [*place, "evaluation.samples=20", *more])
    return running.evaluate(config, lambda: RunFolder.open(configs.run_of(config), config))


class Eye:
    """A predictor that says what it is told to."""

    def __init__(self, kind, values):
        self.kind, self.values = kind, values

    def __call__(self, views):
        size = views.rig.resolution
        return Prediction(self.values(size)[None, None], (self.kind,), views.rig)


@pytest.mark.parametrize(
    ("kind", "protocol", "error"),
    [
        (Kind.AFFINE_DISPARITY, "moge_disparity", None),
        (Kind.AFFINE_DEPTH, "moge_affine", None),
        (Kind.METRIC_DISTANCE, "pano3d", "is for panoramas"),
        (Kind.METRIC_DISTANCE, "unifuse", None),
        (Kind.AFFINE_DISPARITY, "moge_scale", "does not free the shift"),
    ],
)
def test_perspective_pictures_measure_the_predictor_alone(diode, tmp_path, monkeypatch, kind, protocol, error):
    from immersivedepth.data.diode import TAN_HALF_FOV
    from immersivedepth.geometry import pinhole

    def said(size):
        depth = torch.linspace(1, 4, 64)[8:56].expand(size, size)  # the square in the middle
        length = pinhole.view_rays(torch.eye(3)[None], torch.tensor([TAN_HALF_FOV]), size)[0].norm(dim=-1)
        known = {Kind.AFFINE_DISPARITY: 3 / depth + 2, Kind.AFFINE_DEPTH: 0.1 * depth + 5}
        return known.get(kind, depth * length)

    work = running.assemble
    monkeypatch.setattr(running, "assemble", lambda config: replace(work(config), predict={"eye": Eye(kind, said)}))
    if error:
        with pytest.raises(ConfigError, match=error):
            view_run(diode, tmp_path, f"protocol={protocol}")
        return
    done = view_run(diode, tmp_path, f"protocol={protocol}")
    assert done.figures["abs_rel"].value < 1e-3
    assert len(json.loads((done.folder.path / "evaluation.json").read_text())["images"]) == 2


def test_frames_of_still_box_are_measured_too(tmp_path):
    from immersivedepth.data.making import MakeData

    MakeData("stillbox", str(tmp_path / "s"), count=2, size=16, workers=1)()
    config = configs.compose("config", ["mode=evaluate", "dataset=still_box", f"dataset.root={tmp_path / 's'}"])
    dataset = configs.build(config["dataset"], "dataset")
    sources = dataset.sources()
    assert len(sources) == len(dataset.samples("val").films[0])
    found = dataset.view(sources[0])
    assert found.views.images.shape == (1, 3, 16, 16)
    assert found.valid.any()
    assert len({dataset.name(source) for source in sources}) == len(sources)
