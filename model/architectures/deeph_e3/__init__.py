"""DeepH-E3 (Gong et al., Nat. Commun. 14, 2848 (2023), arXiv:2210.13955), written from its formulas.

Features of atoms and of directed edges, an atom's edge with itself among them. A block of the network updates atoms from
their edges and edges from their atoms, each by a tensor product with the bond's harmonics, a gate, radial weights, a norm, a
self-connection and a skip connection. A linear map of edge features gives the blocks of H. 627,981 parameters for carbon with
2s 2p 1d; tests/model/test_deeph_e3.py holds it against numbers that the published code computed. Parameters have the
published names and shapes, so published weights can be copied by name.

With ``norm="graph"`` and ``envelope=False`` the function is the published one, up to what becomes of its output:

  * the answer is irrep coefficients of the blocks in this project's orthonormal layout (``head``), standardised per element
    pair; the published code has no standardisation;
  * a new network starts with outputs of zero, where the published one starts with random ones;
  * of two unlike atoms the block is the mean of the edge's and of the reversed edge's adjoint, of two like atoms and on-site
    likewise (``TemplateMap`` averages those): H is hermitian. The published code leaves both directions as they are.

The defaults go beyond it where the published choices break a law: the published norm takes means over all atoms or edges of a
structure, so that a fragment far away changes the answer (``norms``), and its messages end abruptly where blocks end.

Edges are the pairs that have a block: of a crystal all images, of a molecule every pair of atoms.
Known matrices, which other architectures take as inputs, are not read.

One set of parameters, two evaluations of it (``DeepHE3Config.path``): "reference", e3nn's tensor products, and "fast", the
same products in bond frames, where they are linear maps of each |m| (``product``).
"""

from model.architectures.declaration import declare
from model.architectures.deeph_e3.config import DeepHE3Config
from model.architectures.deeph_e3.network import DeepHE3
from model.architectures.deeph_e3.tiny import TINY

DECLARATION = declare(DeepHE3Config, DeepHE3, tiny=TINY, messages="pairs", weightless=frozenset({"path"}))
