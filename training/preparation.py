"""Before the fitting: reads and divides the images, and chooses the recipe if the user leaves it open."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from app.inference.decisions.regions import Cells
from app.inference.images.model_input import InputSpec
from training.data.datasets import Dataset, Reading, load
from training.data.duplicates import hashes, near_duplicates
from training.data.splitting import Partition, partition
from training.data.suitability import accepted, doubts
from training.methods import method_of
from training.model.fitting import pick_device
from training.model.method import Method
from training.run import CHOOSING, READING, Observer, Prepared, Run
from training.selection.choice import Candidate, Trial, candidates, is_small, sample, try_all


def prepare(run: Run, observer: Observer) -> tuple[Run, Prepared, Sequence[Trial]]:
    """Reads and divides the images, and rejects unsuitable data before the fitting starts.

    Returns:
        The run with its recipe chosen, the data, and what was tried, the best first; nothing if there was no choice.

    Raises:
        TrainingError: there are too few images for fitting or for calibration, or they are not suitable and the run is
            not forced.
    """
    observer.stage(READING)
    reading = Reading(lambda images: observer.stage(READING, images), lambda: observer.step(1))
    data = load(run.source, folder_size=run.recipe.folder_size, reading=reading)
    observer.read(data)
    parts = _divided(run, data)
    warnings = _accepted(run, data, parts)
    trials: Sequence[Trial] = ()
    if run.choose:
        if is_small(data.native_size) and run.source.size is None:  # enlarged, all recipes would see a blur
            data = load(replace(run.source, size=data.native_size), reading=reading)
        tried = candidates(run.recipe, data.native_size, run.source.size)
        if len(tried) > 1:
            observer.stage(CHOOSING)
            trials = _try(tried, run, data, parts)
            observer.chosen(trials)
        run = _with(trials[0].candidate if trials else tried[0], run)
        if run.source.size != tuple(data.spec.shape[1:]):
            observer.stage(READING)
            data = load(run.source, reading=reading)
        parts = _divided(run, data)  # the chosen recipe has shares of its own
        warnings = _accepted(run, data, parts)
    prepared = Prepared(data, parts, pick_device(run.device), _find_near_duplicates(data, parts), warnings)
    observer.prepared(run, prepared)
    return run, prepared, trials


def method_for(run: Run, spec: InputSpec, inside: Cells | None) -> Method[Any]:
    """The method of a run whose recipe is known, for images of this size and mode with this region of interest."""
    return method_of(
        run.recipe,
        run.rule,
        spec,
        seed=run.seed,
        device=run.device,
        threads=run.threads,
        weights=run.weights,
        inside=inside,
    )


def _divided(run: Run, data: Dataset) -> Partition:
    return partition(
        data.groups,
        run.recipe,
        plan=run.calibration,
        false_alarm_rate=run.false_alarm_rate,
        guarantee=run.guarantee,
        seed=run.seed,
    )


def _accepted(run: Run, data: Dataset, parts: Partition) -> tuple[str, ...]:
    """Why the images are not suitable, as warnings, if the run is forced.

    Raises:
        TrainingError: they are not suitable, and the run is not forced.
    """
    reasons = doubts(data.normal, parts.fit, remarks=data.changes, background=data.spec.background)
    return accepted(reasons, force=run.force)


def _try(tried: Sequence[Candidate], run: Run, data: Dataset, parts: Partition) -> Sequence[Trial]:
    """Tries candidates on some images of the fit part."""
    chosen = [parts.fit[at] for at in sample(len(parts.fit), data.native_size, run.seed)]

    def method(candidate: Candidate) -> Method[Any]:
        height, width = candidate.size
        spec = data.spec.model_copy(update={"height": height, "width": width})
        return method_for(_with(candidate, run), spec, data.inside)

    return try_all(
        data.normal[chosen],
        [data.groups[index] for index in chosen],
        tried,
        method,
        local=not is_small(data.native_size),
        inside=data.inside,
        seed=run.seed,
    )


def _with(candidate: Candidate, run: Run) -> Run:
    source = replace(run.source, size=candidate.size)
    return replace(run, source=source, recipe=candidate.recipe, rule=candidate.rule, choose=False)


def _find_near_duplicates(data: Dataset, parts: Partition) -> dict[str, list[tuple[str, str]]] | None:
    """Pairs of files, by the two parts that they are in. The folds of a cross-calibration are parts of one name."""
    if not data.normal_files:
        return None
    of_normal, files = hashes(data.normal), data.normal_files
    test = (data.test_files, hashes(data.test))
    if parts.folds:
        pairs = near_duplicates(of_normal, of_normal)
        fold_of = {index: number for number, fold in enumerate(parts.folds) for index in fold}
        return {
            "different folds": [
                (files[pair.first], files[pair.second])
                for pair in pairs
                if pair.first < pair.second and fold_of[pair.first] != fold_of[pair.second]
            ],
            "normal and test": _alike((files, of_normal), test),
        }
    of_part = {
        "fit": _selected(files, of_normal, parts.fit),
        "calibration": _selected(files, of_normal, parts.calibration),
        "test": test,
    }
    return {f"{one} and {other}": _alike(of_part[one], of_part[other]) for one, other in combinations(of_part, 2)}


_Hashed = tuple[Sequence[str], npt.NDArray[np.uint8]]


def _selected(files: Sequence[str], file_hashes: npt.NDArray[np.uint8], part: Sequence[int]) -> _Hashed:
    return [files[index] for index in part], file_hashes[list(part)]


def _alike(one: _Hashed, other: _Hashed) -> list[tuple[str, str]]:
    (files, of_one), (other_files, of_other) = one, other
    return [(files[pair.first], other_files[pair.second]) for pair in near_duplicates(of_one, of_other)]
