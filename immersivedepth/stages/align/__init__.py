"""Prediction -> Aligned: find what the numbers of every view mean, so that views agree where they overlap."""
