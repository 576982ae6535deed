"""Structure files: what they say, as plain numbers, or which line of which frame is wrong and why.

Formats in which files of molecules are ambiguous, or in which charge and multiplicity are stated, have readers here; the
others are ASE's. Light: standard library, numpy and ASE.
"""
