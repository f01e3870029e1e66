"""The units and manifests of the examples are what systemd and Kubernetes take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate

from support.journal import needs

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds nothing to say, but that the programs are not installed here."""
    needs(shutil.which("systemd-analyze"), "systemd", "systemd-analyze is not there")
    for unit in (EXAMPLES / "systemd").glob("*.service"):
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    units = sorted(tmp_path.iterdir())
    assert len(units) == 2
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_kubernetes_takes_the_manifest() -> None:
    """Each field is one that the API knows; a misspelt one would be dropped there in silence."""
    documents = list(yaml.safe_load_all((EXAMPLES / "kubernetes" / "sidecar.yaml").read_text(encoding="utf-8")))
    assert len(documents) == 1
    for document in documents:
        validate(document, "1.31", strict=True)
    broken = documents[0] | {"spec": documents[0]["spec"] | {"replica": 2}}
    with pytest.raises(Exception, match="replica"):
        validate(broken, "1.31", strict=True)
