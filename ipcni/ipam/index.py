"""Who holds which lease, without reading every lease: a cache outside the lease directory, verified before it is believed.

The lease files are the truth. After each change of ours the directory's own modification time is set to a moment of our
choosing, and noted here. Whoever else makes or removes a lease changes that time again; the index is then out of date, and
says so. Our moment has nanoseconds that the kernel's clock ticks never have, so not even a change in the same tick is missed.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time

from ipcni.shell.files import content, make_folders

MARK = "mark"
SEEN = "seen"


class Index:
    """The cache for one lease directory. Failing to write it costs time on the next call, and nothing else."""

    def __init__(self, index_dir: str, folder: str) -> None:
        self._leases = folder
        key = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
        self._folder = os.path.join(index_dir, key)

    def current(self) -> bool:
        """Whether nobody else has changed the lease directory since the index was written."""
        return self._marked(MARK)

    def _marked(self, name: str) -> bool:
        try:
            return int(content(f"{self._folder}/{name}") or 0) == os.stat(self._leases).st_mtime_ns
        except (OSError, ValueError):
            return False

    def undisturbed(self) -> bool:
        """Whether nobody else has changed the lease directory since `remember`."""
        return self._marked(SEEN)

    def remember(self) -> None:
        """Notes how the lease directory looks now, for `undisturbed`."""
        with contextlib.suppress(OSError):
            make_folders(self._folder)
            _write(f"{self._folder}/{SEEN}", str(os.stat(self._leases).st_mtime_ns))

    def lookup(self, container_id: str, ifname: str) -> list[str]:
        """The lease files of an attachment, old-format ones of its container when it has no others."""
        return _paths(self._entry(container_id, ifname)) or _paths(self._entry(container_id, ""))

    def update(self, container_id: str, ifname: str, paths: list[str]) -> None:
        """Notes what an attachment holds after our change, and that the index is up to date."""
        with contextlib.suppress(OSError):
            self._unsign()
            entry = self._entry(container_id, ifname)
            if paths:
                make_folders(os.path.dirname(entry))
                _write(entry, json.dumps(paths))
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry)
            self._sign()

    def rebuild(self, everything: list[tuple[str, bytes]]) -> None:
        """Makes it agree with all leases: pairs of path and stripped content. What agrees already is only read."""
        from ipcni.ipam.leases import owner

        held: dict[str, list[str]] = {}
        for path, text in everything:
            if who := owner(text):
                held.setdefault(self._entry(*who), []).append(path)
        try:
            self._agree(held)
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)  # the next one starts anew

    def _agree(self, held: dict[str, list[str]]) -> None:
        make_folders(self._folder)
        self._unsign()
        for folder, _, names in os.walk(self._folder):
            for name in names if folder != self._folder else ():
                if (entry := f"{folder}/{name}") not in held:
                    os.unlink(entry)
        for entry, paths in held.items():
            if _paths(entry) != paths:
                make_folders(os.path.dirname(entry))
                _write(entry, json.dumps(paths))
        self._sign()

    def _entry(self, container_id: str, ifname: str) -> str:
        name = hashlib.sha256(os.fsencode(f"{container_id.strip()}\0{ifname}")).hexdigest()[:32]
        return f"{self._folder}/{name[:2]}/{name}"

    def _unsign(self) -> None:
        """From here to `_sign` a crash leaves an index that admits to being none."""
        _write(f"{self._folder}/{MARK}", "0")

    def _sign(self) -> None:
        moment = time.time_ns() | 1
        os.utime(self._leases, ns=(moment, moment))
        if os.stat(self._leases).st_mtime_ns == moment:  # not so where the file system keeps whole seconds only
            _write(f"{self._folder}/{MARK}", str(moment))


def _paths(entry: str) -> list[str]:
    try:
        return list(json.loads(content(entry)))
    except (OSError, ValueError):
        return []


def _write(path: str, text: str) -> None:
    """Over what is there, if anything: to make a file or to empty it takes ten times as long."""
    data = text.encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)
