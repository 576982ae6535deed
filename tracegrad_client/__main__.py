# PYTHON_ARGCOMPLETE_OK
"""``python -m tracegrad_client`` is the command ``tracegrad``."""

import sys

from tracegrad_client.cli import main

sys.exit(main())
