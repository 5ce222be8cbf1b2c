"""How much memory and time an image may take to decode, from the estimate of its cost."""

import math
from typing import Final, NamedTuple, Self

from app.inference.images.cost import DecodeCost
from app.inference.images.model_input import InputSpec

_MARGIN: Final = 2  # of memory; transpositions and unusual modes take more than estimated
_INPUT_BYTES: Final = 12  # per value of the input: float32, and copies of it
_FREE_BYTES: Final = 64 * 2**20
_TIMES: Final = 5  # as long as estimated: unusual content, a slower processor
_CPU_S: Final = (2.0, 5.0)  # at least and at most
_WAITING: Final = 6  # seconds on the clock for one of processor time, on a busy machine
_LEAST_PROCESSES: Final = 2  # so that a large image does not keep all others waiting
_PROCESS_BYTES: Final = 512 * 2**20  # of the service's memory: a process, and a large image


class Limits(NamedTuple):
    """What decoding an image may take.

    Attributes:
        memory: bytes of address space.
        cpu_s: seconds of processor time.
        wall_s: seconds on the clock.
    """

    memory: int
    cpu_s: float
    wall_s: float

    @classmethod
    def of(cls, cost: DecodeCost, spec: InputSpec) -> Self:
        """The limits of an image of this estimated cost that becomes this input."""
        shortest, longest = _CPU_S
        cpu_s = min(max(_TIMES * cost.seconds, shortest), longest)
        memory = cost.memory + _INPUT_BYTES * math.prod(spec.shape)
        return cls(_MARGIN * memory + _FREE_BYTES, cpu_s, _WAITING * cpu_s)


def most_processes(cores: int, memory: int) -> int:
    """The number of images that are decoded at once: one for each core, within the memory, and at least two.

    Args:
        cores: that the service may keep busy.
        memory: of the service, in bytes.
    """
    return max(_LEAST_PROCESSES, min(cores, memory // _PROCESS_BYTES))
