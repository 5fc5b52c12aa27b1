"""The few commands on files (printf > FILE, mkdir, rm, mv, sync, cat) and on settings of the kernel (sysctl; a link's being up, or its MTU), done
by system calls instead of processes."""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time

from ipcni.model import Done, Step

_GET_FLAGS, _SET_FLAGS, _SET_MTU, _UP = 0x8913, 0x8914, 0x8922, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFMTU, IFF_UP


def perform(step: Step) -> Done:
    """Does what the command would do. A failure has status 1 and the tool's kind of error text."""
    started = time.monotonic()
    out, error = "", ""
    try:
        out = _COMMANDS[step.argv[0]](step)
    except OSError as problem:
        error = f"{step.argv[0]}: {problem.filename}: {problem.strerror}"
        if step.argv[0] == "ip":
            error = _as_ip_says(step, problem)
    return Done(1 if error else 0, out, error, round((time.monotonic() - started) * 1000, 2))


def _as_ip_says(step: Step, problem: OSError) -> str:
    if problem.errno == errno.ENODEV:
        return f'Cannot find device "{problem.filename}"'
    if problem.errno == errno.EINVAL and step.argv[5] == "mtu":
        return f"Error: mtu {step.argv[6]} is less than the device's minimum, or greater than its maximum."
    return f"RTNETLINK answers: {problem.strerror}"


def make_folders(path: str) -> None:
    """Makes a folder with its parents; others may not write there, however generous the caller's umask is."""
    if path and not os.path.isdir(path):
        make_folders(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)


def put(path: str, data: bytes, mode: int) -> None:
    """Writes a file whole or not at all: another process may be about to read it, and a crash may come. Raises OSError."""
    make_folders(os.path.dirname(path))
    fresh = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(fresh, mode)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def content(path: str) -> bytes:
    """A small file's bytes, with as few system calls as can be: an ADD reads a dozen. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def still_ours(step: Step) -> bool:
    """Whether a file that a step was to write is there as written: one that holds something else is somebody else's."""
    if not step.into:
        return True
    try:
        return content(step.into) == _content(step)
    except OSError:
        return False


def _content(step: Step) -> bytes:
    form = step.argv[1].replace("\\r", "\r").replace("\\n", "\n")
    return os.fsencode(form % step.argv[2:])


def _printf(step: Step) -> str:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if step.new else 0)
    fd = os.open(step.into, flags | os.O_CLOEXEC, 0o600)
    data = _content(step)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), step.into)
        os.ftruncate(fd, len(data))  # O_TRUNC would have ext4 write it to the disk at once
    except OSError as problem:
        os.unlink(step.into)  # no half-written file
        problem.filename = step.into
        raise
    finally:
        os.close(fd)
    return ""


def _mkdir(step: Step) -> str:
    """mkdir -p -m MODE FOLDER"""
    folder, mode = step.argv[4], int(step.argv[3], 8)
    if not os.path.isdir(folder):
        make_folders(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, mode)
            os.chmod(folder, mode)
    return ""


def _rm(step: Step) -> str:
    """rm -f FILE..."""
    for path in step.argv[2:]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return ""


def _mv(step: Step) -> str:
    """mv FROM TO"""
    os.replace(step.argv[1], step.argv[2])
    return ""


def _sync(step: Step) -> str:
    """sync FILE"""
    fd = os.open(step.argv[1], os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return ""


def _cat(step: Step) -> str:
    with open(step.argv[1], encoding="utf-8", errors="replace") as file:
        return file.read()


def _sysctl(step: Step) -> str:
    """sysctl -qw PATH=VALUE, in the namespace of this thread"""
    key, _, value = step.argv[2].partition("=")
    path = f"/proc/sys/{key}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, os.fsencode(f"{value}\n"))
    except OSError as problem:
        problem.filename = path
        raise
    finally:
        os.close(fd)
    return ""


def _ip(step: Step) -> str:
    """ip link set dev LINK up (or down, or mtu NUMBER), in the namespace of this thread (netdevice(7))"""
    link = os.fsencode(step.argv[4])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as kernel:
        try:
            if step.argv[5] == "mtu":
                fcntl.ioctl(kernel, _SET_MTU, struct.pack("16si20x", link, int(step.argv[6])))
            else:
                flags = struct.unpack_from("H", fcntl.ioctl(kernel, _GET_FLAGS, struct.pack("16s24x", link)), 16)[0]
                fcntl.ioctl(
                    kernel, _SET_FLAGS, struct.pack("16sH22x", link, flags | _UP if step.argv[5] == "up" else flags & ~_UP)
                )
        except OSError as problem:
            problem.filename = step.argv[4]
            raise
    return ""


_COMMANDS = {"ip": _ip, "printf": _printf, "mkdir": _mkdir, "rm": _rm, "mv": _mv, "sync": _sync, "cat": _cat, "sysctl": _sysctl}
