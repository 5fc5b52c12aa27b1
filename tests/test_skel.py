"""One call, from environment and stdin to exit status and stdout, with plugins made up for the purpose."""

import ast
import json
import pathlib
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni import settings
from ipcni.errors import CniError, Interrupted
from ipcni.protocol import result, skel
from ipcni.protocol.request import Request
from ipcni.protocol.result import IpConfig, Result
from ipcni.protocol.skel import Answer
from ipcni.shell import journal
from tests.lab import ROOT
from tests.nowhere import Nowhere

CONF = b'{"cniVersion":"1.1.0","name":"n"}'


class Call:
    """Calls the plugin `made_up`; its verbs are set with `does`, and what became of it is kept."""

    def __init__(self, folder: pathlib.Path, module: types.ModuleType) -> None:
        self.module = module
        self.host = Nowhere()
        self.undone = 0
        self.read = 0
        self.log = folder / "log"
        self.env = {
            "CNI_CONTAINERID": "c",
            "CNI_NETNS": "/nonexistent/ns",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/nonexistent/bin",
            "IPCNI_LOG_DIR": str(self.log),
        }

    def does(self, verb: str, act: Callable[..., object]) -> None:
        setattr(self.module, verb, act)

    def __call__(self, verb: str, conf: bytes = CONF, **env: str) -> Answer:
        return skel.handle("made-up", {**self.env, "CNI_COMMAND": verb, **env}, lambda: self._stdin(conf), self._host)

    def _stdin(self, conf: bytes) -> bytes:
        self.read += 1
        return conf

    def _host(self, given: settings.Settings, _: Mapping[str, str]) -> Nowhere:
        self.host.settings = given
        self.host.undoing = [self._count]
        return self.host

    def _count(self) -> None:
        self.undone += 1

    def error(self, verb: str, conf: bytes = CONF, **env: str) -> tuple[int, str, str]:
        answer = self(verb, conf, **env)
        assert answer.status == 1
        assert answer.stderr == ""
        error = json.loads(answer.stdout)
        return error["code"], error["msg"], error.get("details", "")

    def journal(self) -> list[dict[str, Any]]:
        path = self.log / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fine(*_: object) -> Result:
    return Result(ips=(IpConfig("10.0.0.2/24"),))


@pytest.fixture
def call(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    module = types.ModuleType("ipcni.plugins.made_up")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made = Call(tmp_path, module)
    made.does("add", fine)
    return made


def raises(error: BaseException) -> Callable[..., object]:
    def act(*_: object) -> object:
        raise error

    return act


def test_add(call: Call) -> None:
    answer = call("ADD")
    assert answer == Answer(0, result.text({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}))
    assert call.undone == 0
    assert [(line["verb"], line["result"]["ips"]) for line in call.journal()] == [("ADD", [{"address": "10.0.0.2/24"}])]


@pytest.mark.parametrize(("verb", "function"), [("DEL", "delete"), ("CHECK", "check"), ("GC", "gc"), ("STATUS", "status")])
def test_the_other_verbs_print_nothing(call: Call, verb: str, function: str) -> None:
    """Neither what the function returns, nor anything where there is no function."""
    assert call(verb) == Answer()
    seen: list[object] = []

    def act(req: Request, _: object) -> Result:
        seen.append(req.verb)
        return fine()

    call.does(function, act)
    assert call(verb) == Answer()
    assert seen == [verb]


def test_a_plugins_own_error(call: Call) -> None:
    call.does("add", raises(CniError("no <luck>", 107, "at all")))
    answer = call("ADD")
    assert answer.stdout == b'{\n    "code": 107,\n    "msg": "no \\u003cluck\\u003e",\n    "details": "at all"\n}'
    assert (answer.status, call.undone) == (1, 1)
    assert call.journal()[0]["error"] == {"code": 107, "msg": "no <luck>", "details": "at all"}


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), RecursionError(), ZeroDivisionError("<&>"), OSError("x")])
def test_a_defect_is_told_as_one(call: Call, error: Exception) -> None:
    """One error object; where it happened is for the journal."""
    call.does("add", raises(error))
    code, msg, details = call.error("ADD")
    assert code == 999
    assert msg.startswith(f"internal error: {type(error).__name__}: ")
    assert "ipcni journal" in details
    assert call.undone == 1
    assert type(error).__name__ in call.journal()[0]["traceback"]
    assert "in raises" not in msg


