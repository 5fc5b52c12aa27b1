#!/usr/bin/env python3
"""ipcni beside the Go plugins, interleaved in one run on scratch nodes: one process a call, and warm behind `ipcni serve`.

    sudo .venv/bin/python benchmarks/bench.py                     all of these, one after the other
    sudo .venv/bin/python benchmarks/bench.py chains              ADD and DEL of each chain: medians, quartiles, ratios to Go
    sudo .venv/bin/python benchmarks/bench.py parallel            pods a second at 1, 4, 16 and 64 at once; processor time a pod
    sudo .venv/bin/python benchmarks/bench.py leases              host-local with 10 to 60,000 leases
    sudo .venv/bin/python benchmarks/bench.py ports               portmap with 0 to 1,000 published pods
    sudo .venv/bin/python benchmarks/bench.py memory              the server's memory after so many pods

--rounds N, --only TEXT (chains whose name has it), --json, --svg FILE (a plot of the chains; needs pygal, the extra `bench`).
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from sides import NAMES, Side, with_sides

from tests.lab import Pod

Row = dict[str, Any]
_PAUSE = 0.05  # seconds in which the kernel clears away what the one before has deleted: whoever comes next must not pay for it


def pod(side: Side, number: object) -> Pod:
    return Pod(f"bench-{os.getpid()}-{side.name}-{number}")


def quartiles(values: list[float]) -> list[float]:
    return [round(value, 1) for value in statistics.quantiles(values, n=4)]


def chains(folder: pathlib.Path, rounds: int, only: str) -> list[Row]:
    """One pod's ADD and DEL by each suite in turn; the first round, which makes bridges and shared chains, does not count."""
    rows: list[Row] = []
    names = [name for name in with_sides(folder / "names", ("Go",), lambda sides: list(sides[0].chains)) if only in name]
    for name in names:

        def act(sides: list[Side], name: str = name) -> Row:
            times: dict[tuple[str, str], list[float]] = {}
            largest: dict[str, int] = {}
            if "250 leases" in name:
                for side in sides:
                    fill(side, "leases", 250)
            for number, side in itertools.product(range(rounds + 1), sides):
                place = pod(side, number)
                time.sleep(_PAUSE)
                try:
                    prev = None
                    for verb in ("ADD", "DEL"):
                        prev, costs = side.run(verb, side.chains[name], place, f"c{number}", prev)
                        if number:
                            times.setdefault((side.name, verb), []).append(sum(cost["ms"] for cost in costs))
                            largest[side.name] = max(largest.get(side.name, 0), *(cost["kib"] for cost in costs))
                finally:
                    place.delete()
            row: Row = {"chain": name}
            for verb in ("ADD", "DEL"):
                go = statistics.median(times["Go", verb])
                for each in NAMES:
                    row[f"{verb} {each}"] = quartiles(times[each, verb])
                for each in NAMES[1:]:
                    row[f"{verb} {each} ÷ Go"] = round(statistics.median(times[each, verb]) / go, 2)
            row["processes an ADD starts"] = processes(sides[2], name)
            row["MiB a call"] = [round(largest[each] / 1024, 1) for each in NAMES]
            return row

        rows.append(with_sides(folder / name.replace(" ", ""), NAMES, act))
    return rows


def processes(side: Side, chain: str) -> float:
    """How many a steady ADD of a chain starts, by the journal."""
    plugins = [conf["type"] for conf in side.chains[chain]]
    records = [record for record in side.node.journal() if record["verb"] == "ADD" and record["plugin"] in plugins][
        len(plugins) :
    ]
    counts = [sum(1 for each in record["commands"] if "argv" in each and not each.get("direct")) for record in records]
    return round(statistics.mean(counts) * len(plugins), 1)


