"""Calls plugins inside a node's namespace and times them: requests as JSON lines on stdin, answers likewise on stdout.

A process of its own, so that what is timed is the plugin and not the way into the namespace. Python's standard library only.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

_TICK = os.sysconf("SC_CLK_TCK")


def call(argv: list[str], env: dict[str, str], stdin: str) -> dict[str, object]:
    """Runs one program: its answer, how long it took (ms), its processor time and largest memory (ms, KiB)."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    process.stdin.write(stdin.encode())
    process.stdin.close()
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    ms = (time.perf_counter() - began) * 1000
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = (usage.ru_utime + usage.ru_stime) * 1000
    return {"status": process.returncode, "out": out.decode(), "ms": ms, "cpu": cpu, "kib": usage.ru_maxrss}


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += tree(int(child))
    return found


def spent(pid: int) -> float:
    """The processor time (ms) of a process, all below it, and all of those that have ended."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total * 1000 / _TICK


def memory(pid: int) -> int:
    """What a process and all below it have for themselves (KiB; shared pages by their share)."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{each}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def main() -> None:
    server: subprocess.Popen[bytes] | None = None
    lock = threading.Lock()

    def answer(number: int, found: object) -> None:
        with lock:
            print(json.dumps([number, found]), flush=True)

    def one(number: int, asked: list[object]) -> None:
        answer(number, [call(*each) for each in asked])  # type: ignore[misc]

    for line in sys.stdin:
        number, what, asked = json.loads(line)
        if what == "call":
            threading.Thread(target=one, args=(number, asked)).start()
        elif what == "serve":
            server = subprocess.Popen(asked["argv"], env=asked["env"], stderr=subprocess.DEVNULL)
            while not os.path.exists(asked["socket"]):
                time.sleep(0.01)
            answer(number, server.pid)
        else:
            pid = server.pid if server else 0
            answer(number, {"cpu": spent(pid) if pid else 0, "kib": memory(pid) if pid else 0})
    if server:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
