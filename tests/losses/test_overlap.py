import pytest
import torch

from immersivedepth.losses.overlap import dice, hard_overlap, soft_overlap


def test_overlaps_by_hand():
    chances = torch.tensor([0.9, 0.2, 0.6, 0.0])
    target = torch.tensor([1.0, 0.0, 0.0, 1.0])
    shared, union = soft_overlap(chances, target)
    assert float(shared / union) == pytest.approx(0.9 / (3.7 - 0.9))
    assert float(dice(chances, target)) == pytest.approx(1 - (2 * 0.9 + 1) / (1.7 + 2 + 1))
    assert [float(v) for v in hard_overlap(chances, target)] == [1.0, 3.0]


def test_equal_masks():
    mask = torch.tensor([1.0, 0.0, 1.0])
    assert float(dice(mask, mask)) == 0
    assert float(dice(torch.zeros(3), torch.zeros(3))) == 0
    a, b = soft_overlap(mask, mask)
    assert a == b == 2
