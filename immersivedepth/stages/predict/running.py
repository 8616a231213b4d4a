"""How every network looks at views: on which device, how precisely, and how many views at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ... import hardware, memory
from ...checks import ConfigError, Range, ResourceError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Running:
    """Where and how networks run; `auto` takes the best that the machine has."""

    kind: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    backend: Literal["torch", "openvino"] = "torch"
    compile: bool = False
    batch_size: Annotated[int, Range(1)] = 4  # views at a time; halves itself when memory does not suffice

    def device(self) -> torch.device:
        """The device, checked to be there."""
        if self.backend == "openvino":
            if self.kind not in ("auto", "cpu"):
                raise ConfigError(f"device.backend=openvino runs on processors: set device.kind=cpu, not {self.kind}")
            return torch.device("cpu")
        return hardware.device(self.kind)

    def dtype(self) -> torch.dtype:
        """The numbers in which matrices are multiplied; everything else stays float32."""
        if self.precision != "auto":
            return _DTYPES[self.precision]
        return torch.bfloat16 if hardware.fast_bfloat16(self.device()) else torch.float32


class Runner:
    """A network that is ready to look at any number of views."""

    def __init__(self, net: nn.Module, running: Running, channels_last: bool = False) -> None:
        self.running = running
        self.device = running.device()
        self.dtype = running.dtype()
        self.batch_size = running.batch_size
        net = net.to(self.device).eval().requires_grad_(False)
        if channels_last:
            net = net.to(memory_format=torch.channels_last)
        self.net: Callable[[Tensor], Tensor] = net
        if running.backend == "openvino":
            self.net = OpenVINO(net, self.dtype)
        elif running.compile:
            self.net = torch.compile(net)

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        before: Callable[[Tensor], Tensor] | None = None,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Map [V, ...] to [V, ...] in float32 on the device of the images, one batch at a time.

        `before` brings a batch (on the device of the network) to what the network reads, `after` brings what it
        gives to what is wanted; both work in float32.
        """
        if not len(images):
            raise ValueError("expected at least one view")
        found: list[Tensor] = []
        done = 0
        while done < len(images):
            batch = images[done : done + self.batch_size]
            try:
                found.append(self._run(batch, before, after).to(images.device))
            except (RuntimeError, MemoryError) as error:
                if not memory.lacking(error):
                    raise
                if len(batch) == 1:
                    raise ResourceError(
                        f"one view of {batch.shape[-1]}x{batch.shape[-2]} does not fit the memory of {self.device} "
                        f"({memory.shortage(error)}): choose a smaller network or input_size, or device.kind=cpu"
                    ) from error
            else:
                done += len(batch)
                continue
            # Outside the handler, whose traceback holds on to the tensors of the failed attempt.
            self.batch_size = (len(batch) + 1) // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return torch.cat(found)

    def _run(
        self, batch: Tensor, before: Callable[[Tensor], Tensor] | None, after: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        x = batch.to(self.device)
        x = x if before is None else before(x)
        memory.check_room()
        with _multiplying_in(self.dtype, self.device), _compiler_errors(self.running.compile):
            y = self.net(x)
        y = y.float()
        return y if after is None else after(y)


def _multiplying_in(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


@contextlib.contextmanager
def _compiler_errors(compiling: bool) -> Iterator[None]:
    """A compiler that is missing or fails is the machine's lack, not the network's."""
    if not compiling:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = str(getattr(error, "inner_exception", error)).strip().splitlines()[0]
        raise ResourceError(
            f"device.compile=true: torch.compile failed ({first}); install a C++ compiler or set it to false"
        ) from error


class OpenVINO:
    """A network compiled by OpenVINO, once per shape of its input."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        self.net = net
        self.dtype = dtype
        self.compiled: dict[tuple[int, ...], Any] = {}

    def __call__(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        if shape not in self.compiled:
            self.compiled[shape] = self._compile(x)
        return torch.from_numpy(self.compiled[shape](x.numpy())[0])

    def _compile(self, x: Tensor) -> Any:
        try:
            import openvino
        except ImportError as error:
            raise ConfigError(
                "device.backend=openvino needs the package openvino: pip install immersivedepth[openvino]"
            ) from error
        names = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
        # Exported in float32: the hint below decides the precision, and autocast's casts would only stand in its way.
        with torch.autocast("cpu", enabled=False):
            model = openvino.convert_model(torch.export.export(self.net, (x,)))
        settings = {
            "INFERENCE_PRECISION_HINT": names[self.dtype],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        return openvino.Core().compile_model(model, "CPU", settings)
