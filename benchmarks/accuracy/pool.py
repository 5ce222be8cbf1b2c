"""All images of a data set under one numbering, so that they are represented once and then divided in several ways."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from training.data.datasets import Dataset, Source, load
from training.data.folders import NORMAL
from training.errors import TrainingError
from training.model.recipes import Recipe


@dataclass(frozen=True)
class Pool:
    """The normal images, then the test images.

    Attributes:
        data: the data set.
    """

    data: Dataset

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """``normal`` or the kind of anomaly of each image."""
        return (NORMAL,) * len(self.data.normal) + self.data.test_kinds

    @property
    def anomaly_kinds(self) -> list[str]:
        """The kinds of anomalies, sorted."""
        return sorted(set(self.kinds) - {NORMAL})

    @property
    def has_groups(self) -> bool:
        """Whether some of the normal images that training may use show the same object."""
        return len(set(self.data.groups)) < len(self.data.groups)

    @property
    def normal(self) -> range:
        """Positions of the normal images that training may use."""
        return range(len(self.data.normal))

    @property
    def test(self) -> range:
        """Positions of the test images."""
        return range(len(self.data.normal), len(self))

    @property
    def test_normal(self) -> list[int]:
        """Positions of the normal test images."""
        return [position for position in self.test if self.kinds[position] == NORMAL]

    @property
    def anomalies(self) -> list[int]:
        """Positions of the anomalies."""
        return [position for position in self.test if self.kinds[position] != NORMAL]

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, positions: list[int]) -> torch.Tensor:
        """(K, C, H, W) float32 in [0, 1]."""
        return torch.stack([*self._read(positions)])

    def _read(self, positions: list[int]) -> Iterator[torch.Tensor]:
        count = len(self.data.normal)
        for position in positions:
            yield self.data.normal[position] if position < count else self.data.test[position - count]


def read_pool(source: Source, recipe: Recipe) -> Pool:
    """Reads a data set with labelled test images.

    Args:
        source: which images.
        recipe: gives the size of the images of a folder, if the source has none.

    Raises:
        TrainingError: the images cannot be read, or the test images lack normal images or anomalies.
    """
    pool = Pool(load(source, folder_size=recipe.folder_size))
    if not pool.test_normal or not pool.anomaly_kinds:
        raise TrainingError(
            f"{source.data} needs normal test images and anomalies, for example in test/normal/ and test/anomaly/KIND/"
        )
    return pool
