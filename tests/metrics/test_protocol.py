"""A pair whose figures by every protocol are worked out on paper; slow loops and other libraries."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from omegaconf import OmegaConf
from torchmetrics.functional import mean_absolute_error, mean_squared_error, mean_squared_log_error

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.config import CONF, build
from immersivedepth.metrics import certainty
from immersivedepth.metrics.fitting import nearest_of_cells
from immersivedepth.metrics.moments import figures, moments
from immersivedepth.metrics.protocol import Protocol

PRESETS = sorted(p.stem for p in (CONF / "protocol").glob("*.yaml"))
LN2, LG2 = math.log(2), math.log10(2)


def preset(name):
    return build(OmegaConf.to_container(OmegaConf.load(CONF / "protocol" / f"{name}.yaml")), "protocol")


def thirds(*values):
    """Three sectors of the sphere with one value each, so that solid angles and pixels weigh alike."""
    return torch.tensor(values).repeat_interleave(8).expand(12, 24).clone()


# Truth 1, 2, 4 m, prediction 3, 12, 6 m. Least squares of disparity: 1/p is 1/3 of (1, 1/4, 1/2), 1/g = (1, 1/2, 1/4);
# slope 11/14, shift 1/8 for the former: distances 56/51, 56/18, 56/29.
DISPARITY = (5 / 51 + 5 / 9 + 15 / 29) / 3
BY_HAND = {
    "sphere": 1 / 2,  # medians 2 and 6: 1, 4, 2
    "sphere_metric": (2 + 5 + 0.5) / 3,
    "sphere_affine": 5 / 24,  # the line through the first two points leaves least: 1, 2, 3/2
    "unifuse": (2 + 0.2 + 0.5) / 3,  # 12 m is beyond 10 m, so the truth there counts as 10 m
    "unifuse_median": (1 + 0.2) / 3,  # medians 4 and 6: 2, 8, 4 against 1, 10, 4
    "monodepth360": DISPARITY,
    "moge_disparity": DISPARITY,
    "pano3d": 2.5,
    "pano3d_sphere": 2.5,
    "da2": 1 / 2,
    "moge_scale": 5 / 12,  # the weighted median of g/p = 1/3, 1/6, 2/3 with weights 3, 6, 3/2 is 1/6
    "moge_affine": 2 / 9,  # the line through the first two points leaves 2/3 in the third
}


def test_every_preset_is_worked_out():
    assert sorted(BY_HAND) == PRESETS
    assert len({preset(name).mark for name in PRESETS}) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_known_pair(name):
    everywhere = torch.ones(12, 24, dtype=torch.bool)
    verdict = preset(name).judge(
        thirds(3.0, 12.0, 6.0), thirds(1.0, 2.0, 4.0), everywhere, picture=torch.ones(3, 12, 24)
    )
    # Least absolute residuals are found by reweighting, which has settled to a thousandth.
    loose = name in ("sphere_affine", "moge_affine")
    assert verdict.figures["abs_rel"] == pytest.approx(BY_HAND[name], rel=3e-3 if loose else 1e-6)
    assert verdict.extras["coverage"] == 1


def test_all_figures_of_the_known_pair():
    """After the median alignment 1, 4, 2 against 1, 2, 4."""
    found = preset("sphere").judge(thirds(3.0, 12.0, 6.0), thirds(1.0, 2.0, 4.0), torch.ones(12, 24) > 0).figures
    two = math.sqrt(2 / 3)
    wanted = {
        "abs_rel": 1 / 2,
        "sq_rel": (4 / 2 + 4 / 4) / 3,
        "mae": 4 / 3,
        "rmse": math.sqrt(8 / 3),
        "rmse_log": two * LN2,
        "log10": 2 / 3 * LG2,
        "si_log": two * LN2,
        "delta1": 1 / 3,
        "delta2": 1 / 3,
        "delta3": 1 / 3,
    }
    assert found == pytest.approx(wanted)
    lg = preset("unifuse_median").judge(thirds(3.0, 12.0, 6.0), thirds(1.0, 2.0, 4.0), torch.ones(12, 24) > 0).figures
    assert lg["rmse_log10"] == pytest.approx(math.sqrt((LG2**2 + math.log10(0.8) ** 2) / 3))


def test_figures_equal_slow_loops_and_two_libraries():
    random = np.random.default_rng(3)
    g, p = random.uniform(0.5, 9, 200), random.uniform(0.4, 11, 200)
    w = random.uniform(0.1, 1, 200)
    tensors = [torch.from_numpy(v) for v in (p, g, w)]
    found = {k: float(v) for k, v in figures(moments(*tensors)).items()}
    total, loop = 0.0, dict.fromkeys(found, 0.0)
    signed = 0.0
    for a, b, weight in zip(p, g, w, strict=True):
        d = math.log(a) - math.log(b)
        total += weight
        signed += weight * d
        loop["abs_rel"] += weight * abs(a - b) / b
        loop["sq_rel"] += weight * (a - b) ** 2 / b
        loop["mae"] += weight * abs(a - b)
        loop["rmse"] += weight * (a - b) ** 2
        loop["rmse_log"] += weight * d**2
        loop["log10"] += weight * abs(math.log10(a) - math.log10(b))
        loop["si_log"] += weight * d**2
        for k in (1, 2, 3):
            loop[f"delta{k}"] += weight * (max(a / b, b / a) < 1.25**k)
    loop = {name: value / total for name, value in loop.items()}
    loop["si_log"] = math.sqrt(loop["si_log"] - (signed / total) ** 2)
    loop |= {name: math.sqrt(loop[name]) for name in ("rmse", "rmse_log")}
    assert found == pytest.approx(loop, rel=1e-10)
    assert found["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(g, p, sample_weight=w))
    assert found["abs_rel"] == pytest.approx(sklearn.metrics.mean_absolute_percentage_error(g, p, sample_weight=w))
    assert found["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(g, p, sample_weight=w))
    plain = figures(moments(tensors[0], tensors[1], torch.ones(200, dtype=torch.float64)))
    assert plain["mae"] == pytest.approx(float(mean_absolute_error(*tensors[:2])))
    assert plain["rmse"] == pytest.approx(float(mean_squared_error(*tensors[:2], squared=False)))
    # The library takes logarithms of 1 + x, so it is given x - 1.
    assert plain["rmse_log"] ** 2 == pytest.approx(float(mean_squared_log_error(tensors[0] - 1, tensors[1] - 1)))


def noisy(seed):
    """Truth with holes and far parts, and a prediction with errors, sky and unknown parts, as flat float64 arrays."""
    random = np.random.default_rng(seed)
    g = random.uniform(0.05, 14, (12, 24))
    p = 0.6 * g * random.lognormal(0, 0.4, g.shape)
    g[0, :5], p[5, :4] = 0, 0
    return p, g


def by_unifuse(p, g):
    keep = (g > 0) & (g <= 10)
    p, g = np.maximum(p[keep], 0.1), np.maximum(g[keep], 0.1)
    g = np.where(p > 10, 10, g)
    lower = (len(g) - 1) // 2  # torch.median
    return p * np.sort(g)[lower] / np.sort(p)[lower], g, np.ones(len(g), bool)


def by_monodepth(p, g):
    keep = (g > 0) & (g <= 10)
    known = keep & (p > 0)
    rows = np.stack([1 / p[known], np.ones(known.sum())], axis=1)
    scale, shift = np.linalg.lstsq(rows, 1 / g[known], rcond=None)[0]
    out = np.zeros_like(p)
    out[known] = np.clip(1 / (scale / p[known] + shift), 0, 10)
    return out[keep], g[keep], out[keep] > 1e-7


def by_da2(p, g):
    keep = (g > 0.001) & (g <= 5)
    known = keep & (p > 0)
    out = np.clip(np.where(known, p * np.median(g[known]) / np.median(p[known]), 0), 0.001, 5)
    return out[keep], g[keep], np.ones(keep.sum(), bool)


def by_moge_scale(p, g):
    keep = (g > 0) & (p > 0)
    p, g = p[keep], g[keep]
    scales = g / p  # the best scale makes one pixel exact
    best = scales[np.argmin([(np.abs(s * p - g) / g).mean() for s in scales])]
    return best * p, g, np.ones(len(g), bool)


def by_moge_disparity(p, g):
    keep = (g > 0) & (p > 0)
    p, g = p[keep], g[keep]
    scale, shift = np.linalg.lstsq(np.stack([1 / p, np.ones(len(p))], axis=1), 1 / g, rcond=None)[0]
    return 1 / np.maximum(scale / p + shift, 1 / g.max()), g, np.ones(len(g), bool)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "restated"),
    [
        ("unifuse_median", by_unifuse),
        ("monodepth360", by_monodepth),
        ("da2", by_da2),
        ("moge_scale", by_moge_scale),
        ("moge_disparity", by_moge_disparity),
    ],
)
def test_presets_do_as_the_published_programs(name, restated, seed):
    p, g = noisy(seed)
    a, b, loggable = restated(p, g)
    protocol = preset(name)
    found = protocol.judge(
        torch.from_numpy(p), torch.from_numpy(g), torch.from_numpy(g > 0), picture=torch.ones(3, 12, 24)
    )
    wanted = {
        "abs_rel": (np.abs(a - b) / b).mean(),
        "sq_rel": ((a - b) ** 2 / b).mean(),
        "mae": np.abs(a - b).mean(),
        "rmse": math.sqrt(((a - b) ** 2).mean()),
    }
    log = (np.log10 if protocol.log == "log10" else np.log)(a[loggable] / b[loggable])
    wanted["rmse_log10" if protocol.log == "log10" else "rmse_log"] = math.sqrt((log**2).mean())
    with np.errstate(divide="ignore"):
        ratio = np.maximum(a / b, b / a)
    wanted |= {f"delta{k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)}
    assert {k: found.figures[k] for k in wanted} == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("shape", "cells"), [((7, 11), 3), ((12, 24), 4), ((5, 6), 8), ((9, 9), 1)])
def test_cells_are_seen_at_the_valid_pixel_nearest_to_their_middle(shape, cells):
    random = np.random.default_rng(3)
    valid = random.random(shape) < 0.6
    valid[: shape[0] // 2, : shape[1] // 3] = False
    wanted = np.zeros(shape, bool)
    high, wide = shape[0] / cells, shape[1] / cells
    for row in range(cells):
        for column in range(cells):
            best, chosen = math.inf, None
            for y, x in np.argwhere(valid):
                dy, dx = y + 0.5 - (row + 0.5) * high, x + 0.5 - (column + 0.5) * wide
                inside = -high / 2 + 1e-6 < dy <= high / 2 + 1e-6 and -wide / 2 + 1e-6 < dx <= wide / 2 + 1e-6
                if inside and dy * dy + dx * dx < best - 1e-9:
                    best, chosen = dy * dy + dx * dx, (y, x)
            if chosen:
                wanted[chosen] = True
    assert np.array_equal(nearest_of_cells(torch.from_numpy(valid), cells).numpy(), wanted)


def test_moge_fits_where_its_program_looks():
    """What no cell of 64 x 64 shows has no say in the scale, though its errors count."""
    g = torch.full((192, 384), 2.0, dtype=torch.float64)
    seen = nearest_of_cells(g > 0, 64)
    assert int(seen.sum()) == 64 * 64
    g = g + torch.arange(384) % 7
    p = torch.where(seen, g / 2, 0.25)
    for name in ("moge_scale", "moge_affine"):
        found = preset(name).judge(p, g, g > 0)
        torch.testing.assert_close(found.compared[seen], g[seen], rtol=1e-4, atol=0)
        assert found.figures["abs_rel"] > 0.5
    assert "64 x 64 cells" in "\n".join(preset("moge_scale").definition())


def test_weights_of_the_sphere_are_uniform_directions():
    """The same figure by drawing directions evenly over the sphere."""
    height, width = 64, 128
    random = np.random.default_rng(0)
    g = torch.from_numpy(random.uniform(1, 5, (height, width)))
    lean = torch.linspace(0.7, 1.6, height)[:, None]  # worse towards one pole, or the weights would not matter
    p = g * lean
    exact = preset("sphere_metric").judge(p, g, g > 0).figures["abs_rel"]
    flat = preset("pano3d").judge(p, g, g > 0).figures["abs_rel"]
    ray = random.normal(size=(400_000, 3))
    row = (0.5 - np.arcsin(ray[:, 2] / np.linalg.norm(ray, axis=1)) / np.pi) * height
    column = (0.5 - np.arctan2(ray[:, 1], ray[:, 0]) / (2 * np.pi)) * width
    error = ((p - g).abs() / g).numpy()[row.astype(int).clip(0, height - 1), column.astype(int) % width]
    sure = 4 * error.std() / math.sqrt(len(error))
    assert exact == pytest.approx(error.mean(), abs=sure)
    assert abs(flat - exact) > 10 * sure


def test_what_is_not_known_does_not_count_and_is_told():
    p, g = thirds(1.0, 2.0, 4.0), thirds(1.0, 2.0, 4.0)
    p[:, :8] = 0
    found = preset("sphere_metric").judge(p, g, g > 0)
    assert found.figures["abs_rel"] == 0
    assert found.extras["coverage"] == pytest.approx(2 / 3)
    # A program that clips at once takes it as 0.1 m, and sky as 10 m.
    p[:, 8:16] = torch.inf
    assert preset("unifuse").judge(p, g, g > 0).figures["abs_rel"] == pytest.approx((0.9 + 8 / 2) / 3)
    # Of disparity, nothing is known nearer than anything: the fit is of two points, and the rest is 0 m.
    found = preset("monodepth360").judge(p, g, g > 0)
    assert found.figures["abs_rel"] == pytest.approx(1 / 3)
    assert found.moments["log_weight"] == pytest.approx(found.moments["weight"] * 2 / 3)


def test_a_disparity_of_zero_is_a_prediction():
    """Networks say 0 for far: left out, their worst errors would not count."""
    p, g = thirds(1.0, 2.0, torch.inf), thirds(1.0, 2.0, 4.0)
    found = preset("moge_disparity").judge(p, g, g > 0, metric=False)
    assert found.extras["coverage"] == 1
    # 1/p = 1, 1/2, 0 against 1, 1/2, 1/4: slope 3/4, shift 5/24; distances 24/23, 12/7 and 24/5, cut at 4.
    assert found.figures["abs_rel"] == pytest.approx((1 / 23 + 1 / 7 + 0) / 3)


def test_truth_beyond_the_cap_does_not_count():
    g = thirds(1.0, 9.0, 4.0)
    found = preset("pano3d").judge(g * 1.1, g, torch.ones_like(g) > 0)
    assert found.moments["weight"] == 12 * 16
    assert found.figures["abs_rel"] == pytest.approx(0.1)


def test_black_pixels_do_not_count_for_da2():
    picture = torch.ones(3, 12, 24)
    picture[:, :, :8] = 0
    found = preset("da2").judge(thirds(9.0, 2.0, 4.0), thirds(1.0, 2.0, 4.0), torch.ones(12, 24) > 0, picture=picture)
    assert found.figures["abs_rel"] == 0


def test_curves_hold_all_of_the_error():
    g = torch.linspace(0.6, 30, 12)[:, None].expand(12, 24).clone()
    found = preset("sphere_metric").judge(1.2 * g, g, g > 0)
    for curve in found.curves.values():
        assert sum(w for _, w in curve) == pytest.approx(4 * math.pi, rel=1e-5)
        assert all(a / w == pytest.approx(0.2, rel=1e-5) for a, w in curve if w)
    north = found.curves["latitude"][-1][1]
    assert north == pytest.approx(2 * math.pi * (1 - math.sin(math.radians(75))), rel=1e-5)


def test_metres_are_not_taken_from_a_result_that_knows_none():
    g = thirds(1.0, 2.0, 4.0)
    with pytest.raises(ConfigError, match="known only up to a factor"):
        preset("unifuse").judge(g, g, g > 0, metric=False)
    with pytest.raises(InputError, match="nothing can be compared"):
        preset("sphere").judge(g * 0, g, g > 0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"clip": (3.0, 1.0)}, "low below high"),
        ({"missing": "clip"}, "whose lower end"),
        ({"likeness": True}, "needs protocol.most"),
        ({"farthest": "truth"}, "alignments of disparity"),
        ({"clip": (0.1, math.inf)}, "protocol.most has no value"),
    ],
)
def test_contradictions_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        Protocol("own", "here", **settings)


def test_means_over_images_and_pooled_means_differ():
    sums = {
        name: np.array([value, 3 * value]) for name, value in zip(("weight", "log_weight"), (1.0, 1.0), strict=True)
    }
    rest = moments(*(torch.ones(1, dtype=torch.float64),) * 3)
    sums = {name: sums.get(name, np.array([0.4, 0.0])) for name in rest}
    assert figures(sums)["abs_rel"].mean() == pytest.approx(0.2)
    assert figures({k: v.sum() for k, v in sums.items()})["abs_rel"] == pytest.approx(0.1)


def test_intervals_cover_what_they_should():
    """Means of 30 values with a known mean: about 95 of 100 intervals hold it."""
    random = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        values = random.exponential(1.0, 30)
        low, high = certainty.interval(certainty.mean_of_images(values, certainty.draws(30, 400, trial)))
        held += low <= 1.0 <= high
    assert 170 <= held <= 198  # percentile intervals of so few skewed values are known to be somewhat narrow
    assert certainty.interval(np.array([np.nan])) is None


def test_the_docs_name_every_preset_and_every_figure():
    text = (CONF.parent / "docs" / "evaluation.md").read_text("utf-8")
    assert not [name for name in PRESETS if f"| {name} " not in text and f"| **{name}** " not in text]
    for name in preset("sphere").names():
        assert name.rstrip("123") in text
