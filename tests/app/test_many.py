"""Many visitors at once, with a real network whose weights were drawn at random."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from immersivedepth.app import choices
from immersivedepth.app.folders import Keeper
from immersivedepth.app.settings import App
from immersivedepth.app.work import Cancelled, Worker, look_at
from immersivedepth.config import build
from immersivedepth.nets.residual_unet import ResidualUNet
from immersivedepth.scene import Kind, Prediction

pytestmark = pytest.mark.filterwarnings(
    "ignore:::gradio", "ignore:::gradio_client", "ignore::pytest.PytestUnraisableExceptionWarning"
)
VISITORS = 20


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("unet") / "it's mine.pt"
    torch.save(ResidualUNet("linear").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def app(weights):
    return App(unet_weights=str(weights), max_size=(2048, 1024))


@pytest.fixture(scope="module")
def worker(compose_once, app):
    return Worker(compose_once, app)


@pytest.fixture(scope="module")
def compose_once():
    from immersivedepth.config import compose

    return compose("config", ["mode=demo", "device.kind=cpu"])


@pytest.fixture
def job(tmp_path):
    keeper = Keeper(str(tmp_path / "kept"), 1)
    yield keeper.open("me")
    keeper.close()


def given(app):
    network = next(n for n in choices.known(app) if n.name == "unet")
    return choices.overrides(
        [network], "as uploaded", *[next(iter(t)) for t in (choices.ALIGNMENTS, choices.REFINEMENTS)], "turbo"
    )


def picture(path, seed):
    noise = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (90, 60), interpolation=cv2.INTER_CUBIC))
    return path


def test_one_set_of_networks_in_memory(worker, app, job, tmp_path):
    path = picture(tmp_path / "a.png", 0)
    worker.plain(path, given(app), 60.0, "turbo", job, lambda news: None)
    first = worker._looking[1]["unet"]
    worker.plain(path, given(app), 60.0, "magma", job, lambda news: None)
    assert worker._looking[1]["unet"] is first


def test_a_plain_picture_keeps_its_shape_and_place():
    """The network sees the picture where it lies, with mirrored borders, and the map comes back in its size."""
    image = torch.zeros(3, 40, 100, dtype=torch.uint8)
    image[:, 10:20, 70:90] = 200

    def bright(views):
        seen = views.images[:, :1].float()
        assert seen.shape == (1, 1, 100, 100)
        assert torch.equal(seen[0, 0, 30:70], image[0].float())
        assert torch.equal(seen[0, 0, 29], image[0, 1].float())  # mirrored, the border itself once
        return Prediction(seen, (Kind.METRIC_DISTANCE,), views.rig)

    values, kind = look_at(image, bright, 60.0)
    assert kind is Kind.METRIC_DISTANCE
    assert torch.equal(values, image[:1].float())


def test_a_stopped_run_ends_between_two_batches(worker, app, job, sample):
    told = []

    def tell(news):
        told.append(news.words)
        if "view 5 of 20" in news.words:
            job.cancelled.set()

    lines = [*given(app), "dataset.image_resize=[128,64]", "project.resolution=32"]
    with pytest.raises(Cancelled):
        worker.estimate(sample, lines, job, tell)
    assert told[-1].endswith("view 5 of 20")
    assert not (job.folder / "results").exists()


def test_a_stereo_pair_becomes_a_result_and_a_film(compose, compose_once, tmp_path, job):
    system = build(compose("mode=predict", "system=stereo_3d60")["system"], "system")
    torch.manual_seed(0)
    torch.save(system.net().state_dict(), tmp_path / "psm.pt")
    worker = Worker(compose_once, App(stereo_weights=str(tmp_path / "psm.pt")))
    left, right = (tmp_path / name / "pano.png" for name in "lr")  # of one name, as cameras give them
    for path in (left, right):
        path.parent.mkdir()
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8))
    given = ["dataset.side=right", "dataset.baseline=0.26", "export=[arrays,preview]"]
    told = []
    result = worker.stereo(left, right, given, job, lambda news: told.append(news.words))
    assert result.geometry.metric
    assert result.geometry.distance.shape == (1, 64, 128)
    assert "matching the two pictures" in told
    job.cancelled.set()
    with pytest.raises(Cancelled):
        worker.film(job, told.append)


@pytest.mark.slow
def test_piece_by_piece_is_the_same_as_at_once(worker, app, job, sample, compose):
    from immersivedepth.batch import estimate

    lines = [*given(app), "dataset.image_resize=[128,64]", "project.resolution=32", "export=[arrays]"]
    lines = [line for line in lines if not line.startswith("export.") and not line.startswith("export=[arrays,")]
    result = worker.estimate(sample, lines, job, lambda news: None)
    alone = estimate(sample, [*lines, "device.kind=cpu"])
    torch.testing.assert_close(result.geometry.distance, alone.distance, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_twenty_visitors_each_get_their_own(weights, worker, app, tmp_path):
    from gradio_client import Client, handle_file

    from immersivedepth.app.serving import Demo
    from immersivedepth.config import compose

    lines = ["mode=demo", "app.port=0", f"app.folder='{tmp_path}'", f"app.unet_weights={choices.quoted(str(weights))}"]
    keeper = Keeper(str(tmp_path / "own"), 1)
    with Demo.of(compose("config", [*lines, "device.kind=cpu"])) as page:

        def visit(seed):
            got, patience = str(tmp_path / f"got{seed}"), {"timeout": 120}  # twenty upload at once, maybe slowly
            client = Client(page.address, verbose=False, download_files=got, httpx_kwargs=patience)
            path = picture(tmp_path / f"picture{seed}.png", seed)
            _, _, files = client.predict(handle_file(str(path)), "unet", 60, "turbo", api_name="/perspective")
            return {Path(file).name: Path(file) for file in files}

        with ThreadPoolExecutor(VISITORS) as pool:
            found = list(pool.map(visit, range(VISITORS)))
    for seed, files in enumerate(found):
        own = worker.plain(
            tmp_path / f"picture{seed}.png", given(app), 60.0, "turbo", keeper.open(""), lambda news: None
        )
        np.testing.assert_allclose(np.load(files["map.npy"]), np.load(own[2][1]), rtol=1e-5)
        assert json.loads(files["map.json"].read_text())["kind"] == "scale_distance"
    keeper.close()
    assert len({files["map.npy"].read_bytes() for files in found}) == VISITORS
    assert not list(tmp_path.glob("immersivedepth-demo-*"))  # nothing is left when the server ends
