"""Results that outlive the call, in libcni's files (protocol sheet 7.4)."""

import base64
import contextlib
import json
import os
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import config

CACHE_DIR = "/var/lib/cni"
_KIND = "cniCacheV1"


class Entry(msgspec.Struct, frozen=True):
    """What was attached and what came of it; all but `result` may be empty in files of old runtimes."""

    result: dict[str, Any]
    container_id: str = ""
    ifname: str = ""
    network: str = ""
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: dict[str, Any] = {}


class Cache(msgspec.Struct, frozen=True):
    """The folder `results` below `folder`."""

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
        """Writes an attachment's result and the configuration it was made from. Raises OSError."""
        path = self.path(entry.network, entry.container_id, entry.ifname)
        body: dict[str, Any] = {
            "kind": _KIND,
            "containerId": entry.container_id,
            "config": base64.b64encode(raw).decode(),
            "ifName": entry.ifname,
            "networkName": entry.network,
        }
        if entry.netns:
            body["netns"] = entry.netns
        if entry.args:
            body["cniArgs"] = [list(pair) for pair in entry.args]
        if entry.capability_args:
            body["capabilityArgs"] = entry.capability_args
        body["result"] = entry.result
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fresh = f"{path}.new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(config.dump(body))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)  # a crash must not leave half a file: the next DEL would have no result

    def load(self, network: str, container_id: str, ifname: str) -> Entry | None:
        """What was saved, or None where nothing was. Raises CniError for a file that cannot be understood."""
        try:
            with open(self.path(network, container_id, ifname), "rb") as file:
                return _entry(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CniError(f'failed to get network "{network}" cached result: {error}') from error

    def forget(self, network: str, container_id: str, ifname: str) -> None:
        """Removes an attachment's file."""
        with contextlib.suppress(OSError, CniError):
            os.unlink(self.path(network, container_id, ifname))

    def attachments(self, network: str) -> list[Entry]:
        """All attachments of a network that are remembered with all that a DEL needs; other files are passed over."""
        folder = os.path.join(self.folder, "results")
        found = []
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, name), "rb") as file:
                entry = _entry(file.read())
                if entry.network == network and entry.ifname:
                    found.append(entry)
        return found


def _entry(data: bytes) -> Entry:
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("it is no object")
    if body.get("kind") != _KIND:
        return Entry(result=body)  # as the first runtimes wrote it
    return Entry(
        result=body.get("result") or {},
        container_id=body.get("containerId", ""),
        ifname=body.get("ifName", ""),
        network=body.get("networkName", ""),
        netns=body.get("netns", ""),
        args=tuple((str(key), str(value)) for key, value in body.get("cniArgs") or ()),
        capability_args=body.get("capabilityArgs") or {},
    )
