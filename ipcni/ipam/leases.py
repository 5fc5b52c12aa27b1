"""Lease files as the Go host-local keeps them, so that both can share one directory at the same time (IPAM sheet 2.4, 2.5).

Everything here is called with the store's lock held.
"""

import functools
import os
from collections.abc import Iterator
from typing import Literal

import msgspec

from ipcni.errors import CniError
from ipcni.ipam.index import Index
from ipcni.protocol import address as addresses
from ipcni.shell import files

LOCK = "lock"
LOCK_MODE = 0o750
POINTER = "last_reserved_ip"
State = Literal["current", "undisturbed", "disturbed"]


class Store(msgspec.Struct, frozen=True, dict=True):
    """The leases of one network: one file an address, named like it, holding `<container id>\\r\\n<ifname>`.

    `folder` is `<dataDir>/<network>`; `index_dir` is where the cache of who holds what is kept.
    """

    folder: str
    index_dir: str

    @property
    def lock(self) -> str:
        """The file that flock(2) is taken on, by us and by the Go plugin. It must never be removed."""
        return f"{self.folder}/{LOCK}"

    def pointer(self, set_number: int) -> addresses.Ip | None:
        """The address given last from a range set, or None where none is known."""
        text = _content(f"{self.folder}/{POINTER}.{set_number}")
        try:
            return addresses.ip(text.decode("ascii")) if text else None
        except (ValueError, CniError):
            return None

    def taken(self, address: str) -> bool:
        """Whether the address is leased. An empty file is what a crash left of a lease: it counts as free."""
        try:
            return os.stat(f"{self.folder}/{address}").st_size > 0
        except FileNotFoundError:
            return False

    def leftover(self, address: str) -> bool:
        """Whether there is a lease file with nothing in it."""
        try:
            return os.stat(f"{self.folder}/{address}").st_size == 0
        except FileNotFoundError:
            return False

    def state(self) -> State:
        """What the index is worth: it is up to date, or could be made so with some use, or not."""
        if self.index.current():
            return "current"
        return "undisturbed" if self.index.undisturbed() else "disturbed"

    @functools.cached_property
    def index(self) -> Index:
        """Who holds what, as a cache."""
        return Index(self.index_dir, self.folder)

    def held(self, container_id: str, ifname: str) -> list[str]:
        """The files that are leases of this attachment, wherever below the folder (old-format leases, which name the container
        only, when there are no others)."""
        if self.index.current():
            found = self.index.lookup(container_id, ifname)
            if all(_content(path, strip=True) in _texts(container_id, ifname) for path in found):
                return found
        return self._scan(container_id, ifname)

    def held_for_sure(self, container_id: str, ifname: str) -> list[str]:
        """As `held`, but a "nothing" of the index is not believed: what is to be released must never be missed."""
        return self.held(container_id, ifname) or self._scan(container_id, ifname)

    def _scan(self, container_id: str, ifname: str) -> list[str]:
        everything = list(self.everything())
        for wanted in _texts(container_id, ifname):
            if found := [path for path, content in everything if content == wanted]:
                return found
        return []

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Every file below the folder but lock and pointers, with its stripped content. Costs as much as there are leases."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if name == LOCK or name.startswith(POINTER):
                    continue
                path = os.path.join(folder, name)
                if content := _content(path, strip=True):
                    yield path, content

    def note(self, container_id: str, ifname: str, paths: list[str], *, before: State) -> None:
        """Tells the index what the attachment holds now; `before` is what it was like before that changed."""
        match before:
            case "current":
                self.index.update(container_id, ifname, paths)
            case "undisturbed":
                self.index.rebuild(list(self.everything()))
            case "disturbed":  # others are at work here: an index would be out of date before it is of any use
                self.index.remember()


def owner(content: bytes) -> tuple[str, str] | None:
    """Container id and ifname (empty in the old format) of a lease's content, or None for what is no lease."""
    try:
        container_id, *rest = content.decode().split("\r\n")
    except UnicodeDecodeError:
        return None
    if len(rest) > 1 or "\n" in container_id:
        return None
    return container_id, rest[0] if rest else ""


def _texts(container_id: str, ifname: str) -> tuple[bytes, bytes]:
    return os.fsencode(f"{container_id.strip()}\r\n{ifname}".strip()), os.fsencode(container_id.strip())


def _content(path: str, *, strip: bool = False) -> bytes | None:
    try:
        content = files.content(path)
    except OSError:
        return None
    return content.strip() if strip else content
