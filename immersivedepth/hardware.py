"""Which devices a machine has, and what they are good at."""

from __future__ import annotations

import torch

from .checks import ConfigError


def device(kind: str) -> torch.device:
    """The device of a kind, checked to be there; `auto` is the best there is."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [name for name, yes in available.items() if yes]
    if kind == "auto":
        return torch.device(there[0])
    if kind not in there:
        raise ConfigError(f"device.kind={kind}: torch {torch.__version__} finds none; it finds {', '.join(there)}")
    return torch.device(kind)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones: hardware that has them, not emulation."""
    if device.type == "cuda":
        # Emulated before compute capability 8.0; ROCm reports capabilities of another kind and has it.
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # AVX512-BF16 without AMX was measured to be 1.6 times as fast as float32 (EPYC 9004), emulation on AVX2 an
        # eighth as fast (EPYC 7003).
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))
    return False
