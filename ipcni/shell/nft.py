"""What `nft --json list …` prints, as far as plugins ask for it."""

import msgspec


class NftRule(msgspec.Struct, frozen=True):
    """A rule of an nftables chain: what plain values it matches (`tcp dport` -> `8080`), and where it sends packets to."""

    handle: int
    comment: str
    matches: dict[str, str]
    dnat: str = ""
    jump: str = ""


class NftChain(msgspec.Struct, frozen=True):
    """A chain of nftables; the last three are those of a base chain."""

    rules: tuple[NftRule, ...] = ()
    type: str = ""
    hook: str = ""
    policy: str = ""


Ruleset = dict[tuple[str, str], dict[str, NftChain]]  # by family and table, then by chain


class _Rule(msgspec.Struct, frozen=True):
    family: str
    table: str
    chain: str
    handle: int
    comment: str = ""
    expr: msgspec.Raw = msgspec.Raw(b"[]")


class _Chain(msgspec.Struct, frozen=True):
    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    policy: str = ""


class _Table(msgspec.Struct, frozen=True):
    family: str
    name: str


class _Entry(msgspec.Struct, frozen=True):
    table: _Table | None = None
    chain: _Chain | None = None
    rule: _Rule | None = None


class _Listing(msgspec.Struct, frozen=True):
    nftables: tuple[_Entry, ...]


def ruleset(text: str, comment: str | None = None) -> Ruleset:
    """The tables listed, of whose rules those with this comment. A node may have thousands: only what is asked for is looked into."""
    entries = msgspec.json.decode(text, type=_Listing).nftables
    rules: dict[tuple[str, str, str], list[NftRule]] = {}
    for rule in (entry.rule for entry in entries if entry.rule):
        if comment is None or rule.comment == comment:
            rules.setdefault((rule.family, rule.table, rule.chain), []).append(_rule(rule))
    found: Ruleset = {(table.family, table.name): {} for table in (entry.table for entry in entries if entry.table)}
    for chain in (entry.chain for entry in entries if entry.chain):
        where = chain.family, chain.table
        mine = tuple(rules.get((*where, chain.name), ()))
        found.setdefault(where, {})[chain.name] = NftChain(mine, chain.type, chain.hook, chain.policy)
    return found


def comments(text: str) -> dict[int, str]:
    """Handle and comment of each rule listed."""
    entries = msgspec.json.decode(text, type=_Listing).nftables
    return {entry.rule.handle: entry.rule.comment for entry in entries if entry.rule}


def _rule(rule: _Rule) -> NftRule:
    matches: dict[str, str] = {}
    dnat = jump = ""
    for statement in msgspec.json.decode(rule.expr):
        match statement:
            case {
                "match": {
                    "op": "==",
                    "left": {"payload": {"protocol": protocol, "field": field}},
                    "right": str() | int() as value,
                }
            }:
                matches[f"{protocol} {field}"] = str(value)
            case {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": str() as value}}:
                matches[key] = value
            case {"dnat": {"addr": str() as address}}:
                dnat = address
            case {"jump": {"target": target}}:
                jump = target
    return NftRule(rule.handle, rule.comment, matches, dnat, jump)
