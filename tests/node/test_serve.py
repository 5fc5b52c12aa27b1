"""`ipcni serve` and the program that asks it: who runs a call, and what becomes of it when somebody dies."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ipcni import install
from ipcni.serve import wire
from tests.lab import BIN, ENTRY_PATH, ROOT, Answer, Node, Pod, run
from tests.remains import network, remains, tools

SLOW = 'case "$*" in *{when}*) touch $here/started; sleep {seconds};; esac; exec $real "$@"'


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder that `ipcni install` filled."""
    folder = tmp_path_factory.mktemp("programs") / "bin"
    install.install(str(folder))
    return folder


class Server:
    """A server on a node, and calls from its namespaces."""

    def __init__(
        self,
        node: Node,
        programs: pathlib.Path,
        *options: str,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        path: pathlib.Path | None = None,
    ) -> None:
        """`prefix` is a program that starts the server for us, with a socket at `path`."""
        self.node, self.programs, self.path = node, programs, path or node.folder / "serve" / "sock"
        where = [] if prefix else ["--socket", str(self.path)]
        argv = ["ip", "netns", "exec", node.name, *prefix, str(BIN / "ipcni"), "serve", *where, *options]
        self.process = subprocess.Popen(argv, env={**node.env, **(env or {})}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert wait(self.answers)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect(str(self.path))
            except OSError:
                return False
            return True

    def start(
        self,
        verb: str,
        conf: dict[str, Any],
        pod: Pod,
        *,
        container: str = "cid1",
        env: dict[str, str] | None = None,
        cwd: str = "/",
    ) -> "subprocess.Popen[bytes]":
        """A call as a runtime makes it, in the server's own namespaces."""
        variables = {
            **self.node.env,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": pod.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(BIN),
            "IPCNI_SOCKET": str(self.path),
            **(env or {}),
        }
        argv = ["nsenter", "-t", str(self.process.pid), "-n", "-m", f"--wdns={cwd}", str(self.programs / conf["type"])]
        process = subprocess.Popen(argv, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(json.dumps(conf).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, verb: str, conf: dict[str, Any], pod: Pod, **more: Any) -> Answer:
        return self.node.wait(self.start(verb, conf, pod, **more))

    def workers(self) -> list[int]:
        return children(self.process.pid)

    def end(self, number: int = signal.SIGTERM) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.process.wait(30)


def children(pid: int) -> list[int]:
    return [int(each) for each in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def below(pid: int) -> list[int]:
    """A process's children, theirs, and so on."""
    return [each for child in children(pid) for each in (child, *below(child))]


def command(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def wait(condition: Any, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_its_usual_place(node: Node, programs: pathlib.Path) -> None:
    """Is root's alone also where a plugin was there first; and it is where `ipcni install` has told the programs to look."""
    conf = network(node)
    node.call("ADD", conf, node.pod(), env={"IPCNI_SOCKET": "/none"}).ok()
    server = Server(node, programs, prefix=["env"], path=node.folder / "run" / wire.SOCKET)
    assert (programs / install.BEHIND / "serve").read_text() == f"{wire.build()} /run/ipcni/{wire.SOCKET}\n"
    assert f"ListenStream=/run/ipcni/{wire.SOCKET}\n" in (ROOT / "systemd" / "ipcni.socket").read_text()
    assert server.path.stat().st_mode & 0o777 == 0o600
    assert server.path.parent.stat().st_mode & 0o777 == 0o700
    server.end()


@pytest.fixture
def server(node: Node, programs: pathlib.Path) -> Iterator[Server]:
    made = Server(node, programs, "--workers", "2")
    yield made
    made.end()


@pytest.fixture
def alone(programs: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The programs without the plugins behind them: only a server can run a call."""
    folder = tmp_path / "alone"
    shutil.copytree(programs, folder)
    for name in install.plugins():
        (folder / install.BEHIND / name).unlink()
    return folder


def test_a_call_is_the_servers(server: Server, alone: pathlib.Path) -> None:
    server.programs = alone
    conf, pod = network(server.node), server.node.pod()
    known = {**conf, "prevResult": server.call("ADD", conf, pod).ok()}
    server.call("CHECK", known, pod).ok()
    assert server.call("ADD", {**conf, "bridge": 5}, pod).error()["code"] == 999
    server.call("DEL", known, pod).ok()
    assert remains(server.node) == {}
    assert server.path.stat().st_mode & 0o777 == 0o600
    assert server.path.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_server_the_plugin_runs(server: Server) -> None:
    node = server.node
    conf, pod = network(node), node.pod()
    server.end()
    env = {"IPCNI_SOCKET": str(server.path)}
    node.call("ADD", conf, pod, bin_dir=server.programs, env=env).ok()
    node.call("DEL", conf, pod, bin_dir=server.programs, env=env).ok()
    assert remains(node) == {}


def test_refused_calls_are_run_by_the_plugin(server: Server, alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Other code, other namespaces, another root, a closed descriptor: the plugin itself runs, and without it nobody does."""
    other = tmp_path / "other"
    shutil.copytree(alone, other)
    place = (other / install.BEHIND / "serve").read_text().split(" ", 1)[1]
    (other / install.BEHIND / "serve").write_text(f"0123456789abcdef {place}")
    conf, pod = network(server.node), server.node.pod()
    server.programs = other
    assert server.call("ADD", conf, pod).error()["msg"] == "cannot run the plugin"
    elsewhere = server.node.call("ADD", conf, pod, bin_dir=alone, env={"IPCNI_SOCKET": str(server.path)})
    assert elsewhere.error()["msg"] == "cannot run the plugin"
    root = tmp_path / "root"
    for source, target in (("/proc", root / "proc"), (tmp_path, root / str(tmp_path)[1:])):
        target.mkdir(parents=True)
        run("nsenter", "-t", str(server.process.pid), "-m", "mount", "--rbind", str(source), str(target))
    argv = ["nsenter", "-t", str(server.process.pid), "-n", "-m", "chroot", str(root), str(alone / "bridge")]
    env = {**server.node.env, "CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN), "IPCNI_SOCKET": str(server.path)}
    assert "cannot run the plugin" in run(*argv, env=env, input=json.dumps(conf), check=False).stdout
    assert not server.node.journal()
    server.programs = alone
    server.call("ADD", conf, pod).ok()


def test_what_is_no_request(server: Server) -> None:
    """Whatever comes, the next call is served."""
    for data in (b"", b"x", b"CNI1\xff\xff\xff\xff", b"CNI1\x04\x00\x00\x00abcd", os.urandom(4096)):
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(server.path))
            with contextlib.suppress(OSError):
                asked.sendall(data)
    server.call("VERSION", network(server.node), server.node.pod()).ok()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_client_that_ends(server: Server, tmp_path: pathlib.Path, number: int) -> None:
    """What it had begun is undone."""
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=20))
    conf, pod = network(server.node), server.node.pod()
    client = server.start("ADD", conf, pod, env=env)
    assert wait((tmp_path / "tools" / "started").exists)
    children_of = children(client.pid) or [client.pid]
    os.kill(children_of[0], number)
    answer = server.node.wait(client)
    if number == signal.SIGTERM:
        assert answer.error()["code"] == 11
    assert wait(lambda: remains(server.node) == {})
    server.call("ADD", conf, pod).ok()


def test_a_worker_that_is_killed(server: Server, tmp_path: pathlib.Path) -> None:
    """Its client is told, nothing is run twice, another one takes its place."""
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=1))
    conf, pod = network(server.node), server.node.pod()
    client = server.start("ADD", conf, pod, env=env)
    assert wait((tmp_path / "tools" / "started").exists)
    before = server.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    error = server.node.wait(client).error()
    assert (error["code"], error["msg"]) == (11, "the ipcni server ended during the request")
    assert wait(lambda: len(server.workers()) == 2 and not set(before) & set(server.workers()))
    time.sleep(1.2)  # the command that was running
    server.call("DEL", conf, pod).ok()
    assert remains(server.node) == {}


def test_no_worker_can_be_started(node: Node, programs: pathlib.Path, alone: pathlib.Path) -> None:
    """For now: the server stays."""
    code = """
import errno, os, sys
fork, failures = os.fork, [errno.EAGAIN, errno.ENOMEM]
def failing():
    if failures:
        raise OSError(failures.pop(), "")
    return fork()
os.fork = failing
from ipcni.commands import main
main(sys.argv[2:])
"""
    python = [str(BIN / ".venv" / "bin" / "python3"), "-I", "-c", code]
    server = Server(node, programs, "--workers", "1", prefix=python, path=node.folder / "run" / wire.SOCKET)
    assert wait(server.workers)
    server.programs = alone
    server.call("ADD", network(node), node.pod()).ok()
    assert server.end() == 0


def test_a_request_that_takes_too_long(node: Node, programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    server = Server(node, programs, "--workers", "1", "--timeout", "1")
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=20))
    began = time.monotonic()
    assert server.call("ADD", network(node), node.pod(), env=env).error()["code"] == 11
    assert time.monotonic() - began < 10
    assert remains(node) == {}
    server.end()


def test_a_request_without_end(server: Server) -> None:
    """Needs no more memory than one that has one."""
    argv = [
        "nsenter",
        "-t",
        str(server.process.pid),
        "-n",
        "-m",
        "sh",
        "-c",
        'head -c 100M /dev/zero | "$0"',
        str(server.programs / "bridge"),
    ]
    env = {**server.node.env, "CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN), "IPCNI_SOCKET": str(server.path)}
    assert wait(lambda: len(server.workers()) == 2)
    workers = server.workers()
    answer = json.loads(run(*argv, env=env, check=False).stdout)
    assert (answer["code"], answer["msg"]) == (5, "error reading from stdin: File too large")
    peaks = [
        int(line.split()[1])
        for pid in workers
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    assert max(peaks) < 64 << 10


def test_a_request_that_hangs(node: Node, programs: pathlib.Path, alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Others are served meanwhile. A worker that does not even undo is killed 15 s later; its caller is told, and another takes its place."""
    server = Server(node, programs, "--workers", "2", "--timeout", "3")
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=60))
    began = time.monotonic()
    client = server.start("ADD", network(node), node.pod(), container="hangs", env=env)
    assert wait((tmp_path / "tools" / "started").exists)
    (worker,) = [pid for pid in server.workers() if any("/tools/ip" in command(each) for each in below(pid))]
    os.kill(worker, signal.SIGSTOP)
    server.programs = alone
    for number in range(5):
        server.call("ADD", network(node, bridge="br2"), node.pod(), container=f"c{number}").ok()
    error = node.wait(client).error()
    assert (error["code"], error["msg"]) == (11, "the ipcni server ended during the request")
    assert 17 < time.monotonic() - began < 30
    assert wait(lambda: len(server.workers()) == 2 and worker not in server.workers())
    server.end()


def test_nothing_of_a_request_stays(node: Node, programs: pathlib.Path, alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Descriptors, threads, folder, environment: a worker that has served well, badly and a client that was killed is as it was."""
    server = Server(node, alone, "--workers", "1")
    conf, pod, elsewhere = network(node), node.pod(), tmp_path / "elsewhere"
    elsewhere.mkdir()

    def state(pid: int) -> tuple[object, ...]:
        process = pathlib.Path(f"/proc/{pid}")
        opened = sorted(os.readlink(each).partition(":")[0] for each in (process / "fd").iterdir())
        return (
            opened,
            len(list((process / "task").iterdir())),
            os.readlink(process / "cwd"),
            b"SECRET" in (process / "environ").read_bytes(),
        )

    def pair(**more: Any) -> None:
        server.call("ADD", conf, pod, **more).ok()
        server.call("DEL", conf, pod, **more).ok()

    pair(cwd=str(elsewhere))
    (worker,) = server.workers()
    shells = children(worker)
    time.sleep(1)  # the answer is out before the worker is through with the request
    before = [state(pid) for pid in (worker, *shells)]
    assert {(folder, secret) for _, _, folder, secret in before} == {("/", False)}
    for _ in range(5):
        pair(cwd=str(elsewhere), env={"SECRET": "1"})
        server.call("ADD", {**conf, "bridge": 5}, pod, cwd=str(elsewhere)).error()
        server.call("ADD", conf, pod, env={"CNI_NETNS": "/run/netns/none"}).error()
    assert wait(lambda: [state(pid) for pid in (worker, *shells)] == before)
    slow = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=20))
    client = server.start("ADD", conf, pod, env=slow, cwd=str(elsewhere))
    assert wait((tmp_path / "tools" / "started").exists)
    os.kill((children(client.pid) or [client.pid])[0], signal.SIGKILL)
    node.wait(client)
    assert wait(lambda: remains(node) == {})
    pair(cwd=str(elsewhere))
    assert server.workers() == [worker]
    assert wait(lambda: len(children(worker)) == len(shells)), "the shell that was killed is waited for"
    assert wait(lambda: [state(pid) for pid in (worker, *children(worker))] == before)
    server.end()


def test_more_calls_than_places(node: Node, programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Those for whom there is no place run by themselves; none fails."""
    server = Server(node, programs, "--workers", "1", "--queue", "1")
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=1))
    conf = network(node)
    clients = [server.start("ADD", conf, node.pod(), container=f"c{number}", env=env) for number in range(6)]
    assert len({node.wait(client).ok()["ips"][0]["address"] for client in clients}) == 6
    server.end()


def test_who_turned_away_waits_for_nobody(node: Node, programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A runtime reads the answer to the end of the pipe: a server that comes to the call later must not have it open."""
    server = Server(node, programs, "--workers", "1")
    slow = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=30))
    first = server.start("ADD", network(node), node.pod(), container="first", env=slow)
    assert wait((tmp_path / "tools" / "started").exists)
    server.call("ADD", network(node, bridge="br2"), node.pod(), container="second").ok()
    assert first.poll() is None
    first.terminate()
    node.wait(first)
    server.end()


def test_the_server_finishes_what_runs(server: Server, tmp_path: pathlib.Path) -> None:
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=1))
    conf, pod = network(server.node), server.node.pod()
    client = server.start("ADD", conf, pod, env=env)
    assert wait((tmp_path / "tools" / "started").exists)
    assert server.end() == 0
    server.node.wait(client).ok()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nobody_waits_for_a_server_that_ends(server: Server, tmp_path: pathlib.Path, number: int) -> None:
    """While the last call is finished others run by themselves at once; whoever was told to end does so, whatever comes next."""
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=8))
    client = server.start("ADD", network(server.node), server.node.pod(), env=env)
    assert wait((tmp_path / "tools" / "started").exists)
    server.process.send_signal(number)
    assert wait(lambda: not server.answers(), 3)
    assert client.poll() is None
    server.process.send_signal(signal.SIGHUP)
    server.node.wait(client).ok()
    if number == signal.SIGTERM:
        assert server.process.wait(10) == 0
    else:
        assert wait(server.answers)


