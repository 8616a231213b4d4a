"""How wrong a result is: functions (prediction, target, valid) -> number."""

from .panorama import abs_rel

__all__ = ["abs_rel"]
