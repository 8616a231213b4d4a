import math

import cv2
import pytest
import torch
import torch.nn.functional as F

from immersivedepth.geometry import directions, icosahedron, pinhole, sphere, warp
from immersivedepth.scene import Rig

H = 64


def rig_along(forward, tan=1.0, resolution=24):
    return Rig(pinhole.look_along(forward), torch.full((len(forward),), tan), resolution)


def rolled(count=4, seed=0):
    """Views whose horizon is not level, among them one that looks straight up."""
    q, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    q = q * torch.linalg.det(q).sign()[:, None, None]
    q[0] = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    return Rig(q.float(), torch.linspace(0.5, 1.5, count), 23)


RIGS = {
    "icosahedron": rig_along(icosahedron.face_centres()),
    "odd": rig_along(icosahedron.face_centres(), 1.2, 25),
    "cube": rig_along(directions.cube_faces(), 1.3),
    "fibonacci": rig_along(directions.fibonacci(9), 0.8),
    "turned": rig_along(icosahedron.face_centres() @ directions.yaw(0.3).T),
    "rolled": rolled(),
}
rigs = pytest.mark.parametrize("rig", RIGS.values(), ids=RIGS)


def noise(channels=3, height=H, seed=0):
    return torch.rand(channels, height, 2 * height, generator=torch.Generator().manual_seed(seed))


def smooth(rays):
    """A colour for every unit ray, with slopes of about one per radian."""
    x, y, z = rays.unbind(-1)
    return torch.stack([torch.sin(x + y), torch.cos(y * z) - 0.5, torch.sin(2 * z) / 2], dim=-3) / 2 + 0.5


def truth(rig, of=smooth):
    return of(F.normalize(pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution), dim=-1))


@rigs
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("value", "kind"), [(200, torch.uint8), (1 / 3, torch.float32)])
def test_a_constant_stays_constant_to_the_bit(rig, antialias, value, kind):
    image = torch.full((3, 2 * H, 4 * H), value, dtype=kind)
    views = warp.erp_to_views(image, rig, antialias)
    assert views.dtype == kind
    assert (views == image[0, 0, 0]).all()


@rigs
def test_float_maps_are_exact_reading_between_pixels(rig):
    image = noise()
    found = warp.erp_to_views(image, rig, antialias=False)
    rays = pinhole.view_rays(rig.rotation.double(), rig.tan_half_fov.double(), rig.resolution)
    wanted = sphere.sample_erp(image.double(), sphere.rays_to_erp(rays)).permute(0, 3, 1, 2)
    # White noise has slopes of one per pixel, and float32 places a sample to about 1e-5 pixels of 128; next to the
    # poles to less in longitude, and at a pole itself, which one pixel meets, noise has no value.
    pole = F.normalize(rays, dim=-1)[..., 2].abs() > 1 - 1e-9
    error = (found - wanted).abs().amax(1)[~pole]
    assert pole.sum() <= 1
    assert error.max() < 1e-3
    assert error.mean() < 1e-5


@rigs
def test_fixed_maps_are_within_a_step_of_them(rig):
    image = (noise() * 255).round().to(torch.uint8)
    found = warp.erp_to_views(image, rig, antialias=False).float()
    wanted = warp.erp_to_views(image.float(), rig, antialias=False)
    # Positions are rounded to 1/32 pixel, so by 1/64 at most along either axis, where neighbours differ by up to 255.
    assert (found - wanted).abs().max() <= 2 * 255 / 64 + 1
    assert (found - wanted).abs().mean() < 1


def test_the_exact_panorama():
    rig = rig_along(icosahedron.face_centres(), 1.0, 128)
    image = smooth(sphere.erp_rays(256, 512))
    found = warp.erp_to_views(image, rig, antialias=False)
    # Bilinear reading errs by an eighth of the second derivative (about 1) times the square of a pixel (0.012).
    assert (found - truth(rig)).abs().max() < 1e-4
    fixed = warp.erp_to_views((image * 255).round().to(torch.uint8), rig, antialias=False).float() / 255
    # Two roundings to a byte, 1/sqrt(12) each.
    assert (fixed - truth(rig)).square().mean().sqrt() < 1.1 * math.sqrt(2 / 12) / 255


@pytest.mark.parametrize("pitch", [90, -90, 89.9, 52.6, 0])
def test_no_seam_shows(pitch):
    # A view across the seam, or straight at a pole, of a panorama that is smooth on the sphere.
    forward = torch.tensor([[-math.cos(math.radians(pitch)), 0.0, math.sin(math.radians(pitch))]])
    rig = rig_along(forward, 1.0, 64)
    found = warp.erp_to_views(smooth(sphere.erp_rays(256, 512)), rig, antialias=False)
    assert (found - truth(rig)).abs().max() < 1e-4


def test_turning_the_world_turns_the_views():
    image = (noise() * 255).to(torch.uint8)
    step = 5  # columns
    forward = icosahedron.face_centres()
    turned = forward @ directions.yaw(2 * math.pi * step / (2 * H)).T
    left = warp.erp_to_views(image.roll(-step, -1), rig_along(turned), antialias=False).float()
    right = warp.erp_to_views(image, rig_along(forward), antialias=False).float()
    # A sample on the edge of a 1/32 step may round the other way, and then moves by that step.
    assert (left - right).abs().max() <= 2 * 255 / 32
    assert (left - right).abs().mean() < 0.5