def test_a_new_server_in_its_place(server: Server, alone: pathlib.Path) -> None:
    """SIGHUP: the same process, other workers."""
    assert wait(lambda: len(server.workers()) == 2)
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)
    assert wait(lambda: len(server.workers()) == 2 and not set(before) & set(server.workers()))
    server.programs = alone
    assert wait(server.answers)
    server.call("ADD", network(server.node), server.node.pod()).ok()


def test_an_upgrade_while_it_loads(node: Node, programs: pathlib.Path, alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What it has may be of both: it starts anew."""
    script = tmp_path / "script"
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from ipcni.serve import wire
build = wire.build
def changing():
    wire.build = build
    return "of before"
if not os.path.exists(sys.argv[0] + "-started"):
    open(sys.argv[0] + "-started", "w").close()
    wire.build = changing
from ipcni.commands import main
main(sys.argv[2:])
""")
    prefix = [str(BIN / ".venv" / "bin" / "python3"), "-I", str(script)]
    server = Server(node, programs, "--workers", "1", prefix=prefix, path=node.folder / "run" / wire.SOCKET)
    server.programs = alone
    assert wait(server.workers)
    assert wait(server.answers)
    server.call("ADD", network(node), node.pod()).ok()
    assert server.end() == 0


@pytest.mark.parametrize("option", ["--timeout=-1", "--timeout=0", "--idle-exit=-1", "--memory=0"])
def test_limits_that_no_call_could_keep(node: Node, option: str) -> None:
    done = node.run(str(BIN / "ipcni"), "serve", "--socket", str(node.folder / "serve" / "sock"), option, check=False, timeout=10)
    assert (done.returncode, "Invalid value for" in done.stderr) == (2, True)