def parallel(folder: pathlib.Path, rounds: int) -> list[Row]:
    """Pods a second, so many at once, of bridge + ipMasq; processor time of an ADD and DEL, the server's included."""

    def act(sides: list[Side]) -> list[Row]:
        rows = []
        for at_once in (1, 4, 16, 64):
            row: Row = {"at once": at_once}
            for side in sides:
                count = max(rounds, at_once)
                pods = [pod(side, f"{at_once}-{number}") for number in range(count)]
                chain = side.chains["bridge + ipMasq"]
                side.run("ADD", chain, pods[0], "first")
                side.run("DEL", chain, pods[0], "first")
                before, began = side.server()["cpu"], time.perf_counter()

                def one(number: int, side: Side = side, pods: list[Pod] = pods, chain: Any = chain) -> float:
                    prev, added = side.run("ADD", chain, pods[number], f"c{number}")
                    _, deleted = side.run("DEL", chain, pods[number], f"c{number}", prev)
                    return float(sum(cost["cpu"] for cost in (*added, *deleted)))

                with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
                    cpu = sum(threads.map(one, range(count)))
                seconds = time.perf_counter() - began
                cpu += side.server()["cpu"] - before
                row[f"{side.name} pods/s"] = round(count / seconds, 1)
                row[f"{side.name} CPU ms a pod"] = round(cpu / count, 1)
                for each in pods:
                    each.delete()
            row["warm ÷ Go"] = round(row["warm pods/s"] / row["Go pods/s"], 2)
            row["warm ÷ Go, CPU"] = round(row["warm CPU ms a pod"] / row["Go CPU ms a pod"], 2)
            rows.append(row)
        return rows

    found: list[Row] = with_sides(folder / "parallel", ("Go", "warm"), act)
    return found


def grown(folder: pathlib.Path, rounds: int, what: str) -> list[Row]:
    """ADD and DEL where there are so many others already. (Debian's Go portmap has no nftables.)"""
    kinds = [("leases", ("Go", "warm"))] if what == "leases" else [("iptables", ("Go", "warm")), ("nftables", ("warm",))]
    sizes = (10, 250, 1000, 10_000, 60_000) if what == "leases" else (0, 100, 300, 1000)
    rows: list[Row] = []
    for (kind, names), size in itertools.product(kinds, sizes):

        def act(sides: list[Side], kind: str = kind, size: int = size) -> Row:
            row: Row = {what: f"{size}, {kind}" if what == "ports" else size}
            times: dict[tuple[str, str], list[float]] = {}
            for side in sides:
                fill(side, kind, size)
            chain = "host-local, 250 leases" if what == "leases" else "flannel + portmap"
            for number, side in itertools.product(range(rounds + 1), sides):
                place = pod(side, number)
                time.sleep(_PAUSE)
                try:
                    prev = None
                    plugins = side.chains[chain]
                    if what == "ports":
                        plugins = [{**plugins[1], "backend": kind}]
                        prev = {"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.9/24"}]}
                    for verb in ("ADD", "DEL"):
                        _, costs = side.run(verb, plugins, place, f"c{number}", prev)
                        if number:
                            times.setdefault((side.name, verb), []).append(sum(cost["ms"] for cost in costs))
                finally:
                    place.delete()
            for verb, each in itertools.product(("ADD", "DEL"), ("Go", "warm")):
                row[f"{verb} {each}"] = quartiles(times[each, verb]) if (each, verb) in times else None
            return row

        rows.append(with_sides(folder / f"{kind}{size}", names, act))
    return rows


