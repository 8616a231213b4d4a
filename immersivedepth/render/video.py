"""Films: H.264 in MP4, with the box by which players know that a film is a whole sphere."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from torch import Tensor

from ..checks import ConfigError
from ..files import atomic

CONSTANT_QUALITY = "16"  # of x264: hardly told from the frames
# The uuid box of the Spherical Video RFC, version 1, which lies in the box of the video's track.
SPHERICAL = UUID("ffcc8263-f855-4a93-8814-587a02521fdd").bytes
ABOUT = (
    '<?xml version="1.0"?><rdf:SphericalVideo xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/"><GSpherical:Spherical>true</GSpherical:Spherical>'
    "<GSpherical:Stitched>true</GSpherical:Stitched><GSpherical:StitchingSoftware>ImmersiveDepth"
    "</GSpherical:StitchingSoftware><GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>"
    "</rdf:SphericalVideo>"
)
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def write_video(path: Path, frames: Iterable[Tensor], fps: int, spherical: bool) -> Path:  # [3, H, W] in 0..1
    """Frames of even size, one after another, so that none but the current is in memory."""
    import av

    with atomic(path) as temporary:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = None
            for frame in frames:
                height, width = frame.shape[-2:]
                if height % 2 or width % 2:
                    raise ConfigError(f"render: films have even sizes, not {width}x{height}; change render.height")
                if stream is None:
                    stream = container.add_stream("libx264", rate=fps, options={"crf": CONSTANT_QUALITY})
                    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                pixels = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            if stream is not None:
                container.mux(stream.encode())
        if spherical:
            temporary.write_bytes(with_sphere(temporary.read_bytes()))
    return path


def boxes(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[bytes, int, int, int]]:
    """Kind, start, start of content and end of each box in a part of an MP4."""
    found, end = [], len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        size = size or end - start
        found.append((kind, start, start + head, start + size))
        start += size
    return found


def with_sphere(data: bytes) -> bytes:
    """The MP4 with the spherical box at the end of its first track. Pictures before the index keep their places."""
    kinds = [kind for kind, *_ in boxes(data)]
    _, start, inside, end = next(box for box in boxes(data) if box[0] == b"moov")
    track = next(box for box in boxes(data, inside, end) if box[0] == b"trak")
    extra = struct.pack(">I4s", 24 + len(ABOUT), b"uuid") + SPHERICAL + ABOUT.encode()
    if kinds.index(b"moov") < kinds.index(b"mdat"):
        raise ValueError("the index lies before the pictures, whose places it tells")
    out = bytearray(data)
    for place in (start, track[1]):
        struct.pack_into(">I", out, place, struct.unpack_from(">I", data, place)[0] + len(extra))
    out[track[3] : track[3]] = extra
    return bytes(out)
