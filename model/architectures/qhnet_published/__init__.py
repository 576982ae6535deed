"""QHNet as published with QH9 (arXiv:2306.09549), its variant "ori_QHNet_with_bias"; the network is arXiv:2306.04922's.

Five message passing layers on nodes with l <= 4, SelfNet and PairNet after the last two, and the Expansion read-out:
20,415,673 parameters. Against QHNet's first release the variant adds biases: to the linear maps of scalars, and, from the
atoms' embeddings, to the l = 0 paths of the read-out. tests/model/test_published_numbers.py holds it against numbers that
the published code computed.

Quirks of the published code are kept, because weights depend on them: the invariants of a convolution hold the
destination's scalars twice; pair layers and read-out call every irrep even, so mirror images are not exact; path weights
are normalised twice; layers own parameters that they never use.

Deviations, all outside the function itself:
  * the answer is irrep coefficients of the blocks that the graph lists, in this project's orthonormal layout, instead of
    blocks of all ordered pairs;
  * the template follows the basis instead of being fixed to three s, two p and one d shell;
  * names and shapes of parameters are ours (published ones differ by reshapes only);
  * known matrices, which other architectures take as inputs, are not read;
  * atoms without neighbours have finite gradients on the fast path.

Molecules only: its lists of pairs hold one image of each pair of atoms.

One set of parameters, two evaluations of it (``QHNetPublishedConfig.path``): "reference", plain e3nn modules in the
published order, and "fast", the same function restructured (``fast_path`` says how), or "torch", which is that without
the own kernel of ``pair_products``.
"""

from model.architectures.declaration import declare
from model.architectures.qhnet_published.config import QHNetPublishedConfig
from model.architectures.qhnet_published.network import QHNetPublished
from model.architectures.qhnet_published.tiny import TINY

DECLARATION = declare(
    QHNetPublishedConfig,
    QHNetPublished,
    tiny=TINY,
    symmetry="SO(3)",
    periodic=False,
    spins=("restricted",),
    weightless=frozenset({"path"}),
)
