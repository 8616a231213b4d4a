"""The page in a real browser: a visitor uploads, runs, looks around, and takes the files home."""

import math
import os
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::gradio", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def of_npm(name):
    """The folder of a package that someone installed."""
    roots = [
        Path(__file__).parents[2] / "node_modules",
        *map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep))),
    ]
    return next((root / name for root in roots if (root / name / "package.json").is_file()), None)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, drawing by software."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


class Visit:
    """One visitor's page, and whom it asked for anything."""

    def __init__(self, browser, demo, shots, width=1280, height=1000):
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.shots, self.asked, self.broke = shots, [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.broke.append(str(error)))
        self.page.goto(demo.address)
        self.page.get_by_role("button", name="Run").first.wait_for(timeout=60_000)

    def tab(self, name):
        self.page.get_by_role("tab", name=name, exact=True).first.click()

    def upload(self, path):
        self.page.locator("input[type=file]").first.set_input_files(str(path))

    def said(self, text, timeout=60_000):
        self.page.locator(".said", has_text=text).first.wait_for(timeout=timeout)

    def choose(self, label, value):
        box = self.page.get_by_label(label, exact=True).first
        box.click()
        self.page.get_by_role("option", name=value, exact=True).first.click()

    def exact(self):
        """The truth of the sample, instead of the networks that are ticked at first."""
        for name in ("dav2", "midas"):
            self.page.get_by_label(f"{name} (comes with the program)").first.uncheck()
        self.page.get_by_label("exact distances (only for the sample rooms)").first.check()

    def run(self):
        self.page.get_by_role("button", name="Run").first.click()

    def picture(self, locator, name):
        """The pixels of a part of the page."""
        png = locator.screenshot(path=str(self.shots / f"{name}.png"))
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.fixture(scope="module")
def shots():
    """Screenshots are kept for people to look at."""
    folder = Path(__file__).parents[2] / "outputs" / "demo_screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def visit(browser, demo, shots, sample, quick):
    """A visitor who has run the sample."""
    found = Visit(browser, demo, shots)
    found.upload(sample)
    found.said("2048 x 1024 pixels")
    found.choose("Resolution", quick[1])
    found.exact()
    found.run()
    found.said("Done in")
    yield found
    found.page.close()


def test_the_upload_can_be_looked_around_in_at_once(browser, demo, shots, sample):
    visit = Visit(browser, demo, shots)
    visit.upload(sample)
    visit.said("2048 x 1024 pixels")
    frame = visit.page.frame_locator("iframe").first
    frame.locator("body[data-ready=yes]").wait_for(timeout=30_000)
    before = visit.picture(frame.locator("#view"), "preview")
    assert before.std() > 10
    box = frame.locator("#view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 150, y, steps=3)
    visit.page.mouse.up()
    after = visit.picture(frame.locator("#view"), "preview_turned")
    assert np.abs(before.astype(int) - after).mean() > 5
    visit.page.close()


def test_nobody_else_is_asked_for_anything(visit, demo):
    foreign = [u for u in visit.asked if not u.startswith((demo.address, "data:", "blob:", "about:"))]
    assert not foreign
    assert not visit.broke


def test_the_slider_shows_both_pictures(visit):
    visit.tab("Slider")
    images = visit.page.locator("[data-testid=imageslider] img, .slider-wrap img, .wrap img").filter(visible=True)
    images.first.wait_for()
    assert images.count() >= 2
    sizes = visit.page.evaluate("[...document.images].filter(i => i.offsetParent).map(i => i.naturalWidth)")
    assert sizes.count(512) >= 2
    visit.picture(visit.page.locator("body"), "slider")


def test_distance_under_the_pointer(visit, sample):
    """What the viewer says ahead is what the world of the sample holds there, up to the one factor that is unknown."""
    import torch

    from immersivedepth.data.panoramas import truth_beside

    visit.tab("Look around")
    frame = visit.page.frame_locator("iframe").first
    frame.locator("body[data-ready=yes]").wait_for(timeout=30_000)
    box = frame.locator("#view").bounding_box()
    inner = next(f for f in visit.page.frames if f.parent_frame and f.evaluate("'viewer' in window"))
    ratios = []
    for yaw, pitch in ((0.0, 0.0), (1.6, -0.5), (-2.0, -0.3)):
        inner.evaluate(f"viewer.yaw = {yaw}; viewer.pitch = {pitch}; viewer.draw()")
        visit.page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2)
        visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        ray = torch.tensor([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)])
        truth = float(truth_beside(sample).trace(ray[None]).distance)
        ratios.append(float(inner.locator("#readout").inner_text().split()[0]) / truth)
    visit.picture(frame.locator("#view"), "viewer")
    assert max(ratios) / min(ratios) < 1.1


