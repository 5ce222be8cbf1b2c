"""Models that hang or take memory when they are run, and versions of them that are valid otherwise."""

from pathlib import Path

import torch

from app.inference.bundles import torchscript
from app.inference.bundles.bundle import file_record
from app.inference.bundles.store import CURRENT_FILE
from tests.support import SPEC, make_bundle
from training.model.autoencoders import DenseAutoencoder


class Hanging(torch.nn.Module):
    """Never returns."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        total = images.sum()
        while bool(total > -1.0):
            total = total + 1.0
        mse = images.flatten(1).mean(1)
        return images, mse, mse


class HangingInBatches(DenseAutoencoder):
    """An autoencoder that returns when it is verified, but not for the batch that warms it up."""

    def __init__(self) -> None:
        super().__init__(SPEC.shape, (16,), 4, linear_code=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = images.abs().sum()
        while images.shape[0] > 2 and bool(total == 0):
            total = total * 2
        rebuilt: torch.Tensor = self.decoder(self.encoder(images)).reshape(images.shape)
        return rebuilt


class Allocating(torch.nn.Module):
    """Takes 12 GB."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mse = images.flatten(1).mean(1) + torch.ones(3_000_000_000).sum() * 0
        return images, mse, mse


def write_version(
    store: Path, name: str, network: torch.nn.Module, *, version: str = "v1", current: bool = True
) -> Path:
    """Writes a version with the checksums of a network's archive, as somebody can who may write to the store.

    Returns:
        Its folder.
    """
    manifest, files = make_bundle(name, version=version)
    archive = torchscript.dump(network)
    manifest = manifest.model_copy(update={"files": {**manifest.files, "model.pt": file_record(archive)}})
    directory = store / name / version
    for file, content in {**files, "model.pt": archive, "manifest.json": manifest.to_bytes()}.items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_bytes(content)
    if current:
        (store / name / CURRENT_FILE).write_text(version)
    return directory
