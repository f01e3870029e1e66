"""Where everything stands, and which directories and file systems can be trusted with it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import sys
from pathlib import Path

import pytest

from otel_audit.errors import ConfigurationError, UnsafeJournalError
from otel_audit.journal import journal as journal_module
from otel_audit.journal import layout as layout_module
from otel_audit.journal.layout import FileSystem, Layout, check_destination_name, check_platform, file_system
from otel_audit.testing.files import Call, FaultyFiles
from support.journal import make_entry, make_journal, make_layout, make_writer, needs

NOBODY = 65534

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
24 22 0:22 / /dev/shm rw,nosuid - tmpfs tmpfs rw
30 22 0:40 / /mnt/my\\040share rw,relatime - nfs4 server:/export rw,vers=4.2
31 22 0:41 / /mnt/cifs rw - cifs //server/share rw
32 22 0:42 / /over rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile
33 22 0:43 / /plain rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w,uuid=on
34 22 0:44 / /fuse rw - fuse.sshfs me@there:/ rw,user_id=0
35 24 254:0 /data /dev/shm/disk rw master:7 propagate_from:2 - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/lib/audit", FileSystem("ext4", network=False, volatile=False)),
        ("/dev/shm/audit", FileSystem("tmpfs", network=False, volatile=True)),
        ("/dev/shm/disk/audit", FileSystem("ext4", network=False, volatile=False)),
        ("/dev/shm-not", FileSystem("ext4", network=False, volatile=False)),
        ("/mnt/my share/audit", FileSystem("nfs4", network=True, volatile=False)),
        ("/mnt/cifs", FileSystem("cifs", network=True, volatile=False)),
        ("/fuse/x", FileSystem("fuse.sshfs", network=True, volatile=False)),
        ("/over/x", FileSystem("overlay", network=False, volatile=True)),
        ("/plain/x", FileSystem("overlay", network=False, volatile=False)),
    ],
)
def test_the_file_system_under_a_path_is_known(path: str, expected: FileSystem):
    """Network and volatile file systems are told from others by the mount that is nearest."""
    assert file_system(Path(path), MOUNTINFO) == expected


def test_a_later_mount_on_the_same_point_counts():
    """What was mounted over is not what is written to."""
    again = MOUNTINFO + "40 22 0:50 / / rw - tmpfs tmpfs rw\n"
    assert file_system(Path("/var"), again).volatile


def test_a_system_without_mountinfo_is_believed(monkeypatch: pytest.MonkeyPatch):
    """Where the file system cannot be asked, nothing is refused."""

    def gone(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", gone)
    assert file_system(Path("/")) == FileSystem("unknown", network=False, volatile=False)


def test_the_real_mountinfo_is_understood(tmp_path: Path):
    """On this machine the type of the temporary directory's file system is found."""
    needs(Path("/proc/self/mountinfo").exists(), "mountinfo", "there is no /proc/self/mountinfo")
    assert file_system(tmp_path / "not" / "yet").type != "unknown"


def claim(monkeypatch: pytest.MonkeyPatch, found: FileSystem) -> None:
    monkeypatch.setattr(journal_module, "file_system", lambda _: found)


def test_a_network_file_system_is_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Locks and syncs cannot be relied on there; the error says what to do, and nothing was made."""
    claim(monkeypatch, FileSystem("nfs4", network=True, volatile=False))
    with pytest.raises(UnsafeJournalError, match=r"network file system \(nfs4\).*allow_network=True"):
        make_journal(tmp_path)
    assert not (tmp_path / "journal").exists()
    make_journal(tmp_path, allow_network=True)
    assert (tmp_path / "journal" / "streams").is_dir()


def test_disk_on_a_volatile_file_system_is_an_error_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A sync that succeeds in no time promises nothing."""
    claim(monkeypatch, FileSystem("tmpfs", network=False, volatile=True))
    with pytest.raises(UnsafeJournalError, match=r"volatile file system \(tmpfs\).*allow_volatile=True"):
        make_journal(tmp_path, allow_volatile=False).require_disk()
    make_journal(tmp_path, allow_volatile=True).require_disk()
    claim(monkeypatch, FileSystem("ext4", network=False, volatile=False))
    make_journal(tmp_path, allow_volatile=False).require_disk()


def test_windows_gets_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    """Nothing between full function and an error."""
    monkeypatch.setattr(layout_module.sys, "platform", "win32")
    with pytest.raises(ConfigurationError, match="Windows is not"):
        check_platform()
    monkeypatch.setattr(layout_module.sys, "platform", "linux")
    check_platform()


