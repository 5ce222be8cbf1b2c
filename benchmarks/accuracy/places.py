"""A published model and synthetic defects: how well its map shows where they are, without masks drawn by people."""

import argparse
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.table import Table

from app.files.search import PassedOver, find_images
from app.inference.bundles.store import ModelStore
from app.inference.decisions.regions import Cells
from training.data.folders import decode_some
from training.evaluation.masks import MaskEvaluation
from training.evaluation.scores import score_all
from training.selection.defects import with_defects

_CHANGED: Final = 0.02  # of a value, beyond which a pixel belongs to the defect
_CLOSING: Final = 5  # pixels
_SEED: Final = 7


def run(options: argparse.Namespace, console: Console) -> None:
    """Draws one defect on each normal image, scores them, and prints how the model's map compares with the defects.

    Raises:
        ModelStoreError: the store has no such model.
        TrainingError: there is no readable image.
    """
    store = ModelStore(options.store)
    bundle = store.load(options.model, store.current(options.model))
    files = [Path(path) for path in find_images(str(options.folder), PassedOver())][:: options.every]
    decoded = decode_some(files, bundle.spec, options.folder, cache=None)
    normal = torch.stack([*decoded.images])
    defective = with_defects(normal, _SEED)
    error_map = bundle.manifest.error_map
    evaluation = MaskEvaluation(
        changed(normal, defective),
        bundle.manifest.threshold,
        score_is_maximum=error_map is not None and error_map.score == "maximum",
    )
    score_all(bundle.model, defective, options.threads, evaluation.add)
    figures = evaluation.figures()
    table = Table(
        "AUROC of pixels",
        "AUPRO up to 0.3",
        "defects touched by a region",
        "regions on a defect",
        title=f"{options.model}, a synthetic defect in each of {len(normal):,} normal images",
    )
    if figures is not None:
        rates = (figures.pixel_auroc, figures.aupro, figures.defects_found, figures.regions_on_defects)
        table.add_row(*("–" if rate is None else f"{rate:.3f}" for rate in rates))
    console.print(table)


def changed(normal: torch.Tensor, defective: torch.Tensor) -> list[Cells]:
    """(N, C, H, W) images without and with defects → for each (H, W), true for the defect.

    That is where they differ visibly, and gaps of up to four pixels in it, where the defect happens to look alike.
    """
    differ = ((defective - normal).abs().amax(1, keepdim=True) > _CHANGED).float()
    widened = torch.nn.functional.max_pool2d(differ, _CLOSING, 1, _CLOSING // 2)
    closed = -torch.nn.functional.max_pool2d(-widened, _CLOSING, 1, _CLOSING // 2)
    cells: Cells = closed[:, 0].numpy() > 0
    return list(cells)
