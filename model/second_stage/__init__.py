"""A second stage on the features of any architecture: a graph Transformer that regresses a correction of its coefficients.

After HarmoSE (arXiv:2401.00744): a first, equivariant stage gives H and covariant features of the blocks, a second,
non-linear one takes those features and corrects H. Two modes share the Transformer (``transformer``) and differ in its two
ends, what a block's token is made of (``tokens``) and what becomes of it (``read_out``):

    exact      invariants of the features in, token-dependent mixings of the features out: exact O(3), or SU(2) for spinors
    faithful   components of the features and spherical harmonics in, components of the correction out, as published: the
               symmetry is broken, and how much is measured and stands in the checkpoint's card
"""
