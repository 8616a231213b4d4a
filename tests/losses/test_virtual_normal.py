"""The virtual normal loss."""

import math

import pytest
import torch

from immersivedepth.losses.virtual_normal import draw_triplets, points, virtual_normal


@pytest.fixture
def scene():
    g = torch.Generator().manual_seed(0)
    depth = 1 + torch.rand(2, 1, 8, 10, generator=g, dtype=torch.float64)
    other = 1 + torch.rand(2, 1, 8, 10, generator=g, dtype=torch.float64)
    valid = torch.rand(2, 1, 8, 10, generator=g) > 0.25
    return depth, other, valid, draw_triplets(valid, torch.Generator().manual_seed(1), share=0.5)


def test_equal_depth_costs_nothing(scene):
    depth, other, valid, triplets = scene
    assert float(virtual_normal(depth, depth, valid, triplets)) == 0
    assert float(virtual_normal(other, depth, valid, triplets)) > 0.1


def test_scale_does_not_matter_and_shape_does(scene):
    depth, _, valid, triplets = scene
    assert float(virtual_normal(3 * depth, depth, valid, triplets)) < 1e-12
    assert float(virtual_normal(depth + 2, depth, valid, triplets)) > 0.01  # a shift bends every plane


def test_points_are_those_of_a_pinhole():
    depth = torch.tensor([[[[2.0, 4.0], [1.0, 3.0]]]])
    found = points(depth, focal=(2.0, 4.0))[0]
    # Column 0 lies one pixel left of the axis at width / 2 = 1, column 1 on it.
    assert found.tolist() == [[-1.0, -0.5, 2.0], [0.0, -1.0, 4.0], [-0.5, 0.0, 1.0], [0.0, 0.0, 3.0]]
    assert torch.equal(points(depth), points(depth, 1.0))


def slow(prediction, target, valid, triplets, focal=1.0):
    """Triplet by triplet, in plain numbers."""

    def cross(u, v):
        return [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]

    def sub(u, v):
        return [a - b for a, b in zip(u, v, strict=True)]

    def dot(u, v):
        return sum(a * b for a, b in zip(u, v, strict=True))

    def normal(a, b, c):
        n = cross(sub(b, a), sub(c, a))
        return [x / math.sqrt(dot(n, n) + 1e-16) for x in n]

    errors = []
    for b in range(len(target)):
        true, seen = points(target, focal)[b].tolist(), points(prediction.clamp_min(1e-4), focal)[b].tolist()
        for triple in triplets[b].tolist():
            corners = [true[i] for i in triple]
            sides = [sub(corners[1], corners[0]), sub(corners[2], corners[0]), sub(corners[2], corners[1])]
            entries = 0
            for u in sides:
                for v in sides:
                    length = max(math.sqrt(dot(u, u)), 1e-8) * max(math.sqrt(dot(v, v)), 1e-8)
                    entries += abs(dot(u, v)) / length > 0.867
            near = any(all(abs(x) < 0.005 for x in u) for u in sides)
            known = all(bool(valid[b].flatten()[i]) for i in triple)
            if known and entries <= 3 and not near and min(c[2] for c in corners) > 1e-4:
                n, m = normal(*corners), normal(*(seen[i] for i in triple))
                errors.append(sum(abs(x - y) for x, y in zip(n, m, strict=True)))
    errors.sort()
    errors = errors[int(0.25 * len(errors)) :]
    return sum(errors) / len(errors), len(errors)


@pytest.mark.parametrize("focal", [1.0, 6.0])
def test_it_is_that_of_the_slow_way(scene, focal):
    depth, other, valid, triplets = scene
    expected, count = slow(other, depth, valid, triplets, focal)
    assert 5 < count < 0.75 * triplets.shape[0] * triplets.shape[1]  # some triplets were dropped, some were not
    assert float(virtual_normal(other, depth, valid, triplets, focal)) == pytest.approx(expected, rel=1e-9)


def test_the_mask_is_that_of_the_target(scene):
    """The original took it from the prediction: where that is 0 nothing was learnt."""
    depth, other, valid, triplets = scene
    spoiled = torch.where(valid, depth, torch.inf)
    anywhere = torch.randint(0, 80, triplets.shape, generator=torch.Generator().manual_seed(5))
    dead = torch.zeros_like(other)
    assert float(virtual_normal(dead, depth, valid, triplets)) > 0.05
    assert float(virtual_normal(other, spoiled, valid, anywhere)) == float(
        virtual_normal(other, depth, valid, anywhere)
    )


def test_triplets_are_valid_pixels_and_every_valid_pixel_may_come(scene):
    _, _, valid, _ = scene
    found = draw_triplets(valid, torch.Generator().manual_seed(2), share=20.0)
    for keep, some in zip(valid.flatten(1), found, strict=True):
        assert set(some.flatten().tolist()) == set(keep.nonzero()[:, 0].tolist())
    assert found.shape[1] == int(20 * int(valid.flatten(1).sum(1).max()))
    assert torch.equal(found, draw_triplets(valid, torch.Generator().manual_seed(2), share=20.0))


def test_nothing_to_compare_costs_nothing():
    nothing = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    triplets = draw_triplets(nothing, torch.Generator().manual_seed(0))
    prediction = torch.ones(1, 1, 4, 4, requires_grad=True)
    found = virtual_normal(prediction, torch.ones(1, 1, 4, 4), nothing, triplets)
    found.backward()
    assert float(found.detach()) == 0
    assert prediction.grad.abs().max() == 0


def test_gradients_are_those_of_finite_differences(scene):
    depth, other, valid, triplets = scene
    assert torch.autograd.gradcheck(
        lambda p: virtual_normal(p, depth, valid, triplets), (other.clone().requires_grad_(),), eps=1e-7, atol=1e-4
    )
