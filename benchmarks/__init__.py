"""Measured comparisons; each module prints a table of ratios taken within one run."""
