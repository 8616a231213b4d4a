"""Steps of matrices with all singular values alike."""

import copy

import pytest
import torch
from torch import nn

from immersivedepth.training.muon import Muon, is_matrix, orthogonalised


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("shape", [(32, 32), (96, 24), (24, 200)])
def test_singular_values_become_alike_and_their_directions_stay(shape, fast, monkeypatch):
    monkeypatch.setattr("immersivedepth.training.muon.fast_bfloat16", lambda _: fast)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrix)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.4
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert float((u.mT @ found @ v.mT).diagonal().min()) > 0.5


def test_what_is_a_matrix():
    sizes = {(64, 64): True, (64,): False, (1, 900, 64): False, (64, 1, 5, 5): False, (32, 3, 3, 3): True}
    for shape, expected in sizes.items():
        assert is_matrix(torch.zeros(shape)) == expected


def test_numbers_that_are_no_matrix_move_as_adamw_moves_them():
    net = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 1))
    other = copy.deepcopy(net)
    ours = Muon(net.parameters(), lr=1e-2, weight_decay=0.1)
    theirs = torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=0.1)
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        for model, optimiser in ((net, ours), (other, theirs)):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_goes_on_from_a_saved_state():
    def run(steps, net, optimiser):
        for k in steps:
            x = torch.randn(8, 20, generator=torch.Generator().manual_seed(k))
            optimiser.zero_grad()
            net(x).square().mean().backward()
            optimiser.step()

    torch.manual_seed(0)
    first = nn.Linear(20, 20)
    second = copy.deepcopy(first)
    straight = Muon(first.parameters())
    run(range(6), first, straight)
    before = Muon(second.parameters())
    run(range(3), second, before)
    after = Muon(second.parameters())
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    run(range(3, 6), second, after)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
