"""Ranges and range sets (IPAM sheet 2.1, 2.3, cases 1 to 19)."""

import ipaddress
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcni.errors import CniError
from ipcni.ipam import ranges
from ipcni.ipam.ranges import Range, RangeConf, RangeSet
from ipcni.protocol import address as addresses


def one(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Range:
    """A range in canonical form."""
    return ranges.check(((RangeConf(subnet, start, end, gateway),),), "1.0.0")[0][0]


def refused(*sets: tuple[RangeConf, ...], version: str = "1.0.0") -> str:
    with pytest.raises(CniError) as caught:
        ranges.check(sets, version)
    assert caught.value.code == 999
    return caught.value.msg


def subnets(*texts: str) -> tuple[RangeConf, ...]:
    """A range set."""
    return tuple(RangeConf(text) for text in texts)


@pytest.mark.parametrize(
    ("subnet", "first", "last", "gateway"),
    [
        ("192.0.2.0/24", "192.0.2.1", "192.0.2.254", "192.0.2.1"),
        ("192.0.2.0/25", "192.0.2.1", "192.0.2.126", "192.0.2.1"),
        ("192.0.2.12/30", "192.0.2.13", "192.0.2.14", "192.0.2.13"),
        ("0.0.0.0/0", "0.0.0.1", "255.255.255.254", "0.0.0.1"),
        ("2001:db8:1::/64", "2001:db8:1::1", "2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::1"),
        ("2001:DB8:1::/64", "2001:db8:1::1", "2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::1"),
        ("2001:db8::/126", "2001:db8::1", "2001:db8::3", "2001:db8::1"),
    ],
)
def test_what_a_subnet_means(subnet: str, first: str, last: str, gateway: str) -> None:
    found = one(subnet)
    assert [found.address(number) for number in (found.first, found.last, found.gateway)] == [first, last, gateway]


@pytest.mark.parametrize(
    ("subnet", "network"),
    [
        ("192.0.2.12/24", "192.0.2.0"),
        ("2001:DB8:1::24:19ff:fee1:c44a/64", "2001:db8:1::"),
        ("2001:DB8:24:19ff::/63", "2001:db8:24:19fe::"),
        ("192.168.127.0/23", "192.168.126.0"),
    ],
)
def test_host_bits(subnet: str, network: str) -> None:
    length = subnet.partition("/")[2]
    assert refused(subnets(subnet)) == (
        f"invalid range set 0: Network has host bits set. For a subnet mask of length {length} the network address is {network}"
    )


@pytest.mark.parametrize("subnet", ["10.0.0.0/31", "10.0.0.0/32", "2001:db8::/127", "2001:db8::/128"])
def test_too_small(subnet: str) -> None:
    assert refused(subnets(subnet)) == f"invalid range set 0: Network {subnet} too small to allocate from"


@pytest.mark.parametrize("subnet", ["::ffff:10.0.0.0/120", "::ffff:a00:0/120", "::FFFF:10.0.0.0/120"])
def test_ipv4_mapped(subnet: str) -> None:
    assert refused(subnets(subnet)) == "invalid range set 0: IPNet IP and Mask version mismatch"


@pytest.mark.parametrize("subnet", ["foo", "10.0.0.0", "10.0.0.0/33", "010.0.0.0/8", "10.0.0.0/255.0.0.0", "fe80::%eth0/64"])
def test_no_subnet_at_all(subnet: str) -> None:
    assert refused(subnets(subnet)) == f"invalid CIDR address: {subnet}"


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("192.0.3.0", "", "RangeStart 192.0.3.0 not in network 192.0.2.0/24"),
        ("", "192.0.4.0", "RangeEnd 192.0.4.0 not in network 192.0.2.0/24"),
        ("192.0.2.50", "192.0.2.40", "RangeStart 192.0.2.50 not in network 192.0.2.0/24"),
        ("192.0.3.0", "192.0.4.0", "RangeStart 192.0.3.0 not in network 192.0.2.0/24"),
        ("192.0.2.50", "192.0.1.9", "RangeStart 192.0.2.50 not in network 192.0.2.0/24"),
        ("2001:db8::1", "", "RangeStart 2001:db8::1 not in network 192.0.2.0/24"),
        ("", "192.0.2.0", "RangeEnd 192.0.2.0 not in network 192.0.2.0/24"),
    ],
)
def test_ends_that_are_none(start: str, end: str, told: str) -> None:
    assert refused((RangeConf("192.0.2.0/24", start, end),)) == f"invalid range set 0: {told}"


