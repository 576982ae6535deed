"""``/v1/evaluate``: the caller's own converged matrix against the prediction."""
