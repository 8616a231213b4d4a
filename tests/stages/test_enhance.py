"""Enhancers do what they say, on the whole sphere, and leave no seam."""

import math

import pytest
import torch
import torch.nn.functional as F

from immersivedepth.geometry import sphere
from immersivedepth.scene import Panorama
from immersivedepth.stages.enhance.clahe import Clahe, equalise
from immersivedepth.stages.enhance.clarity import Clarity
from immersivedepth.stages.enhance.dehaze import Dehaze
from immersivedepth.stages.enhance.gaussian import Gaussian
from immersivedepth.stages.enhance.unsharp import Unsharp

H, W = 64, 128
RAYS = sphere.erp_rays(H, W)
EVERY = [Gaussian(2.0), Unsharp(2.0, 0.5), Clarity(3.0), Clahe(), Dehaze()]
name_of = lambda stage: type(stage).__name__  # noqa: E731


def picture(seed=0):
    """Smooth blobs of colour, with fine noise."""
    generator = torch.Generator().manual_seed(seed)
    waves = torch.randn(3, 3, 6, generator=generator)
    smooth = torch.stack([(RAYS @ wave * 3).sin().mean(-1) for wave in waves])
    return (0.5 + 0.4 * smooth + 0.03 * torch.randn(3, H, W, generator=generator)).clamp(0.02, 0.98)


@pytest.mark.parametrize("stage", EVERY, ids=name_of)
def test_something_changes_and_stays_a_picture(stage):
    before = Panorama(picture())
    after = stage(before)
    assert after.image.shape == before.image.shape
    assert after.image.dtype == torch.float32
    assert 0 <= after.image.min() <= after.image.max() <= 1
    assert (after.image - before.image).abs().mean() > 1e-3


@pytest.mark.parametrize("stage", EVERY, ids=name_of)
@pytest.mark.parametrize("shift", [16, 64])
def test_a_turned_panorama_gives_the_turned_result(stage, shift):
    image = picture()
    turned = stage(Panorama(image.roll(shift, -1))).image.roll(-shift, -1)
    torch.testing.assert_close(turned, stage(Panorama(image)).image, atol=2e-3, rtol=0)  # float32 transforms and Lab


@pytest.mark.parametrize("stage", EVERY, ids=name_of)
def test_no_seam_where_the_panorama_was_cut(stage):
    """The step across the cut is like any other step between columns; also at a turn that fits no grid."""
    smooth = 0.5 + 0.3 * RAYS.permute(2, 0, 1)
    for shift in (0, 5):
        image = stage(Panorama(smooth.roll(shift, -1))).image
        steps = (image - image.roll(1, -1)).abs().mean((0, 1))
        assert steps[0] < 1.5 * steps.median() + 1e-3


@pytest.mark.parametrize("stage", EVERY, ids=name_of)
def test_bytes_are_taken_as_well(stage):
    image = (picture() * 255).round().byte()
    found, wanted = stage(Panorama(image)).image, stage(Panorama(image.float() / 255)).image
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("stage", EVERY, ids=name_of)
def test_what_is_not_shown_takes_no_part(stage):
    """A partial panorama: the black that fills it up does not bleed into the rest."""
    image, mask = picture(), torch.ones(1, H, W, dtype=torch.bool)
    mask[0, 40:, 30:90] = False
    dark, bright = (stage(Panorama(torch.where(mask, image, fill), mask=mask)).image for fill in (0.0, 1.0))
    torch.testing.assert_close(dark[:, mask[0]], bright[:, mask[0]], atol=2e-3, rtol=0)


def test_any_order(compose):
    from immersivedepth.config import build

    for names in (["dehaze", "clahe", "unsharp"], ["unsharp", "clahe", "dehaze"], ["gaussian", "clarity"]):
        stages = build(compose(f"enhance=[{','.join(names)}]")["enhance"])
        assert list(stages) == names
        panorama = Panorama(picture())
        for stage in stages.values():
            panorama = stage(panorama)
        assert panorama.image.isfinite().all()


def test_gaussian_takes_the_noise_away():
    clean = 0.5 + 0.3 * RAYS.permute(2, 0, 1)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    area = sphere.solid_angles(H, W)
    error = lambda x: float(((x - clean).square() * area).sum().sqrt())  # noqa: E731
    assert error(Gaussian(4.0)(Panorama(noisy)).image) < 0.3 * error(noisy)


