"""``Prediction`` to bytes: arrays in the asked order and unit, JSON and binary formats, files of other programs."""
