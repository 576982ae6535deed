"""Structure to ``Prediction``: what runs the models, batches, the cache."""
