"""Trainable networks: plain modules that know neither configs nor files."""
