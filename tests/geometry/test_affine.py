import numpy as np
import pytest
import torch

from immersivedepth.geometry.affine import fit_affine, fit_affine_robust


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("fit", [fit_affine, fit_affine_robust])
def test_an_exact_map_is_found_for_every_row(fit):
    x, weight = random(2, 3, 50), random(2, 3, 50, seed=1)
    scale, shift = random(2, 3, seed=2) + 0.5, random(2, 3, seed=3) - 0.5
    found = fit(x, scale[..., None] * x + shift[..., None], weight)
    assert torch.allclose(found[0], scale, atol=1e-10)
    assert torch.allclose(found[1], shift, atol=1e-10)


def test_against_numpy():
    x, y, weight = random(40), random(40, seed=1), random(40, seed=2)
    wanted = np.polyfit(x.numpy(), y.numpy(), 1, w=weight.sqrt().numpy())  # numpy's weights multiply residuals
    scale, shift = fit_affine(x, y, weight)
    assert [float(scale), float(shift)] == pytest.approx(wanted.tolist(), abs=1e-10)


def test_nothing_cancels_far_from_zero():
    x = (random(100) + 1000).float()
    scale, _ = fit_affine(x, 2 * (x - 1000))
    assert float(scale) == pytest.approx(2, rel=1e-3)  # float32 leaves four digits of x - 1000


def test_where_x_says_nothing():
    y = torch.tensor([1.0, 3.0])
    assert [float(t) for t in fit_affine(torch.tensor([5.0, 5.0]), y)] == [0, 2]
    assert [float(t) for t in fit_affine(torch.tensor([4.0, 5.0]), y, torch.zeros(2))] == [0, 0]
    assert [float(t) for t in fit_affine(torch.tensor([4.0, 5.0]), y, torch.tensor([0.0, 1.0]))] == [0, 3]


def test_outliers_hardly_move_the_robust_fit():
    x = random(200)
    y = 2 * x + 1
    y[:60] += 5 * random(60, seed=1)  # 30 %, all on one side
    assert abs(float(fit_affine(x, y)[1]) - 1) > 0.3
    scale, shift = fit_affine_robust(x, y)
    assert float(scale) == pytest.approx(2, abs=0.02)
    assert float(shift) == pytest.approx(1, abs=0.02)


def test_gradients():
    x, y, weight = (random(8, seed=s).requires_grad_() for s in range(3))
    assert torch.autograd.gradcheck(fit_affine, (x, y, weight))


def test_gradient_is_finite_however_little_the_numbers_vary():
    for size in (1e-4, 1e-7, 1e-10, 1e-13, 1e-20):
        x = (size * torch.rand(1, 50, generator=torch.Generator().manual_seed(0))).requires_grad_()
        y = torch.rand(1, 50, generator=torch.Generator().manual_seed(1))
        scale, shift = fit_affine(x, y)
        (scale[:, None] * x + shift[:, None] - y).abs().sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all(), size
