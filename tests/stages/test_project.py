import math

import pytest
import torch
import torch.nn.functional as F

from immersivedepth.checks import ConfigError
from immersivedepth.geometry import pinhole, sphere
from immersivedepth.scene import Hits, Panorama
from immersivedepth.stages.project import Cube, Fibonacci, Icosahedron, IcosahedronRings

OPTIONS = {
    "icosahedron": (Icosahedron(resolution=16), 20),
    "icosahedron_rings": (IcosahedronRings(resolution=16), 60),
    "icosahedron_rings_turned": (IcosahedronRings(resolution=16, yaw_seed=3), 60),
    "cube": (Cube(resolution=16), 6),
    "fibonacci": (Fibonacci(count=24, resolution=16), 24),
}
options = pytest.mark.parametrize(("project", "count"), OPTIONS.values(), ids=OPTIONS)


class Everywhere:
    """A truth that is one everywhere."""

    def trace(self, rays):
        return Hits(torch.ones(rays.shape[:-1]))


def panorama(height=32, mask=None, kind=torch.uint8):
    """The colour of a pixel is its direction."""
    image = sphere.erp_rays(height, 2 * height).permute(2, 0, 1) / 2 + 0.5
    image = (image * 255).round().to(torch.uint8) if kind == torch.uint8 else image
    return Panorama(image, mask=mask, truth=Everywhere())


@options
def test_views_show_what_lies_in_their_direction(project, count):
    views = project(panorama(kind=torch.float32))
    assert views.images.shape == (count, 3, 16, 16)
    rays = pinhole.view_rays(views.rig.rotation, views.rig.tan_half_fov, 16)
    # Bilinear reading of unit vectors a pixel of 0.1 rad apart, averaged where a view pixel holds several.
    assert (views.images - (F.normalize(rays, dim=-1).permute(0, 3, 1, 2) / 2 + 0.5)).abs().max() < 0.02


@options
def test_bytes_stay_bytes_and_truth_goes_with_them(project, count):
    given = panorama()
    views = project(given)
    assert views.images.dtype == torch.uint8
    assert views.truth is given.truth
    assert views.mask is None
    assert len(views.rig) == count


@options
def test_every_direction_is_seen_twice(project, count):
    rig = project(panorama(8)).rig
    rays = sphere.erp_rays(64, 128)
    seen = torch.stack(
        [pinhole.project_rays(rays, r, t)[1] for r, t in zip(rig.rotation, rig.tan_half_fov, strict=True)]
    )
    least = {6: 1, 60: 6}.get(count, 2)  # the middle of a cube's face belongs to that face alone
    assert seen.sum(0).min() >= least


def test_masks_are_projected():
    mask = torch.ones(1, 32, 64, dtype=torch.bool)
    mask[:, 20:] = False  # a partial panorama shows nothing below 22 degrees
    views = Icosahedron(resolution=16)(panorama(mask=mask))
    rays = F.normalize(pinhole.view_rays(views.rig.rotation, views.rig.tan_half_fov, 16), dim=-1)
    edge, blur = -math.sin(math.radians(22.5)), 0.2  # two pixels either way
    assert views.mask.shape == (20, 1, 16, 16)
    assert views.mask[:, 0][rays[..., 2] > edge + blur].all()
    assert not views.mask[:, 0][rays[..., 2] < edge - blur].any()


def test_fields_of_view():
    tan = Icosahedron(fov=100, resolution=8)(panorama(8)).rig.tan_half_fov
    assert torch.allclose(torch.rad2deg(2 * torch.atan(tan)), torch.full((20,), 100.0))
    rig = IcosahedronRings(resolution=8)(panorama(8)).rig
    fov = torch.rad2deg(2 * torch.atan(rig.tan_half_fov))
    assert fov.tolist() == pytest.approx([80.1] * 20 + [93.8] * 20 + [104.8] * 20, abs=0.06)
    assert torch.equal(rig.rotation[:20], rig.rotation[20:40])


def test_rings_turn_by_their_seed():
    def rotation(seed):
        return IcosahedronRings(resolution=8, yaw_seed=seed)(panorama(8)).rig.rotation

    before = torch.random.get_rng_state()
    assert torch.equal(rotation(1), rotation(1))
    assert not torch.equal(rotation(1), rotation(2))
    assert not torch.allclose(rotation(1)[:20], rotation(1)[20:40], atol=0.01)
    assert torch.allclose(rotation(1)[:, 2, 2], rotation(None)[:, 2, 2], atol=1e-6)  # about the vertical
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Icosahedron(fov=70), "project.fov=70: expected more than 74.75 degrees, or views leave gaps"),
        (lambda: Icosahedron(fov=170), "project.fov=170: .* at most 150"),
        (lambda: Cube(fov=90), "project.fov=90: expected more than 90.00 degrees"),
        (lambda: Fibonacci(count=8, fov=90), "project.fov=90: expected more than 11.*"),
        (lambda: IcosahedronRings(ratios=(1.1, 0.9)), r"project.ratios=\[1.1, 0.9\]: expected numbers from 1 "),
        (lambda: IcosahedronRings(ratios=()), r"project.ratios=\[\]"),
    ],
)
def test_gaps_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize("name", ["icosahedron", "icosahedron_rings", "cube", "fibonacci"])
def test_configs_say_what_the_classes_default_to(compose, name):
    from immersivedepth.config import build

    built = build(compose(f"project={name}")["project"], "project")
    assert built == type(built)()
