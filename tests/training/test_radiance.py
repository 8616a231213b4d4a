"""Training of fields: every key is read, phases follow each other, and a killed run continues to the same bits."""

import json
from dataclasses import fields, replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from immersivedepth.checks import ConfigError
from immersivedepth.data import images
from immersivedepth.data.synthetic import make_world
from immersivedepth.data.synthetic.render import erp_maps
from immersivedepth.render.field.hash import Hash
from immersivedepth.render.field.inpaint import NavierStokes, Nothing
from immersivedepth.render.field.pool import Known, Pool
from immersivedepth.render.field.splat import Splat
from immersivedepth.render.field.voxel import Voxel
from immersivedepth.render.paths import CirclePoseSampler
from immersivedepth.render.protocol import Pose
from immersivedepth.training import checkpoints, radiance
from immersivedepth.training.radiance import Fit, Radiance, continued
from immersivedepth.training.records import Records

LOSSES = ("depth_loss", "dist_loss", "color_loss")
TINY = Radiance(
    anchors=CirclePoseSampler((0.4,), 1),
    geometry_steps=4,
    appearance_steps=4,
    refit_share=0.5,
    rays=64,
    log_every=1,
    save_minutes=0.0,
)


@pytest.fixture(scope="module")
def source():
    maps = erp_maps(make_world("room", seed=0), 32, 64, 1)
    return Known.of(torch.zeros(3), maps.image, maps.distance, torch.ones_like(maps.distance, dtype=torch.bool))


@pytest.fixture
def fit(source, tmp_path):
    def make(name="run", settings=TINY, inpaint=None, seed=0, facts=None):
        return Fit(settings, Voxel(32), inpaint or NavierStokes(), source, tmp_path / name, seed, facts or {})

    return make


def content(fit):
    return checkpoints.load(fit.folder / "checkpoints" / "last.ckpt")


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def kill(fit, at, monkeypatch):
    """Train until that step is about to begin."""
    real = Fit._step

    def step(self, *given):
        if self.position.step == at:
            raise MemoryError("killed")
        real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_step", step)
        with pytest.raises(MemoryError):
            fit(False)


@pytest.fixture(scope="module")
def uninterrupted(source, tmp_path_factory):
    made = Fit(TINY, Voxel(32), NavierStokes(), source, tmp_path_factory.mktemp("whole"), 0, {})
    made(False)
    return made


