"""Synthetic scenes and spoiled views for the fusion benchmark: everything is seeded, nothing is read from disk.

Three scenes of boxes and spheres are ray-cast exactly, and outdoor ones are worlds of the package, with sky. Each view
is spoiled as a network would spoil it: blurred depth edges, a smooth bending of one of three families, correlated
noise, outlier blobs, and the unknown scale (and shift).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from immersivedepth.data.synthetic import make_world
from immersivedepth.geometry import icosahedron, pinhole
from immersivedepth.scene import Kind, Prediction, Rig

SCENES = {"room": (4.8, 5.5, 2.8, 7, 4), "hall": (15.0, 19.0, 6.1, 12, 8), "corridor": (2.3, 21.0, 2.7, 6, 3)}
OUTDOORS = "outdoors"
SKY = 1000.0  # metres that spoiled views say of the sky
FAMILIES = ("dct", "grf", "mix")


@dataclass(frozen=True)
class Level:
    """How badly views are spoiled."""

    scale: float  # deviation of log scale
    shift: float  # largest shift, in medians of disparity
    bend: float  # deviation of the smooth bending of log disparity
    edge: float  # pixels of blur at depth edges
    noise: float  # deviation of the noise of log disparity, five times as much at edges
    outliers: float  # part of a view under outlier blobs


LEVELS = (
    Level(0.5, 0.15, 0.0, 0.0, 0.0, 0.0),
    Level(0.25, 0.05, 0.02, 0.7, 0.003, 0.0),
    Level(0.5, 0.15, 0.06, 1.5, 0.01, 0.01),
    Level(0.8, 0.30, 0.12, 3.0, 0.02, 0.03),
)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def _turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


class Scene:
    """A rectangular room with yawed boxes and spheres around a camera at the origin."""

    def __init__(self, name: str, seed: int) -> None:
        width, depth, height, boxes, spheres = SCENES[name]
        g = torch.Generator().manual_seed(1000 * seed + sorted(SCENES).index(name))
        self.yaw = _turn(_uniform(g, 0, 2 * math.pi))
        eye = torch.tensor([_uniform(g, -0.15, 0.15) * width, _uniform(g, -0.15, 0.15) * depth, 0.0])
        camera = min(1.6, 0.6 * height)
        self.low = torch.tensor([-width / 2, -depth / 2, -camera], dtype=torch.float64) - eye
        self.high = torch.tensor([width / 2, depth / 2, height - camera], dtype=torch.float64) - eye
        self.boxes: list[tuple[Tensor, Tensor, Tensor]] = []  # turn, centre, half size
        self.spheres: list[tuple[Tensor, float]] = []
        clear = 0.25 * min(width, depth)
        while len(self.boxes) < boxes:
            half = torch.tensor([_uniform(g, 0.05, 0.16) * min(width, 6), _uniform(g, 0.05, 0.16) * min(depth, 6), 0.0])
            half[2] = _uniform(g, 0.12, 0.42) * height
            at = self._place(g)
            if at[:2].norm() > clear + half[:2].norm():
                at[2] = self.low[2] + half[2]
                self.boxes.append((_turn(_uniform(g, 0, math.pi)), at, half.double()))
        while len(self.spheres) < spheres:
            radius = _uniform(g, 0.06, 0.16) * min(width, height)
            at = self._place(g)
            at[2] = _uniform(g, float(self.low[2]) + radius, float(self.high[2]) - radius)
            if at.norm() > clear + radius:
                self.spheres.append((at, radius))

    def _place(self, generator: torch.Generator) -> Tensor:
        part = torch.rand(3, generator=generator, dtype=torch.float64)
        return self.low + (self.high - self.low) * (0.05 + 0.9 * part)

    def distance(self, rays: Tensor) -> Tensor:  # [..., 3] -> [...]
        """Exact distance along rays of any length."""
        d = F.normalize(rays.double(), dim=-1) @ self.yaw
        d = torch.where(d.abs() < 1e-12, 1e-12, d)
        best = torch.where(d > 0, self.high / d, self.low / d).amin(-1)
        for turn, centre, half in self.boxes:
            o, e = -centre @ turn, d @ turn
            e = torch.where(e.abs() < 1e-12, 1e-12, e)
            a, b = (-half - o) / e, (half - o) / e
            near, far = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
            best = torch.where((near < far) & (near > 0), torch.minimum(best, near), best)
        for centre, radius in self.spheres:
            along = d @ centre
            inside = along**2 - (centre @ centre - radius**2)
            near = along - inside.clamp_min(0).sqrt()
            best = torch.where((inside > 0) & (near > 0), torch.minimum(best, near), best)
        return best


def faces(resolution: int = 384) -> Rig:
    """Twenty views along the faces of the icosahedron, 90 degrees wide."""
    return Rig(pinhole.look_along(icosahedron.face_centres()), torch.ones(20), resolution)


def corners(resolution: int = 512) -> Rig:
    """Twelve views along the corners of the icosahedron, 90 degrees wide."""
    golden = (1 + math.sqrt(5)) / 2
    points = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    points += [(b * golden, 0.0, a) for a in (-1, 1) for b in (-1, 1)]
    points += [(a, b * golden, 0.0) for a in (-1, 1) for b in (-1, 1)]
    return Rig(pinhole.look_along(torch.tensor(points)), torch.ones(12), resolution)


def rays_of(rig: Rig) -> Tensor:  # [V, h, w, 3]
    """Rays of depth one, in world axes."""
    return pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution)


@lru_cache(maxsize=4)
def truth(scene: str, seed: int) -> Callable[[Tensor], Tensor]:
    """Exact distance along rays [..., 3] -> [...]; infinite where there is sky."""
    if scene == OUTDOORS:
        world = make_world("outdoor", seed)
        return lambda rays: world.trace(rays.float()).distance.double()
    return Scene(scene, seed).distance


@lru_cache(maxsize=4)
def _true_distance(scene: str, seed: int, layout: str, resolution: int, tan: float) -> tuple[Rig, Tensor, Tensor]:
    rig = {"faces": faces, "corners": corners}[layout](resolution)
    rig = Rig(rig.rotation, rig.tan_half_fov * tan, resolution)
    rays = rays_of(rig)
    return rig, truth(scene, seed)(rays), rays.double().norm(dim=-1)


def _blur(maps: Tensor, sigma: float) -> Tensor:  # [V, h, w]
    reach = max(1, math.ceil(3 * sigma))
    t = torch.arange(-reach, reach + 1, dtype=maps.dtype)
    kernel = torch.exp(-(t**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    x = F.pad(maps[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(x, kernel[None, None, None, :]), kernel[None, None, :, None])[:, 0]


def edges(maps: Tensor, jump: float, reach: int) -> Tensor:  # [V, h, w] -> bool
    """Where neighbouring values of log maps break away from a plane by more than `jump`, grown by `reach` pixels."""
    x = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across = (x[:, 1:-1, 2:] - 2 * x[:, 1:-1, 1:-1] + x[:, 1:-1, :-2]).abs()
    down = (x[:, 2:, 1:-1] - 2 * x[:, 1:-1, 1:-1] + x[:, :-2, 1:-1]).abs()
    found = (torch.maximum(across, down) > jump).to(torch.float32)[:, None]
    return F.max_pool2d(found, 2 * reach + 1, 1, reach)[:, 0] > 0


def _standard(maps: Tensor) -> Tensor:
    maps = maps - maps.mean((1, 2), keepdim=True)
    return maps / maps.std((1, 2), keepdim=True)


def _cosine_waves(views: int, n: int, g: torch.Generator) -> Tensor:
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n * math.pi
    wave = torch.stack([(k * x).cos() for k in range(4)])
    weight = torch.randn(views, 4, 4, generator=g, dtype=torch.float64)
    weight = weight * (torch.arange(4)[:, None] + torch.arange(4) <= 3)
    return _standard(torch.einsum("vab,ah,bw->vhw", weight, wave, wave))


def _random_field(views: int, n: int, low: float, high: float, g: torch.Generator) -> Tensor:
    """A Gaussian random field with a Gaussian kernel between `low` and `high` of the width."""
    small = 48
    out = []
    for _ in range(views):
        sigma = _uniform(g, low, high) * small
        t = torch.arange(small, dtype=torch.float64)
        kernel = torch.exp(-((t[:, None] - t) ** 2) / (2 * sigma**2))
        root = torch.linalg.cholesky(kernel + 1e-6 * torch.eye(small, dtype=torch.float64))
        out.append(root @ torch.randn(small, small, generator=g, dtype=torch.float64) @ root.T)
    return _standard(F.interpolate(torch.stack(out)[:, None], size=(n, n), mode="bicubic")[:, 0])


def bending(family: str, views: int, n: int, g: torch.Generator) -> Tensor:  # [V, n, n]
    """Smooth fields of mean 0 and deviation 1."""
    if family == "dct":
        return _cosine_waves(views, n, g)
    if family == "grf":
        return _random_field(views, n, 0.15, 0.45, g)
    t = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1
    weight = torch.randn(views, 4, 1, 1, generator=g, dtype=torch.float64)
    bowl = _standard((t[:, None] ** 2 + t**2)[None])
    tilt = weight[:, 1] * t[:, None] + weight[:, 2] * t
    return _standard(weight[:, 0] * bowl + tilt * 3**0.5 + 0.7 * _random_field(views, n, 0.08, 0.2, g))


def _blobs(views: int, n: int, part: float, g: torch.Generator) -> Tensor:
    """Factors on disparity: ellipses of 0.5 or 1.6 that cover a part of each view."""
    t = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    factor = torch.ones(views, n, n, dtype=torch.float64)
    for v in range(views):
        covered = torch.zeros(n, n, dtype=torch.bool)
        while covered.double().mean() < part:
            a, b = _uniform(g, 0.03, 0.09), _uniform(g, 0.03, 0.09)
            x, y = t - _uniform(g, 0, 1), t[:, None] - _uniform(g, 0, 1)
            inside = (x / a) ** 2 + (y / b) ** 2 < 1
            factor[v][inside] = 0.5 if _uniform(g, 0, 1) < 0.5 else 1.6
            covered |= inside
    return factor


def make(
    scene: str,
    family: str,
    level: int | Level,
    mode: str,
    seed: int = 0,
    layout: str = "faces",
    resolution: int = 384,
    tan: float = 1.0,
) -> Prediction:
    """Spoiled views of a scene; mode `dist` gives distances up to scale, `disp` affine disparities."""
    how = LEVELS[level] if isinstance(level, int) else level
    rig, distance, ratio = _true_distance(scene, seed, layout, resolution, tan)
    views, n = len(rig), resolution
    g = torch.Generator().manual_seed(
        7919 * seed + 31 * FAMILIES.index(family) + [*sorted(SCENES), OUTDOORS].index(scene)
    )
    sky = distance.isinf()
    # Networks put the sky far away, and the segmentation of it is right.
    q = ratio / torch.where(sky, SKY, distance)
    near_edge = edges(q.log(), 0.05, max(1, round(2 * how.edge)))
    if how.edge:
        q = torch.where(near_edge, _blur(q, how.edge), q)
    if how.bend:
        q = q * torch.exp(how.bend * bending(family, views, n, g))
    if how.noise:
        noise = _blur(torch.randn(views, n, n, generator=g, dtype=torch.float64), 1.0)
        noise = noise / noise.std() * how.noise
        q = q * torch.exp(torch.where(near_edge, 5 * noise, noise))
    if how.outliers:
        q = q * _blobs(views, n, how.outliers, g)
    scale = torch.exp(how.scale * torch.randn(views, 1, 1, generator=g, dtype=torch.float64))
    shift = how.shift * (2 * torch.rand(views, 1, 1, generator=g, dtype=torch.float64) - 1)
    if mode == "disp":
        middle = q.flatten(1).median(1).values[:, None, None]
        values, kind = scale * (q + shift * middle), Kind.AFFINE_DISPARITY
    else:
        values, kind = scale * ratio / q, Kind.SCALE_DISTANCE
    return Prediction(values.float()[:, None], (kind,) * views, rig, sky=sky[:, None] if bool(sky.any()) else None)
