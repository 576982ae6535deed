"""Which checkpoints are there, which are loaded, which one answers, and how they are swapped."""
