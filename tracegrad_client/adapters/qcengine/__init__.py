"""QCEngine: ``qcengine.compute(atomic_input, "tracegrad")`` asks the server; needs the extra ``qcengine``.

from tracegrad_client.adapters.qcengine import register

register()
"""

from tracegrad_client.adapters.qcengine.harness import TraceGradHarness, register

__all__ = ["TraceGradHarness", "register"]
