"""Fits a checkpoint's shifts to other functionals (``model.reference.shift``)."""