def test_a_second_server_is_refused(server: Server) -> None:
    done = server.node.run(str(BIN / "ipcni"), "serve", "--socket", str(server.path), check=False)
    assert done.returncode == 1
    assert done.stderr == f"ipcni: a server is there already: {server.path}; --socket says another place\n"


@pytest.mark.parametrize(
    ("mode", "said"), [(0o700, "cannot listen at {}: Address already in use; "), (0o777, "others may write to {}; ")]
)
def test_a_place_that_is_not_its_own(node: Node, tmp_path: pathlib.Path, mode: int, said: str) -> None:
    """A file that is no socket stays, and where others could put a socket of theirs nobody listens."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    file = folder / "file"
    file.write_text("precious")
    done = node.run(str(BIN / "ipcni"), "serve", "--socket", str(file), check=False, timeout=10)
    assert done.returncode == 1
    assert done.stderr.startswith("ipcni: " + said.format(file if mode == 0o700 else folder))
    assert file.read_text() == "precious"


def test_a_server_that_was_killed(server: Server, alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The call that it was at is finished, and another server takes its place at once."""
    env = tools(tmp_path / "tools", ip=SLOW.format(when="-batch", seconds=2))
    client = server.start("ADD", network(server.node), server.node.pod(), env=env)
    assert wait((tmp_path / "tools" / "started").exists)
    before = server.path.stat().st_ctime_ns
    server.end(signal.SIGKILL)
    other = Server(server.node, alone, "--workers", "1", path=server.path)
    assert wait(lambda: server.path.exists() and server.path.stat().st_ctime_ns != before)
    assert wait(other.answers)
    assert client.poll() is None
    other.call("ADD", network(server.node, bridge="br2"), server.node.pod(), container="c2").ok()
    server.node.wait(client).ok()
    other.end()


