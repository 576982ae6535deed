"""What a checkpoint is worth: errors of the matrix, of the orbitals, of the density, and SCF runs.

``errors`` and ``parity`` know matrices, ``orbitals`` knows eigenpairs and densities, ``molecules`` puts one prediction's
figures together, ``metrics`` is the table of what a split's summary holds, ``scf`` runs and counts, ``summary`` puts both
together, ``report`` drives and writes, ``plots`` draws. The door is :mod:`training.evaluate.report`; every figure is defined
in docs/metrics.md.
"""
