"""Views to predictions: one file per source of depth."""
