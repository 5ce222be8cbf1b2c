"""A naive implementation with the same model and answer: a FastAPI endpoint decodes, runs the model and encodes."""

import base64
import bisect
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request
from PIL import Image

_BUNDLE = Path(os.environ["BENCHMARK_BUNDLE"])
_manifest = json.loads((_BUNDLE / "manifest.json").read_text())
_scores = _manifest["calibration"]["scores"]
_size = (_manifest["input"]["width"], _manifest["input"]["height"])
_model = torch.jit.load(str(_BUNDLE / "model.pt"))  # type: ignore[no-untyped-call]
torch.set_num_threads(1)

app = FastAPI()


@app.post("/score")
async def score(request: Request) -> dict[str, Any]:
    """Scores the image in the body."""
    image = Image.open(io.BytesIO(await request.body())).convert(_manifest["input"]["mode"]).resize(_size)
    levels = np.asarray(image, dtype=np.float32).reshape(*_size[::-1], -1) / 255
    with torch.no_grad():
        reconstruction, mse, score, *_ = _model(torch.from_numpy(levels).permute(2, 0, 1)[None])
    encoded = io.BytesIO()
    pixels = (reconstruction[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).squeeze(2)
    Image.fromarray(pixels.numpy()).save(encoded, "PNG")
    is_anomaly = score.item() > _manifest["threshold"]
    at_least = len(_scores) - bisect.bisect_left(_scores, score.item())
    return {
        "model": {"name": _manifest["name"], "version": _manifest["version"]},
        "threshold": _manifest["threshold"],
        "false_alarm_rate": _manifest["false_alarm_rate"],
        "results": [
            {
                "status": "scored",
                "filename": None,
                "mse": mse.item(),
                "score": score.item(),
                "is_anomaly": is_anomaly,
                "verdict": "anomaly" if is_anomaly else "normal",
                "p_value": (1 + at_least) / (len(_scores) + 1),
                "warnings": [],
                "reconstruction": "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode(),
            }
        ],
    }
