"""Coalescing: neighbours only, the order kept, and an error brought home."""

from hypothesis import given
from hypothesis import strategies as st

from ipcni.model import Netns, Plan, Step
from ipcni.shell.batch import Batch, coalesce, guilty

POD = Netns("/run/netns/pod")


def step(text: str, netns: Netns | None = None) -> Step:
    return Step(argv=tuple(text.split()), netns=netns)


def ran(plan: Plan) -> list[tuple[str, str]]:
    return [(" ".join(batch.argv), batch.stdin) for batch in coalesce(plan)]


def test_neighbours_of_one_tool_and_namespace_are_one_process() -> None:
    plan = (
        step("ip link add a type bridge"),
        step("ip link set dev a up"),
        step("ip addr add 10.0.0.1/24 dev eth0", POD),
        step("ip link set dev eth0 up", POD),
        step("ip link del a"),
    )
    assert ran(plan) == [
        ("ip -batch -", "link add a type bridge\nlink set dev a up\n"),
        ("ip -n pod -batch -", "addr add 10.0.0.1/24 dev eth0\nlink set dev eth0 up\n"),
        ("ip link del a", ""),
    ]


def test_iptables_lines_become_one_transaction_per_family() -> None:
    plan = (
        step("iptables -w 10 -t nat -N X"),
        Step(argv=("iptables", "-w", "10", "-t", "nat", "-A", "X", "-m", "comment", "--comment", 'a "b" \\c', "-j", "ACCEPT")),
        step("iptables -w 10 -t filter -A FORWARD -j X"),
        step("ip6tables -w 10 -t nat -N X"),
    )
    assert ran(plan) == [
        (
            "iptables-restore --noflush -w 10",
            '*nat\n-N X\n-A X -m comment --comment "a \\"b\\" \\\\c" -j ACCEPT\nCOMMIT\n*filter\n-A FORWARD -j X\nCOMMIT\n',
        ),
        ("ip6tables -w 10 -t nat -N X", ""),
    ]


def test_a_question_stands_alone() -> None:
    asked = Step(argv=("iptables", "-w", "10", "-t", "nat", "-A", "X"), unless=("iptables", "-C", "X"))
    assert [batch.carrier for batch in coalesce((asked, asked))] == ["exec", "exec"]


def test_a_word_that_a_batch_cannot_carry_runs_alone() -> None:
    for word in ("a#b", "a b", "'", '"', "\\", ""):
        odd = Step(argv=("ip", "link", "show", word))
        assert [batch.carrier for batch in coalesce((odd, step("ip link"), step("ip addr")))] == ["exec", "ip"]


@given(
    st.lists(st.sampled_from([step("ip a"), step("ip b", POD), step("sysctl -qw x=1"), step("rm -f x"), step("conntrack -D")]))
)
def test_nothing_is_lost_and_nothing_moves(steps: list[Step]) -> None:
    batches = coalesce(tuple(steps))
    assert [one for batch in batches for one in batch.steps] == steps
    assert all(len({(one.argv[0], one.netns) for one in batch.steps}) == 1 for batch in batches if batch.carrier != "file")


def test_the_guilty_line_is_named() -> None:
    plan = (step("ip link add a"), step("ip link set x up"), step("ip addr add y"))
    assert guilty(plan, "RTNETLINK answers: File exists\nCommand failed -:3\n") == 2
    assert guilty(plan, 'Error: argument "x" is wrong\n') == 1
    assert guilty(plan, "ip: no such thing\nCommand failed -:7\n") == 0


def test_a_batch_of_files_and_settings_is_no_process() -> None:
    plan = (step("rm -f a"), step("mkdir -p -m 0755 b"), step("sysctl -qw net/c=1"))
    assert coalesce((*plan, step("sysctl -qw net/c=1", POD))) == (
        Batch("file", plan),
        Batch("file", (step("sysctl -qw net/c=1", POD),)),
    )


def test_a_name_that_is_no_links_is_left_to_ip() -> None:
    """An ioctl would take its first 15 bytes, or what stands before the colon, for the name of a link."""
    names = {"averyveryverylo": "file", "averyveryverylongname": "exec", "sevenumlauts\u00fc\u00fc": "exec", "eth0:1": "exec"}
    for name, carrier in names.items():
        for setting in ("up", "mtu 1400"):
            (batch,) = coalesce((step(f"ip link set dev {name} {setting}"),))
            assert batch.carrier == carrier, name
