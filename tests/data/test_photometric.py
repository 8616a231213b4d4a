"""What cameras do to pictures."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from immersivedepth.data.photometric import jpeg_losses, photographed


def _pictures(n=4, size=40):
    """Smooth pictures with an edge."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    phase = torch.arange(n)[:, None, None] * 0.3
    channels = [0.5 + 0.4 * torch.sin(5 * x + phase), 0.5 + 0.4 * torch.cos(4 * y + phase), (x > 0.5) * 0.6 + 0 * phase]
    return torch.stack([c.expand(n, size, size) for c in channels], 1)


def test_same_random_numbers_same_pictures_and_strength_0_changes_nothing():
    x = _pictures()
    once, again = (photographed(x, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(photographed(x, np.random.default_rng(3), 0.0), x)
    assert not torch.equal(photographed(x, np.random.default_rng(4)), once)


def test_pictures_stay_pictures_and_keep_what_they_show():
    x = _pictures(32)
    for seed in range(4):
        out = photographed(x, np.random.default_rng(seed))
        assert out.shape == x.shape
        assert out.isfinite().all()
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
        # Light, noise and blur do not move things: brightness still rises and falls together.
        flat = torch.stack([x.mean(1).flatten(1), out.mean(1).flatten(1)])
        centred = flat - flat.mean(-1, keepdim=True)
        likeness = (centred[0] * centred[1]).sum(-1) / centred.norm(dim=-1).prod(0)
        assert float(likeness.median()) > 0.9


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_loses_what_an_encoder_loses(quality):
    # A grey picture, so that the tables of colour and their thinning out play no part.
    x = _pictures(1, 64).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    ours = jpeg_losses(x, torch.tensor([float(quality)]))[0]
    file = io.BytesIO()
    Image.fromarray((x[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
    theirs = torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy()).permute(2, 0, 1) / 255
    lost = float((theirs - x[0]).abs().mean())
    assert float((ours - theirs).abs().mean()) < 0.35 * lost + 0.002  # a rounding to bytes apart