def test_a_trouble_of_the_node_is_no_defect(call: Call) -> None:
    call.does("add", lambda *_: open("/proc/self/mem/x"))
    assert call.error("ADD")[:2] == (999, "/proc/self/mem/x: not a directory")
    assert call.undone == 1


def test_what_cannot_be_printed_is_undone(call: Call) -> None:
    call.does("add", lambda *_: Result())
    assert call.error("ADD", CONF.replace(b"1.1.0", b"0.2.0"))[:2] == (999, "cannot convert: no valid IP addresses")
    assert call.undone == 1


@pytest.mark.parametrize(("verb", "function"), [("DEL", "delete"), ("CHECK", "check"), ("GC", "gc")])
def test_only_add_is_undone(call: Call, verb: str, function: str) -> None:
    for error in (CniError("x"), TypeError("x"), Interrupted()):
        call.does(function, raises(error))
        assert "undone" not in str(call.error(verb))
    assert call.undone == 0


def test_undoing_that_fails_does_not_hide_the_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call.does("add", raises(CniError("first")))
    monkeypatch.setattr(call.host, "undo", raises(TypeError("second")))
    assert call.error("ADD") == (999, "first", "")


def test_a_signal_while_working(call: Call) -> None:
    call.does("add", raises(Interrupted()))
    assert call.error("ADD") == (11, "ADD was interrupted by a signal", "it has been undone as far as it went")
    assert call.undone == 1


