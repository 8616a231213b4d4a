"""Losses that do not see scale and shift: invariance, slow references, gradients, masks."""

import math
import statistics

import pytest
import torch

from immersivedepth.losses.affine import aligned, gradient_term, midas, ratio_mae, ssi_mae, ssi_mse, standardised


@pytest.fixture
def maps():
    g = torch.Generator().manual_seed(0)
    prediction = torch.rand(3, 1, 9, 11, generator=g, dtype=torch.float64)
    target = torch.rand(3, 1, 9, 11, generator=g, dtype=torch.float64) + 0.2
    valid = torch.rand(3, 1, 9, 11, generator=g) > 0.3
    return prediction, target, valid


def ratios(prediction, target, valid):
    return ratio_mae(prediction, target, valid, 1e-3)


LOSSES = [ssi_mae, ssi_mse, gradient_term, midas, ratios]


@pytest.mark.parametrize("loss", LOSSES)
def test_scale_and_shift_of_each_image_do_not_matter(maps, loss):
    prediction, target, valid = maps
    scale = torch.tensor([0.1, 3.0, 40.0], dtype=torch.float64).view(3, 1, 1, 1)
    shift = torch.tensor([-5.0, 0.0, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    expected = loss(prediction, target, valid)
    assert expected > 0.01
    torch.testing.assert_close(loss(scale * prediction + shift, target, valid), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_affine_copy_costs_nothing(maps, loss):
    _, target, valid = maps
    assert loss(3 * target + 1, target, valid) < 1e-9


def test_another_sign_is_no_copy_for_the_medians(maps):
    _, target, valid = maps
    assert ssi_mae(-target, target, valid) > 0.5


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_masked_has_no_say(maps, loss):
    prediction, target, valid = maps
    expected = loss(prediction, target, valid)
    spoiled = torch.where(valid, target, torch.inf)
    elsewhere = torch.where(valid, prediction, prediction + 100).requires_grad_()
    found = loss(elsewhere, spoiled, valid)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert elsewhere.grad.isfinite().all()
    assert elsewhere.grad[~valid].abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", ["nothing valid", "one pixel", "constant"])
def test_images_without_shape_cost_nothing_and_have_gradients(loss, case):
    prediction = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    if case == "nothing valid":
        valid[:] = False
    if case == "one pixel":
        valid[:] = False
        valid[..., 1, 2] = True
    if case == "constant":
        prediction = torch.full_like(prediction, 2.0)
    prediction.requires_grad_()
    found = loss(prediction, torch.full((2, 1, 4, 4), 3.0), valid)
    found.backward()
    assert found.isfinite()
    assert prediction.grad.isfinite().all()


def slow_standardised(values):
    middle = sorted(values)[(len(values) - 1) // 2]  # of an even count torch takes the lower of the two
    spread = sum(abs(v - middle) for v in values) / (len(values) + 1)
    return [(v - middle) / spread for v in values]


def test_mean_absolute_difference_is_that_of_the_slow_way(maps):
    prediction, target, valid = maps
    found = []
    for p, t, keep in zip(prediction, target, valid, strict=True):
        pairs = zip(slow_standardised(p[keep].tolist()), slow_standardised(t[keep].tolist()), strict=True)
        found += [abs(a - b) for a, b in pairs]
    assert float(ssi_mae(prediction, target, valid)) == pytest.approx(statistics.fmean(found), rel=1e-12)


def test_standardising_divides_by_one_more_than_there_are():
    values = torch.tensor([[[[1.0, 2.0, 3.0, 10.0]]]])
    found = standardised(values, torch.tensor([[[[True, True, True, False]]]]))
    assert found.flatten().tolist() == pytest.approx([-2.0, 0.0, 2.0, 16.0])  # median 2, mean deviation 2 / (3 + 1)


def slow_fit(p, t):
    """Normal equations by hand."""
    n, sp, st = len(p), sum(p), sum(t)
    spp, spt = sum(a * a for a in p), sum(a * b for a, b in zip(p, t, strict=True))
    scale = (n * spt - sp * st) / (n * spp - sp * sp)
    return scale, (st - scale * sp) / n


def test_least_squares_is_that_of_the_slow_way(maps):
    prediction, target, valid = maps
    squares = []
    for p, t, keep in zip(prediction, target, valid, strict=True):
        p, t = p[keep].tolist(), t[keep].tolist()
        scale, shift = slow_fit(p, t)
        squares += [(scale * a + shift - b) ** 2 for a, b in zip(p, t, strict=True)]
    assert float(ssi_mse(prediction, target, valid)) == pytest.approx(statistics.fmean(squares), rel=1e-10)


def test_relative_errors_of_distance_are_those_of_the_slow_way(maps):
    _, target, valid = maps
    # Values that follow the target, but for a few that the fit puts below a tenth of the mean and below 0.
    prediction = target + 0.1 * torch.sin(40 * target)
    prediction[:, :, 3, ::3] = -0.8
    found, below = [], 0
    for p, t, keep in zip(prediction, target, valid, strict=True):
        p, t = p[keep].tolist(), t[keep].tolist()
        scale, shift = slow_fit(p, t)
        lowest = 0.1 * statistics.fmean(t)
        for a, b in zip(p, t, strict=True):
            fitted = scale * a + shift
            inverse = 1 / fitted if fitted > lowest else 1 / lowest - (fitted - lowest) / lowest**2
            below += fitted <= lowest
            found.append(abs(b * inverse - 1))
    assert below > 3
    assert float(ratios(prediction, target, valid)) == pytest.approx(statistics.fmean(found), rel=1e-10)


def test_near_called_far_costs_more_than_far_called_near():
    disparity = torch.tensor([1.0] * 30 + [0.1] * 30, dtype=torch.float64).view(1, 1, 6, 10)
    valid = torch.ones_like(disparity, dtype=torch.bool)
    far, near = disparity.clone(), disparity.clone()
    far[..., 0, 0], near[..., 5, 9] = 0.1, 1.0
    assert ratios(far, disparity, valid) > 3 * ratios(near, disparity, valid)


def test_gradient_term_is_that_of_the_slow_way(maps):
    prediction, target, valid = maps
    residual = (aligned(prediction, target, valid) - target)[:, 0]
    total = 0.0
    for step in (1, 2, 4, 8):
        summed, count = 0.0, 0
        for r, m in zip(residual, valid[:, 0], strict=True):
            rows, columns = range(0, 9, step), range(0, 11, step)
            for i in rows:
                for j in columns:
                    count += int(m[i, j])
                    if j + step < 11 and m[i, j] and m[i, j + step]:
                        summed += abs(float(r[i, j + step] - r[i, j]))
                    if i + step < 9 and m[i, j] and m[i + step, j]:
                        summed += abs(float(r[i + step, j] - r[i, j]))
        total += summed / count
    assert float(gradient_term(prediction, target, valid)) == pytest.approx(total, rel=1e-10)
    assert float(midas(prediction, target, valid)) == pytest.approx(
        float(ssi_mae(prediction, target, valid)) + 0.1 * total, rel=1e-10
    )


def test_gradient_term_prefers_a_smooth_error_to_a_rough_one():
    ramp = torch.linspace(0, 1, 16, dtype=torch.float64).expand(1, 1, 16, 16)
    valid = torch.ones_like(ramp, dtype=torch.bool)
    smooth = torch.sin(ramp.transpose(2, 3) * math.pi)
    rough = torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * smooth.std()
    assert gradient_term(ramp + smooth, ramp, valid) < gradient_term(ramp + rough, ramp, valid)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    g = torch.Generator().manual_seed(3)
    prediction = torch.rand(2, 1, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 1, 3, 4, generator=g, dtype=torch.float64)
    valid = torch.rand(2, 1, 3, 4, generator=g) > 0.2
    assert torch.autograd.gradcheck(lambda p: loss(p, target, valid), (prediction,))


@pytest.mark.gpu
@pytest.mark.parametrize("loss", LOSSES)
def test_every_device_finds_the_same(maps, loss):
    prediction, target, valid = (m.float() if m.is_floating_point() else m for m in maps)
    found = loss(prediction.to("cuda"), target.to("cuda"), valid.to("cuda")).cpu()
    torch.testing.assert_close(found, loss(prediction, target, valid), rtol=1e-4, atol=1e-6)