def test_what_cannot_be_read_is_told_first() -> None:
    for conf in (RangeConf("10.1.2.0/24", "zz"), RangeConf("10.1.2.0/24", "", "zz"), RangeConf("10.1.2.0/24", gateway="zz")):
        assert refused(subnets("10.0.0.0/31"), (conf,)) == "invalid IP address: zz"


@pytest.mark.parametrize(("subnet", "stem"), [("192.0.2.0/24", "192.0.2."), ("2001:db8::/64", "2001:db8::")])
def test_both_ends_are_inside(subnet: str, stem: str) -> None:
    found = one(subnet, f"{stem}40", f"{stem}50")
    inside = {number: addresses.ip(f"{stem}{number}") in found for number in (39, 40, 50, 51)}
    assert inside == {39: False, 40: True, 50: True, 51: False}


def test_network_and_broadcast_address_can_be_asked_for() -> None:
    found = one("192.0.2.0/29", "192.0.2.0", "192.0.2.7")
    assert str(found) == "192.0.2.0-192.0.2.7"


def test_a_gateway_may_be_elsewhere() -> None:
    found = one("192.0.2.0/24", gateway="198.51.100.1")
    assert found.address(found.gateway) == "198.51.100.1"
    of_the_other_family = (RangeConf("192.0.2.0/24", gateway="fd00::1"),)
    assert refused(of_the_other_family) == "invalid range set 0: gateway fd00::1 is no IPv4 address"


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ((), "no IP ranges specified"),
        (((),), "invalid range set 0: empty range set"),
        ((subnets("10.1.2.0/24"), ()), "invalid range set 1: empty range set"),
        ((subnets("10.1.2.0/24", "2001:db8::/64"),), "invalid range set 0: mixed address families"),
        (
            (subnets("10.1.0.0/22", "10.1.2.0/24"),),
            "invalid range set 0: subnets 10.1.0.1-10.1.3.254 and 10.1.2.1-10.1.2.254 overlap",
        ),
        (
            (subnets("10.1.2.0/24", "10.1.2.0/24"),),
            "invalid range set 0: subnets 10.1.2.1-10.1.2.254 and 10.1.2.1-10.1.2.254 overlap",
        ),
        ((subnets("10.1.2.0/24", "10.2.2.0/24"), subnets("10.3.0.0/24", "10.1.2.0/24")), "range set 0 overlaps with 1"),
        (
            ((RangeConf("10.1.2.0/24", "", "10.1.2.127"), RangeConf("10.1.2.0/24", "10.1.2.127", "")),),
            "invalid range set 0: subnets 10.1.2.1-10.1.2.127 and 10.1.2.127-10.1.2.254 overlap",
        ),
    ],
)
def test_sets_that_are_none(sets: tuple[tuple[RangeConf, ...], ...], told: str) -> None:
    assert refused(*sets) == told


@pytest.mark.parametrize(
    "sets",
    [
        (subnets("10.1.2.0/24", "10.1.3.0/24"),),
        (subnets("0.0.0.0/24"), subnets("::/24")),
        ((RangeConf("10.1.2.0/24", "10.1.2.1", "10.1.2.127"), RangeConf("10.1.2.0/24", "10.1.2.128", "")),),
    ],
)
def test_sets_that_do_not_meet(sets: tuple[tuple[RangeConf, ...], ...]) -> None:
    ranges.check(sets, "1.0.0")


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_old_versions_have_one_address_a_family(version: str) -> None:
    told = refused(subnets("10.1.2.0/24"), subnets("10.2.2.0/24"), version=version)
    assert told == f"CNI version {version} does not support more than 1 address per family"
    ranges.check((subnets("10.1.2.0/24"), subnets("2001:db8::/64")), version)
    ranges.check((subnets("10.1.2.0/24"), subnets("10.2.2.0/24")), "0.3.0")


# -- which address is next


