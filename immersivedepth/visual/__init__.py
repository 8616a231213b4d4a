"""Numbers as pictures for people. Arrays [H, W] or [H, W, 3] in, uint8 RGB out; no files."""
