"""The process of one case: runs a round whenever a line comes in, and writes its figures as a line of JSON."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys

from .harness import Case, Options, Unavailable


def main(module: str, function: str, options: str) -> None:
    """Serve rounds until the standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not get between the answers
    logging.getLogger("otel_audit").addHandler(logging.NullHandler())  # that a destination is down is meant
    case: Case = getattr(importlib.import_module(module), function)
    rounds = case(Options(**json.loads(options)))
    for _ in sys.stdin:
        try:
            figures = dict(next(rounds))
        except Unavailable as reason:
            figures = {"unavailable": str(reason)}
        answers.write(json.dumps(figures) + "\n")
        answers.flush()
    rounds.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
