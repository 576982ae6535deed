"""PySCF: calculations that start from the server's guess."""

from tracegrad_client.adapters.pyscf.report import GuessReport
from tracegrad_client.adapters.pyscf.scf import GuessSource, TraceGradSCF, attach, detach, tagged_density

__all__ = ["GuessReport", "GuessSource", "TraceGradSCF", "attach", "detach", "tagged_density"]
