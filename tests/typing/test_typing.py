"""The types of the public face, as the type checker of a user sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_the_package_says_that_it_is_typed() -> None:
    """``py.typed`` is in the installed package: without it a type checker treats everything as ``Any``."""
    assert (files("otel_audit") / "py.typed").is_file()


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed (dependency group 'lint')")
def test_typed_use_of_the_public_face_is_accepted(tmp_path: Path) -> None:
    """``mypy --strict`` accepts usage.py against the installed package, and finds each mistake marked in it.

    It runs outside the checkout and without the checkout's configuration, so that it finds the package where a
    user's mypy finds it.
    """
    command = [
        sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--python-version", "3.10",
        "--cache-dir", str(ROOT / ".mypy_cache" / "usage"), str(HERE / "usage.py"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
