"""Fitted wide, served narrow: a wide network learns better than a narrow one, and no longer needs all its width then.

Li et al., "Pruning filters for efficient ConvNets", 2017: take out whole units, those that matter least, and go on
fitting. Half of them gone, a forward pass costs half.
"""

import torch
from torch import nn

from training.model.autoencoders import DenseAutoencoder


@torch.no_grad()
def prune(network: DenseAutoencoder, images: torch.Tensor, share: float) -> None:
    """Keeps a share of the units of each hidden layer, in place; the code and the image keep all theirs.

    A unit matters by how much its output varies from image to image, times how much the next layer makes of it.

    Args:
        network: on the device of the images.
        images: (N, C, H, W) to judge the units by.
        share: above 0, up to 1; at least one unit is kept.
    """
    values = images
    for half in (network.encoder, network.decoder):
        (here, layer), *others = [(at, layer) for at, layer in enumerate(half) if isinstance(layer, nn.Linear)]
        for there, following in others:
            half[here], reader = _narrowed(layer, following, half[:there](values), share)
            half[there] = reader
            here, layer = there, reader
        values = half(values)


def _narrowed(
    layer: nn.Linear, following: nn.Linear, outputs: torch.Tensor, share: float
) -> tuple[nn.Linear, nn.Linear]:
    """The layer with the units that matter most, and the one that reads them; it has seen (N, units) outputs."""
    count = max(1, round(share * layer.out_features))
    matters = outputs.std(dim=0) * following.weight.norm(dim=0)
    kept = matters.topk(count).indices.sort().values
    narrow = nn.Linear(layer.in_features, count, device=outputs.device)
    narrow.weight.copy_(layer.weight[kept])
    narrow.bias.copy_(layer.bias[kept])
    reader = nn.Linear(count, following.out_features, device=outputs.device)
    reader.weight.copy_(following.weight[:, kept])
    # What the others give on average is still given.
    average = outputs.mean(dim=0)
    average[kept] = 0
    reader.bias.copy_(following.bias + following.weight @ average)
    return narrow, reader
