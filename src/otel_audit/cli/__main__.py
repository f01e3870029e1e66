"""``python -m otel_audit.cli``: the command line of this very interpreter."""

import sys

from . import main

sys.exit(main())
