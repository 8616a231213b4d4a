"""Numbers that are none, problems without an answer, pictures without a shape: finite results that say so."""

import functools
import hashlib
import json
import logging
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data.panoramas import Wild
from immersivedepth.geometry import directions, filters, pinhole, sphere
from immersivedepth.losses import affine, edges, masked, structural, supervision, virtual_normal
from immersivedepth.pipeline import assemble
from immersivedepth.scene import Kind, Panorama, Prediction, Rig
from immersivedepth.stages.align.anchors import Anchors
from immersivedepth.stages.align.global_affine import GlobalAffine
from immersivedepth.stages.align.grid_affine import GridAffine
from immersivedepth.stages.align.identity import Identity
from immersivedepth.stages.align.joint_field import JointField
from immersivedepth.stages.export.quality import assess
from immersivedepth.stages.predict.running import Runner, Running
from immersivedepth.training import Trainer, checkpoints
from immersivedepth.training.broken import Diverged
from immersivedepth.training.records import read_rows
from tests.training.toy import Numbers, Toy

CONF = Path(__file__).parents[2] / "conf"
H = 32
SMALL = ["export=[]", "project.resolution=32"]
VIEWS = 20


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# --- The aligner

SPOILS = ("none", "constant", "zero", "negative", "huge", "tiny", "nan", "holes", "infinite", "outliers", "one pixel")
ALIGNERS = {
    "identity": Identity(),
    "global": GlobalAffine(samples=100),
    "global in metres": GlobalAffine(samples=100),  # and one known distance ahead of the first view
    "grid": GridAffine(degree=4, samples=100),
    "joint": JointField(steps=3, rays=16, levels=2, log_size=8),
}
PROBLEMS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "views": st.lists(st.tuples(st.sampled_from(list(Kind)), st.sampled_from(SPOILS)), min_size=1, max_size=6),
        "tan": st.sampled_from([0.05, 0.6, 1.0, 1.7]),  # from no overlap at all to much
        "same": st.booleans(),  # all views look the same way
        "confidence": st.sampled_from([None, "random", "zero"]),
        "sky": st.sampled_from([None, "half", "all"]),
        "aligner": st.sampled_from(["identity", "global", "global", "global in metres", "grid", "joint"]),
    }
)


def spoiled(value, how, random):
    chance = torch.rand(value.shape, generator=random)
    return {
        "none": lambda: value,
        "constant": lambda: torch.full_like(value, 0.7),
        "zero": lambda: torch.zeros_like(value),
        "negative": lambda: -value,
        "huge": lambda: value * 1e30,
        "tiny": lambda: value * 1e-30,
        "nan": lambda: torch.full_like(value, math.nan),
        "holes": lambda: torch.where(chance < 0.9, math.nan, value),
        "infinite": lambda: torch.where(chance < 0.3, math.inf, value),
        "outliers": lambda: torch.where(chance < 0.1, value * 1e6, value),
        "one pixel": lambda: torch.where(torch.arange(value.numel()).reshape(value.shape) == 40, value, math.nan),
    }[how]()


def problem(seed, views, tan, same, confidence, sky):
    side, count, random = 12, len(views), seeded(seed)
    forward = directions.fibonacci(max(count, 4))[:count].float()
    forward = forward[:1].expand(count, 3) if same else forward
    rig = Rig(pinhole.look_along(forward), torch.full((count,), tan), side)
    values = (0.5 * torch.randn(count, 1, side, side, generator=random)).exp()
    values = torch.stack([spoiled(v, how, random) for v, (_, how) in zip(values, views, strict=True)])
    trust = {None: None, "random": torch.rand(values.shape, generator=random), "zero": torch.zeros_like(values)}
    up = {None: None, "half": torch.rand(values.shape, generator=random) < 0.5, "all": torch.ones_like(values) > 0}
    return Prediction(values, tuple(kind for kind, _ in views), rig, trust[confidence], sky=up[sky])


def check_aligned(aligned, sky):
    distance, weight = aligned.distance, aligned.weight
    assert weight.isfinite().all()
    assert (weight >= 0).all()
    assert not distance.isnan().any()
    assert (distance > 0).all()
    infinite = distance.isinf()
    assert not (infinite & ~sky).any() if sky is not None else not infinite.any()
    json.dumps(aligned.report, allow_nan=False)
    for view in aligned.report.get("views", ()):
        assert math.isfinite(math.exp(view["log_scale"]))


