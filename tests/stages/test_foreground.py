"""What was added to a panorama, found against a clean one."""

import pytest
import torch
from torch import nn

from immersivedepth.checks import ConfigError, WeightsError
from immersivedepth.data import images
from immersivedepth.geometry import sphere
from immersivedepth.nets.mask_depth import DepthMaskNet8, MaskNet3
from immersivedepth.scene import Geometry, Panorama
from immersivedepth.stages.project import Icosahedron, look
from immersivedepth.stages.segment.foreground import Foreground, instances_of, onto_sphere

HEIGHT = 64


class Difference(nn.Module):
    """Stands for a network that was trained: sure wherever the two pictures differ, whatever their normalisation."""

    def forward(self, pairs):
        from immersivedepth.data.modest import BACKGROUND_NORM, PICTURE_NORM

        parts = []
        for x, (mean, std) in zip(pairs.split(3, 1), (BACKGROUND_NORM, PICTURE_NORM), strict=True):
            parts.append(x * torch.tensor(std).view(1, 3, 1, 1) + torch.tensor(mean).view(1, 3, 1, 1))
        return ((parts[0] - parts[1]).abs().amax(1, keepdim=True) - 0.2) * 50


def caps(*centres, radius=0.3):
    """Discs on the sphere around the centres."""
    rays = sphere.erp_rays(HEIGHT, 2 * HEIGHT)
    towards = torch.nn.functional.normalize(torch.tensor(centres), dim=-1)
    return ((rays @ towards.T).amax(-1) > torch.cos(torch.tensor(radius)))[None]


@pytest.fixture
def scene(tmp_path):
    """A grey room in which a disc across the seam and one over the zenith were put."""
    clean = torch.full((3, HEIGHT, 2 * HEIGHT), 0.5)
    added = caps((-1.0, 0.0, 0.0), (0.1, 0.0, 1.0))
    images.write_png(tmp_path / "clean.png", clean)
    picture = torch.where(added, torch.tensor([0.9, 0.2, 0.2])[:, None, None], clean)
    distance = torch.full((1, HEIGHT, 2 * HEIGHT), 2.0)
    geometry = Geometry(distance, torch.ones_like(distance, dtype=torch.bool))
    return str(tmp_path / "clean.png"), Panorama(picture), geometry, added


def test_added_things_are_instances_across_the_seam_and_the_pole(scene, monkeypatch):
    clean, panorama, geometry, added = scene
    stage = Foreground(background=clean, size=64, project=Icosahedron(resolution=64))
    from immersivedepth.stages.predict.running import Runner, Running

    monkeypatch.setattr(Foreground, "_runner", Runner(Difference(), Running(kind="cpu", precision="fp32")))
    found = stage(geometry, panorama)
    assert found.instances.classes == (1, 1)
    assert found.instances.names == {1: "foreground"}
    assert min(found.instances.scores) > 0.8
    mask = found.instances.labels > 0
    overlap = (mask & added).sum() / (mask | added).sum()
    assert overlap > 0.9  # borders move by half a pixel of a view
    seam = found.instances.labels[0, HEIGHT // 2]
    assert seam[0] == seam[-1] > 0
    assert found.report["foreground"]["instances"] == 2
    assert torch.equal(found.distance, geometry.distance)


def test_nothing_added_is_nothing_found(scene, monkeypatch):
    clean, panorama, geometry, _ = scene
    from immersivedepth.stages.predict.running import Runner, Running

    monkeypatch.setattr(Foreground, "_runner", Runner(Difference(), Running(kind="cpu", precision="fp32")))
    same = Panorama(torch.full((3, 2 * HEIGHT, 4 * HEIGHT), 0.5))  # the clean one is brought to its size
    large = torch.full((1, 2 * HEIGHT, 4 * HEIGHT), 2.0)
    stage = Foreground(background=clean, size=32, project=Icosahedron(resolution=32))
    found = stage(Geometry(large, torch.ones_like(large, dtype=torch.bool)), same)
    assert found.instances.classes == ()
    assert not found.instances.labels.any()


def test_views_are_joined_on_the_sphere_without_gaps():
    """A map that is linear in the ray comes back as it was, up to interpolation."""
    rays = sphere.erp_rays(HEIGHT, 2 * HEIGHT)
    values = (0.5 + 0.3 * rays[..., 0] - 0.2 * rays[..., 2])[None]
    views = Icosahedron(resolution=64)(Panorama(values.expand(3, -1, -1).contiguous()))
    back = onto_sphere(views.images[:, :1], views.rig, (HEIGHT, 2 * HEIGHT))
    assert (back - values).abs().max() < 0.01  # two interpolations at 3 degrees a pixel
    assert look(Panorama(values.expand(3, -1, -1)), views.rig).images.shape == views.images.shape


def test_small_parts_are_dropped():
    chance = torch.where(caps((1.0, 0.0, 0.0)) | caps((0.0, 1.0, 0.0), radius=0.06), 0.9, 0.1)
    assert len(instances_of(chance, 0.5, 0.0).classes) == 2
    kept = instances_of(chance, 0.5, 0.005)
    assert len(kept.classes) == 1
    assert kept.scores == (0.9,)


@pytest.mark.parametrize("network", ["mask", "mask_depth"])
def test_checkpoints_of_both_networks(scene, tmp_path, network):
    clean, panorama, geometry, _ = scene
    net = MaskNet3() if network == "mask" else DepthMaskNet8()
    torch.save({"epoch": 3, "model_state_dict": net.state_dict()}, tmp_path / "net.pt")
    project = Icosahedron(resolution=32)
    stage = Foreground(clean, str(tmp_path / "net.pt"), network, size=32, project=project)
    chance = stage.chance(panorama)
    assert chance.shape == (1, HEIGHT, 2 * HEIGHT)
    assert ((chance > 0) & (chance < 1)).all()
    other = Foreground(clean, str(tmp_path / "net.pt"), "mask_depth" if network == "mask" else "mask", size=32)
    with pytest.raises(WeightsError, match="segment.network"):
        other.chance(panorama)


def test_what_is_missing_is_told(scene):
    clean, panorama, geometry, _ = scene
    with pytest.raises(ConfigError, match="segment.background"):
        Foreground()(geometry, panorama)
    with pytest.raises(WeightsError, match="segment.weights"):
        Foreground(background=clean)(geometry, panorama)
    with pytest.raises(ConfigError, match="multiple of 32"):
        Foreground(size=100)
