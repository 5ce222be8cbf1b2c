"""Shared code of the peers' servers: image file to tensor, one forward pass, answer.

For the images of this benchmark, the answer is that of our ``POST /score``. Limits, most formats and warnings, and
error messages are left out, so the peers do less work than our service.
"""

import base64
import io
import json
import os
from bisect import bisect_left
from pathlib import Path

import numpy as np
import torch
from PIL import Image

MAX_BATCH = 32  # the most connections of a load


class Model:
    """A version from the model store: TorchScript file and manifest."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(os.environ["BENCHMARK_BUNDLE"])
        torch.set_num_threads(1)
        self.network = torch.jit.freeze(torch.jit.load(str(folder / "model.pt"), map_location="cpu").eval())
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.calibration = sorted(self.manifest["calibration"]["scores"])
        self.size = (self.manifest["input"]["width"], self.manifest["input"]["height"])
        self.score([torch.zeros(1, *self.size)] * MAX_BATCH)

    def decode(self, file: bytes) -> torch.Tensor:
        """Image file → (1, H, W) float32 in [0, 1]."""
        image = Image.open(io.BytesIO(file)).convert("L")
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]

    def score(self, images: list[torch.Tensor]) -> list[dict]:
        """One forward pass, one answer per image."""
        with torch.inference_mode():
            reconstruction, mse, score, *_ = self.network(torch.stack(images))
        pixels = (reconstruction.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        return [
            self._answer(pixels[row, 0], one_mse, one_score)
            for row, (one_mse, one_score) in enumerate(zip(mse.tolist(), score.tolist(), strict=True))
        ]

    def _answer(self, pixels: np.ndarray, mse: float, score: float) -> dict:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        is_anomaly = score > self.manifest["threshold"]
        at_least = len(self.calibration) - bisect_left(self.calibration, score)
        return {
            "model": {"name": self.manifest["name"], "version": self.manifest["version"]},
            "threshold": self.manifest["threshold"],
            "false_alarm_rate": self.manifest["false_alarm_rate"],
            "results": [
                {
                    "status": "scored",
                    "filename": None,
                    "mse": mse,
                    "score": score,
                    "is_anomaly": is_anomaly,
                    "verdict": "anomaly" if is_anomaly else "normal",
                    "p_value": (1 + at_least) / (len(self.calibration) + 1),
                    "out_of_scope": False,
                    "warnings": self._warnings(score),
                    "reconstruction": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(),
                }
            ],
        }

    def _warnings(self, score: float) -> list[str]:
        if score < self.calibration[0]:
            return [
                "the score lies below that of every calibration image: "
                "the image may be emptier or simpler than the training images"
            ]
        if score > self.calibration[-1]:
            return ["the score lies above that of every calibration image"]
        return []
