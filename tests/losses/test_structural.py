"""Structural similarity and edge smoothness against TensorFlow's values, torchmetrics, and a slow loop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from immersivedepth.losses.edges import edge_weighted_smoothness
from immersivedepth.losses.structural import MS_WEIGHTS, ms_ssim, ssim, weights_for

HERE = Path(__file__).parent
KERAS = json.loads((HERE / "keras_losses.json").read_text())


@pytest.fixture(scope="module")
def inputs():
    with np.load(HERE / "keras_inputs.npz") as archive:
        arrays = {k: torch.from_numpy(archive[k]).movedim(-1, 1).double() for k in archive}
    return {"random": (arrays["t"], arrays["p"]), "smooth": (arrays["t2"], arrays["p2"])}


@pytest.mark.parametrize("case", KERAS)
def test_the_values_of_tensorflow(inputs, case):
    name, width = case.split("_maxval")
    target, prediction = inputs[name]
    want = KERAS[case]
    each = ssim(target, prediction, float(width), 7, k=(1e-4, 9e-4))
    assert each.tolist() == pytest.approx(want["ssim_each"], abs=1e-5)
    edges = float(edge_weighted_smoothness(prediction, target))
    assert edges == pytest.approx(want["edges"], abs=1e-5)
    l1 = float((target - prediction).abs().mean())
    assert l1 == pytest.approx(want["l1"], abs=1e-5)
    assert 0.85 * float((1 - each).mean()) + 0.1 * l1 + 0.9 * edges == pytest.approx(want["total"], abs=1e-5)


def pair(size=40, channels=2):
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, channels, size, size, generator=generator, dtype=torch.float64)
    return a, (a + 0.2 * torch.rand(a.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def test_similarity_is_that_of_torchmetrics():
    a, b = pair()
    want = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none", gaussian_kernel=True)
    assert torch.allclose(ssim(a, b), want, atol=2e-3)  # it pads and crops where we leave borders out


def test_similarity_is_that_of_a_slow_loop():
    a, b = pair(12, 1)
    t = np.arange(7) - 3.0
    kernel = np.exp(-0.5 * (t / 1.5) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    total = []
    for i in range(6):
        for j in range(6):
            x, y = (v[0, 0, i : i + 7, j : j + 7].numpy() for v in (a, b))
            mx, my = (kernel * x).sum(), (kernel * y).sum()
            vx, vy, cov = (
                (kernel * x * x).sum() - mx**2,
                (kernel * y * y).sum() - my**2,
                (kernel * x * y).sum() - mx * my,
            )
            c1, c2 = 0.01**2, 0.03**2
            total.append((2 * mx * my + c1) / (mx**2 + my**2 + c1) * (2 * cov + c2) / (vx + vy + c2))
    assert float(ssim(a, b, window=7)[0]) == pytest.approx(np.mean(total), rel=1e-9)


def test_equal_images_are_alike_at_every_scale():
    a, b = pair(176)
    assert torch.allclose(ssim(a, a), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(ms_ssim(a, a), torch.ones(2, dtype=torch.float64))
    assert (ms_ssim(a, b) < 1).all()
    assert sum(MS_WEIGHTS) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="at least 176 pixels"):
        ms_ssim(a[..., :100], b[..., :100])


def test_both_have_gradients():
    a, b = pair(176, 1)
    for loss in (ssim, ms_ssim):
        x = a.clone().requires_grad_()
        (1 - loss(x, b)).mean().backward()
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 0


def test_edges_of_the_target_are_weights_not_targets():
    flat, steps = torch.zeros(1, 1, 4, 4), torch.arange(4.0).expand(1, 1, 4, 4)
    assert float(edge_weighted_smoothness(flat, steps)) == 0
    mean = 0.75  # three differences of one in four columns, the last counting as 0
    assert float(edge_weighted_smoothness(steps, flat)) == pytest.approx(mean)
    assert float(edge_weighted_smoothness(steps, steps)) == pytest.approx(mean * np.exp(mean))


def test_what_is_not_valid_does_not_count():
    generator = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 2, 1, 24, 24, generator=generator)
    valid = torch.ones(2, 1, 24, 24, dtype=torch.bool)
    assert torch.allclose(ssim(a, b, valid=valid), ssim(a, b))
    steps = [torch.diff(x, dim=d).abs().mean() for d in (-1, -2) for x in (a, b)]
    want = steps[0] * steps[1].exp() + steps[2] * steps[3].exp()
    assert torch.allclose(edge_weighted_smoothness(a, b, valid), want)
    valid[..., 12:] = False
    wild = a.clone()
    wild[..., 12:] = 1e3
    assert torch.equal(ssim(wild, b, valid=valid), ssim(a, b, valid=valid))
    assert torch.equal(edge_weighted_smoothness(wild, b, valid), edge_weighted_smoothness(a, b, valid))
    valid[:] = False
    assert ssim(wild, b, valid=valid).tolist() == [1, 1]
    assert float(edge_weighted_smoothness(wild, b, valid)) == 0


def test_opposite_images_have_slopes_too():
    """Negative contrast is cut off; a cut at 0 would give a slope of 0 times infinity."""
    a = torch.rand(1, 1, 176, 176, generator=torch.Generator().manual_seed(3))
    b = (1 - a).requires_grad_()
    ms_ssim(a, b).sum().backward()
    assert torch.isfinite(b.grad).all()


def test_small_images_have_fewer_scales():
    assert weights_for(176) == pytest.approx(MS_WEIGHTS)
    assert len(weights_for(64)) == 3
    assert sum(weights_for(64)) == pytest.approx(sum(MS_WEIGHTS))
    a, b = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    b = 0.5 * (a + b)
    whole = float(ssim(a, b)) ** sum(MS_WEIGHTS)
    assert float(ms_ssim(a, b, weights=weights_for(16))) == pytest.approx(whole, rel=1e-5)
    with pytest.raises(ValueError, match="does not fit a side of 8"):
        weights_for(8)