def test_random_problems_of_the_aligners(size, record):
    count = size(40, 10_000)
    seen = dict.fromkeys(ALIGNERS, 0)

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(PROBLEMS)
    def run(given):
        aligner = given.pop("aligner")
        prediction = problem(**given)
        seen[aligner] += 1
        find = ALIGNERS[aligner]
        if aligner == "global in metres":
            x, y, z = directions.fibonacci(max(len(given["views"]), 4))[0].tolist()
            ahead = [math.degrees(math.atan2(y, x)), math.degrees(math.asin(z)), 2.0]
            find = replace(find, anchors=Anchors(points=[ahead]))
        try:
            aligned = find(prediction)
        except ConfigError as error:  # only the known point may be one that no view knows
            if aligner != "global in metres" or "points: no view knows the distance" not in str(error):
                raise
            unknown.append(given["seed"])
            return
        assert aligned.metric or aligner != "global in metres"
        check_aligned(aligned, prediction.sky)

    unknown = []
    run()
    assert count < 1000 or seen["global in metres"] - len(unknown) > count / 100  # hypothesis likes the odd ones
    record("aligner: random problems", problems=sum(seen.values()), **seen, unknown_points=len(unknown))


def test_every_aligner_is_among_them():
    targets = [path.read_text().split("_target_: ")[1].split()[0] for path in (CONF / "align").glob("*.yaml")]
    assert {target.rpartition(".")[2] for target in targets} == {type(align).__name__ for align in ALIGNERS.values()}


def test_sky_takes_no_number_from_the_joint_field():
    """Infinity times a weight of zero is no number, and one of them in the loss spoils all weights."""
    prediction = problem(0, [(Kind.AFFINE_DISPARITY, "none")] * 4, 1.0, False, None, "half")
    check_aligned(ALIGNERS["joint"](prediction), prediction.sky)


# --- Faces, pictures


class Pointwise:
    """A stand-in for a network: what it says of a pixel is a function of its colour, spoiled view by view."""

    def __init__(self, broken=(), what=math.nan):
        self.broken, self.what = broken, what

    def __call__(self, views):
        rig, random = views.rig, seeded(0)
        length = pinhole.ray_lengths(rig.tan_half_fov, rig.resolution)[:, None]
        disparity = length / (0.5 + views.images.float().mean(1, keepdim=True))
        scale = torch.exp(0.3 * torch.randn(len(rig), 1, 1, 1, generator=random))
        shift = 0.3 * torch.rand(len(rig), 1, 1, 1, generator=random)
        values = scale * (disparity + shift)
        for view in self.broken:
            values[view] = self.what
        return Prediction(values, (Kind.AFFINE_DISPARITY,) * len(rig), rig, models=("stub",) * len(rig))


def smooth(seed=0, height=H):
    """A picture of soft blobs, in 0..1."""
    rough = torch.randn(3, height, 2 * height, generator=seeded(seed))
    soft = filters.blur(rough, 0.15)
    return (0.5 + 0.2 * soft / soft.std()).clamp(0, 1)


@pytest.fixture
def pipeline(compose):
    def made(predict, align="global_affine", *lines):
        few = [] if align == "identity" else ["align.samples=600"]
        return replace(assemble(compose(*SMALL, f"align={align}", *few, *lines)), predict={"stub": predict})

    return made


def check_geometry(geometry):
    for name in ("distance", "normal", "spread"):
        assert not getattr(geometry, name).isnan().any(), name
    known = geometry.mask
    assert geometry.distance[known].isfinite().all()
    assert (geometry.distance[known] > 0).all()
    json.dumps(assess(geometry), allow_nan=False)


def test_a_face_without_numbers_is_dropped_and_named(pipeline, size, record):
    whole = pipeline(Pointwise())(Panorama(smooth()))
    apart = 0.0
    for view in range(0, VIEWS, size(7, 1)):
        for what in (math.nan, math.inf)[: size(1, 2)]:
            found = pipeline(Pointwise([view], what))(Panorama(smooth()))
            check_geometry(found)
            assert found.report["lost"] == {"stub": [view]}
            assert any(f"views [{view}]" in line for line in assess(found)["advice"])
            assert not found.aligned.weight[view].any()
            assert assess(found)["known"] > 0.99  # its neighbours see what it saw
            both = found.mask & whole.mask
            off = (found.distance / whole.distance)[both].log()
            apart = max(apart, float((off - off.median()).abs().median()))
    assert apart < 0.02
    record("numbers: every face of NaN", largest_median_change=round(apart, 4))


