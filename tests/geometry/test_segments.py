"""Regions on the sphere against slow loops and things laid across the seam and the poles."""

import pytest
import torch

from immersivedepth.geometry import patches, segments, sphere

H, W = 12, 24


def random_mask(seed, share=0.55):
    return torch.rand(1, H, W, generator=torch.Generator().manual_seed(seed)) < share


def flood(mask):
    """Connected parts, pixel by pixel."""
    labels, count = torch.zeros(H, W, dtype=torch.int32), 0
    for i in range(H):
        for j in range(W):
            if not mask[0, i, j] or labels[i, j]:
                continue
            count += 1
            stack = [(i, j)]
            while stack:
                y, x = stack.pop()
                if labels[y, x] or not mask[0, y, x]:
                    continue
                labels[y, x] = count
                stack += [(y, (x + 1) % W), (y, (x - 1) % W)]
                stack += [(y - 1, x)] if y else [(0, (x + W // 2) % W)]
                stack += [(y + 1, x)] if y < H - 1 else [(H - 1, (x + W // 2) % W)]
    return labels[None]


@pytest.mark.parametrize("seed", range(5))
def test_components_match_a_flood_fill(seed):
    mask = random_mask(seed)
    assert torch.equal(segments.components(mask), flood(mask))


def test_every_pixel_has_four_neighbours():
    first, second = segments.neighbours(H, W)
    degree = torch.bincount(torch.cat([first, second]), minlength=H * W)
    assert (degree == 4).all()


def test_parts_split_a_number_that_lies_in_two_places():
    labels = torch.zeros(1, H, W, dtype=torch.int32)
    labels[0, 3:5, 2:4] = labels[0, 8:9, 10:12] = 5
    labels[0, 3:5, 4:6] = 2
    assert segments.parts(labels).unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shift", range(W))
def test_boxes_are_the_narrowest_around_the_globe(shift):
    labels = torch.zeros(1, H, W, dtype=torch.int32)
    labels[0, 4:7, 3:8] = 1
    labels[0, 9, 1] = labels[0, 10, 5] = 3  # 2 is missing
    left, width = (3 + shift) % W, 5
    found = segments.boxes(labels.roll(shift, -1))
    assert found[0].tolist() == [left, 4, left + width, 7]
    assert found[1].tolist() == [0, 0, 0, 0]
    assert found[2].tolist() == [(1 + shift) % W, 9, (1 + shift) % W + 5, 11]


def test_a_ring_around_the_globe_has_a_box_of_full_width():
    labels = torch.zeros(1, H, W, dtype=torch.int32)
    labels[0, 2] = 1
    left, top, right, bottom = segments.boxes(labels)[0].tolist()
    assert (right - left, top, bottom) == (W, 2, 3)


def test_no_regions_no_boxes():
    assert segments.boxes(torch.zeros(1, H, W, dtype=torch.int32)).shape == (0, 4)


def test_borders_match_a_loop():
    labels = (
        segments.components(random_mask(1, 0.8)) + torch.randint(0, 3, (1, H, W), generator=torch.Generator()) * 100
    )
    labels = segments.renumber(labels)
    first, second, which, here, there = segments.borders(labels)
    flat = labels.reshape(-1)
    assert (first < second).all()
    assert torch.equal(flat[here].long(), first[which])
    assert torch.equal(flat[there].long(), second[which])
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    expected = set()
    for p, q in zip(*(x.tolist() for x in segments.neighbours(H, W)), strict=True):
        a, b = sorted((int(flat[p]), int(flat[q])))
        if a != b and a > 0:
            expected.add((a, b))
    assert pairs == expected


def test_merging_goes_by_the_mean_over_the_whole_border():
    # 1-2 cheap; then 3 meets {1, 2} with mean (0.2 * 1 + 0.9 * 9) / 10 = 0.83, though 1-3 alone is cheap.
    merged = segments.merge(4, [1, 1, 2, 3], [2, 3, 3, 4], [0.1, 0.2, 0.9, 0.4], [5, 1, 9, 1], 0.5)
    assert merged[0] == 0
    assert merged[1] == merged[2] != merged[3] == merged[4]
    together = segments.merge(4, [1, 1, 2, 3], [2, 3, 3, 4], [0.1, 0.2, 0.9, 0.4], [5, 1, 9, 1], 0.85)
    assert len(set(together[1:].tolist())) == 1


def test_superpixels_cover_what_is_known_in_connected_pieces():
    height = 48
    features = sphere.erp_rays(height, 2 * height).permute(2, 0, 1)[:1].sign()
    known = torch.ones(1, height, 2 * height, dtype=torch.bool)
    known[0, 20:30, :10] = False
    labels = segments.superpixels(features * 10, known, 100, 1.0)
    assert torch.equal(labels > 0, known)
    assert torch.equal(segments.parts(labels).unique(), labels.unique())
    count = int(labels.max())
    assert 60 < count < 200  # cells may empty or split
    mean = patches.sums(labels.reshape(-1).long(), features.reshape(-1), count + 1)
    size = torch.bincount(labels.reshape(-1).long(), minlength=count + 1)
    assert ((mean / size.clamp_min(1)).abs()[1:] == 1).all()  # no piece on both sides of the step


def test_planes_of_regions_come_back():
    height = 32
    rays = sphere.erp_rays(height, 2 * height)
    wanted = torch.tensor([[0.5, 0.1, -0.2], [-0.3, 0.4, 0.1]])
    labels = torch.where(rays[..., 0] > 0.3, 1, torch.where(rays[..., 0] < -0.3, 2, 0))[None].int()
    inverse = torch.where(labels[0] > 0, (wanted[(labels[0] - 1).clamp_min(0).long()] * rays).sum(-1), 1.0)
    labels = torch.where(inverse[None] > 0.02, labels, 0)
    found = patches.fit_planes(labels, 1 / inverse.clamp_min(0.02)[None])
    torch.testing.assert_close(found[1:], wanted, atol=2e-3, rtol=0)  # a weak pull keeps thin regions from tilting


def test_folds_know_in_from_out():
    rays = sphere.erp_rays(32, 64)
    labels = torch.where(rays[..., 1] > 0, 1, 2)[None].int()
    towards = torch.tensor([[0.0, 0, 0], [0.5, 0.3, 0.0], [0.5, -0.3, 0.0]])  # 1 / r along +x is 0.5 for both
    for planes, bulges in ((towards, False), (towards * torch.tensor([1.0, -1, 1]), True)):
        ahead = (rays[..., 0] > 0.9)[None]
        found = patches.folds(torch.where(ahead, labels, 0), planes)
        assert bool(found.bulge[0]) is bulges
        assert float(found.gap[0]) < 0.02
        assert float(found.turn[0]) == pytest.approx(2 * float(torch.tensor(0.6).atan()), abs=1e-3)


def test_noise_is_measured():
    generator = torch.Generator().manual_seed(0)
    log = sphere.erp_rays(64, 128)[..., 0][None] + 0.03 * torch.randn(1, 64, 128, generator=generator)
    assert patches.white_noise(log, torch.ones_like(log, dtype=torch.bool)) == pytest.approx(0.03, rel=0.1)