def test_the_room_stands_in_3d(visit):
    """From its centre the mesh shows what the panorama shows; points and splats are drawn; a step changes the view."""
    visit.tab("3D")
    view = visit.page.locator("iframe").filter(visible=True).first
    view.wait_for()
    inner = view.element_handle().content_frame()
    inner.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    shown = {}
    for kind in ("mesh", "points", "splats"):
        inner.get_by_role("button", name=kind).click()
        shown[kind] = visit.picture(inner.locator("#view"), f"3d_{kind}").astype(int)
        assert shown[kind].std() > 12, kind
        assert len(np.unique(shown[kind].reshape(-1, 3) // 16, axis=0)) > 20, kind
    inner.get_by_role("button", name="mesh").click()
    inner.locator("#view").press("w")
    stepped = visit.picture(inner.locator("#view"), "3d_stepped")
    assert np.abs(stepped - shown["mesh"]).mean() > 2
    visit.tab("Look around")
    outer = next(f for f in visit.page.frames if f.parent_frame and f.evaluate("'viewer' in window"))
    outer.evaluate("viewer.yaw = 0; viewer.pitch = 0; viewer.fov = 1.5; viewer.show('image')")
    flat = visit.picture(outer.locator("#view"), "2d").astype(int)
    assert flat.shape == shown["mesh"].shape
    lit = shown["mesh"].sum(-1) > 120  # cuts are dark
    assert lit.mean() > 0.8
    assert np.abs(flat - shown["mesh"])[lit].mean() < 12


def test_everything_can_be_taken_home(visit, tmp_path):
    visit.tab("Files")
    with visit.page.expect_download(timeout=30_000) as waiting:
        visit.page.locator("a[href*='results.zip']").first.click()
    path = tmp_path / "results.zip"
    waiting.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert "mesh.glb" in archive.namelist()
    visit.picture(visit.page.locator("body"), "files")
    visit.tab("Quality")
    visit.page.get_by_text("Can be trusted").first.wait_for()
    visit.tab("Command line")
    assert "predict=[oracle]" in visit.page.locator("textarea").filter(visible=True).first.input_value()
    visit.tab("Pictures")
    visit.page.get_by_text("Things told apart").filter(visible=True).first.wait_for()
    loaded = "[...document.querySelectorAll('.pictures img')].map(i => i.complete && i.naturalWidth)"
    visit.page.wait_for_function(f"{loaded}.slice(0, 2).every(Boolean)")


def test_a_bad_upload_is_met_with_a_sentence(browser, demo, shots, tmp_path):
    visit = Visit(browser, demo, shots)
    bad = tmp_path / "<b>broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    visit.upload(bad)
    visit.said("is a damaged PNG")
    visit.picture(visit.page.locator("body"), "bad_upload")
    visit.page.reload()
    visit.page.get_by_role("button", name="Run").first.wait_for()
    square = tmp_path / "square.png"
    cv2.imwrite(str(square), np.zeros((64, 64, 3), np.uint8))
    visit.upload(square)
    visit.said("expected twice as wide as high")
    visit.page.get_by_role("button", name="Treat it as a plain picture").click()
    visit.page.get_by_role("tab", name="Plain picture", selected=True).wait_for()
    visit.page.close()


def test_a_run_can_be_stopped(browser, demo, shots, sample):
    visit = Visit(browser, demo, shots)
    visit.upload(sample)
    visit.said("2048 x 1024 pixels")
    visit.run()
    visit.said(" %: ")
    visit.page.get_by_role("button", name="Stop").first.click()
    visit.said("Stopped.", timeout=30_000)
    visit.page.wait_for_timeout(1500)
    assert not visit.page.get_by_text("Done in").count()
    visit.page.close()


def test_who_closes_the_page_leaves_nothing(browser, demo, shots, sample, quick):
    visit = Visit(browser, demo, shots)
    before = set((demo.keeper.folder / "jobs").iterdir()) if (demo.keeper.folder / "jobs").exists() else set()
    visit.upload(sample)
    visit.said("2048 x 1024 pixels")
    visit.choose("Resolution", quick[1])
    visit.run()
    visit.said("Done in")
    (mine,) = set((demo.keeper.folder / "jobs").iterdir()) - before
    visit.page.goto("about:blank")
    for _ in range(60):
        visit.page.wait_for_timeout(500)
        if not mine.exists():
            break
    assert not mine.exists()
    visit.page.close()


def test_a_film_is_made(visit):
    visit.tab("Film")
    visit.page.get_by_role("button", name="Make a film from within").first.click()
    video = visit.page.locator("video").filter(visible=True).first
    video.wait_for(timeout=120_000)
    assert "video.mp4" in video.get_attribute("src")
    visit.picture(visit.page.locator("body"), "film")


def test_on_a_phone_nothing_sticks_out(browser, demo, shots, sample):
    visit = Visit(browser, demo, shots, width=390, height=844)
    visit.upload(sample)
    visit.said("2048 x 1024 pixels")
    visit.page.screenshot(path=str(shots / "phone.png"), full_page=True)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.page.locator("iframe").first.bounding_box()["width"] > 250
    visit.page.close()


def test_axe_finds_nothing_serious(visit):
    """`npm install axe-core` in the checkout or on NODE_PATH turns this on."""
    axe = of_npm("axe-core")
    if axe is None:
        pytest.skip("the npm package axe-core is not installed")
    code, serious = (axe / "axe.min.js").read_text(), []
    for tab in ("Look around", "Slider", "Pictures", "3D", "Film", "Quality", "Files", "Command line"):
        visit.tab(tab)
        visit.page.wait_for_timeout(300)
        visit.page.evaluate(code)
        for found in visit.page.evaluate("axe.run(document, {iframes: false}).then(r => r.violations)"):
            if found["impact"] in ("serious", "critical"):
                serious.append((tab, found["id"], [node["html"][:160] for node in found["nodes"]][:3]))
    assert not serious
