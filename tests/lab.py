"""A scratch node for tests: a network namespace with its own state folders, and pods beside it.

Nothing of the machine is touched: links, rules and sysctls live in the namespace, leases and journal in a temporary folder.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
BIN = ROOT / "bin"
GO = pathlib.Path("/usr/lib/cni")
ENTRY_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


_starting = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a plugin call ended with."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def ok(self) -> Any:
        """The parsed result (None for an empty one); the call must have succeeded."""
        assert self.status == 0, self.stdout.decode() + self.stderr
        return json.loads(self.stdout) if self.stdout else None

    def error(self) -> dict[str, Any]:
        """The error object; the call must have failed with exactly one on stdout."""
        assert self.status == 1, self.stdout.decode() + self.stderr
        found: dict[str, Any] = json.loads(self.stdout)
        assert {"code", "msg"} <= set(found) <= {"code", "msg", "details"}
        return found


class Pod:
    """A pod's network namespace, by name; it has no link but lo."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        sh("ip", "netns", "add", name)

    def ip(self, *args: str) -> Any:
        """What `ip -j -n POD …` answers."""
        return json.loads(sh("ip", "-n", self.name, "-j", *args) or "[]")

    def run(self, *argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return run("ip", "netns", "exec", self.name, *argv, check=check, **options)

    def sysctl(self, key: str) -> str:
        """A kernel setting, by its path below /proc/sys."""
        return self.run("cat", f"/proc/sys/{key}").stdout.strip()

    def delete(self) -> None:
        run("ip", "netns", "del", self.name, check=False)


class Node(Pod):
    """A node with state of its own; `call` runs a plugin on it. `served` are programs that ask `ipcni serve`, to be called instead of bin/."""

    def __init__(self, folder: pathlib.Path, served: pathlib.Path | None = None) -> None:
        self.folder, self.served = folder, served
        self.tag = uuid.uuid4().hex[:8]
        self.pods: list[Pod] = []
        self._server: subprocess.Popen[bytes] | None = None
        super().__init__(f"node-{self.tag}")
        sh("ip", "-n", self.name, "link", "set", "lo", "up")
        self.run("sysctl", "-qw", "net/ipv4/ip_forward=0", "net/ipv6/conf/all/forwarding=0")  # the machine's own are inherited
        self.data_dir = str(folder / "networks")
        self.env = {
            "PATH": ENTRY_PATH,
            "IPCNI_LOG_DIR": str(folder / "log"),
            "IPCNI_RUN_DIR": str(folder / "run"),
            "IPCNI_STATE_DIR": str(folder / "state"),
        }

    def pod(self) -> Pod:
        """Another pod."""
        pod = Pod(f"pod-{self.tag}-{len(self.pods)}")
        self.pods.append(pod)
        return pod

    def delete(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)
        for pod in self.pods:
            pod.delete()
        super().delete()

    def call(
        self,
        verb: str,
        conf: Mapping[str, Any] | str,
        pod: Pod | str | None = None,
        *,
        container: str = "cid1",
        ifname: str = "eth0",
        args: str = "",
        plugin: str = "",
        bin_dir: os.PathLike[str] | str = BIN,
        path: str = "",
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Answer:
        """Runs `<bin_dir>/<plugin>` (default: the config's type) on the node, as a runtime does."""
        return self.wait(
            self.start(
                verb,
                conf,
                pod,
                container=container,
                ifname=ifname,
                args=args,
                plugin=plugin,
                bin_dir=bin_dir,
                path=path,
                env=env,
            ),
            timeout,
        )

    def start(
        self,
        verb: str,
        conf: Mapping[str, Any] | str,
        pod: Pod | str | None = None,
        *,
        container: str = "cid1",
        ifname: str = "eth0",
        args: str = "",
        plugin: str = "",
        bin_dir: os.PathLike[str] | str = BIN,
        path: str = "",
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """As `call`, but does not wait for the end; `wait` does."""
        text = conf if isinstance(conf, str) else json.dumps(conf)
        plugin = plugin or json.loads(text)["type"]
        netns = pod.path if isinstance(pod, Pod) else pod or ""
        variables = {
            **self.env,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": path or str(bin_dir),
            **(env or {}),
        }
        where = ["/usr/sbin/ip", "netns", "exec", self.name]
        if self.served and pathlib.Path(bin_dir) == BIN:
            variables["IPCNI_SOCKET"] = str(self.folder / "serve.sock")
            # In the server's namespaces, mounts included: it refuses others.
            where, bin_dir = ["/usr/bin/nsenter", "-t", str(self.serve().pid), "-n", "-m"], self.served
        process = subprocess.Popen(
            [*where, str(pathlib.Path(bin_dir) / plugin)],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        try:
            process.stdin.write(text.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdin = None
        return process

    def serve(self) -> "subprocess.Popen[bytes]":
        """The node's `ipcni serve`, started now if it isn't there yet."""
        with _starting:
            return self._serve()

    def _serve(self) -> "subprocess.Popen[bytes]":
        if self._server is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "serve.sock"
            argv = ["ip", "netns", "exec", self.name, str(BIN / "ipcni"), "serve", "--socket", str(path), "--workers", "4"]
            self._server = subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not path.exists():
                assert self._server.poll() is None
                time.sleep(0.01)
        return self._server

    def wait(self, process: "subprocess.Popen[bytes]", timeout: float = 120) -> Answer:
        out, err = process.communicate(timeout=timeout)
        return Answer(process.returncode, out, err.decode())

    def journal(self) -> list[dict[str, Any]]:
        """All records of the node's journal."""
        path = self.folder / "log" / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def leases(self, network: str) -> dict[str, str]:
        """The lease files of a network: address to content."""
        folder = pathlib.Path(self.data_dir) / network
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return {
            name: (folder / name).read_bytes().decode()
            for name in names
            if name != "lock" and not name.startswith("last_reserved_ip")
        }

    def rules(self, tool: str = "iptables", table: str = "nat") -> list[str]:
        """The lines of `iptables-save`, without counters and comments."""
        text = self.run(f"{tool}-save", "-t", table).stdout
        return [re.sub(r" \[\d+:\d+\]", "", line) for line in text.splitlines() if not line.startswith("#")]

    def links(self) -> list[str]:
        """The names of the node's links."""
        return sorted(link["ifname"] for link in self.ip("link"))


def run(*argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
    return done


def sh(*argv: str) -> str:
    """Runs a command that must succeed and returns what it printed."""
    return run(*argv).stdout
