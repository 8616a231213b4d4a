"""Files hold what their sidecars say, and the page works in a real browser without a network."""

import html
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from immersivedepth.data import images
from immersivedepth.geometry import sphere
from immersivedepth.scene import Aligned, Instances
from immersivedepth.stages.export.arrays import Arrays
from immersivedepth.stages.export.contact_sheet import ContactSheet, residuals
from immersivedepth.stages.export.labels import Labels, encode
from immersivedepth.stages.export.png16 import Png16
from immersivedepth.stages.export.preview import Preview
from immersivedepth.stages.export.quality import Quality, assess, pole_scores, seam_score
from immersivedepth.stages.export.report import Report, distance_codes
from immersivedepth.stages.predict.oracle import Oracle
from immersivedepth.stages.project import Icosahedron

from .rooms import Room, geometry, panorama, truth

H = 64
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def picture():
    return panorama(H)


@pytest.fixture
def result():
    """Sky above, a hole, and things."""
    hits = truth(H)
    distance = hits.distance.clone()
    distance[:4], distance[30:32, 40:44] = math.inf, 0.0
    labels = torch.where(hits.instance > 6, hits.instance - 6, 0)[None].int()
    given = geometry(
        distance,
        hits.normal.permute(2, 0, 1).contiguous(),
        sky=distance.isinf()[None],
        spread=torch.full((1, H, 2 * H), 0.01),
        metric=True,
        instances=Instances(labels, (5, 5, 5, 9), {5: "ball", 9: "box"}),
    )
    return replace(given, mask=given.mask & (distance < 2.9))


def test_arrays_come_back_with_their_bad_pixels(result, picture, tmp_path):
    paths = Arrays()(result, picture, tmp_path)
    assert {p.name for p in paths} == {p.name for p in tmp_path.iterdir()}
    expected = result.distance[0].numpy()
    assert np.array_equal(np.load(tmp_path / "distance.npy"), expected)
    assert np.array_equal(np.squeeze(images.read_map(tmp_path / "distance.exr")[:1].numpy(), 0), expected)
    assert np.load(tmp_path / "normal.npy").shape == (H, 2 * H, 3)
    about = json.loads((tmp_path / "distance.json").read_text())
    assert about["unit"] == "metre"
    assert about["size"] == [2 * H, H]
    assert about["bad_pixels"]["distance"] == {"unknown": 0.0, "sky": "inf"}
    trusted = expected[result.mask[0].numpy()]
    assert about["range"] == [pytest.approx(trusted.min()), pytest.approx(trusted.max())]


@pytest.mark.parametrize("encoding", ["linear", "log"])
def test_sixteen_bits_come_back_by_the_formula_of_the_sidecar(result, picture, tmp_path, encoding):
    Png16(encoding)(result, picture, tmp_path)
    about = json.loads((tmp_path / "distance_16bit.json").read_text())
    codes = images.read_map(tmp_path / "distance_16bit.png", unit=1.0)[0].double()
    assert about["bad_pixels"] == {"unknown": 0, "sky": 65535}
    distance = result.distance[0].double()
    assert torch.equal(codes == 0, distance == 0)
    assert torch.equal(codes == 65535, distance.isinf())
    good = (codes > 0) & (codes < 65535)
    if encoding == "linear":
        assert about["step"] == 1e-3  # metric, and a room is smaller than 65 m
        assert (codes * about["step"] - distance)[good].abs().max() <= 0.5e-3 + 1e-6
    else:
        back = about["nearest"] * ((codes - 1) * about["step"]).exp()
        assert (back / distance).log()[good].abs().max() <= 0.5 * about["step"] + 1e-6


def test_far_scenes_get_larger_steps(result, picture, tmp_path):
    Png16()(replace(result, distance=result.distance * 100), picture, tmp_path)
    about = json.loads((tmp_path / "distance_16bit.json").read_text())
    assert about["step"] > 1e-3
    assert images.read_map(tmp_path / "distance_16bit.png", unit=1.0).max() == 65535  # the sky
    assert "metre" in about["unit"]