@pytest.mark.parametrize("channels", [2, 4, 5, 6])
def test_other_types_and_more_channels(channels):
    rig = RIGS["cube"]
    image = noise(channels)
    whole = warp.erp_to_views(image, rig)
    assert torch.allclose(whole[:, :1], warp.erp_to_views(image[:1], rig), atol=1e-6)  # sums in another order
    assert (warp.erp_to_views(image.double(), rig) - whole).abs().mean() < 1e-5
    # Channels last in memory is the same image.
    last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(warp.erp_to_views(last, rig), whole)


@rigs
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_torch_gives_the_same_where_opencv_cannot(rig, kind, monkeypatch):
    image = (noise(height=200) * (255 if kind == torch.uint8 else 1)).to(kind)
    fast = warp.erp_to_views(image, rig)
    assert any(n > 1 for n in warp._sampling(400, rig, True)[1])
    monkeypatch.setattr(warp, "REMAP_SIDE", 100)
    slow = warp.erp_to_views(image, rig)
    assert slow.dtype == kind
    assert (fast.float() - slow.float()).abs().mean() < (1 if kind == torch.uint8 else 1e-5)


def test_gradients_reach_the_panorama():
    image = noise(1, 8).double().requires_grad_()
    rig = rig_along(directions.cube_faces()[2:5], 1.0, 3)
    assert torch.autograd.gradcheck(lambda i: warp.erp_to_views(i, rig), (image,))


def test_how_many_samples():
    def plan(width, tan=1.0, resolution=512):
        return warp._sampling(width, Rig(torch.eye(3)[None], torch.tensor([tan]), resolution), True)

    # Panorama pixels per view pixel in the middle: width / (pi resolution) for 90 degrees.
    assert plan(2048) == (0, (1,))  # 1.27
    assert plan(4096) == (0, (2,))  # 2.55
    assert plan(8192) == (1, (2,))  # 5.09, 2.55 after halving
    assert plan(16384) == (2, (2,))
    assert plan(512) == (0, (1,))
    wide = Rig(torch.eye(3).expand(2, 3, 3), torch.tensor([1.0, 2.0]), 512)
    assert warp._sampling(4096, wide, True) == (0, (2, 4))
    assert warp._sampling(8192, wide, False) == (0, (1, 1))


def test_antialiasing_of_a_zone_plate():
    def plate(rays):  # finer than the views can hold in places, not finer than the panorama can
        return (0.5 + torch.cos(170 * rays[..., 2:].square()) / 2).movedim(-1, -3)

    rig = rig_along(icosahedron.face_centres()[[0, 7]], 1.0, 64)
    image = plate(sphere.erp_rays(256, 512))
    wanted = F.avg_pool2d(truth(Rig(rig.rotation, rig.tan_half_fov, 8 * 64), plate), 8)
    rms = [
        float((warp.erp_to_views(image, rig, antialias) - wanted).square().mean().sqrt()) for antialias in (False, True)
    ]
    assert rms[1] < 0.5 * rms[0]


def test_masks_keep_away_from_what_is_not_shown():
    rig = RIGS["icosahedron"]
    mask = torch.ones(1, H, 2 * H, dtype=torch.bool)
    assert warp.mask_to_views(mask, rig).all()
    assert not warp.mask_to_views(~mask, rig).any()
    mask[0, 20:40, 30:70] = False
    image = torch.where(mask, 100, 0).to(torch.uint8)
    seen = warp.mask_to_views(mask, rig)
    assert seen.dtype == torch.bool
    assert 0 < (~seen).float().mean() < 0.3
    # Wherever the mask holds, nothing of the black is mixed in.
    assert (warp.erp_to_views(image, rig)[seen] == 100).all()


def test_maps_stay_within_their_bound(monkeypatch):
    warp._all_maps.clear()
    rig = RIGS["icosahedron"]
    image = (noise() * 255).to(torch.uint8)
    kept = warp.erp_to_views(image, rig, antialias=False)
    assert warp._all_maps.held() == 20 * 24 * 24 * 6
    assert torch.equal(warp.erp_to_views(image, rig, antialias=False), kept)
    warp._all_maps.clear()
    monkeypatch.setattr(warp, "MAP_BYTES", 1000)  # too small for these: made view by view, not kept
    assert torch.equal(warp.erp_to_views(image, rig, antialias=False), kept)
    assert warp._all_maps.held() == 0


def test_settings_of_opencv_and_torch_are_left_alone():
    before = cv2.getNumThreads(), torch.get_num_threads(), torch.get_default_dtype(), torch.random.get_rng_state()
    warp.erp_to_views(noise(), RIGS["cube"])
    after = cv2.getNumThreads(), torch.get_num_threads(), torch.get_default_dtype(), torch.random.get_rng_state()
    assert before[:3] == after[:3]
    assert torch.equal(before[3], after[3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_on_the_gpu(kind):
    rig = RIGS["icosahedron"]
    image = (noise() * (255 if kind == torch.uint8 else 1)).to(kind)
    there = Rig(rig.rotation.cuda(), rig.tan_half_fov.cuda(), rig.resolution)
    found = warp.erp_to_views(image.cuda(), there)
    assert found.is_cuda
    assert found.dtype == kind
    wanted = warp.erp_to_views(image, rig).float()
    assert (found.cpu().float() - wanted).abs().mean() < (1 if kind == torch.uint8 else 1e-4)