@pytest.mark.parametrize("what", [math.nan, -math.inf])
def test_four_faces_may_be_lost_and_no_more(pipeline, what):
    found = pipeline(Pointwise([0, 5, 11, 19], what))(Panorama(smooth()))
    check_geometry(found)
    assert found.report["lost"] == {"stub": [0, 5, 11, 19]}
    with pytest.raises(InputError, match=r"stub made no numbers .* 5 of 20 views \(0, 5, 7, 11, 19\).*fp32"):
        pipeline(Pointwise([0, 5, 7, 11, 19], what))(Panorama(smooth()))


def test_whole_views_are_untouched_by_the_check(pipeline):
    """Single pixels without a number are holes; without any, nothing changes."""
    found = pipeline(Pointwise())(Panorama(smooth()))
    assert "lost" not in found.report

    class Holes(Pointwise):
        def __call__(self, views):
            seen = super().__call__(views)
            seen.values[:, :, ::4, ::3] = math.nan
            return seen

    found = pipeline(Holes())(Panorama(smooth()))
    check_geometry(found)
    assert "lost" not in found.report


def hdr_sky():
    """A clear sky in linear light with a sun far brighter than white, above and below."""
    rays = sphere.erp_rays(H, 2 * H)
    up = rays[..., 2].square()[None]
    blue = torch.tensor([0.25, 0.45, 0.9])[:, None, None] * (1.1 - 0.3 * up)
    sun = torch.exp(4000 * (rays @ torch.nn.functional.normalize(torch.tensor([1.0, 0.5, 0.8]), dim=0) - 1))
    light = blue + 50 * sun
    return light / (1 + light)


PICTURES = {
    "black": lambda: torch.zeros(3, H, 2 * H),
    "white": lambda: torch.ones(3, H, 2 * H),
    "sky": hdr_sky,
    "grey": lambda: torch.full((3, H, 2 * H), 0.5),
    "ramp": lambda: torch.linspace(0, 1, H)[None, :, None].expand(3, H, 2 * H).contiguous(),
    "bytes": lambda: torch.full((3, H, 2 * H), 77, dtype=torch.uint8),
    "noise": lambda: torch.rand(3, H, 2 * H, generator=seeded(1)),
    "sparse": lambda: (torch.rand(1, H, 2 * H, generator=seeded(2)) > 0.999).float().expand(3, -1, -1).contiguous(),
}


class Flat:
    """What networks tend to say of nothing: the same everywhere, or noise that no two views share."""

    def __init__(self, noise):
        self.noise = noise

    def __call__(self, views):
        noise = torch.randn(len(views.rig), 1, *views.images.shape[-2:], generator=seeded(3))
        return Prediction(1 + self.noise * noise, (Kind.AFFINE_DISPARITY,) * len(views.rig), views.rig)


STUBS = {"pointwise": Pointwise(), "constant": Flat(0.0), "noise": Flat(0.5)}


def test_pictures_without_a_shape(pipeline, size, record):
    """Finite results that say how little they are worth: distrusted, or with words of advice."""
    ways = ["global_affine", "grid_affine", "identity"][: size(1, 3)]
    blends = ["feather", "robust", "poisson", "nearest"][:: size(4, 1)]
    tried = 0
    for name, picture in list(PICTURES.items())[:: size(2, 1)]:
        for stub in list(STUBS)[: size(1, 3)]:
            for align in ways:
                for blend in blends:
                    found = pipeline(STUBS[stub], align, f"blend={blend}")(Panorama(picture()))
                    check_geometry(found)
                    advice = assess(found)["advice"]
                    trusted = float(found.mask.float().mean())
                    doubted = trusted < 0.5 or advice
                    assert doubted, (name, stub, align, blend)
                    if name in ("black", "white", "grey", "bytes", "ramp", "sky"):
                        assert trusted == 0, (name, stub, align, blend)
                        assert any("shape is a guess" in line for line in advice)
                    tried += 1
    record("numbers: pictures without a shape", runs=tried)


HDR = (
    sorted(Path(os.environ["IMMERSIVEDEPTH_PANORAMAS"]).glob("*.hdr"))
    if "IMMERSIVEDEPTH_PANORAMAS" in os.environ
    else []
)


