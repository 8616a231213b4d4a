"""What a visitor may choose, and the overrides of the command line that each choice stands for.

Choices are names out of fixed lists: no text of a visitor ever reaches a config.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ..checks import ConfigError
from ..config import CONF
from ..memory import human
from ..visual.colours import ColourMap
from ..weights import REGISTRY, Source, Weights
from ..weights.finding import places
from .settings import App

Overrides = tuple[str, ...]

SIZES: dict[str, Overrides] = {
    "512 x 256, a quick look": ("dataset.image_resize=[512,256]", "project.resolution=256"),
    "1024 x 512": ("dataset.image_resize=[1024,512]", "project.resolution=384"),
    "2048 x 1024": ("dataset.image_resize=[2048,1024]", "project.resolution=512"),
    "as uploaded": (),
}
ALIGNMENTS: dict[str, Overrides] = {
    "scale and shift of each view": ("align=global_affine", "blend=feather"),
    "with bending": ("align=grid_affine", "blend=robust"),
    "with bending, seamless": ("align=grid_affine", "blend=poisson"),
    "none": ("align=identity", "blend=feather"),
}
REFINEMENTS: dict[str, Overrides] = {
    "none": ("refine=[normals,whole_sphere]",),
    "edges of the picture": ("refine=[normals,whole_sphere,guided]",),
    "flat walls": ("refine=[normals,whole_sphere,planes]",),
}
COLOURS: tuple[str, ...] = get_args(ColourMap)
# What a browser can show is less than what a disk can hold.
PRODUCTS: Overrides = (
    "segment=convex_parts",
    "export=[arrays,png16,labels,preview,quality,report,pointcloud,mesh,splats]",
    "export.mesh.max_faces=150000",
    "export.pointcloud.max_points=300000",
    "export.splats.max_splats=200000",
)
ORACLE = "oracle"
BUNDLED = "bundled_"
_METRIC = {"hypersim": "indoor", "vkitti": "outdoor"}


@dataclass(frozen=True)
class Network:
    """One network that a visitor may choose, and how the command line asks for it."""

    name: str
    label: str
    option: str  # of conf/predict
    overrides: Overrides = ()
    source: Source | None = None  # whose file it needs


def known(app: App) -> list[Network]:
    """Every network of depth that the program can run; those of the package itself come first."""
    found = [
        Network(path.stem, f"{path.stem.removeprefix(BUNDLED)} (comes with the program)", path.stem)
        for path in sorted((CONF / "predict").glob(f"{BUNDLED}*.yaml"))
    ]
    if app.unet_weights:
        path = str(Path(app.unet_weights).expanduser().absolute())
        found.append(Network("unet", "indoor U-Net", "unet", (f"predict.unet.weights={quoted(path)}",)))
    found += [network for network in map(_of_source, REGISTRY.values()) if network is not None]
    exact = Network(ORACLE, "exact distances (only for the sample rooms)", ORACLE)
    return [*found, exact]


def present(app: App, weights: Weights) -> dict[str, Network]:
    """Those that can run now, without fetching anything."""
    folders = places(weights)
    return {
        network.name: network
        for network in known(app)
        if network.source is None or any((folder / network.source.file).is_file() for folder in folders)
    }


def absent(app: App, weights: Weights) -> dict[str, Network]:
    """Those whose weights can be fetched."""
    here = present(app, weights)
    return {n.name: n for n in known(app) if n.name not in here and n.source is not None and n.source.url}


def licence(network: Network) -> str:
    """What a person should know before the weights are fetched."""
    source = network.source
    if source is None:
        return "It comes with the program."
    return f"{source.file}, {human(source.size)}, licence {source.licence}: {source.licence_note}. {source.page}"


def _of_source(source: Source) -> Network | None:
    if source.package == "bundled":
        return None  # chosen by the option of its own
    label = f"{source.name} ({source.licence})"
    if source.package == "midas":
        return Network(source.name, label, "midas", (f"predict.midas.model={source.variant}",), source)
    if source.package == "omnidata":
        depth = "depth" in source.name
        return Network(source.name, label, "omnidata_depth", (), source) if depth else None
    *kind, encoder = source.variant.split("_")
    metric = _METRIC[kind[1]] if kind else None
    option = f"depth_anything_v2_{metric}" if metric else "depth_anything_v2"
    return Network(source.name, label, option, (f"predict.depth_anything_v2.encoder={encoder}",), source)


def overrides(
    networks: Sequence[Network],
    size: str,
    alignment: str,
    refinement: str,
    colours: str,
    products: Overrides = PRODUCTS,
) -> list[str]:
    """What the command line would be given for these choices."""
    if not networks:
        raise ConfigError("No network is chosen: choose at least one.")
    options = [network.option for network in networks]
    families = [option.removesuffix("_indoor").removesuffix("_outdoor") for option in options]
    if len(set(families)) < len(families):
        raise ConfigError("Two networks of one family are chosen: choose one of each family.")
    if colours not in COLOURS:
        raise ConfigError(f"{colours!r} is not a colour map: choose one of {', '.join(COLOURS)}.")
    return [
        f"predict=[{','.join(options)}]",
        *(line for network in networks for line in network.overrides),
        *_one_of(SIZES, size, "resolution"),
        *_one_of(ALIGNMENTS, alignment, "alignment"),
        *_one_of(REFINEMENTS, refinement, "refinement"),
        *products,
        f"export.preview.colours={colours}",
    ]


def chosen(names: Sequence[str], app: App, weights: Weights) -> list[Network]:
    """The networks of these names, all of them present."""
    here = present(app, weights)
    for name in names:
        if name not in here:
            raise ConfigError(f"{str(name)[:80]!r} is no network that is present here: choose from {', '.join(here)}.")
    return [here[name] for name in dict.fromkeys(names)]


def command(given: Sequence[str], picture: str) -> str:
    """The line that does the same on the command line."""
    words = [f"dataset.image_path={quoted(picture)}", *given] if picture else given
    return "python core_exp_runner.py " + " \\\n  ".join(shlex.quote(_without_folder(word)) for word in words)


def quoted(text: str) -> str:
    """A text as a value of Hydra's command line, whatever signs it holds."""
    # In Hydra's grammar a backslash means itself, unless a quote follows.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def _one_of(table: Mapping[str, Overrides], name: str, what: str) -> Overrides:
    if name not in table:
        raise ConfigError(f"{str(name)[:80]!r} is not a choice of {what}: choose one of {', '.join(table)}.")
    return table[name]


def _without_folder(word: str) -> str:
    """Where weights of one's own lie on the server is nobody's business."""
    key, _, value = word.partition("=")
    return f"{key}={quoted(Path(value.strip(chr(39))).name)}" if key.endswith(".weights") else word
