"""Readers of data files, one module a family of formats; ``training.data.sources`` is the door."""
