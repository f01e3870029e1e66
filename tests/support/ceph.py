"""A real S3 with Object Lock for tests: Ceph's gateway, one of each daemon, in memory, on loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from support.journal import needs
from support.ports import HOST, free_ports

ACCESS, SECRET = "testaccess", "testsecret"

_CONF = """\
[global]
fsid = {fsid}
mon host = [v1:{host}:{mon}]
public addr = {host}
ms bind msgr2 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {directory}/keyring
run dir = {directory}
log file = {directory}/$name.log
admin socket = {directory}/$name.asok
pid file =
crash dir = {directory}/crash
mon data = {directory}/mon
mgr data = {directory}/mgr
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
auth allow insecure global id reclaim = false
mgr initial modules =
rgw data = {directory}/rgw
"""


class Ceph:
    """The daemons; a context manager.  Without the programs the test skips, or fails where ``ceph`` is required."""

    def __enter__(self) -> Ceph:
        needs(shutil.which("radosgw"), "ceph", "there is no Ceph: run tests/engines/ceph.sh")
        needs(importlib.util.find_spec("boto3"), "ceph", "there is no boto3: pip install --group objectlock")
        self._cleanup = contextlib.ExitStack()
        self._directory = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="ceph-")))
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def client(self, access: str = ACCESS, secret: str = SECRET) -> Any:
        """A boto3 client of the gateway."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=access,
            aws_secret_access_key=secret,
        )

    def _start(self) -> None:
        mon, gateway = free_ports(2)
        directory = self._directory
        self.url = f"http://{HOST}:{gateway}"
        fsid = str(uuid.uuid4())
        text = _CONF.format(fsid=fsid, host=HOST, mon=mon, directory=directory)
        (directory / "ceph.conf").write_text(text, encoding="utf-8")
        for name in ("mon", "mgr", "osd", "rgw", "crash"):
            (directory / name).mkdir()
        keyring = directory / "keyring"
        everything = [part for daemon in ("mon", "osd", "mgr") for part in ("--cap", daemon, "allow *")]
        self._run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self._run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
        monmap = directory / "monmap"
        self._run("monmaptool", "--create", "--addv", "a", f"[v1:{HOST}:{mon}]", "--fsid", fsid, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._daemon("ceph-mon", "-i", "a")
        rights = ["mon", "allow *", "osd", "allow *", "mgr", "allow *"]
        for name in ("mgr.x", "osd.0", "client.rgw"):
            self._run("ceph", "auth", "get-or-create", name, *rights, "-o", directory / f"{name}.keyring")
        self._daemon("ceph-mgr", "-i", "x", "--keyring", directory / "mgr.x.keyring")
        osd = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "--keyring", directory / "osd.0.keyring")
        self._daemon("ceph-osd", "-i", "0", "--keyring", directory / "osd.0.keyring")
        frontend = f"--rgw-frontends=beast endpoint={HOST}:{gateway}"
        self._daemon("radosgw", "-n", "client.rgw", "--keyring", directory / "client.rgw.keyring", frontend)
        keys = ("--access-key", ACCESS, "--secret-key", SECRET)
        self._run("radosgw-admin", "user", "create", "--uid=test", "--display-name=test", *keys)
        self._until_it_answers()

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(Exception):
                self.client().list_buckets()
                return
            if time.monotonic() > deadline:
                raise RuntimeError("Ceph's gateway did not answer in time")
            time.sleep(0.2)

    def _daemon(self, program: str, *arguments: object) -> None:
        command = [program, "-c", str(self._directory / "ceph.conf"), "-f", *map(str, arguments)]
        with open(self._directory / f"{program}.out", "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory)
        self._cleanup.callback(process.wait)
        self._cleanup.callback(process.kill)

    def _run(self, program: str, *arguments: object) -> str:
        command = [program, "-c", str(self._directory / "ceph.conf"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout
