"""mode=view: point cloud, mesh, splats and the camera's path of a run in a browser."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .checks import ConfigError
from .config import build
from .dense import found
from .render.paths import Path as Way
from .render.settings import View
from .runs import RunFolder
from .scene import Geometry, Panorama
from .stages.export.mesh import Mesh
from .stages.export.splats import Splats

PATH_COLOUR = (255, 120, 0)


class Viewer:
    """A served page; it ends with the block that it is used in."""

    def __init__(self, settings: View, panorama: Panorama, geometry: Geometry, way: Way, folder: Path) -> None:
        import trimesh
        import viser

        self.seconds = settings.seconds
        self.server = viser.ViserServer(host=settings.host, port=settings.port, verbose=False)
        self.address = f"http://{settings.host}:{self.server.get_port()}"
        scene = self.server.scene
        scene.set_up_direction("+z")
        discs = Splats(settings.max_points).discs(geometry, panorama)
        colours = (discs.colour.clamp(0, 1) * 255).round().byte().numpy()
        size = float(discs.sigma.median())
        scene.add_point_cloud("/points", discs.centre.numpy(), colours, point_size=size)
        thin = torch.cat([discs.sigma, discs.sigma.amin(1, keepdim=True) * 0.05], 1)
        shape = discs.axes @ torch.diag_embed(thin.square()) @ discs.axes.transpose(1, 2)
        solid = torch.full((len(thin), 1), 0.99).numpy()
        scene.add_gaussian_splats(
            "/splats", discs.centre.numpy(), shape.numpy(), discs.colour.numpy(), solid, visible=False
        )
        Mesh(max_faces=settings.max_points)(geometry, panorama, folder)
        mesh = trimesh.load(folder / "mesh.glb", force="mesh", process=False)
        # glTF is upright along +y, the scene along +z.
        mesh.apply_transform([[0, 0, -1, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        scene.add_mesh_trimesh("/mesh", mesh, visible=False)
        line = way.positions.numpy()
        if len(line) > 1:
            scene.add_spline_catmull_rom("/path", line, color=PATH_COLOUR, line_width=3.0)

    @staticmethod
    def check() -> None:
        """Say what is missing before anything is computed."""
        if importlib.util.find_spec("viser") is None:
            raise ConfigError("mode=view needs viser: pip install 'immersivedepth[view]'")

    @classmethod
    def of(cls, config: dict[str, Any], open_folder: Callable[[], RunFolder]) -> Viewer:
        """The first panorama of a run."""
        _, results = found(config, open_folder)
        place, panorama, geometry = next(iter(results))
        way = build(config["pose_sampler"], "pose_sampler")(geometry.distance)
        return cls(build(config["view"], "view"), panorama, geometry, way, place / "view")

    def wait(self) -> None:
        """Until the time is over, or for ever."""
        end = None if self.seconds is None else time.monotonic() + self.seconds
        while end is None or time.monotonic() < end:
            time.sleep(0.2)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
