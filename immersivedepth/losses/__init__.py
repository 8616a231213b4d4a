"""Losses: pure functions (prediction, target, valid) -> scalar, one file per subject."""
