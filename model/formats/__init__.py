"""Files of H(R), S(R) and density matrices: one module a format, each from files to ``Matrices`` and back.

``registry`` is the door: ``identify``, ``read`` and ``write`` by name. Nothing here knows of HTTP or torch; nothing
unpickles, evaluates or runs what it reads.
"""
