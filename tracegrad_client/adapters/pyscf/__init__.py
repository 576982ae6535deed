"""PySCF: calculations that start from the server's guess."""

from tracegrad_client.adapters.pyscf.cells import structure_of_cell
from tracegrad_client.adapters.pyscf.density import tagged_density
from tracegrad_client.adapters.pyscf.orbitals import GuessSource
from tracegrad_client.adapters.pyscf.report import GuessReport
from tracegrad_client.adapters.pyscf.scf import TraceGradSCF, attach, detach

__all__ = ["GuessReport", "GuessSource", "TraceGradSCF", "attach", "detach", "structure_of_cell", "tagged_density"]
