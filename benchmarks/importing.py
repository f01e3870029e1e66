"""``import``: what importing the package costs, and how soon the first record is journaled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from .harness import ROOT, Bar, Options, Report, Row, median, spread

_BEGIN = "import json, logging, sys, time\nbegan = time.perf_counter()\n"
_END = "\nprint(json.dumps({'ms': (time.perf_counter() - began) * 1000, 'modules': len(sys.modules)}))"

PROGRAMS = {
    "logging and json": "",
    "package": "import otel_audit",
    "names": "import otel_audit\nfor name in otel_audit.__all__: getattr(otel_audit, name, None)",
    "configured": "import otel_audit\notel_audit.configure(service_name='bench', destinations={}, journal=sys.argv[1])",
    "first": (
        "import otel_audit\n"
        "otel_audit.configure(service_name='bench', destinations={}, journal=sys.argv[1], loggers=['audit'])\n"
        "logging.getLogger('audit').info('user.login', extra={'actor': 'u-42', 'outcome': 'success'})"
    ),
    "opentelemetry": (
        "import opentelemetry.sdk._logs\nimport opentelemetry.sdk._logs.export\n"
        "import opentelemetry.exporter.otlp.proto.http._log_exporter"
    ),
}
LABELS = {
    "package": "import otel_audit",
    "names": "… and every public name loaded",
    "configured": "… or import and configure()",
    "first": "… or import, configure() and the first record",
    "opentelemetry": "import of OpenTelemetry's log SDK and OTLP exporter",
}


def _run(name: str, options: Options) -> dict[str, float]:
    journal = Path(options.directory) / f"import-{uuid.uuid4().hex[:8]}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + PROGRAMS[name] + _END, journal],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(9)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PROGRAMS}
    for number in range(rounds if options.quick else rounds + 1):
        for name, results in found.items():
            figures = _run(name, options)
            if number or options.quick:  # the first one fills the caches
                results.append(figures)
    report = Report("import", f"fresh interpreters that have imported logging and json, × {rounds}")
    base = found.pop("logging and json")[0]["modules"]
    for name, results in found.items():
        note = f"{results[0]['modules'] - base:.0f} more modules"
        bar = Bar(80, 40) if name == "package" else None
        report.rows.append(Row(LABELS[name], median(results, "ms"), "ms", spread(results, "ms"), None, bar, note))
    return report
