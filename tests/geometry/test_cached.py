import numpy as np
import torch

from immersivedepth.geometry.cached import cached, rig_key, rig_of, size_of
from immersivedepth.scene import Rig


def test_results_are_remembered_within_the_bound():
    made = []

    @cached(1000)
    def zeros(count):
        made.append(count)
        return [np.zeros(count, np.uint8)]

    first = zeros(400)
    assert zeros(400) is first
    zeros(500)
    assert zeros.held() == 900
    zeros(400)  # used again, so that 500 is the longest unused
    zeros(300)
    assert zeros.held() == 700
    assert zeros(400) is first
    assert made == [400, 500, 300]
    assert len(zeros(2000)[0]) == 2000  # handed on, not kept, and nothing else dropped for it
    assert zeros.held() == 700
    zeros.clear()
    assert zeros.held() == 0
    assert zeros(400) is not first


def test_sizes_of_nested_values():
    assert size_of((np.zeros(3, np.int16), [torch.zeros(2, dtype=torch.float64)], "text")) == 6 + 16


def test_rigs_survive_their_keys():
    rig = Rig(torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 2.0]), 7)
    again = rig_of(*rig_key(rig))
    assert torch.equal(again.rotation, rig.rotation)
    assert torch.equal(again.tan_half_fov, rig.tan_half_fov)
    assert again.resolution == 7
    assert hash(rig_key(rig)) == hash(rig_key(again))
