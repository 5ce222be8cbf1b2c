"""What an attack is: a state of store and settings, and what is done to the running service."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.attack.target import Target

_Value = TypeVar("_Value")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Arena:
    """A running service, and the attacker's means.

    Attributes:
        target: the service.
        folder: what ``prepare`` has filled; the model store is ``store`` in it.
        short: whether to use the smaller counts of ``--short``.
    """

    target: Target
    folder: Path
    short: bool

    @property
    def store(self) -> Path:
        """The model store, a copy that may be damaged."""
        return self.folder / "store"

    def pick(self, full: _Value, short: _Value) -> _Value:
        """One of two counts or durations."""
        return short if self.short else full


@dataclass
class Findings:
    """What an attack found by itself.

    Attributes:
        faults: what is wrong.
        notes: figures to print.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require(self, holds: bool, otherwise: str) -> None:
        """Adds a fault unless a condition holds, once."""
        if not holds and otherwise not in self.faults:
            self.faults.append(otherwise)


def default_settings(_: Path) -> Settings:
    """The shipped model and no settings."""
    return {}


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        name: in the table and on the command line.
        strike: does it once, while an honest client is beside it. It is called a second time to send SIGTERM during it.
        prepare: fills the folder, in which the model store ``store`` exists, before the service starts; returns its
            settings.
        worst: the file of the most expensive image, whose processor time is measured alone.
        ends_processes: whether the attack itself ends processes of the service, so that honest requests may be lost.
        may_be_refused: the setting that the service may refuse to start with; empty: it must start.
    """

    name: str
    strike: Callable[[Arena], Coroutine[Any, Any, Findings]]
    prepare: Callable[[Path], Settings] = default_settings
    worst: Callable[[], bytes] | None = None
    ends_processes: bool = False
    may_be_refused: str = ""
