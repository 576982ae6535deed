"""QHNet exactly as published (Yu et al., ICML 2023, arXiv:2306.04922; configuration of QH9, arXiv:2306.09549).

Five message passing layers on nodes with l <= 4, SelfNet and PairNet after the last two, and the Expansion read-out:
20,415,673 parameters. Quirks of the published code are kept, because weights depend on them: the invariants of a convolution
hold the destination's scalars twice; pair layers and read-out call every irrep even, so mirror images are not exact;
path weights are normalised twice; layers own parameters that they never use.

Deviations, all outside the function itself:
  * the answer is irrep coefficients of the blocks that the graph lists, in this project's orthonormal layout, instead of
    blocks of all ordered pairs;
  * the template follows the basis instead of being fixed to three s, two p and one d shell;
  * names and shapes of parameters are ours (published ones differ by reshapes only);
  * known matrices, which other backbones take as inputs, are ignored;
  * atoms without neighbours have finite gradients on the fast path.

One set of parameters, two evaluations of it (``QHNetStrictConfig.path``): "reference", plain e3nn modules in the
published order, and "fast", the same function restructured (``fast_path`` says how), or "torch", which is that without
the own kernel of ``pair_products``.
"""

from model.architectures.qhnet_published.backbone import QHNetStrict
from model.architectures.qhnet_published.config import QHNetStrictConfig

__all__ = ["QHNetStrict", "QHNetStrictConfig"]