def test_unsharp_is_its_formula():
    image = picture() * 0.4 + 0.3
    blurred = Gaussian(3.0)(Panorama(image)).image
    expected = (image + 0.7 * (image - blurred)).clamp(0, 1)
    torch.testing.assert_close(Unsharp(3.0, 0.7)(Panorama(image)).image, expected)


def test_clarity_magnifies_detail_but_not_edges():
    step = torch.where(RAYS[..., 0] > 0, 0.75, 0.25)
    ripple = 0.01 * (RAYS[..., 2] * 40).sin()
    image = (step + ripple).expand(3, H, W)
    out = Clarity(6.0, 0.1, 3.0)(Panorama(image)).image[0]
    flat = RAYS[..., 0].abs() > 0.5
    gain = float((out * ripple)[flat].mean() / (ripple * ripple)[flat].mean())
    assert 1.8 < gain < 3.1  # 3 on what the smoother removes; it keeps a part of the ripple
    jump = lambda x: float(x[RAYS[..., 0] > 0.2].mean() - x[RAYS[..., 0] < -0.2].mean())  # noqa: E731
    assert jump(out) == pytest.approx(jump(image[0]), rel=0.1)


def test_clahe_of_a_flat_picture_is_flat_and_of_uniform_noise_is_itself():
    flat = torch.full((1, H, W), 0.3)
    assert equalise(flat, 2.0, 0.5).std() < 1e-4
    uniform = torch.rand(1, 4 * H, 4 * W, generator=torch.Generator().manual_seed(2))
    # A window holds some 900 pixels: the empirical distribution is off by 1 / sqrt(900) at most places.
    assert (equalise(uniform, 40.0, 0.6) - uniform).abs().mean() < 0.03


def test_clahe_widens_low_contrast_up_to_its_limit():
    low = 0.5 + 0.05 * (torch.rand(1, 4 * H, 4 * W, generator=torch.Generator().manual_seed(3)) - 0.5)
    spread = [float(equalise(low, limit, 0.6).std() / low.std()) for limit in (1.0, 3.0, 10.0)]
    assert spread[0] < spread[1] < spread[2]
    # What is cut off is dealt out evenly, which adds at most 1 to the slope, as in OpenCV.
    assert all(gain <= limit + 1 for gain, limit in zip(spread, (1.0, 3.0, 10.0), strict=True))
    assert spread[2] > 5


def test_dehaze_undoes_haze():
    generator = torch.Generator().manual_seed(4)
    clear = picture(5)
    clear[torch.randint(0, 3, (1,), generator=generator).item()] *= 0.2  # somewhere, some colour is almost absent
    depth = 1 + 0.5 * RAYS[..., 0]
    share = torch.exp(-0.7 * depth)
    air = torch.tensor([0.85, 0.88, 0.92])[:, None, None]
    hazy = clear * share + air * (1 - share)
    # The haziest pixels have to show the haze itself, as the sky does.
    hazy[:, :3] = air
    found = Dehaze(strength=1.0, least=0.05)(Panorama(hazy)).image
    seen = slice(8, H)
    before, after = ((x - clear)[:, seen].abs().mean() for x in (hazy, found))
    assert after < 0.35 * before


def test_dehaze_leaves_a_clear_picture_nearly_alone():
    clear = picture(5)
    clear[0] *= 0.01
    assert (Dehaze()(Panorama(clear)).image - clear).abs().mean() < 0.02


def test_widths_are_angles_whatever_the_resolution():
    def wave(rays):
        along = rays @ F.normalize(torch.tensor([1.0, 1, 1]), dim=0)
        return (0.5 + 0.3 * (12 * along).sin()).expand(3, *along.shape)

    small = Gaussian(3.0)(Panorama(wave(RAYS))).image
    large = Gaussian(3.0)(Panorama(wave(sphere.erp_rays(2 * H, 2 * W)))).image
    middle = slice(H // 4, 3 * H // 4)
    difference = (sphere.resize_erp(large, H, W) - small)[:, middle].abs().max()
    assert difference < 0.3 * (12 * math.pi / H / 2) ** 2  # what averaging 2 x 2 pixels does to such a wave