@pytest.mark.skipif(
    "sky.hdr" not in {path.name for path in HDR}, reason="IMMERSIVEDEPTH_PANORAMAS names no folder with sky.hdr"
)
def test_real_panoramas_of_light(pipeline, record):
    """They are read whole and shown well exposed; a sky of nothing but clouds gives numbers, too."""
    for path in HDR:
        found = Wild().load(path)
        image = found.image
        assert image.shape[2] == 2 * image.shape[1], path.name
        assert image.isfinite().all(), path.name
        assert image.min() >= 0, path.name
        assert image.max() <= 1, path.name
        assert 0.2 < float(image.median()) < 0.7, path.name
        assert float((image >= 1).float().mean()) < 0.05, path.name
        assert found.about["tone_mapped"], path.name
        assert "notes" not in found.about, path.name
        if path.name == "sky.hdr":
            geometry = pipeline(Pointwise())(found)
            check_geometry(geometry)
            assert geometry.mask.float().mean() < 0.5 or assess(geometry)["advice"]
    record("numbers: real panoramas of light", pictures=len(HDR))


def test_the_seam_stands_nowhere(pipeline, size, record):
    """A panorama rolled by any number of columns gives the rolled distance."""
    worst = 0.0
    for seed in range(size(1, 4)):
        picture = smooth(seed)
        whole = pipeline(Pointwise(), "global_affine")(Panorama(picture)).distance.log()
        for columns in (1, 13, H)[: size(1, 3)] if seed else (13,):
            rolled = pipeline(Pointwise(), "global_affine")(Panorama(picture.roll(columns, -1))).distance.log()
            worst = max(worst, float((rolled - whole.roll(columns, -1)).abs().median()))
    assert worst < 0.01
    record("numbers: roll of the panorama", median_relative_difference=round(worst, 5))


# --- The same again


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.GELU(), nn.Conv2d(32, 32, 3, padding=1), nn.GELU(), nn.Conv2d(32, 1, 1)
    )


class Looking:
    def __init__(self, net, batch):
        self.runner = Runner(net, Running(kind="cpu", precision="fp32", batch_size=batch))

    def __call__(self, views):
        values = self.runner(views.images.float(), after=lambda y: 1.5 + y)
        return Prediction(values, (Kind.AFFINE_DISPARITY,) * len(views.rig), views.rig)


def test_the_same_seed_ten_times_is_one_hash(pipeline, net, size, record):
    hashes = set()
    for _ in range(size(3, 10)):
        found = pipeline(Looking(net, 4))(Panorama(smooth()))
        content = b"".join(getattr(found, n).numpy().tobytes() for n in ("distance", "normal", "spread", "mask"))
        hashes.add(hashlib.sha256(content).hexdigest())
    assert len(hashes) == 1
    record("numbers: same seed", runs=size(3, 10), hashes=len(hashes))


def test_threads_and_batches_change_next_to_nothing(pipeline, net, record):
    base = pipeline(Looking(net, 4))(Panorama(smooth())).distance
    before = torch.get_num_threads()
    apart = {}
    try:
        for name, threads, batch in (("batch 1", before, 1), ("2 threads", 2, 4)):
            torch.set_num_threads(threads)
            other = pipeline(Looking(net, batch))(Panorama(smooth())).distance
            apart[name] = float(((other - base) / base).abs().max())
    finally:
        torch.set_num_threads(before)
    assert max(apart.values()) <= 1e-5, apart
    record("numbers: threads and batches", **{name: f"{value:.1e}" for name, value in apart.items()})


# --- Training


def in_fours(depth):
    """Three channels out of one, as normals are stored."""
    return depth.expand(-1, 3, -1, -1) / 4


