"""Fits one of anomalib's models on the images of a split, and scores the others one at a time.

    python models.py IMAGES.npz SPLIT.npz SCORES.npz --model patchcore --seed 0 --threads 1 --coreset-ratio 0.1

IMAGES.npz: ``normal`` (N, C, H, W) and ``test`` (M, C, H, W), float32 in [0, 1]; ``mean`` and ``std`` of the backbone;
``weight:NAME``, the backbone's tensors by timm's names. SPLIT.npz: ``fit`` and ``calibration``, indices of normal
images. SCORES.npz: ``calibration`` and ``test`` scores; processor time: ``seconds_to_fit``, and ``seconds`` of each
scored image.

The scores are the raw ``pred_score`` of anomalib's torch models: its pipeline calls them likewise, and only rescales
what they return. Settings are anomalib's defaults, but for the layers, which are those of its ResNets by stride.
"""

import argparse
import time

import numpy as np
import torch
from anomalib.models.components import KCenterGreedy
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from coreset import farthest_points

BACKBONE = "tf_efficientnet_lite0"
PATCHCORE_LAYERS = ["blocks.2", "blocks.4"]  # strides 8 and 16, as layer2 and layer3 of a ResNet
PADIM_LAYERS = ["blocks.1", "blocks.2", "blocks.4"]  # strides 4, 8 and 16, as layer1 to layer3
PADIM_FEATURES = 100  # of 176; anomalib's number for ResNet-18, its default backbone
FIT_BATCH = 32
WARM_UP = 3


def build(name):
    """An anomalib model that is not fitted, with random weights."""
    if name == "patchcore":
        return PatchcoreModel(layers=PATCHCORE_LAYERS, backbone=BACKBONE, pre_trained=False)
    return PadimModel(layers=PADIM_LAYERS, backbone=BACKBONE, pre_trained=False, n_features=PADIM_FEATURES)


def load_weights(model, archive):
    """Gives the backbone the weights of the archive; all that it has must be there."""
    network = model.feature_extractor.feature_extractor
    network.load_state_dict({name: torch.from_numpy(archive[f"weight:{name}"]) for name in network.state_dict()})


def fit(model, batches, coreset_ratio):
    """As the training of anomalib's pipeline: collects the features of all batches, then fits."""
    model.train()
    for batch in batches:
        model(batch)
    if isinstance(model, PadimModel):
        model.fit()
    else:
        model.memory_bank = memory_bank(torch.vstack(model.embedding_store), coreset_ratio)
        model.embedding_store.clear()
    model.eval()


def memory_bank(embedding, ratio):
    """What ``KCenterGreedy(embedding, ratio).sample_coreset()`` returns, hundreds of times faster."""
    sampler = KCenterGreedy(embedding, ratio)
    projection = sampler.model.fit(embedding).sparse_random_matrix
    start = torch.randint(high=len(embedding), size=(1,))
    # The triangular factor gives the same distances as the projection, in fewer dimensions.
    factor = torch.linalg.qr(projection.double()).R.float()
    return embedding[farthest_points(embedding @ factor.T, int(start), sampler.coreset_size)]


@torch.inference_mode()
def main():
    """Reads the files, fits, scores, and writes the scores."""
    parser = argparse.ArgumentParser()
    for name in ("images", "split", "scores"):
        parser.add_argument(name)
    parser.add_argument("--model", choices=("patchcore", "padim"), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--coreset-ratio", type=float, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)  # of scikit-learn's sampling in the random projection
    archive, parts = np.load(options.images), np.load(options.split)
    normal, test = torch.from_numpy(archive["normal"]), torch.from_numpy(archive["test"])
    mean, std = torch.from_numpy(archive["mean"]), torch.from_numpy(archive["std"])

    def prepared(images):
        return (images.expand(-1, 3, -1, -1) - mean) / std

    model = build(options.model)
    load_weights(model, archive)
    began = time.process_time()
    fit(model, (prepared(batch) for batch in normal[parts["fit"]].split(FIT_BATCH)), options.coreset_ratio)
    seconds_to_fit = time.process_time() - began
    scored = torch.cat([normal[parts["calibration"]], test])
    for image in scored[:WARM_UP].split(1):
        model(prepared(image))
    scores, seconds = [], []
    for image in scored.split(1):
        began = time.process_time()
        scores.append(float(model(prepared(image)).pred_score))
        seconds.append(time.process_time() - began)
    calibration = len(parts["calibration"])
    np.savez(
        options.scores,
        calibration=scores[:calibration],
        test=scores[calibration:],
        seconds_to_fit=seconds_to_fit,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