def test_python_without_its_lock_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    """A free-threaded interpreter gets a sentence that says how to start it, not half a journal."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(ConfigurationError, match=r"free-threaded Python.*PYTHON_GIL=1"):
        check_platform()


# -- modes, owners, groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize(("mode", "directories"), [(0o600, 0o700), (0o640, 0o750), (0o660, 0o770), (0o644, 0o755)])
def test_files_have_exactly_the_mode_that_was_asked_for(tmp_path: Path, umask: int, mode: int, directories: int):
    """Whatever the umask; and who may read a file may enter its directory."""
    old = os.umask(umask)
    try:
        layout = make_layout(tmp_path, mode=mode)
        writer = make_writer(layout)
        writer.append(make_entry())
        layout.files.append_durably(layout.ledger, b"line\n", layout.mode)
        layout.files.replace(writer.directory / "cursors" / "a", b"{}", layout.mode)
        writer.close()
    finally:
        os.umask(old)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in [layout.root, *layout.root.rglob("*")]}
    assert len(found) > 9
    assert found == {path: directories if path.is_dir() else mode for path in found}


def test_what_is_made_belongs_to_the_group(tmp_path: Path):
    """A sidecar of another user in the group can reach everything, what is replaced later too."""
    needs(os.geteuid() == 0, "root", "handing files to another group needs root")
    layout = make_layout(tmp_path, mode=0o660, group=NOBODY)
    writer = make_writer(layout)
    layout.files.append_durably(layout.ledger, b"line\n", layout.mode)
    layout.files.replace(writer.directory / "cursors" / "a", b"{}", layout.mode)
    layout.files.replace(writer.directory / "cursors" / "a", b"{}", layout.mode)
    writer.close()
    for path in [layout.root, *layout.root.rglob("*")]:
        info = path.stat()
        assert info.st_gid == NOBODY, path
        if path.is_dir():
            assert info.st_mode & stat.S_ISGID


class Durable:
    """Which entries of which directories a power loss would leave: what stood there when it was synced last."""

    def __init__(self, files: FaultyFiles) -> None:
        self.entries: dict[Path, set[str]] = {}
        files.run("fsync", self._sync, times=None)

    def _sync(self, call: Call) -> None:
        if call.path is not None and call.path.is_dir():
            self.entries[call.path] = set(os.listdir(call.path))

    def missing(self, top: Path) -> list[Path]:
        """What stands below a directory and would be gone."""
        return [path for path in top.rglob("*") if path.name not in self.entries.get(path.parent, ())]


def test_a_ledger_that_somebody_removed_is_made_again(tmp_path: Path):
    """The journal is used as ever: only what the ledger said of removed segments is gone."""
    make_journal(tmp_path).close()
    (tmp_path / "journal" / "ledger.jsonl").unlink()
    journal = make_journal(tmp_path)
    journal.append(make_entry("r-2"))
    assert (tmp_path / "journal" / "ledger.jsonl").read_bytes() == b""
    journal.close()


def test_a_new_journal_is_durable_up_to_the_first_directory_that_was_there(tmp_path: Path):
    """A power loss right after a record with durability ``disk`` leaves the whole way to it, which we made."""
    files = FaultyFiles()
    durable = Durable(files)
    journal = make_journal(tmp_path / "state" / "of" / "billing", files)
    entry = make_entry("r-2")
    journal.append(entry)
    journal.commit(entry.sequence)
    missing = durable.missing(tmp_path)
    assert {path.name for path in missing} <= {"locks"}, "which is made last, and holds nothing yet"
    journal.close()


@pytest.mark.parametrize("operation", ["mkdir", "fsync"])
def test_what_another_process_made_and_did_not_sync_is_synced(tmp_path: Path, operation: str):
    """One that was killed between making the directories and syncing them leaves them to the next."""
    for nth in itertools.count(1):
        top = tmp_path / str(nth)
        top.mkdir()
        files = FaultyFiles()
        killed = files.interrupt(operation, before=True, nth=nth)
        durable = Durable(files)
        with contextlib.suppress(KeyboardInterrupt):
            Layout(top / "a" / "b" / "journal", files=files).make()
        files.faults.remove(killed)
        writer = make_writer(make_layout(top / "a" / "b", files))
        writer.sync()
        writer.close()
        assert {path.name for path in durable.missing(top)} <= {"locks"}
        if not killed.hits:
            break
    assert nth > 4


def test_a_directory_that_may_not_be_read_is_synced_with_all_others(tmp_path: Path):
    """Where only making something is allowed, the directory cannot be opened: the whole system is synced."""
    files = FaultyFiles()
    (tmp_path / "drop").mkdir()
    refused = files.fail("open", errno.EACCES, path=str(tmp_path / "drop"), times=None)
    layout = Layout(tmp_path / "drop" / "journal", files=files)
    layout.make()
    assert refused.hits
    make_writer(layout).close()


def test_a_directory_that_was_there_keeps_its_owner_and_mode(tmp_path: Path):
    """What an administrator has prepared is used as it is."""
    (tmp_path / "journal").mkdir(mode=0o755)
    (tmp_path / "journal").chmod(0o755)
    make_layout(tmp_path)
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o755


def test_a_foreign_directory_is_refused_for_writing(tmp_path: Path):
    """A journal in somebody else's directory could be removed or replaced by that one."""
    needs(os.geteuid() == 0, "root", "giving a directory away needs root")
    root = tmp_path / "journal"
    root.mkdir()
    os.chown(root, NOBODY, NOBODY)
    with pytest.raises(UnsafeJournalError, match=f"belongs to uid {NOBODY}, this process is uid 0"):
        Layout(root).make()
    assert list(root.iterdir()) == []
    os.chown(root, NOBODY, os.getegid())
    root.chmod(0o770)
    Layout(root).make()
    assert (root / "streams").is_dir()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path):
    """The error says which directory, why, and which setting to change."""
    (tmp_path / "journal").touch()
    with pytest.raises(UnsafeJournalError, match=r"cannot use .*journal: Not a directory.*OTEL_AUDIT_JOURNAL"):
        make_layout(tmp_path)
    files = FaultyFiles()
    files.fail("mkdir", 13, times=None)
    with pytest.raises(UnsafeJournalError, match="Permission denied"):
        Layout(tmp_path / "other", files=files).make()


@pytest.mark.parametrize("name", ["collector", "a", "A-1_b", "9", "x" * 64])
def test_names_of_destinations_that_can_be_file_names(name: str):
    """Letters, digits, '-' and '_'."""
    assert check_destination_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "_a", ".", "a/b", "a.lock", "ä", "x" * 65, "a\n", None, 7, b"a"])
def test_names_of_destinations_that_cannot(name: object):
    """Anything else is an error that shows the name."""
    with pytest.raises(ConfigurationError, match="destinations: the name"):
        check_destination_name(name)