def order(range_set: RangeSet, last: str = "") -> list[str]:
    """All candidates, as text."""
    return [each.address(number) for each, number in ranges.candidates(range_set, addresses.ip(last) if last else None)]


def checked(*texts: str) -> RangeSet:
    return ranges.check((subnets(*texts),), "1.0.0")[0]


def test_the_order_of_a_range() -> None:
    """From the start, behind the end, and in the middle (case 16). The gateway is left out."""
    small = checked("192.168.1.0/29")
    assert order(small) == [f"192.168.1.{number}" for number in (2, 3, 4, 5, 6)]
    assert order(small, "192.168.1.6") == [f"192.168.1.{number}" for number in (2, 3, 4, 5, 6)]
    assert order(small, "192.168.1.3") == [f"192.168.1.{number}" for number in (4, 5, 6, 2, 3)]
    assert order(small, "10.0.0.128") == order(small), "a pointer that is in no range says nothing"


def test_the_order_of_several_ranges() -> None:
    three = checked("10.0.0.0/30", "10.0.1.0/30", "10.0.2.0/30")
    assert order(three) == ["10.0.0.2", "10.0.1.2", "10.0.2.2"]
    assert order(three, "10.0.0.2")[0] == "10.0.1.2"
    assert order(three, "10.0.2.2")[0] == "10.0.0.2"


def test_a_range_that_starts_at_its_network_address() -> None:
    """Behind the first range comes the start of the second (case 18)."""
    sets = ((RangeConf("10.0.0.0/29", "10.0.0.0", "10.0.0.7"), RangeConf("10.0.1.0/29", "10.0.1.0", "10.0.1.7")),)
    range_set = ranges.check(sets, "1.0.0")[0]
    assert order(range_set, "10.0.0.7")[0] == "10.0.1.0"


def test_a_range_of_one_address() -> None:
    single = ranges.check(((RangeConf("10.0.0.0/24", "10.0.0.9", "10.0.0.9"),),), "1.0.0")[0]
    assert order(single) == order(single, "10.0.0.9") == ["10.0.0.9"]
    gateway = ranges.check(((RangeConf("10.0.0.0/24", "10.0.0.9", "10.0.0.9", "10.0.0.9"),),), "1.0.0")[0]
    assert order(gateway) == order(gateway, "10.0.0.9") == []


def test_a_huge_range_costs_nothing() -> None:
    found = ranges.candidates(checked("2001:db8::/32"), None)
    assert [each.address(number) for each, number in (next(found), next(found))] == ["2001:db8::2", "2001:db8::3"]


def reference(listed: list[tuple[int, int, int]], last: int | None) -> Iterator[tuple[int, int]]:
    """The reference's own order: the sketch of IPAM sheet 2.3, which agreed with the Go plugin in 250 random cases."""
    i, cur = 0, None
    if last is not None:
        i = next(k for k, r in enumerate(listed) if r[0] <= last <= r[1])
        cur = last
    first = None
    while True:
        if cur is None:
            cur = listed[i][0]
        elif cur == listed[i][1]:
            i = (i + 1) % len(listed)
            cur = listed[i][0]
        else:
            cur += 1
        if first is None:
            first = cur
        elif cur == first:
            return
        if cur != listed[i][2]:
            yield cur, i


@st.composite
def range_sets(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], int | None]:
    """Up to four disjoint ranges of small numbers in any order, each with a gateway in, at or outside its ends; a pointer or none."""
    ends = sorted(draw(st.sets(st.integers(10, 60), min_size=2, max_size=8)))
    pairs = list(zip(ends[::2], ends[1::2], strict=False))
    listed = [(a, b, draw(st.integers(a - 2, b + 2))) for a, b in pairs]
    listed = draw(st.permutations(listed))
    inside = [number for a, b, _ in listed for number in range(a, b + 1)]
    return listed, draw(st.none() | st.sampled_from(inside))


@given(range_sets())
def test_the_order_is_the_references(case: tuple[list[tuple[int, int, int]], int | None]) -> None:
    listed, last = case
    range_set = tuple(Range(a, b, gateway, 24, 4) for a, b, gateway in listed)
    mine = [
        (number, range_set.index(each))
        for each, number in ranges.candidates(range_set, None if last is None else ipaddress.IPv4Address(last))
    ]
    assert mine == list(reference(listed, last))
