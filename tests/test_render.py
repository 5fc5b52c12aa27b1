"""Templates to plans: quoting, directives, and that every template is a shell script."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipcni.errors import CniError
from ipcni.model import HERE, Netns, Step
from ipcni.shell.render import parse, quote
from tests.lab import BIN, ROOT, run

TEMPLATES = pathlib.Path(__file__).parent.parent / "ipcni" / "templates"
ONE_LINE = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))


@given(ONE_LINE)
def test_a_value_stays_one_word(value: str) -> None:
    """Whatever is in it, the parser gives it back unchanged, and as nothing else."""
    (step,) = parse(f"ip link show {quote(value)} end", "t")
    assert step.argv == ("ip", "link", "show", value, "end")
    assert (step.into, step.netns) == ("", None)


@settings(deadline=None)  # it starts a shell
@given(st.lists(ONE_LINE.filter(lambda text: not text.startswith("-")), min_size=1, max_size=4))
def test_the_shell_sees_the_same_words(values: list[str]) -> None:
    """What is printed for people is what sh makes of it."""
    step = Step(argv=("printf", "%s\\0", *values))
    seen = subprocess.run(["sh", "-c", step.shell()], capture_output=True, check=True).stdout
    assert seen.decode().split("\0")[:-1] == values


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_a_line_break_is_refused(value: str) -> None:
    with pytest.raises(CniError, match="line break"):
        quote(value)


@pytest.mark.parametrize("value", [True, None, object()])
def test_what_is_no_word_is_a_defect_of_the_template(value: object) -> None:
    with pytest.raises(TypeError):
        quote(value)


def test_directives_belong_to_the_command_above() -> None:
    plan = parse(
        "# why\niptables -w 10 -t nat -I POSTROUTING 1 -j X\n#: undo -D\n#: unless -C\n#: ok File exists\n#: ok gone\n"
        '#: error cannot do "it"\n\n# then\nip netns exec pod ip link set dev lo up\n#: undo ip link set dev lo down\n',
        "t",
    )
    first, second = plan
    assert first.undo == ("iptables", "-w", "10", "-t", "nat", "-D", "POSTROUTING", "-j", "X")
    assert first.unless == ("iptables", "-w", "10", "-t", "nat", "-C", "POSTROUTING", "-j", "X")
    assert first.ok == ("File exists", "gone")
    assert (first.error, first.why, first.where) == ('cannot do "it"', "why", "t #1")
    assert second.netns == Netns("/run/netns/pod")
    assert (second.argv, second.undo) == (("ip", "link", "set", "dev", "lo", "up"), ("ip", "link", "set", "dev", "lo", "down"))
    assert second.why == "then"


def test_a_comment_speaks_for_all_commands_up_to_the_next() -> None:
    plan = parse("# one\nip a\nip b\n# two\nip c\n", "t")
    assert [step.why for step in plan] == ["one", "one", "two"]


def test_a_file_takes_the_output() -> None:
    (step,) = parse("printf '%s' {v} > {f}\n#: new\n".format(v=quote("a > b"), f=quote("/tmp/x y")), "t")
    assert (step.argv, step.into, step.new) == (("printf", "%s", "a > b"), "/tmp/x y", True)
    assert step.shell() == "(umask 077; set -C; printf %s 'a > b' > '/tmp/x y')"


def test_a_greater_sign_in_a_value_is_no_redirection() -> None:
    (step,) = parse(f"printf %s {quote('x > /etc/passwd')}", "t")
    assert (step.argv[-1], step.into) == ("x > /etc/passwd", "")


def test_lines_end_at_a_newline_and_nowhere_else() -> None:
    """str.splitlines would make a second command of what follows these."""
    for char in "\u2028\u2029\x85\x1c\x0b":
        (step,) = parse(f"ip link show {quote(f'a{char}rm')}", "t")
        assert step.argv[3] == f"a{char}rm"


def test_an_unknown_directive_is_a_defect_of_the_template() -> None:
    with pytest.raises(ValueError, match="no directive"):
        parse("ip a\n#: undoo ip b\n", "t")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/run/netns/pod", ("ip", "-n", "pod", "link")),
        ("/var/run/netns/pod", ("ip", "-n", "pod", "link")),
        ("/proc/7/ns/net", ("nsenter", "--net=/proc/7/ns/net", "ip", "link")),
        ("/run/docker/netns/x", ("nsenter", "--net=/run/docker/netns/x", "ip", "link")),
    ],
)
def test_a_namespace_is_named_where_it_has_a_name(path: str, words: tuple[str, ...]) -> None:
    (step,) = parse(f"{quote(Netns(path))} ip link", "t")
    assert step.words == words


@pytest.mark.parametrize("template", sorted(TEMPLATES.rglob("*.j2")), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_a_template_is_a_shell_script(template: pathlib.Path) -> None:
    """With its blocks taken out and its values filled in, sh can read every template."""
    text = re.sub(r"{#.*?#}|{%.*?%}", "", template.read_text(), flags=re.DOTALL)
    text = re.sub(r"{{.*?}}", "value", text)
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = [line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]
    assert commands
    for line in commands:
        assert not set("|&;$`") & set(re.sub(r"'[^']*'", "", line.replace(HERE, ""))), f"more than one command: {line}"
        assert shlex.split(line)


def test_a_template_that_changes_is_compiled_anew(tmp_path: pathlib.Path) -> None:
    """Whatever its time; also where what is compiled was cut short by a crash, or cannot be kept."""
    package = tmp_path / "ipcni"
    shutil.copytree(ROOT / "ipcni", package, ignore=shutil.ignore_patterns("__pycache__"))
    template = package / "templates" / "common" / "up.sh.j2"
    compiled = package / "templates" / "__pycache__"

    def said() -> str:
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ipcni.shell import render; "
            "print(render.render('common/up.sh.j2', pod=(), ifname='eth0')[-1].command)"
        )
        return run(str(BIN / ".venv" / "bin" / "python3"), "-I", "-c", code).stdout.strip()

    usual = said()
    (module,) = compiled.glob("*/*.py")
    assert said() == usual
    assert [module] == list(compiled.glob("*/*.py"))
    when = template.stat().st_mtime_ns
    for word in ("other", "newer"):
        template.write_text(f"ip link show {word}\n")
        os.utime(template, ns=(when, when))
        assert said() == f"ip link show {word}"
    for torn in ("", "name = "):
        for module in compiled.glob("*/*.py"):
            module.write_text(torn)
        assert said() == "ip link show newer"
    shutil.rmtree(compiled)
    compiled.touch()
    assert said() == "ip link show newer"
