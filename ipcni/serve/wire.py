"""What client and server say to each other on a unix stream socket; ipcni/native/client.c is the other side.

    client  "CNI1", length of the rest (4 bytes, little endian), and texts, each ended by NUL: build, plugin, and the
            variables of its environment as NAME=VALUE
    server  "A": it has read that, and would run it   (or "R": it would not; the client runs the plugin itself)
    client  "G": do, and with that byte its descriptors 0, 1 and 2    (or it hangs up, and nothing happens)
    server  one byte: the exit status; the answer has gone to the client's own descriptors

Before its "G" a client can still turn away, after it never: so a request is run once, whoever dies. Nor has anybody its descriptors
before, in which a runtime that reads its stdout to the end would wait for a server that is busy.
"""

import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from importlib import resources

import msgspec

MAGIC, ACCEPTED, REFUSED, GO = b"CNI1", b"A", b"R", b"G"
SOCKET = "serve/sock"  # in run_dir; its folder is root's alone, which run_dir is not
LONGEST = 1 << 20  # bytes of a request
_HEAD = struct.Struct("<4sI")
_FDS = 3


class Call(msgspec.Struct, frozen=True):
    """One call of a plugin."""

    build: str
    plugin: str
    env: dict[str, str]


def build() -> str:
    """What tells the code of one installation from another's: a digest of all its modules and templates."""
    digest = hashlib.sha256()
    root = str(resources.files("ipcni"))
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if each != "__pycache__")
        for name in sorted(names):
            if name.endswith((".py", ".j2")):
                path = os.path.join(folder, name)
                digest.update(os.path.relpath(path, root).encode())
                with open(path, "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]


def receive(conn: socket.socket) -> Call:
    """Reads a request. Raises ValueError for what is none, OSError for a client that is gone or too slow."""
    magic, length = _HEAD.unpack(_read(conn, _HEAD.size))
    if magic != MAGIC or length > LONGEST:
        raise ValueError("no request")
    build, plugin, *pairs = (os.fsdecode(text) for text in _read(conn, length).split(b"\0")[:-1])
    env = {name: value for name, equals, value in (pair.partition("=") for pair in pairs) if equals}
    return Call(build, plugin, env)


def _read(conn: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = conn.recv(length - len(data))
        if not part:
            raise ValueError("half a request")
        data += part
    return bytes(data)


@contextlib.contextmanager
def told_to_go(conn: socket.socket) -> Iterator[list[int]]:
    """The client's stdin, stdout and stderr, open until the end of the body; none where it turns away. Raises OSError, as `receive` does."""
    word, fds, _, _ = socket.recv_fds(conn, len(GO), _FDS, socket.MSG_CMSG_CLOEXEC)
    try:
        yield fds if word == GO and len(fds) == _FDS else []
    finally:
        for fd in fds:
            os.close(fd)


def peer(conn: socket.socket) -> tuple[int, int]:
    """Process and user at the other end (unix(7), SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("3i", conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