def test_a_signal_after_the_work(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told of a failure must not find the pod connected."""
    pending: list[BaseException] = [Interrupted()]
    end = journal.Record.end

    def interrupted(self: journal.Record, *rest: Any) -> None:
        if pending:
            raise pending.pop()
        end(self, *rest)

    monkeypatch.setattr(journal.Record, "end", interrupted)
    assert call.error("ADD")[:2] == (11, "ADD was interrupted by a signal")
    assert call.undone == 1


def test_a_signal_before_the_work(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "_stdin", raises(Interrupted()))
    assert call.error("ADD") == (11, "interrupted by a signal", "")


def test_stdin_that_cannot_be_read(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "_stdin", raises(OSError(5, "Input/output error")))
    assert call.error("ADD") == (5, "error reading from stdin: Input/output error", "")


@pytest.mark.parametrize("env", [{"CNI_COMMAND": ""}, {"CNI_COMMAND": "VERSION"}, {"CNI_COMMAND": "ADD", "CNI_PATH": ""}])
def test_stdin_is_not_touched(call: Call, env: dict[str, str]) -> None:
    call(env.pop("CNI_COMMAND"), CONF, **env)
    assert call.read == 0


def test_versions_of_a_plugin(call: Call) -> None:
    """A plugin that came later says so in VERSIONS."""
    call.module.VERSIONS = ("0.4.0", "1.0.0")  # type: ignore[attr-defined]
    assert call("VERSION").stdout == b'{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0"]}\n'
    details = 'config is "1.1.0", plugin supports ["0.4.0" "1.0.0"]'
    assert call.error("ADD") == (1, "incompatible CNI versions", details)
    assert call.error("STATUS") == (1, "plugin version does not allow STATUS", "")
    assert call("ADD", CONF.replace(b"1.1.0", b"0.4.0")).status == 0
    assert call("", CONF, **dict.fromkeys(call.env, "")).stderr.splitlines()[1:] == [
        "CNI protocol versions supported: 0.4.0, 1.0.0"
    ]


def test_no_such_plugin(call: Call) -> None:
    for plugin in ("nosuch", "bridge.py", "x/y"):
        answer = skel.handle(plugin, {**call.env, "CNI_COMMAND": "ADD"}, lambda: CONF, call._host)
        assert json.loads(answer.stdout) == {"code": 999, "msg": f"ipcni has no plugin '{plugin}'"}


def test_flannels_about_text() -> None:
    """It has a form of its own, which flannel's installers parse."""
    first = skel.about("flannel").splitlines()[0].split()
    assert first[:4] == ["CNI", "Plugin", "flannel", "version"]
    assert first[4].startswith("v")
    assert (first[5][:7], first[6]) == ("(linux/", "commit")


@pytest.mark.parametrize("name", [0, False, [], {}, 5, True, ["n"]])
def test_a_name_that_is_no_text(call: Call, name: object) -> None:
    assert call.error("ADD", json.dumps({"name": name}).encode())[0] == 6


@pytest.mark.parametrize("version", [0, False, [], {}, 1.0, ["1.0.0"]])
def test_a_version_that_is_no_text(call: Call, version: object) -> None:
    conf = json.dumps({"name": "n", "cniVersion": version}).encode()
    for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        code, msg, _ = call.error(verb, conf)
        assert code == 6
        assert msg.startswith("decoding version from network config: ")
    assert call.error("NOPE", conf)[:2] == (4, "unknown CNI_COMMAND: NOPE")


def test_settings_that_are_wrong(call: Call) -> None:
    code, msg, _ = call.error("ADD", IPCNI_LOCK_TIMEOUT="soon")
    assert code == 7
    assert "lock_timeout" in msg


# The sheet's table of White_Space, and what Python's isspace() would take besides.
WHITE = [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]


def test_ifname_characters() -> None:
    """All of Unicode: white space, the slash and the colon are refused, everything else is taken."""
    refused = []
    for number in range(1, sys.maxunicode + 1):
        if 0xD800 <= number <= 0xDFFF or chr(number) == ".":
            continue
        try:
            skel.check_ifname(chr(number))
        except CniError:
            refused.append(number)
    assert refused == sorted([*WHITE, ord("/"), ord(":")])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_ifname_length_is_counted_in_bytes(name: str) -> None:
    problem = ""
    try:
        skel.check_ifname(name)
    except CniError as error:
        problem = error.msg
    assert (problem == "interface name is too long") == (len(name.encode()) > 15)


@pytest.mark.parametrize(
    ("version", "number"),
    [("", (0, 1, 0)), ("1", (1, 0, 0)), ("1.1", (1, 1, 0)), ("+1.-2.03", (1, -2, 3)), ("0.4.0", (0, 4, 0))],
)
def test_number(version: str, number: tuple[int, int, int]) -> None:
    assert skel.number(version) == number


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("1.0.0.0", 'invalid version "1.0.0.0": too many parts'),
        ("x.0.0", 'failed to convert major version part "x": '),
        ("1..0", 'failed to convert minor version part "": '),
        ("1.0.0-rc1", 'failed to convert micro version part "0-rc1": '),
        ("1.0. 0", 'failed to convert micro version part " 0": '),
        ("1_0", 'failed to convert major version part "1_0": '),
        ("1.٣", 'failed to convert minor version part "٣": '),
        ("9" * 5000, f'failed to convert major version part "{"9" * 5000}": '),
    ],
)
def test_no_number(version: str, problem: str) -> None:
    with pytest.raises(CniError) as caught:
        skel.number(version)
    assert caught.value.code == 6
    assert caught.value.msg.startswith(problem)


CHATTY = """
import sys, types, os
module = types.ModuleType("ipcni.plugins.chatty")
def add(req, host):
    print("on stdout", flush=True)
    sys.stdout.write("again")
    os.system("true")
    {then}
module.add = add
sys.modules[module.__name__] = module
from ipcni.entry import main
main("/opt/cni/bin/chatty")
"""


@pytest.mark.parametrize(
    ("then", "status", "body"),
    [
        ("return None", 0, {"cniVersion": "1.1.0"}),
        ("{}['x']", 1, {"code": 999, "msg": "internal error: KeyError: 'x'"}),
        ("raise MemoryError", 1, {"code": 999}),
    ],
)
def test_stdout_belongs_to_the_protocol(call: Call, then: str, status: int, body: dict[str, object]) -> None:
    """As a process: whatever a library prints or raises, one document is all there is."""
    done = subprocess.run(
        [sys.executable, "-c", CHATTY.replace("{then}", then)],
        env={**call.env, "CNI_COMMAND": "ADD", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        input=CONF,
        capture_output=True,
        check=False,
        timeout=30,
    )
    answer = json.loads(done.stdout)
    assert done.returncode == status
    assert {key: answer.get(key) for key in body} == body
    assert b"Traceback" not in done.stderr


def test_no_module_of_the_layer_prints() -> None:
    for path in (ROOT / "ipcni" / "protocol").glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [func for func in calls if isinstance(func, ast.Name) and func.id in ("print", "input", "exit")], path
