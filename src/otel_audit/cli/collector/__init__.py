"""``otel-audit collector``: look at Collector configurations, begin one, try a chain that runs."""

from __future__ import annotations

import typer

from .check import check
from .init import init
from .lint import lint

collector = typer.Typer(
    name="collector",
    no_args_is_help=False,
    help="OpenTelemetry Collectors: look for what loses audit records, begin a configuration, try a running chain.",
)
collector.command()(lint)
collector.command()(init)
collector.command()(check)
