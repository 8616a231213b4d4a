"""One training loop for every system."""

from .loop import Fitted
from .system import Predicted, Share, Split, System, decaying
from .trainer import Trainer

__all__ = ["Fitted", "Predicted", "Share", "Split", "System", "Trainer", "decaying"]