def test_instances_are_written_as_class_and_number(result, picture, tmp_path):
    paths = Labels(each=True)(result, picture, tmp_path)
    code = images.read_image(tmp_path / "instances.png").image.permute(1, 2, 0).long()
    labels = result.instances.labels[0]
    assert torch.equal(code[..., 1] * 256 + code[..., 2], labels.long())
    assert torch.equal(code[..., 0], torch.tensor([0, 5, 5, 5, 9])[labels.long()])
    rows = json.loads((tmp_path / "instances.json").read_text())["instances"]
    assert [row["name"] for row in rows] == ["ball", "ball", "ball", "box"]
    left, _, right, _ = rows[0]["box"]
    assert left < 2 * H < right  # the ball across the seam
    for number in range(1, 5):
        mask = images.read_image(tmp_path / f"instances/instance_{number:05d}.png").image[0] > 127
        assert torch.equal(mask, labels == number)
    assert (tmp_path / "sky.png") in paths
    assert (tmp_path / "instances_overlay.png") in paths


def test_many_instances_need_both_bytes():
    labels = torch.arange(1, 601).reshape(1, 20, 30).int()
    code = encode(Instances(labels, (3,) * 600)).astype(int)
    assert (code[..., 1] * 256 + code[..., 2] == labels[0].numpy()).all()


def test_without_sky_and_instances_there_is_nothing_to_write(picture, tmp_path):
    assert Labels()(geometry(truth(H).distance), picture, tmp_path) == []


def test_preview(result, picture, tmp_path):
    Preview(max_width=100)(result, picture, tmp_path)
    shown = images.read_image(tmp_path / "distance.png").image
    assert (shown[:, :4] == 255).all()
    assert (shown[:, 30:32, 40:44] == 0).all()
    assert images.read_image(tmp_path / "overview.png").image.shape[-1] == 100
    assert (tmp_path / "normal.png").is_file()


def test_quality_of_a_good_result(result, picture, tmp_path):
    Quality()(result, picture, tmp_path)
    found = json.loads((tmp_path / "quality.json").read_text())
    area = sphere.solid_angles(H, 2 * H).expand(H, 2 * H) / (4 * math.pi)
    assert found["trusted"] == pytest.approx(float(area[result.mask[0]].sum()), abs=1e-5)
    assert found["sky"] == pytest.approx(float(area[:4].sum()), abs=1e-5)
    assert found["instances"] == 4
    assert found["spread"]["median"] == pytest.approx(0.01)
    assert found["pole_scores"][0] is None
    assert found["seam_score"] < 2


def test_faults_are_scored_and_advised_on():
    distance = truth(H, furnished=False).distance
    good = geometry(distance)
    assert seam_score(good.distance, good.mask) < 2
    cut = geometry(distance * torch.linspace(1, 1.5, 2 * H))  # a step where the panorama was cut
    assert seam_score(cut.distance, cut.mask) > 5
    assert any("left and right border" in line for line in assess(cut)["advice"])
    assert max(pole_scores(good.distance, good.mask)) < 1e-3
    uneven = distance.clone()
    uneven[-1, :H] *= 1.3
    assert any("pole" in line for line in assess(geometry(uneven))["advice"])
    torn = geometry(distance, spread=torch.full((1, H, 2 * H), 0.3))
    assert any("disagree" in line for line in assess(torn)["advice"])
    assert assess(good)["advice"] == []


def test_nothing_known_still_has_a_report(picture, tmp_path):
    empty = geometry(torch.zeros(H, 2 * H))
    for stage in (Arrays(), Png16(), Labels(), Preview(), Quality(), ContactSheet(), Report()):
        stage(empty, picture, tmp_path)
    assert json.loads((tmp_path / "quality.json").read_text())["distance"] is None


def with_views(result, picture, factor=1.0):
    views = Icosahedron(resolution=32)(picture)
    distance = Oracle(kind="metric_distance")(views).values
    distance[3] *= factor
    return replace(result, aligned=Aligned(distance, views.rig, torch.ones_like(distance), True))


