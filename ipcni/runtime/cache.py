"""Results that outlive the call, in libcni's files (protocol sheet 7.4)."""

import base64
import contextlib
import os
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import config

CACHE_DIR = "/var/lib/cni"
_KIND = "cniCacheV1"


class Entry(msgspec.Struct, frozen=True):
    """What was attached and what came of it; all but `result` is empty in the files of the first runtimes."""

    result: dict[str, Any]
    container_id: str = ""
    ifname: str = ""
    network: str = ""
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: dict[str, Any] = {}


class _File(msgspec.Struct, frozen=True, rename="camel"):
    """A file's content, in libcni's order."""

    kind: str = ""
    container_id: str = ""
    config: str = ""
    if_name: str = ""
    network_name: str = ""
    netns: str = ""
    cni_args: tuple[tuple[str, str], ...] = ()
    capability_args: dict[str, Any] = {}
    result: dict[str, Any] = {}


class Cache(msgspec.Struct, frozen=True):
    """The folder `results` below `folder`: a file for each attachment."""

    folder: str = CACHE_DIR

    def path(self, network: str, container_id: str, ifname: str) -> str:
        """The file of one attachment. Raises CniError where a part of its name is missing."""
        if not (network and container_id and ifname):
            raise CniError(
                f'cache file path requires network name ("{network}"), container ID ("{container_id}"), '
                f'and interface name ("{ifname}")'
            )
        return os.path.join(self.folder, "results", f"{network}-{container_id}-{ifname}")

    def save(self, entry: Entry, raw: bytes) -> None:
        """Writes an attachment's result and `raw`, the configuration it was made from. Raises CniError, OSError."""
        path = self.path(entry.network, entry.container_id, entry.ifname)
        body: dict[str, Any] = {
            "kind": _KIND,
            "containerId": entry.container_id,
            "config": base64.b64encode(raw).decode(),
            "ifName": entry.ifname,
            "networkName": entry.network,
        }
        optional = {"netns": entry.netns, "cniArgs": entry.args, "capabilityArgs": config.in_order(entry.capability_args)}
        body |= {key: value for key, value in optional.items() if value}
        body["result"] = entry.result
        _make_folder(os.path.dirname(path))
        fresh = _fresh(path)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(config.dump(body))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)  # half a file, after a crash, would leave the next DEL without a result

    def load(self, network: str, container_id: str, ifname: str) -> Entry | None:
        """What was saved, or None where nothing was. Raises CniError for a file that cannot be understood."""
        path = self.path(network, container_id, ifname)
        try:
            with open(path, "rb") as file:
                return _entry(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise CniError(f"{path}: {error}") from error

    def forget(self, network: str, container_id: str, ifname: str) -> None:
        """Removes what is kept of an attachment, if anything is."""
        with contextlib.suppress(CniError):
            path = self.path(network, container_id, ifname)
            for each in (path, _fresh(path)):
                with contextlib.suppress(OSError, ValueError):
                    os.unlink(each)

    def attachments(self, network: str) -> list[Entry]:
        """All attachments of a network that are kept with all that a DEL needs; what is no such file is passed over."""
        folder = os.path.join(self.folder, "results")
        try:
            names = sorted(os.listdir(folder), key=os.fsencode)
        except OSError:
            return []
        found = []
        for name in names:
            with contextlib.suppress(OSError, ValueError, CniError), open(os.path.join(folder, name), "rb") as file:
                entry = _entry(file.read())
                if entry.network == network and entry.ifname and not name.startswith("."):
                    found.append(entry)
        return found


def _fresh(path: str) -> str:
    """Where a file is written before it takes its place; no attachment's file begins with a dot."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}")


def _make_folder(folder: str) -> None:
    """What has to be made is for its owner only, parents too, as in libcni: `config` may hold secrets."""
    if folder and not os.path.isdir(folder):
        _make_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def _entry(data: bytes) -> Entry:
    body = config.parse(data)
    if not isinstance(body, dict):
        raise ValueError("it holds no JSON object")
    if config.find(body, "kind") != _KIND:
        return Entry(result=body)  # as the first runtimes wrote it
    file = config.decode(body, _File, prefix="")
    return Entry(file.result, file.container_id, file.if_name, file.network_name, file.netns, file.cni_args, file.capability_args)