def test_what_a_run_leaves(uninterrupted):
    held = content(uninterrupted)
    assert held["training"]["position"].epoch == 4
    assert held["training"]["position"].step == 4 + 4 + 2 + 2
    assert len(held["training"]["sup_pool"]) == 2
    for name in ("1.png", "1_distance.png", "inpaint_vis/0001/completed.png", "metrics.jsonl"):
        assert (uninterrupted.folder / name).is_file()
    board = EventAccumulator(str(uninterrupted.folder / "tensorboard"), size_guidance={"images": 0}).Reload().Tags()
    assert {tag.rpartition("/")[2] for tag in board["scalars"]} >= {*LOSSES, "lr_geo", "lr_app"}
    assert board["images"] == ["samples"]
    rows = [json.loads(line) for line in (uninterrupted.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert {"depth_loss", "dist_loss", "lr_geo"} <= rows[0].keys()
    assert {"color_loss", "lr_app"} <= rows[4].keys()
    anchor = uninterrupted.pool.views[1]
    known = uninterrupted.source
    assert anchor.mask.any()
    farthest = float(known.distance[known.distance.isfinite()].amax())
    assert float(anchor.position.norm()) < farthest
    assert float(anchor.distance[anchor.mask].amax()) <= 2 * farthest


@pytest.fixture(scope="module")
def half_known(source):
    """A true distance, the part of it that nobody saw (a third of the columns, all rows), and the rest."""
    unseen = torch.zeros_like(source.distance, dtype=torch.bool)
    unseen[..., 20:40] = True
    return source.distance, unseen, ~unseen & source.distance.isfinite()


def test_a_guess_of_the_right_shape_is_put_to_scale(half_known):
    true, unseen, fixed = half_known
    spoiled = torch.where(unseen, 1.0, true)
    found = continued(0.3 * true, spoiled, unseen, fixed)
    solid = true.isfinite()
    assert torch.allclose(found[solid], true[solid], rtol=1e-3)
    assert found[~solid & unseen].isinf().all()
    without = continued(torch.ones_like(true), spoiled, unseen, fixed)
    assert (without / true - 1)[unseen & solid].abs().max() > 0.05  # which a harmonic one does not find
    assert torch.equal(without[~unseen], true[~unseen])


def test_what_a_guess_does_not_know_is_not_taught(half_known):
    true, unseen, fixed = half_known
    guess = true.clone()
    guess[:, :4], guess[:, 4:6], guess[:, 6:8] = torch.inf, 0.0, torch.nan
    found = continued(guess, torch.where(unseen, 1.0, true), unseen, fixed)
    assert found[:, :8][unseen[:, :8]].isinf().all()  # a ray without a distance does not teach
    below = (unseen & true.isfinite())[:, 8:]
    assert torch.allclose(found[:, 8:][below], true[:, 8:][below], rtol=1e-3)


def test_completed_parts_get_the_distances_of_a_look(fit, source):
    seen = []

    def look(image):
        seen.append(image)
        return torch.full_like(image[:1], 7.0)

    made, flat = fit("looked"), fit("flat")
    made.look = look
    made(False)
    flat(False)
    assert len(seen) == 1
    # A constant guess of any size is the same as none.
    assert same(made.pool.views[1].mask, flat.pool.views[1].mask)
    assert torch.allclose(made.pool.views[1].distance, flat.pool.views[1].distance, rtol=1e-4)
    made = fit("sky")
    made.look = lambda image: torch.full_like(image[:1], torch.inf)
    made(False)
    assert not made.pool.views[1].mask.any()


@pytest.mark.parametrize("row", [0, 3, 4, 5, 8])
def test_a_run_killed_right_after_a_row_notes_it_once(fit, uninterrupted, row, monkeypatch):
    real = Records.note

    def note(self, *given, **more):
        real(self, *given, **more)
        if len(self.rows) == row + 1:
            raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Records, "note", note)
        with pytest.raises(MemoryError):
            fit()(False)
    again = fit()
    again(True)
    assert (again.folder / "metrics.jsonl").read_text() == (uninterrupted.folder / "metrics.jsonl").read_text()
    assert same(content(uninterrupted), content(again))


@pytest.mark.parametrize(("share", "some"), [(0.5, False), (1.0, True)])
def test_nothing_new_stands_before_what_the_panorama_shows(fit, source, share, some, monkeypatch):
    """Completed distances at half the way to what is known are dropped, those just at it stay."""
    made = fit()
    made.poses = [Pose(torch.eye(3), torch.tensor([1e-3, 0.0, 0.0]))]
    made.pool = Pool([source])
    made.field = Voxel(32).field()
    made._start(0)
    monkeypatch.setattr(radiance, "relax", lambda *_: 1 / (share * source.distance))
    monkeypatch.setattr(radiance, "_cleaned", lambda visible: torch.zeros_like(visible))  # all of it is to be completed
    view = made._beside(1)
    assert bool(view.mask.any()) is some


class Dice:
    """An inpainter of one's own that draws."""

    def __call__(self, image, unseen):
        """Noise."""
        return torch.where(unseen, torch.rand(image.shape), image)


def test_an_inpainter_that_draws_is_continued_to_the_same_bits(fit, monkeypatch):
    whole, again = fit("whole", inpaint=Dice()), fit("cut", inpaint=Dice())
    whole(False)
    kill(again, 4, monkeypatch)
    torch.rand(7)
    again = fit("cut", inpaint=Dice())
    again(True)
    assert same(content(whole), content(again))


@pytest.mark.parametrize("steps", [1, 3, 4, 6, 8, 9, 11])
def test_a_killed_run_ends_the_same(fit, uninterrupted, steps, monkeypatch):
    killed = fit()
    kill(killed, steps, monkeypatch)
    again = fit()
    again(True)
    assert same(content(uninterrupted), content(again))
    assert (again.folder / "metrics.jsonl").read_text() == (uninterrupted.folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "scene", [Splat(), Hash(rows=32, levels=2, log2_size=6, coarsest=4, finest=8, hidden=4)], ids=["splat", "hash"]
)
def test_other_scenes_end_the_same_too(fit, scene, monkeypatch):
    whole, killed, again = (replace(fit(name), scene=scene) for name in ("whole", "killed", "killed"))
    whole(False)
    kill(killed, 11, monkeypatch)
    again(True)
    assert same(content(whole), content(again))
    assert content(again)["training"]["position"].step == 12


def test_a_request_to_stop_saves_first(fit, monkeypatch):
    stopped = fit(settings=replace(TINY, save_minutes=60.0))
    real = Fit._step

    def step(self, *given):
        real(self, *given)
        if self.position.step == 2:
            self.interrupts.code = 143

    monkeypatch.setattr(Fit, "_step", step)
    with pytest.raises(SystemExit) as ended:
        stopped(False)
    assert ended.value.code == 143
    assert content(stopped)["training"]["position"].step == 2


def test_other_settings_are_refused(fit):
    fit(inpaint=Nothing(), facts={"scene": {"rows": 32}})(False)
    with pytest.raises(ConfigError, match="other settings"):
        fit(inpaint=Nothing(), facts={"scene": {"rows": 16}})(True)


OTHERS = {
    "anchors": CirclePoseSampler((0.3,), 1),
    "budget": 0.5,
    "geometry_steps": 3,
    "appearance_steps": 3,
    "refit_share": 1.0,
    "rays": 32,
    "rate": 0.1,
    "last_rate": 0.005,
    "warm_up": 0.9,
    "distance_weight": 0.0,
    "distance_beta": 1.0,
    "distortion_weight": 10.0,
    "distortion_ramp": 0.9,
    "colour_beta": 1e-6,
    "max_laplacian": 1.0,
    "min_cosine": 0.98,
    "slack": 0.3,
    "least_distance": 3.0,
    "log_every": 4,
}


def test_every_key_is_tried():
    assert OTHERS.keys() | {"save_minutes", "new_distances"} == {f.name for f in fields(Radiance)}


@pytest.mark.parametrize("key", OTHERS)
def test_every_key_is_read(fit, uninterrupted, key):
    other = fit(settings=replace(TINY, **{key: OTHERS[key]}))
    other(False)
    if key == "log_every":
        assert len((other.folder / "metrics.jsonl").read_text().splitlines()) == 3
        return
    assert not same(content(uninterrupted), content(other))


def test_a_small_budget_and_another_seed(fit, uninterrupted):
    tiny = fit(settings=replace(TINY, budget=1e-6), inpaint=Nothing())
    tiny(False)
    assert content(tiny)["training"]["position"].step == 2  # one step of each phase is the least
    other = fit("seed", seed=1)
    other(False)
    assert not same(content(uninterrupted)["state_dict"], content(other)["state_dict"])


def test_the_rate_rises_and_falls():
    rates = [Radiance().rate_at(share) for share in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.0, 0.005, 0.01, 0.00505, 1e-4])


def test_large_panoramas_are_looked_at_in_the_size_of_views(fit, source, monkeypatch):
    monkeypatch.setattr("immersivedepth.training.radiance.VIEW_ROWS", 16)
    made = fit()
    made(False)
    assert made.pool.views[0].image.shape == (3, 32, 64)
    assert made.pool.views[1].image.shape == (3, 16, 32)
    assert images.read_image(made.folder / "1.png").image.shape == (3, 16, 32)


def test_anchors_stand_in_the_room(fit, source):
    made = fit(settings=replace(TINY, anchors=CirclePoseSampler()))
    poses = made._poses()
    assert len(poses) == 24
    world = make_world("room", seed=0)
    places = torch.stack([pose.position for pose in poses])
    assert (world.clearance(world.position + places @ world.rotation.T) > 0).all()