def test_residuals_show_the_view_that_is_off(picture, tmp_path):
    given = with_views(geometry(truth(H).distance), picture, 1.2)
    medians = [float(residuals(given, given.aligned, view).nanmedian()) for view in range(20)]
    assert medians[3] == pytest.approx(math.log(1.2), abs=0.01)
    assert max(abs(m) for view, m in enumerate(medians) if view != 3) < 0.01
    (path,) = ContactSheet(side=64)(given, picture, tmp_path)
    sheet = images.read_image(path).image
    assert sheet.shape[-1] > 20 * 64
    assert ContactSheet()(replace(given, aligned=None), picture, tmp_path) == []


def test_codes_of_the_viewer_come_back(result):
    codes, about = distance_codes(result)
    value = codes[..., 0].astype(int) * 256 + codes[..., 1]
    distance = result.distance[0].numpy()
    good = (value > 0) & (value < 65535)
    back = about["nearest"] * np.exp((value - 1) * about["step"])
    assert np.array_equal(good, np.isfinite(distance) & (distance > 0))
    assert np.abs(np.log(back[good] / distance[good])).max() <= about["step"]
    assert ((codes[..., 2] > 0) == result.mask[0].numpy()).all()


def test_the_page_holds_everything_and_asks_for_nothing(result, picture, tmp_path):
    hostile = replace(picture, name='</script><img src=x onerror="alert(1)">')
    (tmp_path / "config.yaml").write_text("mode: depth\nexp_name: <b>here</b>\nseed: 5\n")
    (path,) = Report()(with_views(result, picture), hostile, tmp_path / "room")
    page = path.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert hostile.name not in page
    assert html.escape(hostile.name) in page
    assert "seed: 5" in page
    assert "exp_name" not in page
    for words in ("Quality", "4 things", "Views", "Stages", "Content-Security-Policy"):
        assert words in page
    again = Report()(with_views(result, picture), hostile, tmp_path / "other")[0].read_text()
    assert again == page


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, drawing by software."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.mark.slow
def test_the_page_in_a_browser(browser, picture, result, tmp_path):
    """The viewer draws what lies there, reads the true distance under the pointer, turns, and switches layers."""
    (path,) = Report()(with_views(result, picture), picture, tmp_path)
    page = browser.new_page(viewport={"width": 1000, "height": 800}, offline=True)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    assert page.locator("#layers button").all_inner_texts() == ["image", "distance", "normals", "trusted", "instances"]
    box = page.locator("#view").bounding_box()
    centre = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def read():
        page.mouse.move(centre[0] + 1, centre[1])
        page.mouse.move(*centre)
        return page.inner_text("#readout")

    def drawn():
        png = np.frombuffer(
            page.screenshot(clip={"x": centre[0] - 2, "y": centre[1] - 2, "width": 4, "height": 4}), np.uint8
        )
        import cv2

        return cv2.imdecode(png, cv2.IMREAD_COLOR)[..., ::-1].mean((0, 1))

    for yaw, pitch in ((0.0, 0.0), (1.0, -0.4), (-2.2, 0.3), (math.pi, -0.2)):
        page.evaluate(f"viewer.yaw = {yaw}; viewer.pitch = {pitch}; viewer.draw()")
        ray = torch.tensor([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)])
        hit = Room().trace(ray)
        assert float(read().split()[0]) == pytest.approx(float(hit.distance), rel=0.03)  # a pixel of 2.8 degrees
        page.click("text=image")
        assert np.abs(drawn() - 255 * hit.colour.numpy()).max() < 25  # JPEG, and a pixel of 2.8 degrees
        page.click("text=normals")
        assert np.abs(drawn() - 127.5 * (hit.normal.numpy() + 1)).max() < 12
    page.evaluate("viewer.yaw = 0; viewer.pitch = 1.5; viewer.draw()")
    assert read().startswith("sky")
    page.evaluate("viewer.pitch = 0; viewer.draw()")
    page.mouse.move(*centre)
    page.mouse.down()
    page.mouse.move(centre[0] + 100, centre[1], steps=3)
    page.mouse.up()
    assert page.evaluate("viewer.yaw") == pytest.approx(100 * page.evaluate("viewer.fov") / box["width"], rel=1e-3)
    before = page.evaluate("viewer.fov")
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"viewer.fov < {before}")
    assert said == []
    assert all(url.startswith(("file:", "data:")) for url in asked)
    page.close()
