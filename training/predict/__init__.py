"""``python -m training predict``: a checkpoint's answers for many structures, without a service."""
