"""The results: medians over the rounds, and tables of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.peers.measurement import Figures
from benchmarks.peers.workloads import Workload

Row = dict[str, Any]
"""The result of one peer: its summary, or the reason of its failure."""


def summary(rounds: Sequence[tuple[Figures, Figures]]) -> Row:
    """Medians of the figures and of the ratios over all rounds, and the sums of the errors.

    Args:
        rounds: pairs (ours, the peer's).
    """
    ours, peer = ([asdict(pair[side]) for pair in rounds] for side in (0, 1))
    figures = [name for name in ours[0] if name != "errors"]
    return {
        "ours_to_peer": {
            name: median(mine[name] / theirs[name] for mine, theirs in zip(ours, peer, strict=True)) for name in figures
        },
        "ours": {name: median(each[name] for each in ours) for name in figures},
        "peer": {name: median(each[name] for each in peer) for name in figures},
        "errors": {"ours": sum(each["errors"] for each in ours), "peer": sum(each["errors"] for each in peer)},
        "rounds": len(rounds),
    }


def table(workload: Workload, rows: Mapping[str, Row]) -> str:
    """The ratios ours ÷ peer as a Markdown table."""
    lines = [
        f"| {workload.name}: ours ÷ peer | requests/s, {workload.connections} connections | 1 connection "
        f"| p99, {workload.connections} connections | processor time of a request | start | memory | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        label = f"{name} {row['version']}"
        if "failed" in row:
            lines.append(f"| {label} | {row['failed']} |")
            continue
        ratio, ours, peer, errors = row["ours_to_peer"], row["ours"], row["peer"], row["errors"]
        cells = [
            f"{ratio[figure]:.2f} × ({ours[figure]:.{digits}f} ÷ {peer[figure]:.{digits}f}{unit})"
            for figure, digits, unit in (
                ("requests_per_s", 0, ""),
                ("requests_per_s_at_1", 0, ""),
                ("p99_ms", 0, " ms"),
                ("cpu_ms_per_request", 2, " ms"),
                ("start_s", 1, " s"),
                ("memory_mib", 0, " MiB"),
            )
        ]
        lines.append(f"| {label} | {' | '.join(cells)} | {errors['ours']:.0f}, {errors['peer']:.0f} |")
    return "\n".join(lines)
