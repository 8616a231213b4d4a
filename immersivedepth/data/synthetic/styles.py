"""Styles of places: palettes, textures and proportions. Colours are sRGB codes."""

from __future__ import annotations

from dataclasses import dataclass

from .textures import Texture


@dataclass(frozen=True)
class IndoorStyle:
    """What the rooms of one style are made of."""

    walls: tuple[str, ...]
    feature: tuple[Texture, ...]  # of one wall in two
    floors: tuple[str, ...]
    woods: tuple[str, ...]
    fabrics: tuple[str, ...]
    accents: tuple[str, ...]
    metal: str
    slim: float
    height: tuple[float, float]
    beams: float = 0.0  # probability
    clutter: float = 1.0


INDOOR: dict[str, IndoorStyle] = {
    "nordic": IndoorStyle(
        ("eeece6", "e4e6e4", "d9dfe0", "f2eee4"), (Texture.PLAIN, Texture.PLANKS, Texture.DOTS),
        ("planks:d8b98c:c9a573", "planks:e3cfae:d4bc95", "planks:b7a38a:a08b72"), ("d9b98a", "c79f6a", "ece4d6"),
        ("8d979c", "cbc6ba", "5d6b74"), ("d8a13c", "6f9a8d", "c46a4f", "365b78"), "2b2b2b", 0.9, (2.5, 2.9),
    ),
    "modern": IndoorStyle(
        ("f1f0ee", "cfd0d0", "a7abae", "e6e1d8"), (Texture.PLAIN, Texture.MARBLE, Texture.WOOD),
        ("tiles:c9c7c2:b2afa9", "planks:7a5c43:5f4533", "tiles:77797b:5e6062", "planks:a98a6a:8e7052"),
        ("3b2b21", "6b4a33", "f0f0ee", "1f2022"),
        ("3c4046", "b7b2a8", "77706a"), ("b7312c", "e0a020", "1f6f78", "2f2f33"), "b9bcc0", 0.7, (2.6, 3.3),
    ),
    "classic": IndoorStyle(
        ("e7d9bd", "c9d2c0", "d7c0b2", "b9c4cf"), (Texture.STRIPES, Texture.DOTS, Texture.PLAIN),
        ("planks:8a5a34:6d4326", "checker:e8e4da:4a4745", "planks:a26a3c:7d4d2a"), ("5a3420", "74462a", "3f2618"),
        ("7b2f35", "2f4a3c", "a88a5a", "3a4a72"), ("a8842c", "8c2f39", "274a5e"), "b08d3c", 0.15, (2.8, 3.6),
    ),
    "rustic": IndoorStyle(
        ("e9dcc3", "d8c6a6", "f0e7d6"), (Texture.BRICKS, Texture.PLANKS, Texture.NOISE),
        ("tiles:b5704a:9a5a3a", "planks:8f6a45:6f4f32", "tiles:a89a84:8f826e"), ("7d5432", "9a6b3f", "5f4028"),
        ("a3552f", "6f7a4a", "c9b48c"), ("9a2f22", "cf8f2f", "4a6a58"), "3a3632", 0.1, (2.3, 2.8), beams=0.8,
    ),
    "industrial": IndoorStyle(
        ("9b9894", "b7b2ac", "7d7f82"), (Texture.BRICKS, Texture.BRICKS, Texture.NOISE),
        ("noise:8b8a87:75736f", "planks:6b5844:50402f", "noise:a09c96:88847d"), ("6a4a30", "8a6540", "3d3a37"),
        ("5b4636", "3d4247", "8a6a48"), ("c4622d", "d2a52a", "30506a"), "1f2123", 0.6, (3.2, 4.4), beams=0.5,
    ),
    "pastel": IndoorStyle(
        ("f4d9dc", "d5e8ee", "dff0d8", "f8edc9", "e2d9f0"), (Texture.DOTS, Texture.STRIPES, Texture.CHECKER),
        ("planks:e0c49a:d1b284", "noise:d9c8d8:cbb8ca", "checker:f0ece4:c8dade"), ("f3ede2", "e2c391", "c9dfe8"),
        ("e59aa6", "8fc1d4", "f0cf7a", "a9d0a0"), ("e4572e", "4aa3c8", "f2b134", "8a63b8"),
        "e8e4dc", 0.5, (2.4, 2.8), clutter=2.0,
    ),
    "mediterranean": IndoorStyle(
        ("f6f1e6", "f0dcc0", "e8c8a0", "dfe9ea"), (Texture.TILES, Texture.NOISE, Texture.PLAIN),
        ("tiles:c98a5c:b4764a", "tiles:e9e0cf:3f6f9a", "checker:efe8da:5a86a4"), ("8a6844", "4a7a9a", "d8c4a0"),
        ("2f6f9f", "e8dcc4", "c8693a"), ("e0a82f", "1f5f8f", "c9502f"), "3f3a34", 0.3, (2.6, 3.4),
    ),
    "office": IndoorStyle(
        ("e9eaea", "d4d9dc", "c5cdc9"), (Texture.PLAIN, Texture.STRIPES, Texture.PLAIN),
        ("cloth:5f6a75:4a5560", "tiles:b9bbbd:a4a6a8", "cloth:76706a:615b56"), ("c2a27c", "e5e5e3", "8e8f91"),
        ("2f3b4a", "3d5a4a", "59606a"), ("2a6fb0", "d0482f", "5fa04a"), "9a9da1", 0.8, (2.6, 3.0),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class OutdoorStyle:
    """What the places of one style are made of."""

    walls: tuple[str, ...]
    roofs: tuple[str, ...]
    floors: tuple[int, int]  # storeys
    gable: float  # probability of a pitched roof
    ground: str  # grass, paving, sand, asphalt
    trees: tuple[str, ...]
    gap: tuple[float, float]  # metres between buildings
    setback: tuple[float, float]  # metres between kerb and buildings
    cars: int
    sky: tuple[str, str]  # zenith, horizon
    hills: float = 0.3


OUTDOOR: dict[str, OutdoorStyle] = {
    "suburb": OutdoorStyle(
        ("e8e0cf", "d8c3a0", "b9c7cf", "c98f78", "f0eee8"), ("8a4b38", "5a5552", "6e4a3a"), (1, 2), 0.95, "grass",
        ("round", "round", "conifer"), (3, 9), (4, 8), 4, ("4f86cf", "cfe2f2"),
    ),
    "city": OutdoorStyle(
        ("b8aa98", "8d8f92", "c9bfae", "9a6a55", "d9d5cc", "74808a"), ("55504c", "6a625a"), (3, 8), 0.15, "paving",
        ("round",), (0, 1.5), (0.1, 1.2), 8, ("6b95c8", "d9e2ea"), hills=0.05,
    ),
    "park": OutdoorStyle(
        ("d9cdb8", "b9a58a"), ("7d4a38", "5c5a55"), (1, 2), 0.8, "grass",
        ("round", "round", "conifer", "birch"), (20, 40), (10, 25), 0, ("4a80c8", "c8dff0"), hills=0.6,
    ),
    "village": OutdoorStyle(
        ("f2ead8", "d9b98c", "c9a07a", "a8a49a", "e8d6c8"), ("a0522d", "8b4a33", "6a4436"), (1, 3), 1.0, "paving",
        ("round", "conifer"), (0, 3), (0.3, 2), 2, ("5a8fd0", "dde8ee"), hills=0.7,
    ),
    "desert": OutdoorStyle(
        ("d9b588", "c99a68", "e8d2ac", "b98558"), ("c9a878", "b08a5a"), (1, 2), 0.05, "sand",
        ("palm", "cactus"), (5, 15), (4, 10), 2, ("3f7fc8", "ecdcc0"), hills=0.9,
    ),
    "harbour": OutdoorStyle(
        ("8a4a3a", "6f7a80", "b0b4b2", "4a6a7a", "c8b04a"), ("4a4a4a", "7a3a30"), (1, 3), 0.4, "asphalt",
        ("round",), (4, 12), (3, 8), 5, ("7f9fb8", "dfe4e6"), hills=0.2,
    ),
    "winter": OutdoorStyle(
        ("c9b8a8", "8f6a55", "d9d4cc", "7a8a94"), ("e8ecf0", "dde3ea"), (1, 3), 0.9, "snow",
        ("conifer", "bare"), (3, 10), (3, 7), 3, ("8fa9c4", "e4eaf0"), hills=0.8,
    ),
}  # fmt: skip