LOSSES = {
    "masked l1": lambda p, t, v: supervision.masked(p, t, v, "l1"),
    "masked mse": lambda p, t, v: supervision.masked(p, t, v, "mse"),
    "masked smooth": supervision.masked,
    "cosine": lambda p, t, v: masked.masked_cosine(in_fours(p), in_fours(t), v),
    "standardised": lambda p, t, v: masked.masked_mean(
        (masked.standardised_depth(p, v) - masked.standardised_depth(t, v)).abs(), v
    ),
    "ssi_mae": affine.ssi_mae,
    "ssi_mse": affine.ssi_mse,
    "relative": lambda p, t, v: affine.relative_mae(p, t, v, 0.1),
    "gradient": affine.gradient_term,
    "midas": affine.midas,
    "edges": edges.edge_weighted_smoothness,
    "ssim": lambda p, t, v: 1 - structural.ssim(p, t, valid=v).mean(),
    "virtual normal": lambda p, t, v: virtual_normal.virtual_normal(
        p, t, v, virtual_normal.draw_triplets(v, seeded(0))
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_holes_of_the_truth_from_none_to_all(loss):
    """Whatever stands in the holes, and however many there are: numbers, and nothing where nothing is known."""
    for share in (0.0, 0.3, 0.9, 0.995, 1.0):
        for filling in (0.0, math.inf, math.nan, 1e30):
            random = seeded(int(100 * share))
            prediction = (0.5 + torch.rand(2, 1, 16, 24, generator=random)).requires_grad_()
            target = 0.5 + torch.rand(2, 1, 16, 24, generator=random)
            valid = torch.rand(2, 1, 16, 24, generator=random) >= share
            valid[1] &= share < 0.9  # one image of the batch without any
            found = LOSSES[loss](prediction, torch.where(valid, target, filling), valid)
            found.backward()
            assert found.isfinite(), (share, filling)
            assert prediction.grad.isfinite().all(), (share, filling)
            if share == 1:
                assert found == 0, filling
                assert not prediction.grad.any(), filling


class Poisoned(Toy):
    """Loss or gradients are spoiled in the given steps."""

    def __init__(self, steps, how, **settings):
        super().__init__(**settings)
        self.steps, self.how, self.taken = steps, how, 0

    @property
    def name(self):
        return "Toy"

    def varied(self, batch):
        self.taken += 1
        if self.taken in self.steps and self.how == "batch":
            return {**batch, "x": batch["x"] * math.nan}
        return batch

    def losses(self, outputs, batch):
        found = super().losses(outputs, batch)
        if torch.is_grad_enabled() and self.taken in self.steps:
            if self.how == "loss":
                found["square"] = found["square"] * math.inf
            if self.how == "gradient":  # finite forwards, infinite backwards
                found["root"] = (outputs - outputs.detach()).abs().sqrt().sum()
        return found


def fit(system, folder, **settings):
    adam = functools.partial(torch.optim.Adam, lr=0.01)
    made = Trainer(
        **{"optimiser": adam, "epochs": 3, "batch_size": 8, "workers": 0, "kind": "cpu", "log_every": 1} | settings
    )
    return made.fit(system, Numbers(), folder)


@pytest.mark.parametrize("how", ["batch", "loss", "gradient"])
def test_a_poisoned_step_is_left_out_and_counted(tmp_path, how, caplog):
    with caplog.at_level(logging.WARNING):
        found = fit(Poisoned({2, 3, 6}, how), tmp_path, ema=0.5)
    assert found.position.broken == 3
    assert found.position.broken_in_a_row == 0
    assert sum("left out" in r.message for r in caplog.records) == 3
    content = checkpoints.load(tmp_path / "checkpoints/last.ckpt")
    for state in (content["state_dict"], content["training"]["net"]):
        assert all(value.isfinite().all() for value in state.values())  # the statistics of batches as well
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert all(isinstance(row["loss"], float) for row in rows if row["whole"])
    assert rows[-1]["split"] == "val"
    assert max(row.get("broken_steps", 0) for row in rows) == 3


def test_a_step_that_is_left_out_changes_nothing(tmp_path):
    """Weights after good, poisoned: those after the good ones alone."""
    torch.manual_seed(0)
    a = fit(Poisoned({3}, "batch"), tmp_path / "a", epochs=1)
    b = fit(Poisoned(set(), "batch"), tmp_path / "b", epochs=1, steps=2)
    for (name, one), two in zip(a.net.state_dict().items(), b.net.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_too_many_poisoned_steps_end_it_with_a_good_checkpoint(tmp_path):
    with pytest.raises(
        Diverged, match="4 steps in a row, up to step 8.*lower trainer.optimiser.lr.*last.ckpt"
    ) as error:
        fit(Poisoned(set(range(5, 99)), "loss"), tmp_path, broken_steps=4)
    assert error.value.code == 2
    state = checkpoints.load(tmp_path / "checkpoints/last.ckpt")["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_an_epoch_of_poisoned_steps_alone(tmp_path):
    found = fit(Poisoned({4, 5, 6}, "loss"), tmp_path, clip_norm=1.0)
    assert found.position.broken == 3
    assert math.isfinite(found.position.best)


def test_the_count_goes_on_where_a_run_does(tmp_path):
    fit(Poisoned({3}, "loss"), tmp_path, epochs=1)
    adam = functools.partial(torch.optim.Adam, lr=0.01)
    again = Trainer(optimiser=adam, epochs=2, batch_size=8, workers=0, kind="cpu", broken_steps=2)
    with pytest.raises(Diverged, match="2 steps in a row, up to step 4"):
        again.fit(Poisoned({1}, "loss"), Numbers(), tmp_path, continued=True)
