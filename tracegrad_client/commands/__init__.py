"""The commands of ``tracegrad``, one module each: ``add`` declares it, ``run`` does it and returns the exit status."""
