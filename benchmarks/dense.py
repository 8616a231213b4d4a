"""Novel views of synthetic rooms against their truth: python -m benchmarks.dense --rooms 3 --height 256.

The panorama and its true distance become a mesh and splats; both are looked at from 0.1, 0.2 and 0.4 of the free space.
PSNR and distance error count all pixels of the sphere by their solid angle, and, apart, those that the panorama saw.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from immersivedepth.config import compose
from immersivedepth.data.synthetic import World, make_world, shapes
from immersivedepth.data.synthetic.render import Maps, erp_maps
from immersivedepth.field import looking
from immersivedepth.geometry import sphere
from immersivedepth.render.field.hash import Hash
from immersivedepth.render.field.inpaint import NavierStokes, Nothing
from immersivedepth.render.field.pool import Known, Pool
from immersivedepth.render.field.splat import Splat
from immersivedepth.render.field.voxel import Voxel
from immersivedepth.render.mesh import MeshScene
from immersivedepth.render.paths import CirclePoseSampler
from immersivedepth.render.protocol import Camera, Frame, Pose, Scene
from immersivedepth.render.splats import SplatScene
from immersivedepth.training.radiance import Fit, Radiance

RATIOS = (0.1, 0.2, 0.4)
Look = Callable[[Tensor], Tensor] | None
RAYS = 4096  # of a training step, as in conf/field
# A scene of a panorama's image and distance; others may be added under a name of their own.
SCENES: dict[str, Callable[[Tensor, Tensor], Scene]] = {
    "mesh": MeshScene,
    "mesh, Navier-Stokes": lambda image, distance: MeshScene(image, distance, "navier_stokes"),
    "splats": lambda image, distance: SplatScene(image, distance),
    "field": lambda image, distance: field(image, distance, Voxel(image.shape[-2])),
}


def field(
    image: Tensor, distance: Tensor, scene: Voxel | Splat | Hash, steps: int = 0, views: int = 0, look: Look = None
) -> Scene:
    """A field after so many steps of each phase; 0 is how it begins."""
    known = Known.of(torch.zeros(3), image, distance, torch.ones_like(distance, dtype=torch.bool))
    if not steps:
        made = scene.field()
        made.start(Pool([known]))
        return made
    settings = Radiance(
        CirclePoseSampler((0.2, 0.4), max(views // 2, 1)),
        geometry_steps=steps,
        appearance_steps=steps,
        refit_share=0.05,
        rays=RAYS,
    )
    with tempfile.TemporaryDirectory() as place:
        inpaint = NavierStokes() if views else Nothing()
        return Fit(settings, scene, inpaint, known, Path(place), 0, {}, look)(False)


def trained(steps: int, views: int) -> dict[str, Callable[[Tensor, Tensor], Scene]]:
    """Further rows: fields after training."""
    out: dict[str, Callable[[Tensor, Tensor], Scene]] = {}
    if steps:
        out[f"field, {steps} steps"] = lambda image, distance: field(image, distance, Voxel(image.shape[-2]), steps)
        out[f"splat field, {steps} steps"] = lambda image, distance: field(image, distance, Splat(), steps)
    if steps and views:
        out[f"field, {steps} steps, {views} views"] = lambda image, distance: field(
            image, distance, Voxel(image.shape[-2]), steps, views
        )
        look = looking(compose("config", ["predict=[bundled_dav2,bundled_midas]"]))
        out[f"field, {steps} steps, {views} views, predicted"] = lambda image, distance: field(
            image, distance, Voxel(image.shape[-2]), steps, views, look
        )
    return out


def limit(source: Maps, true: Maps, pose: Pose) -> float:
    """PSNR of the panorama's own colours at the true points of a view, where it shows them: what no scene without
    an imagination of its own can pass by much.
    """
    rays = sphere.erp_rays(*true.distance.shape[-2:])
    assert source.image is not None
    assert true.image is not None
    points = rays * torch.where(true.distance[0].isfinite(), true.distance[0], 1e4)[..., None] + pose.position
    uv = sphere.rays_to_erp(points)
    shown = sphere.sample_erp(source.distance.clamp_max(1e4), uv, "nearest")[..., 0]
    area = sphere.solid_angles(*true.distance.shape[-2:]) * (points.norm(dim=-1) < shown * 1.02)
    square = (sphere.sample_erp(source.image, uv).permute(2, 0, 1) - true.image).square().mean(0)
    return float(-10 * ((square * area).sum() / area.sum()).log10())


def matte(world: World) -> World:
    """The same world without gloss: highlights wander with the one who looks, and one picture cannot say where to."""
    rows = world.tables.rows.clone()
    rows[..., shapes.GLOSS] = 0
    return replace(world, tables=replace(world.tables, rows=rows))


def truth(world: World, pose: Pose, height: int) -> Maps:
    """What really is to be seen at a pose."""
    place = world.position + world.rotation @ pose.position
    return erp_maps(world.at(place), height, 2 * height, 2)


def scored(frame: Frame, true: Maps) -> dict[str, float]:
    """PSNR and mean relative error of distance, of all pixels and of seen ones."""
    area = sphere.solid_angles(*frame.distance.shape[-2:]).expand_as(frame.distance[0])
    assert true.image is not None
    square = (frame.image - true.image).square().mean(0)
    finite = true.distance[0].isfinite() & frame.distance[0].isfinite() & (frame.distance[0] > 0)
    relative = ((frame.distance - true.distance).abs() / true.distance)[0]
    out = {}
    for name, part in (("", torch.ones_like(finite)), (" seen", frame.seen[0])):
        weight = area * part
        out["psnr" + name] = float(-10 * ((square * weight).sum() / weight.sum()).log10())
        near = area * (part & finite)
        out["abs_rel" + name] = float((relative.nan_to_num(0) * near).sum() / near.sum())
        median = relative[part & finite]
        out["median" + name] = float(median.median())
    return {**out, "seen": float((area * frame.seen[0]).sum() / area.sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, default=3)
    parser.add_argument("--poses", type=int, default=2)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--steps", type=int, default=0, help="of each phase, of further rows with trained fields")
    parser.add_argument("--views", type=int, default=0, help="beside the panorama, of one further row")
    parser.add_argument("--matte", action="store_true", help="rooms without highlights")
    parser.add_argument("--scenes", nargs="*", help="only these rows")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    camera = Camera("panorama", args.height, 2 * args.height)
    scenes = {**SCENES, **trained(args.steps, args.views)}
    scenes = {name: make for name, make in scenes.items() if not args.scenes or name in args.scenes}
    rows: dict[tuple[str, float], list[dict[str, float]]] = {}
    limits: dict[float, list[float]] = {}
    clear = float("inf")
    for seed in range(args.rooms):
        world = make_world("room", seed=seed)
        world = matte(world) if args.matte else world
        source = erp_maps(world, args.height, 2 * args.height, 2)
        assert source.image is not None
        path = CirclePoseSampler(RATIOS, args.poses)(source.distance)
        clear = min(clear, float(world.clearance(world.position + path.positions @ world.rotation.T).min()))
        poses = path.poses("panorama")
        true = [truth(world, pose, args.height) for pose in poses]
        for i, pose in enumerate(poses):
            limits.setdefault(RATIOS[i // args.poses], []).append(limit(source, true[i], pose))
        for name, make in scenes.items():
            scene = make(source.image, source.distance)
            for i, pose in enumerate(poses):
                start = time.process_time()
                frame = scene.render(pose, camera)
                score = {**scored(frame, true[i]), "seconds": time.process_time() - start}
                rows.setdefault((name, RATIOS[i // args.poses]), []).append(score)
    print(
        f"{args.rooms} rooms, {2 * args.height}x{args.height}; least distance of a pose from any surface {clear:.3f} m"
    )
    print("| scene | way | PSNR | PSNR seen | distance, mean | median | mean seen | seen | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    table = []
    for (name, ratio), scores in rows.items():
        mean = {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}
        table.append({"scene": name, "ratio": ratio, **mean})
        print(
            f"| {name} | {ratio} | {mean['psnr']:.1f} | {mean['psnr seen']:.1f} | {mean['abs_rel']:.3f} | "
            f"{mean['median']:.4f} | {mean['abs_rel seen']:.3f} | {mean['seen']:.3f} | {mean['seconds']:.1f} |"
        )
    for ratio, values in limits.items():
        print(f"true points, colours of the panorama where it shows them, {ratio}: {sum(values) / len(values):.1f} dB")
    if args.out:
        args.out.write_text(json.dumps({"clearance": clear, "rows": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