def fill(side: Side, kind: str, size: int) -> None:
    """Others' leases as files, others' published ports as rules: made at once, as the plugins would have made them."""
    if kind == "leases":
        place = pathlib.Path(side.node.data_dir) / "n"
        place.mkdir(parents=True)
        for number in range(size):
            high, low = divmod(number + 2, 256)
            (place / f"10.9.{high}.{low}").write_text(f"other{number}\r\neth0")
        return
    template = {**side.chains["flannel + portmap"][1], "backend": kind}
    place_of = pod(side, "filler")
    prev = {"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.8/24"}]}
    side.run("ADD", [template], place_of, "template", prev)
    if kind == "nftables":
        table = "add rule ip cni_hostport"
        lines = [
            f'{table} hostports tcp dport {10_000 + number} dnat to 10.244.1.8:80 comment "other{number}"\n'
            f'{table} masquerading ip saddr 10.244.1.8 ip daddr 10.244.1.8 masquerade comment "other{number}"\n'
            f'{table} masquerading ip saddr 127.0.0.1 ip daddr 10.244.1.8 masquerade comment "other{number}"\n'
            for number in range(size)
        ]
        side.node.run("nft", "-f", "-", input="".join(lines))
        side.run("DEL", [template], place_of, "template", prev)
        place_of.delete()
        return
    saved = side.node.run("iptables-save", "-t", "nat").stdout
    chain = next(word for word in saved.split() if word.startswith(":CNI-DN-"))[1:]
    lines = [line for line in saved.splitlines() if chain in line]
    text = ["*nat"]
    for number in range(size):
        name = f"CNI-DN-{number:021x}"
        for line in lines:
            made = line.replace(chain, name).replace("template", f"other{number}").replace("8080", str(10_000 + number))
            text.append(made)
    side.node.run("iptables-restore", "--noflush", input="\n".join([*text, "COMMIT", ""]))
    side.run("DEL", [template], place_of, "template", prev)
    place_of.delete()


def memory(folder: pathlib.Path, rounds: int) -> list[Row]:
    """The server and its workers, after so many pods of bridge."""

    def act(sides: list[Side]) -> list[Row]:
        (side,) = sides
        place, rows, count = pod(side, 0), [], 0
        for until in (0, 100, rounds * 50, rounds * 500):
            while count < until:
                side.run("ADD", side.chains["bridge"], place, f"c{count}")
                side.run("DEL", side.chains["bridge"], place, f"c{count}")
                count += 1
            rows.append({"pods": count, "MiB": round(side.server()["kib"] / 1024, 1)})
        place.delete()
        return rows

    found: list[Row] = with_sides(folder / "memory", ("warm",), act)
    return found


def show(rows: list[Row]) -> None:
    """A table; of quartiles the median with the others behind it."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|---" * len(rows[0]) + "|")
    for row in rows:
        cells = [
            f"{each[1]:g} ({each[0]:g}–{each[2]:g})" if _quartiles(key) and each else str(each or "") for key, each in row.items()
        ]
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def _quartiles(key: str) -> bool:
    return key.startswith(("ADD", "DEL")) and "÷" not in key


def plot(rows: list[Row], path: str) -> None:
    """Medians as bars, quartiles as lines on them."""
    import pygal

    lines = [(row, verb) for row in rows for verb in ("ADD", "DEL")]
    chart = pygal.HorizontalBar(title="ms", js=(), width=1000, height=80 + 60 * len(lines), legend_at_bottom=True)
    chart.x_labels = [f"{row['chain']}, {verb}" for row, verb in lines]
    for name in NAMES:
        found = [row[f"{verb} {name}"] for row, verb in lines]
        chart.add(name, [{"value": mid, "ci": {"low": low, "high": high}} for low, mid, high in found])
    chart.render_to_file(path)


def main() -> None:
    kinds: dict[str, Callable[[pathlib.Path, argparse.Namespace], list[Row]]] = {
        "chains": lambda folder, given: chains(folder, given.rounds, given.only),
        "parallel": lambda folder, given: parallel(folder, given.rounds),
        "leases": lambda folder, given: grown(folder, given.rounds, "leases"),
        "ports": lambda folder, given: grown(folder, given.rounds, "ports"),
        "memory": lambda folder, given: memory(folder, given.rounds),
    }
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", nargs="?", choices=tuple(kinds))
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--only", default="")
    options.add_argument("--json", action="store_true")
    options.add_argument("--svg", default="")
    given = options.parse_args()
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as name:
        for what in (given.what,) if given.what else kinds:
            found[what] = kinds[what](pathlib.Path(name), given)
            if not given.json:
                show(found[what])
            if given.svg and what == "chains":
                plot(found[what], given.svg)
    if given.json:
        print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