def test_nobody_asks_for_long(node: Node, programs: pathlib.Path) -> None:
    server = Server(node, programs, "--idle-exit", "1")
    assert server.process.wait(10) == 0


def test_a_shell_that_died_meanwhile(server: Server, alone: pathlib.Path) -> None:
    server.programs = alone
    conf = network(server.node)
    for number in range(4):
        server.call("ADD", conf, server.node.pod(), container=f"c{number}").ok()
        for worker in server.workers():
            for shell in children(worker):
                os.kill(shell, signal.SIGKILL)
    server.call("ADD", conf, server.node.pod(), container="last").ok()


def test_workers_are_replaced_when_they_have_grown(node: Node, programs: pathlib.Path) -> None:
    server = Server(node, programs, "--workers", "1", "--memory", "1")
    assert wait(lambda: len(server.workers()) == 1)
    before = server.workers()
    server.call("VERSION", network(node), node.pod()).ok()
    assert wait(lambda: len(server.workers()) == 1 and server.workers() != before)
    server.end()


@pytest.mark.parametrize(("uid", "served"), [(0, True), (65534, False)])
def test_nobody_but_root_is_served(server: Server, alone: pathlib.Path, uid: int, served: bool) -> None:
    """Nor is one who gets at the socket in spite of its mode."""
    may_go_anywhere = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    argv = ["nsenter", "-t", str(server.process.pid), "-n", "-m"]
    argv += ["setpriv", f"--reuid={uid}", "--clear-groups", *may_go_anywhere, str(alone / "bridge")]
    env = {**server.node.env, "CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN), "IPCNI_SOCKET": str(server.path)}
    done = run(*argv, env=env, input=json.dumps(network(server.node)), check=False)
    assert (done.stdout == "") is served
    assert ("cannot run the plugin" in done.stdout) is not served
    assert len(server.node.journal()) == served


def test_a_server_of_somebody_else(node: Node, alone: pathlib.Path) -> None:
    """Does not even hear of the call."""
    serve = """
import socket, sys
listener = socket.create_server(sys.argv[1], family=socket.AF_UNIX)
print("ready", flush=True)
print(listener.accept()[0].recv(4096))
"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = f"{folder}/sock"
        argv = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", serve, path]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdout.readline() == b"ready\n"
            answer = node.call("STATUS", network(node), bin_dir=alone, env={"IPCNI_SOCKET": path})
            assert answer.error()["msg"] == "cannot run the plugin"
            assert other.stdout.read() == b"b''\n"


def test_systemd_is_told_when_it_serves(node: Node, programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As sd_notify(3) has it: once, when there are workers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(10)
        server = Server(node, programs, "--workers", "2", env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert told.recv(100) == b"READY=1"
        assert len(server.workers()) == 2
        assert server.end() == 0
        told.setblocking(False)
        with pytest.raises(BlockingIOError):
            told.recv(100)


def test_systemd_hands_over_the_socket(node: Node, programs: pathlib.Path, alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """systemd-socket-activate starts the server with the first call; after a reload it is the same socket, and stays systemd's."""
    path = tmp_path / "activated"
    settings = [f"--setenv={key}" for key in node.env]
    server = Server(node, alone, prefix=["systemd-socket-activate", f"--listen={path}", *settings], path=path)
    conf = network(node)
    server.call("ADD", conf, node.pod(), container="c1").ok()
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)
    assert wait(lambda: server.workers() and not set(before) & set(server.workers()))
    server.call("ADD", conf, node.pod(), container="c2").ok()
    assert server.end() == 0
    assert path.exists()


