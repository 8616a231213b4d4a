import pytest
import torch
import torch.nn.functional as F

from immersivedepth.losses.supervision import masked, over_scales


def maps(seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    return a, b, torch.rand(2, 1, 8, 8, generator=generator) > 0.3


@pytest.mark.parametrize(("form", "error"), [("l1", F.l1_loss), ("mse", F.mse_loss), ("smooth_l1", F.smooth_l1_loss)])
def test_means_over_valid_pixels_are_those_of_torch(form, error):
    a, b, valid = maps()
    assert torch.allclose(masked(a, b, valid, form), error(a[valid], b[valid]))


def test_weights_share_what_is_valid():
    a, b, valid = maps()
    weight = torch.rand(a.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    want = ((a - b).abs() * weight)[valid].sum() / weight[valid].sum()
    assert torch.allclose(masked(a, b, valid, "l1", weight), want)


def test_what_is_not_valid_does_no_harm():
    a, b, valid = maps()
    spoiled = torch.where(valid, b, torch.inf).requires_grad_()
    x = a.clone().requires_grad_()
    loss = masked(x, spoiled, valid)
    loss.backward()
    assert torch.allclose(loss, masked(a, b, valid))
    assert x.grad.isfinite().all()
    assert float(masked(a, b, torch.zeros_like(valid))) == 0


def test_scales_are_compared_with_means_of_areas():
    _, target, _ = maps()
    coarse = F.avg_pool2d(target, 4)
    terms = over_scales([target + 1, coarse - 2], target, (0.5, 0.25))
    assert [float(t) for t in terms] == pytest.approx([0.5, 0.5])
    with pytest.raises(ValueError, match="a weight for each of 2"):
        over_scales([target, coarse], target, (1.0,))
