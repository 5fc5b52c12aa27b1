"""What a plugin was asked: the environment and stdin of one call, checked and typed."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ipcni.errors import CniError
from ipcni.model import Attachment, Netns
from ipcni.protocol import config, result

T = TypeVar("T", bound=msgspec.Struct)

VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")


class _Valid(msgspec.Struct, frozen=True, rename={"container_id": "containerID"}):
    container_id: str = ""
    ifname: str = ""


class _ValidList(msgspec.Struct, frozen=True):
    items: tuple[_Valid, ...] = ()


class Request(msgspec.Struct, frozen=True):
    """One call of one plugin. `conf` is stdin's object, `stdin` its bytes (what a delegate is given)."""

    plugin: str
    verb: str
    container_id: str
    netns_path: str
    ifname: str
    args: str
    path: str
    env: Mapping[str, str]
    stdin: bytes
    conf: dict[str, Any]
    network: str
    version: str

    @property
    def netns(self) -> Netns:
        """The pod's namespace; only where CNI_NETNS was given. A relative path is one from the caller's folder."""
        path = self.netns_path
        return Netns(path if path.startswith("/") or not path else os.path.abspath(path))

    @property
    def attachment(self) -> Attachment:
        return Attachment(self.network, self.container_id, self.ifname)

    def config(self, kind: type[T], prefix: str = "failed to load netconf") -> T:
        """The plugin's typed configuration. Raises CniError 999 naming the key that is wrong."""
        return config.decode(self.conf, kind, prefix=prefix)

    def prev_result(self, prefix: str = "could not parse prevResult") -> result.Result | None:
        """The result of the chain so far, or None. Raises CniError `<prefix>: …`."""
        value = config.find(self.conf, "prevResult")
        if value is None:
            return None
        try:
            return result.decode(value, self.version)
        except CniError as error:
            raise error.under(prefix) from error

    def required_result(self) -> result.Result:
        """prevResult for CHECK. Raises CniError `Required prevResult missing`."""
        found = self.prev_result()
        if found is None:
            raise CniError("Required prevResult missing")
        return found

    def valid_attachments(self) -> frozenset[tuple[str, str]] | None:
        """GC's list as (container id, ifname) pairs; None when the caller gave no list at all (null is an empty list)."""
        for key in VALID_ATTACHMENTS:
            if key in self.conf:
                listed = config.decode({"items": self.conf[key]}, _ValidList)
                return frozenset((each.container_id, each.ifname) for each in listed.items)
        return None