def test_the_units_are_what_systemd_wants() -> None:
    units = sorted((ROOT / "systemd").iterdir())
    assert [unit.name for unit in units] == ["cni-dhcp.service", "cni-dhcp.socket", "ipcni.service", "ipcni.socket"]
    done = run("systemd-analyze", "verify", "--man=no", *map(str, units), check=False, env={"PATH": ENTRY_PATH})
    problems = [line for line in done.stderr.splitlines() if any(unit.stem in line for unit in units)]
    assert [line for line in problems if "is not executable" not in line] == [], "what they start is not installed here"


def test_the_build_tells_code_apart(tmp_path: pathlib.Path) -> None:
    """Any other line of a module or of a template is another build."""
    copy = tmp_path / "ipcni"
    shutil.copytree(ROOT / "ipcni", copy)

    def build() -> str:
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ipcni.serve import wire; print(wire.build())"
        return run(str(BIN / ".venv" / "bin" / "python3"), "-I", "-c", code).stdout.strip()

    seen = [wire.build(), build()]
    assert seen[0] == seen[1]
    for path in (copy / "plugins" / "tap.py", copy / "templates" / "tap" / "link.sh.j2"):
        path.write_text(path.read_text() + "\n# another line\n")
        seen.append(build())
    assert len(set(seen)) == 3
