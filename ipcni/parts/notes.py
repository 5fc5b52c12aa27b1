"""Which attachments have something on the node, for a GC that is told only which ones are valid (protocol sheet 2.5).

Most of what plugins make does not tell its network. A note does: `<run dir>/attachments/<network>/<plugin>/<container id>:<ifname>`.
"""

import os

import msgspec

from ipcni.model import Plan
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.shell.facts import read
from ipcni.shell.render import render


def _folder(req: Request, host: Host) -> str:
    return os.path.join(host.settings.run_dir, "attachments", req.network, req.plugin)


def path(req: Request, host: Host) -> str:
    """Where the note of this plugin on this attachment is."""
    return os.path.join(_folder(req, host), f"{req.container_id}:{req.ifname}")


def take(req: Request, host: Host, *words: str) -> Plan:
    """Notes the attachment, with what will be needed to remove what it has on the node. Comes before anything is made."""
    mine = path(req, host)
    there = read(mine)
    if there is not None and there.split("\n") == list(words):
        return ()
    return render("common/note.sh.j2", folder=_folder(req, host), path=mine, words=words, first=there is None)


def words(req: Request, host: Host) -> tuple[str, ...]:
    """What `take` was given; nothing where there is no note."""
    return tuple((read(path(req, host)) or "").splitlines())


def drop(req: Request, host: Host) -> Plan:
    """Comes when all is removed."""
    mine = path(req, host)
    return render("common/forget.sh.j2", path=mine) if os.path.lexists(mine) else ()


def beside(req: Request, host: Host) -> list[str]:
    """The container's other interfaces in this network that have a note."""
    folder, mine = _folder(req, host), f"{req.container_id}:"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name.removeprefix(mine) for name in names if name.startswith(mine) and name != mine + req.ifname)


def stale(req: Request, host: Host, valid: frozenset[tuple[str, str]]) -> list[Request]:
    """A DEL, without namespace, for each noted attachment of the network that is not among the valid ones."""
    found = []
    folder = _folder(req, host)
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        container_id, _, ifname = name.partition(":")
        if ifname and (container_id, ifname) not in valid:
            found.append(msgspec.structs.replace(req, verb="DEL", container_id=container_id, ifname=ifname, netns_path=""))
    return found
