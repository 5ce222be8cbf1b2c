"""The goals of the long runs."""

from dataclasses import replace

from benchmarks.reliability import BadClients, Drained, Overload, Soaked, Swapped
from benchmarks.soak import Figures, missed

OVERLOAD = Overload(
    peak_per_s=150,
    offered_per_s=600,
    good_per_s=130,
    share_of_peak=0.86,
    busy_share=0.7,
    busy_p99_s=0.02,
    good_p99_s=2,
    health_slowest_s=0.03,
    memory_growth=0.2,
)
BAD_CLIENTS = BadClients(clients=9, p99_alone_s=0.01, p99_among_s=0.02, failed=0, files_left=-1, memory_growth=0.01)
DRAINED = Drained(answered=9, turned_away=1, lost=0, seconds_to_exit=1, exit_status=0)
SWAPPED = Swapped(swaps=2, answered=9, failed=0, mislabelled=0)
SOAKED = Soaked(minutes=1, answered=9, unexplained=0, p99_s=0.1, memory_growth=-0.001)


def test_reached_goals() -> None:
    seen: list[Figures] = [OVERLOAD, BAD_CLIENTS, DRAINED, SWAPPED, SOAKED]
    assert missed(seen) == []


def test_missed_goals() -> None:
    slow = replace(OVERLOAD, share_of_peak=0.8, busy_p99_s=float("nan"))
    lossy = [DRAINED, replace(DRAINED, lost=2), replace(DRAINED, exit_status=-9)]
    seen: list[Figures] = [slow, replace(BAD_CLIENTS, failed=3), *lossy, SWAPPED, replace(SOAKED, memory_growth=0.03)]
    assert list(map(str, missed(seen))) == [
        "share of correct answers lost by overload: 0.2, the goal is at most 0.15",
        "seconds to a 429 (p99): nan, the goal is at most 0.05",
        "failed requests of well-behaved clients: 3, the goal is at most 0",
        "accepted requests lost while draining: 2, the goal is at most 0",
        "absolute exit status after draining: 9, the goal is at most 0",
        "memory growth in the soak: 0.03, the goal is at most 0.02",
    ]
