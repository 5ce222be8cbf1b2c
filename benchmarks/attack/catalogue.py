"""All attacks by name; those that share a preparation of the store are neighbours."""

from collections.abc import Mapping
from typing import Final

from benchmarks.attack.attack import Attack
from benchmarks.attack.kinds import connections, images, keys, labels, names, probes, processes, store_files, uploads

ATTACKS: Final[Mapping[str, Attack]] = {
    attack.name: attack
    for kind in (connections, uploads, images, names, keys, store_files, probes, labels, processes)
    for attack in kind.ATTACKS
}
