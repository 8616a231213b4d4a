import math

import pytest
import torch
import torch.nn.functional as F

from immersivedepth.geometry import backproject, directions, icosahedron, pinhole, sphere, warp
from immersivedepth.scene import Rig

H, SIDE, MARGIN = 20, 12, 0.35


@pytest.fixture
def rig():
    return Rig(pinhole.look_along(icosahedron.face_centres()), torch.full((20,), 1.2), SIDE)


@pytest.fixture
def values():
    return torch.rand(20, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weight():
    return torch.rand(20, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) + 0.1


def by_loop(values, rig, weight=None):
    """The definition: for every ray, every view that sees it, four neighbours."""
    mean, total = torch.zeros(values.shape[1], H, 2 * H).double(), torch.zeros(1, H, 2 * H).double()
    rays = sphere.erp_rays(H, 2 * H)
    weight = torch.ones_like(values[:, :1]) if weight is None else weight
    for v in range(len(rig)):
        xy, seen = pinhole.project_rays(rays, rig.rotation[v], rig.tan_half_fov[v])
        for i, j in seen.nonzero().tolist():
            x, y = ((t + 1) * SIDE / 2 - 0.5 for t in xy[i, j].tolist())
            fade = min(1, (1 - float(xy[i, j].abs().max())) / MARGIN)
            x, y = min(max(x, 0), SIDE - 1), min(max(y, 0), SIDE - 1)
            left, top = min(int(x), SIDE - 2), min(int(y), SIDE - 2)
            for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                    w = fade * share_x * share_y * weight[v, 0, row, column].double()
                    mean[:, i, j] += w * values[v, :, row, column]
                    total[0, i, j] += w
    return mean / total, total


@pytest.mark.parametrize("way", [backproject._by_matrix, backproject._by_bands])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_the_loop(rig, values, weight, way, weighted):
    weight = weight if weighted else None
    mean, total = way(values, rig, H, 2 * H, MARGIN, weight)
    wanted, wanted_total = by_loop(values, rig, weight)
    assert mean.dtype == torch.float32
    # White noise in 0..1, float32 positions of 12 pixels.
    assert (mean - wanted).abs().max() < 1e-5
    assert (total - wanted_total).abs().max() < 1e-5


def test_the_matrix_is_built_when_it_pays_and_kept_within_its_bound(rig, values, monkeypatch):
    backproject._uses.cache_clear()
    backproject._matrix.clear()
    first, _ = backproject.views_to_erp(values, rig, H, 2 * H)
    for _ in range(3):
        again, _ = backproject.views_to_erp(values, rig, H, 2 * H)
    assert 0 < backproject._matrix.held() < 1.3 * backproject._matrix_bytes(rig, H, 2 * H)
    assert torch.allclose(first, again, atol=1e-6)
    backproject._matrix.clear()
    monkeypatch.setattr(backproject, "MATRIX_BYTES", 1000)
    assert torch.allclose(backproject.views_to_erp(values, rig, H, 2 * H)[0], first, atol=1e-6)
    assert backproject._matrix.held() == 0


def test_callers_may_write_into_what_they_get(rig, values):
    mean, total = backproject._by_matrix(values, rig, H, 2 * H, MARGIN, None)
    mean.zero_(), total.zero_()
    again, total = backproject._by_matrix(values, rig, H, 2 * H, MARGIN, None)
    assert again.min() > 0
    assert total.min() > 0


def test_where_nobody_looks_there_is_nothing():
    rig = Rig(pinhole.look_along(torch.tensor([[1.0, 0, 0]])), torch.ones(1), SIDE)
    ones = torch.ones(1, 1, SIDE, SIDE)
    for way in (backproject._by_matrix, backproject._by_bands):
        mean, total = way(ones, rig, H, 2 * H, MARGIN, None)
        seen = total > 0
        assert 0.1 < seen.float().mean() < 0.25  # a sixth of the sphere, less so of the pixels
        assert torch.allclose(mean[seen], torch.ones(()), atol=1e-6)
        assert (mean[~seen] == 0).all()


def test_there_and_back():
    def smooth(rays):
        return torch.sin(2 * rays[..., :1] + 3 * rays[..., 1:2] * rays[..., 2:]).movedim(-1, 0) / 2 + 0.5

    image = smooth(sphere.erp_rays(128, 256))
    rig = Rig(pinhole.look_along(icosahedron.face_centres()), torch.full((20,), 1.2), 96)
    back, total = backproject.views_to_erp(warp.erp_to_views(image, rig), rig, 128, 256)
    assert (total > 0).all()
    psnr = -10 * math.log10(float((back - image).square().mean()))
    assert psnr > 60  # both ways bilinear, a pixel of 0.025 rad, second derivatives of about 5: errors below 1e-3


def test_gradients(rig):
    small = Rig(rig.rotation[:3].double(), rig.tan_half_fov[:3].double(), 3)
    values = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    weight = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(
        lambda v, w: backproject.views_to_erp(v, small, 6, 12, weight=w), (values, weight.requires_grad_())
    )


def test_a_margin_is_needed(rig, values):
    with pytest.raises(ValueError, match="margin above 0, got 0"):
        backproject.views_to_erp(values, rig, H, 2 * H, margin=0)


def big_round_trip():
    """Both directions at 8192x4096, for a fresh process to run."""
    image = torch.randint(0, 256, (3, 4096, 8192), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rig = Rig(pinhole.look_along(icosahedron.face_centres()), torch.full((20,), 1.2), 1024)
    small = Rig(rig.rotation, rig.tan_half_fov, 512)

    def call():
        views = warp.erp_to_views(image, rig)
        again = warp.erp_to_views(image.float(), rig)  # four times the bytes
        del again
        values = F.avg_pool2d(views.float(), 2)
        for _ in range(3):  # by now a matrix would be built, were it small enough
            backproject.views_to_erp(values, small, 4096, 8192)

    return call


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_thousand_columns_fit_into_four_gigabytes():
    measure = pytest.importorskip("benchmarks.measure")
    memory = measure.peak_memory("tests.geometry.test_backproject:big_round_trip", timeout=900)
    assert memory.peak < 4e9


def test_directions_of_a_cube_are_covered():
    rig = Rig(pinhole.look_along(directions.cube_faces()), torch.full((6,), 1.2), SIDE)
    _, total = backproject.views_to_erp(torch.ones(6, 1, SIDE, SIDE), rig, H, 2 * H)
    assert (total > 0.1).all()
