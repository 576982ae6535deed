"""The whole service for any ASGI server: ``uvicorn --factory service.asgi:build``, gunicorn with uvicorn's worker, Ray Serve.

What ``python -m service`` adds to it belongs to its server: limits on connections, the drain delay, exit code 3 for a lost
device. One process holds one set of models: of several workers each needs a memory of its own and, but for one,
``TRACEGRAD_JOBS=off``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from service.__main__ import prepare_environment

if TYPE_CHECKING:
    from fastapi import FastAPI


def build() -> FastAPI:
    """The application as the ``TRACEGRAD_*`` variables describe it, with its log; models are loaded when it starts.

    Raises:
        ValidationError: a setting out of range.
        StartupError: a name that is no setting's, or a keys file that cannot be used.
    """
    prepare_environment()
    from service.app import create_app
    from service.errors import StartupError
    from service.observability.logs import configure_logging
    from service.settings import Settings, misspelt

    if wrong := misspelt(os.environ):
        raise StartupError("\n".join(wrong))
    settings = Settings()
    configure_logging(settings)
    return create_app(settings)
