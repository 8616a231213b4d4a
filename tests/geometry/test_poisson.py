"""The solver on the sphere against dense references, planted answers and the symmetries of the sphere."""

import math

import pytest
import torch
from torch import Tensor

from immersivedepth.geometry import poisson, sphere


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _dense(height: int, width: int, wa: Tensor, wd: Tensor, mass: Tensor) -> Tensor:
    """The matrix of the equation, edge by edge, in plain loops."""
    matrix = torch.zeros(height * width, height * width, dtype=torch.float64)
    step, turn = math.pi / height, 2 * math.pi / width

    def join(p: int, q: int, k: float) -> None:
        matrix[p, p] += k
        matrix[q, q] += k
        matrix[p, q] -= k
        matrix[q, p] -= k

    for i in range(height):
        latitude = math.pi / 2 - (i + 0.5) * step
        for j in range(width):
            p = i * width + j
            matrix[p, p] += mass[i, j]
            join(p, i * width + (j + 1) % width, step / (math.cos(latitude) * turn) * float(wa[i, j]))
            if i + 1 < height:
                join(p, p + width, math.cos(latitude - step / 2) * turn / step * float(wd[i, j]))
    return matrix


def test_direct_solver_equals_a_dense_solve():
    height, width = 6, 12
    mass = sphere.solid_angles(height, width).double() / 0.7**2
    right = _noise(height, width)
    ones = torch.ones(height, width)
    dense = _dense(height, width, ones, ones, mass.expand(height, width))
    want = torch.linalg.solve(dense, right.reshape(-1)).reshape(height, width)
    found = poisson.solve_direct(right, poisson.conductance(height, width), mass)
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12)  # float64, condition about 1e3


def test_conjugate_gradients_equal_a_dense_solve_with_weights_and_holes():
    height, width = 6, 12
    generator = torch.Generator().manual_seed(1)
    wa, wd = (torch.rand(n, width, dtype=torch.float64, generator=generator) for n in (height, height - 1))
    mass = sphere.solid_angles(height, width).double().expand(height, width).clone()
    wa[2, 3:5] = wd[1, 4] = wd[2, 4] = mass[2, 4] = 0  # pixel (2, 4) belongs to nothing
    k = poisson.conductance(height, width)
    right = _noise(height, width)
    right[2, 4] = 0
    found, turns, left = poisson.solve_iterative(right, (k[0] * wa, k[1] * wd), mass, tolerance=1e-12)
    dense = _dense(height, width, wa, wd, mass)
    dense[2 * width + 4, 2 * width + 4] = 1
    want = torch.linalg.solve(dense, right.reshape(-1)).reshape(height, width)
    torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-9)  # the solver's own tolerance times the condition
    assert found[2, 4] == 0
    assert turns < 60  # 72 unknowns: plain conjugate gradients may take them all
    assert left <= 1e-12


def test_conjugate_gradients_equal_the_direct_solver_where_both_apply():
    anchor, height, width = _noise(16, 32), 16, 32
    across, down = _noise(height, width, seed=1), _noise(height - 1, width, seed=2)
    exact, turns, _ = poisson.integrate((across, down), anchor, 1.0)
    assert turns == 0
    ones = (torch.ones(height, width), torch.ones(height - 1, width))
    found, turns, _ = poisson.integrate((across, down), anchor, 1.0, weights=ones, tolerance=1e-12)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)
    assert turns <= 3  # the preconditioner is the very inverse


def test_its_own_gradients_give_a_map_back_from_any_anchor():
    rays = sphere.erp_rays(32, 64).double()
    truth = rays @ torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64) + 0.1 * (5 * rays[..., 0]).sin()
    anchor = torch.full_like(truth, 0.7)
    found, _, _ = poisson.integrate(poisson.gradient(truth), anchor, 1e4)
    area = sphere.solid_angles(32, 64).double().expand(32, 64)
    level = (area * (found - truth)).sum() / area.sum()
    # The anchor pulls with 1 / length^2 = 1e-8 against the smallest eigenvalue of the sphere, 2.
    torch.testing.assert_close(found - level, truth, rtol=0, atol=1e-7)
    assert ((area * found).sum() / area.sum()).item() == pytest.approx(0.7, abs=1e-6)


def test_the_operator_is_the_one_of_the_sphere():
    # A linear function of the ray is an eigenfunction of the Laplacian of the sphere, eigenvalue 2.
    height, width = 64, 128
    u = sphere.erp_rays(height, width).double() @ torch.tensor([0.6, -0.5, 0.62], dtype=torch.float64)
    area = sphere.solid_angles(height, width).double()
    laplace = poisson.stiffness(u, poisson.conductance(height, width), torch.zeros_like(area)) / area
    error = (laplace - 2 * u).abs()
    assert error[4:-4].max() < 2.5e-3  # second order: (pi / 64)^2, times the function
    assert error.max() < 0.02  # first order in the rows next to a pole, where a pixel is a triangle


def test_turning_the_panorama_turns_the_answer():
    across, down, anchor = _noise(8, 16), _noise(7, 16, seed=1), _noise(8, 16, seed=2)
    found, _, _ = poisson.integrate((across, down), anchor, 0.5)
    turned, _, _ = poisson.integrate((across.roll(5, 1), down.roll(5, 1)), anchor.roll(5, 1), 0.5)
    torch.testing.assert_close(turned, found.roll(5, 1), rtol=0, atol=1e-10)


def test_noise_at_the_poles_becomes_one_value():
    # Gradients that cancel around a pole leave its row constant, without any code for poles.
    height, width = 32, 64
    anchor = torch.zeros(height, width, dtype=torch.float64)
    anchor[0] = _noise(width)
    zero = (torch.zeros(height, width), torch.zeros(height - 1, width))
    found, _, _ = poisson.integrate(zero, anchor, 10.0)
    assert found[0].std() < 2e-3


def test_islands_keep_the_level_of_their_anchor():
    height, width = 16, 32
    anchor = torch.zeros(height, width, dtype=torch.float64)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[5:9, 10:15] = True
    anchor[inside] = 3.0
    wa = inside == inside.roll(-1, 1)
    wd = inside[1:] == inside[:-1]
    slopes = (0.01 * _noise(height, width), 0.01 * _noise(height - 1, width, seed=1))
    found, _, _ = poisson.integrate(slopes, anchor, 100.0, weights=(wa, wd), tolerance=1e-12)
    area = sphere.solid_angles(height, width).double().expand(height, width)
    for part, level in ((inside, 3.0), (~inside, 0.0)):
        mean = (area * found)[part].sum() / area[part].sum()
        assert mean.item() == pytest.approx(level, abs=1e-9)  # the edges of an island sum to nothing


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_same_on_cuda():
    across, down, anchor = _noise(32, 64), _noise(31, 64, seed=1), _noise(32, 64, seed=2)
    want, _, _ = poisson.integrate((across, down), anchor, 1.0)
    found, _, _ = poisson.integrate((across.cuda(), down.cuda()), anchor.cuda(), 1.0)
    torch.testing.assert_close(found.cpu(), want, rtol=0, atol=1e-9)
