"""All attacks by name."""

from collections.abc import Mapping
from typing import Final

from benchmarks.attack.attack import Attack
from benchmarks.attack.kinds import connections, images, uploads

ATTACKS: Final[Mapping[str, Attack]] = {
    attack.name: attack for kind in (connections, uploads, images) for attack in kind.ATTACKS
}
