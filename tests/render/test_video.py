"""Films hold their frames, and whole spheres say so."""

import struct

import av
import pytest
import torch

from immersivedepth.checks import ConfigError
from immersivedepth.render.video import SPHERICAL, write_video


def frames(count=6, height=48, width=96):
    """A pattern without sharp colours, that moves around the seam."""
    y, x = torch.meshgrid(torch.linspace(0, 6.28, height), torch.arange(width) / width * 6.2832, indexing="ij")
    return [
        torch.stack([x.add(0.3 * i).sin(), x.add(0.3 * i).cos() * y.cos(), y.sin()]) * 0.4 + 0.5 for i in range(count)
    ]


@pytest.mark.parametrize("spherical", [True, False])
def test_frames_come_back(tmp_path, spherical):
    given = frames()
    path = write_video(tmp_path / "film.mp4", given, 24, spherical)
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == 24
        shown = [torch.from_numpy(f.to_ndarray(format="rgb24")).permute(2, 0, 1) / 255 for f in film.decode(video=0)]
    assert len(shown) == len(given)
    for one, two in zip(shown, given, strict=True):
        assert -10 * (one - two).square().mean().log10() > 35  # dB; colours are kept at half the resolution


def walk(data, *kinds):
    """The content of nested boxes, read anew."""
    for kind in kinds:
        at = 0
        while True:
            size, name = struct.unpack_from(">I4s", data, at)
            if name == kind:
                data = data[at + 8 : at + size]
                break
            at += size
            assert at < len(data), f"no box {kind}"
    return data


def test_a_sphere_says_so_in_its_track(tmp_path):
    round_ = write_video(tmp_path / "round.mp4", frames(), 24, True).read_bytes()
    flat = write_video(tmp_path / "flat.mp4", frames(), 24, False).read_bytes()
    box = walk(round_, b"moov", b"trak", b"uuid")
    assert box[:16] == SPHERICAL
    assert b"<GSpherical:ProjectionType>equirectangular<" in box
    assert b"GSpherical" not in flat
    assert walk(round_, b"mdat") == walk(flat, b"mdat")


def test_odd_sizes_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="even sizes, not 96x49"):
        write_video(tmp_path / "film.mp4", frames(height=49), 24, False)
    assert not list(tmp_path.iterdir())
