"""The options by which a network and an attachment are named on the command line."""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from msgspec import UNSET

from ipcni.errors import CniError
from ipcni.model import NAMED_NETNS
from ipcni.protocol import config
from ipcni.runtime import conf
from ipcni.runtime.chain import Attachment, Valid
from ipcni.runtime.conf import NetworkList

F = TypeVar("F", bound=Callable[..., Any])


def network(function: F) -> F:
    """Which network, and with which plugins."""
    for decorate in reversed(
        [
            click.argument("network", required=False, default=""),
            click.option(
                "--conf-dir",
                default=conf.CONF_DIR,
                envvar="NETCONFPATH",
                show_default=True,
                show_envvar=True,
                help="Folder of network configurations.",
            ),
            click.option("--cni-path", default="", help="Folders of plugins, colon-separated (or CNI_PATH).", metavar="DIRS"),
        ]
    ):
        function = decorate(function)
    return function


def attachment(function: F) -> F:
    """Which container and interface, and what the runtime has to say about them."""
    for decorate in reversed(
        [
            click.option("--netns", default="", help="The pod's network namespace: its name or path.", metavar="NAME|PATH"),
            click.option(
                "--container-id", default="", help="The container's id (default: made from the namespace, as cnitool does)."
            ),
            click.option(
                "--ifname",
                default="eth0",
                envvar="CNI_IFNAME",
                show_default=True,
                show_envvar=True,
                help="The interface's name in the pod.",
            ),
            click.option("--args", default="", envvar="CNI_ARGS", show_envvar=True, help="Arguments, as text.", metavar="K=V;…"),
            click.option(
                "--capability-args",
                default="",
                envvar="CAP_ARGS",
                show_envvar=True,
                help="Arguments, by capability.",
                metavar="JSON",
            ),
        ]
    ):
        function = decorate(function)
    return function


def load(name: str, folder: str) -> tuple[str, NetworkList]:
    """The network named by a file, by its name in the folder, or by nothing (the first one there); with where it was found."""
    if not name:
        return conf.first(folder)
    if "/" in name or name.endswith(conf.ENDINGS):  # whatever else lies in the working directory is not meant
        return name, conf.from_file(name)
    return folder, conf.by_name(folder, name)


def netns_path(given: str) -> str:
    """A namespace's path: names are those of `ip netns`; other paths are made absolute."""
    if not given or os.path.isabs(given):
        return given
    return os.path.abspath(given) if "/" in given else f"{NAMED_NETNS}/{given}"


def build(given: Mapping[str, str], *, required: bool) -> Attachment:
    """The attachment from its options. Raises CniError for one that is malformed or, if `required`, missing."""
    netns = netns_path(given["netns"])
    container_id = given["container_id"]
    if required and not netns and not container_id:
        raise CniError("no pod is named", details="give --netns NAME|PATH, or --container-id where its namespace is gone")
    return Attachment(
        container_id=container_id or (cnitool_id(netns) if netns else ""),
        netns=netns,
        ifname=given["ifname"],
        args=_pairs(given["args"]),
        capability_args=_object(given["capability_args"]),
    )


def cnitool_id(netns: str) -> str:
    """The container id cnitool makes up for a namespace (protocol sheet 9)."""
    return "cnitool-" + hashlib.sha512(netns.encode()).hexdigest()[:20]


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for pair in text.split(";") if text else ():
        key, equals, value = pair.partition("=")
        if not (key and equals and value) or "=" in value:
            raise CniError(f'invalid CNI_ARGS pair "{pair}"', details="--args takes K=V;K2=V2")
        pairs.append((key, value))
    return tuple(pairs)


def _object(text: str) -> dict[str, Any]:
    try:
        found = config.parse(os.fsencode(text or "{}"))
    except ValueError as error:
        raise CniError(f"--capability-args is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CniError("--capability-args must be a JSON object, by capability")
    return found


valid = click.option(
    "--valid",
    multiple=True,
    metavar="CONTAINER_ID/IFNAME",
    help="GC: an attachment that is to stay; can be given many times.",
)


def listed(texts: tuple[str, ...]) -> Valid:
    """What was given as --valid, as GC's list; no list where nothing was. Raises CniError."""
    return tuple(map(_valid_attachment, texts)) or UNSET


def _valid_attachment(text: str) -> tuple[str, str]:
    """Container id and interface from ID/IFNAME. Raises CniError."""
    container_id, _, ifname = text.partition("/")
    if not (container_id and ifname):
        raise CniError(f"no attachment: {text}", details="--valid takes CONTAINER_ID/IFNAME, as in 3f9c/eth0")
    return container_id, ifname
