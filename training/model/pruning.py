"""Pruning: removes hidden units of a fitted network, which is then fitted further.

A wide network learns better than a narrow one, but does not need its full width afterwards. As in Li et al., "Pruning
filters for efficient ConvNets", 2017, whole units with the least influence are removed. A forward pass of a network
with half of the units takes half the time.
"""

import torch
from torch import nn

from training.model.autoencoders import DenseAutoencoder


@torch.no_grad()
def prune(network: DenseAutoencoder, images: torch.Tensor, share: float) -> None:
    """Removes hidden units in place; the code and the output keep their widths.

    The influence of a unit is the standard deviation of its output over the images, times the norm of its weights in
    the next layer.

    Args:
        network: on the device of the images.
        images: (N, C, H, W) float32 in [0, 1], to measure the influence of the units.
        share: of the units of each hidden layer to keep, in (0, 1]; at least one unit is kept.
    """
    values = images
    for half in (network.encoder, network.decoder):
        (index, layer), *others = [(at, layer) for at, layer in enumerate(half) if isinstance(layer, nn.Linear)]
        for next_index, next_layer in others:
            narrow, next_narrow = _without_weakest_units(layer, next_layer, half[:next_index](values), share)
            half[index], half[next_index] = narrow, next_narrow
            index, layer = next_index, next_narrow
        values = half(values)


def _without_weakest_units(
    layer: nn.Linear, next_layer: nn.Linear, outputs: torch.Tensor, share: float
) -> tuple[nn.Linear, nn.Linear]:
    """Both layers, without the units of the first that have the least influence.

    Args:
        layer: its units are removed.
        next_layer: takes their outputs.
        outputs: (N, units), the outputs of the units after the activation function.
        share: of the units to keep.
    """
    count = max(1, round(share * layer.out_features))
    influence = outputs.std(dim=0) * next_layer.weight.norm(dim=0)
    kept = influence.topk(count).indices.sort().values
    narrow = nn.Linear(layer.in_features, count, device=outputs.device)
    narrow.weight.copy_(layer.weight[kept])
    narrow.bias.copy_(layer.bias[kept])
    next_narrow = nn.Linear(count, next_layer.out_features, device=outputs.device)
    next_narrow.weight.copy_(next_layer.weight[:, kept])
    # The mean output of the removed units moves into the bias.
    removed_mean = outputs.mean(dim=0)
    removed_mean[kept] = 0
    next_narrow.bias.copy_(next_layer.bias + next_layer.weight @ removed_mean)
    return narrow, next_narrow
