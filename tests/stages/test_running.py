import sys

import pytest
import torch
from torch import nn

from immersivedepth import memory
from immersivedepth.checks import ConfigError, ResourceError
from immersivedepth.stages.predict import running
from immersivedepth.stages.predict.running import Runner, Running

CPU = Running(kind="cpu", precision="fp32")


class Small(nn.Module):
    """A convolution that records the batches and the numbers it multiplied."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)
        self.batches, self.dtypes = [], []

    def forward(self, x):
        y = self.conv(x)
        self.batches.append(len(x))
        self.dtypes.append((x.dtype, y.dtype))
        return y


class Bounded(Small):
    """Asks the allocator for a petabyte when a batch is larger than it can take."""

    def __init__(self, most, error=None):
        super().__init__()
        self.most, self.error = most, error

    def forward(self, x):
        if len(x) > self.most:
            if self.error:
                raise self.error
            torch.empty(2**50, dtype=torch.uint8)
        return super().forward(x)


def pictures(count, side=8):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_batches_cover_every_view_in_order(batch_size):
    net, x = Small(), pictures(7)
    found = Runner(net, Running(kind="cpu", precision="fp32", batch_size=batch_size))(x)
    assert sum(net.batches) == 7
    assert max(net.batches) == min(batch_size, 7)
    with torch.no_grad():
        expected = torch.cat([net.conv(v[None]) for v in x])
    # Sums of 27 products of numbers near one, in another order
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        None,
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
    ],
)
def test_batches_halve_when_memory_ends_and_stay_so(error):
    net, x = Bounded(2, error), pictures(9)
    runner = Runner(net, Running(kind="cpu", precision="fp32", batch_size=7))
    found = runner(x)
    assert net.batches == [2, 2, 2, 2, 1]  # 7 and 4 did not fit
    torch.testing.assert_close(found, Runner(Small(), CPU)(x), rtol=0, atol=1e-5)
    runner(x)
    assert net.batches[5:] == [2, 2, 2, 2, 1]  # tried once only


def test_halving_looks_at_the_batch_and_not_at_the_setting():
    net = Bounded(1)
    Runner(net, Running(kind="cpu", precision="fp32", batch_size=1000))(pictures(3))
    assert net.batches == [1, 1, 1]


def test_one_view_too_large_is_told_in_one_line():
    with pytest.raises(ResourceError, match="8x8 does not fit the memory of cpu") as caught:
        Runner(Bounded(0), CPU)(pictures(2))
    assert "\n" not in str(caught.value)


def test_networks_do_not_begin_where_addresses_end(monkeypatch):
    """Seen with oneDNN, which ended the process by SIGSEGV."""
    net = Bounded(4)
    monkeypatch.setattr(memory, "_of_limit", lambda: memory.ROOM - 1)
    with pytest.raises(ResourceError, match=r"100 MB needed, .* left"):
        Runner(net, CPU)(pictures(2))
    assert net.batches == []
    monkeypatch.setattr(memory, "_of_limit", lambda: memory.ROOM)
    Runner(net, CPU)(pictures(2))
    assert net.batches == [2]


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="expected input"):
        Runner(Small(), CPU)(torch.zeros(2, 4, 8, 8))
    with pytest.raises(ValueError, match="at least one view"):
        Runner(Small(), CPU)(pictures(0))


def test_before_and_after_work_in_float32_around_the_network():
    seen = []

    def before(x):
        seen.append(x.dtype)
        return x.float() / 255

    def after(y):
        seen.append((y.dtype, torch.is_autocast_enabled("cpu")))
        return y[:, 0] * 2

    net, x = Small(), (pictures(3) * 255).byte()
    found = Runner(net, Running(kind="cpu", precision="bf16", batch_size=2))(x, before, after)
    assert seen == [torch.uint8, (torch.float32, False)] * 2
    assert net.dtypes == [(torch.float32, torch.bfloat16)] * 2
    assert found.dtype == torch.float32
    with torch.no_grad():
        expected = net.conv(x.float() / 255)[:, 0] * 2
    # bfloat16 keeps eight bits: 27 products and their sum of up to 10, each off by at most 2^-9 of itself
    torch.testing.assert_close(found, expected, rtol=0, atol=0.2)
    assert not torch.equal(found, expected)


def test_nothing_is_kept_for_gradients():
    net = Small()
    found = Runner(net.train(), CPU)(pictures(1).requires_grad_())
    assert not found.requires_grad
    assert not net.training


@pytest.mark.parametrize(("kind", "precision", "expected"), [
    ("cpu", "fp32", torch.float32), ("cpu", "bf16", torch.bfloat16), ("cpu", "fp16", torch.float16),
])  # fmt: skip
def test_precision_is_what_was_asked(kind, precision, expected):
    assert Running(kind=kind, precision=precision).dtype() is expected


@pytest.mark.parametrize(("flags", "expected"), [
    ({"amx_bf16": True}, torch.bfloat16), ({"avx512_bf16": True}, torch.bfloat16),
    ({"avx512_bf16": False, "avx512_f": True}, torch.float32), ({}, torch.float32),
])  # fmt: skip
def test_auto_multiplies_in_bfloat16_where_the_processor_can(monkeypatch, flags, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert Running(kind="cpu").dtype() is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_multiplies_in_bfloat16_where_the_gpu_can(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert Running(kind="cuda").dtype() is expected


def test_auto_takes_the_best_device(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert Running().device().type == expected


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device.kind=cuda: .* finds cpu"):
        Running(kind="cuda").device()


def test_openvino_is_for_processors():
    with pytest.raises(ConfigError, match="device.backend=openvino"):
        Running(kind="cuda", backend="openvino").device()
    assert Running(backend="openvino").device().type == "cpu"


def test_a_missing_openvino_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"pip install immersivedepth\[openvino\]"):
        Runner(Small(), Running(backend="openvino", precision="fp32"))(pictures(1))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = Small().conv

    def forward(self, x):
        return torch.relu(self.conv(x))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.2)])
def test_openvino_gives_the_same(precision, tolerance):
    pytest.importorskip("openvino")
    x = pictures(5)
    runner = Runner(Plain(), Running(backend="openvino", precision=precision, batch_size=2))
    with torch.inference_mode():  # as the pipeline calls it
        found = runner(x)
    assert isinstance(runner.net, running.OpenVINO)
    assert set(runner.net.compiled) == {(2, 3, 8, 8), (1, 3, 8, 8)}
    torch.testing.assert_close(found, Runner(Plain(), CPU)(x), rtol=0, atol=tolerance)


@pytest.mark.slow
def test_compiled_gives_the_same():
    x = pictures(5)
    runner = Runner(Plain(), Running(kind="cpu", precision="fp32", compile=True, batch_size=2))
    with torch.inference_mode():
        found = runner(x)
    torch.testing.assert_close(found, Runner(Plain(), CPU)(x), rtol=0, atol=1e-5)


def test_a_failing_compiler_is_named(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def compiled(net):
        def call(x):
            raise BackendCompilerFailed(compiled, RuntimeError("no C++ compiler"), None)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(ResourceError, match=r"device.compile=true: .*no C\+\+ compiler") as caught:
        Runner(Small(), Running(kind="cpu", precision="fp32", compile=True))(pictures(1))
    assert "\n" not in str(caught.value)


def test_channels_last_gives_the_same():
    x = pictures(3)
    found = Runner(Small(), CPU, channels_last=True)
    assert found.net.conv.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found(x), Runner(Small(), CPU)(x), rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("auto", 0.2), ("fp16", 0.05)])
def test_cuda_gives_the_same_on_the_device_of_the_views(precision, tolerance):
    x = pictures(5)
    runner = Runner(Small(), Running(kind="cuda", precision=precision, batch_size=2))
    found = runner(x)
    assert found.device == x.device
    # float32 convolutions may use TF32 (ten bits)
    torch.testing.assert_close(found, Runner(Small(), CPU)(x), rtol=0, atol=tolerance)
    assert runner(x.cuda()).device.type == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_memory_that_ends_halves_the_batch():
    class Hungry(Small):
        def forward(self, x):
            if len(x) > 2:
                torch.empty(2**50, dtype=torch.uint8, device=x.device)
            return super().forward(x)

    net = Hungry()
    Runner(net, Running(kind="cuda", precision="fp32", batch_size=8))(pictures(8))
    assert net.batches == [2, 2, 2, 2]
