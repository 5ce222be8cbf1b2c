"""The long run of the reliability scenarios fails where it should."""

from dataclasses import replace

from benchmarks.reliability import BadClients, Drained, Overload, Soaked, Swapped
from benchmarks.soak import Figures, missed

LOADED = Overload(
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
AMONG_BAD = BadClients(clients=9, p99_alone_s=0.01, p99_among_s=0.02, failed=0, files_left=-1, memory_growth=0.01)
DRAINED = Drained(answered=9, turned_away=1, lost=0, seconds_to_exit=1, exit_status=0)
SWAPPED = Swapped(swaps=2, answered=9, failed=0, mislabelled=0)
SOAKED = Soaked(minutes=1, answered=9, unexplained=0, p99_s=0.1, memory_growth=-0.001)


def test_goals_that_are_reached() -> None:
    seen: list[Figures] = [LOADED, AMONG_BAD, DRAINED, SWAPPED, SOAKED]
    assert missed(seen) == []


def test_goals_that_are_missed() -> None:
    slow = replace(LOADED, share_of_peak=0.8, busy_p99_s=float("nan"))
    lossy = [DRAINED, replace(DRAINED, lost=2), replace(DRAINED, exit_status=-9)]
    seen: list[Figures] = [slow, replace(AMONG_BAD, failed=3), *lossy, SWAPPED, replace(SOAKED, memory_growth=0.03)]
    assert list(map(str, missed(seen))) == [
        "share of the good answers that overload costs: 0.2, at most 0.15 is the goal",
        "seconds to a 429 (p99): nan, at most 0.05 is the goal",
        "requests failed beside bad clients: 3, at most 0 is the goal",
        "accepted requests lost while draining: 2, at most 0 is the goal",
        "exit status after draining, without its sign: 9, at most 0 is the goal",
        "growth of memory in the soak: 0.03, at most 0.02 is the goal",
    ]
