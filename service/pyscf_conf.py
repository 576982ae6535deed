"""PySCF's settings in the service; PySCF executes this file instead of one found in the working directory or HOME."""

DISABLE_EVAL = True
