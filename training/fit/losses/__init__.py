"""What a run minimises: a sum of terms, each a class of its own; the door is :mod:`training.fit.losses.objective`."""
