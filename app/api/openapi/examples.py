"""Example responses for the OpenAPI document. A test validates them against the schemas."""

from typing import Any, Final

_VERSION: Final = "20261125T040706Z-11dba8"
_SHA256: Final = "9b7d4ed0f17925319f20bd3d76c2de230d1dad4ed9df5bf921055dbbd026b507"

_PNG_URI: Final = "data:image/png;base64,iVBORw0KGgo…"

MODEL: Final = {"name": "mnist-5", "version": _VERSION}

HEALTH: Final[dict[str, Any]] = {
    "status": "ok",
    "model": MODEL,
    "models": [MODEL],
    "refused": [
        {"name": "tiles", "reason": "tiles/20261124T080000Z-0d1e2f: model.pt is missing"}
    ],
    "uptime_s": 86_400.125,
}  # fmt: skip
UNHEALTHY: Final[dict[str, Any]] = {
    "status": "unavailable",
    "reason": "the store has no model named 'mnist-5'",
    "models": [],
    "refused": [],
    "uptime_s": 12.5,
}
LIVE: Final = {"status": "alive"}
READY: Final = {"status": "ready"}
NOT_READY: Final = {"status": "starting", "reason": "the model is being loaded"}

REGION: Final[dict[str, Any]] = {
    "box": [14, 8, 6, 4],
    "area": 0.0051,
    "peak": 0.0912,
    "polygon": [[14, 8], [20, 8], [20, 10], [16, 10], [16, 12], [14, 12]],
}

CARD: Final[dict[str, Any]] = {
    **MODEL,
    "created_at": "2026-11-25T04:07:06Z",
    "input": {"mode": "L", "height": 28, "width": 28, "fit": "stretch"},
    "scoring": {
        "rule": "smoothed-extent",
        "formula": "mean(box3(x - x̂)²) / (max(mean(x), mean(x̂), 0.01) · (tv(x) · tv(x̂))^¼), …",
    },
    "threshold": 0.32096996903419495,
    "false_alarm_rate": 0.01,
    "guarantee": "marginal",
    "promise": "a further normal image is called an anomaly with probability at most 0.01, …",
    "calibration": {
        "size": 1085,
        "groups": 1085,
        "finest_false_alarm_rate": 0.0009208103130755065,
        "error_quantiles": {"0": 0.0188, "0.5": 0.06136, "0.99": 0.31069, "1": 0.56013},
    },
    "evaluation": {
        "normal": 892,
        "anomalies": 9108,
        "false_alarm_rate": 0.0112,
        "detection_rate": 0.7836,
        "auroc": 0.9902,
        "average_precision": 0.9989,
        "kinds": {
            "3": {"count": 1010, "flagged": 0.2574, "median_score": 0.2522},
            "normal": {"count": 892, "flagged": 0.0112, "median_score": 0.0598},
        },
    },
    "fitness": "Fit for use with care: it finds 78% of the 9,108 test anomalies and calls 1.1% of the 892 normal …",
    "training": {
        "recipe": {"name": "default", "network": "dense", "hidden": [512], "kept_share": 0.5, "epochs": 60},
        "parameters": 419_120,
        "seed": 1337,
        "device": "cpu",
        "seconds": 19.339,
        "fit_images": 4065,
        "validation_images": 271,
        "loss": {"train": [0.1408, 0.053], "validation": [0.0683, 0.0539]},
    },
    "data": {
        "source": "mnist",
        "normal": "5",
        "fingerprint": "5d7e3c61cc4f05e375d53d2d808ae9cd859d945b5e6e2153f967657ca97aa528",
        "groups": 5421,
        "unreadable": 0,
        "near_duplicates": {"fit and calibration": 0, "fit and test": 2, "calibration and test": 0},
    },
    "files": {"model.pt": {"sha256": _SHA256, "bytes": 1_690_233}},
    "libraries": {"anomaly-service": "0.3.0", "torch": "2.13.0"},
}
MODELS: Final[dict[str, Any]] = {
    "default": "mnist-5",
    "models": [CARD],
    "refused": HEALTH["refused"],
    "total": 12,
    "next": "tiles",
}
CALIBRATION: Final[dict[str, Any]] = {
    **MODEL,
    "guarantee": "marginal",
    "scores": [0.0188, 0.0191, 0.56013],
    "groups": None,
    "stops": [
        {"false_alarm_rate": 0.0009208103130755065, "threshold": 0.5601259469985962},
        {"false_alarm_rate": 0.01, "threshold": 0.32096996903419495},
        {"false_alarm_rate": 0.5, "threshold": 0.06136224418878555},
    ],
}
DRIFT: Final[dict[str, Any]] = {
    **MODEL,
    "verdict": "changed",
    "scores": "higher",
    "since": "2026-11-24T09:12:44.103Z",
    "window": 200,
    "false_alarm_probability": 0.001,
    "pictures": 57,
    "windows": 31,
    "alarms": 2,
    "last": {
        "at": "2026-11-24T09:20:05.871Z",
        "statistic": 24.31,
        "limit": 9.133,
        "p_value": 1e-9,
        "mean_p_value": 0.287,
    },
    "limits": "Only scores are compared. Real anomalies also count as a change if they are more than …",
}
ENCODED_IMAGES: Final = {
    "images": [{"data": "iVBORw0KGgo…", "filename": "five.png"}, {"data": _PNG_URI, "filename": "seven.png"}]
}
LABEL: Final[dict[str, Any]] = {
    "id": "jRkw2nXv0mK9o3xk1b7qzVsibW5pc3QtNSIsIjIwMjYxMTIzVDIyMjAwMVotOTFmNTdjIixd",
    "verdict": "normal",
    "filename": "five.png",
    "comment": "dust on the lens",
    "operator": "Kim",
}
KEPT_LABEL: Final[dict[str, Any]] = {
    "model": MODEL,
    "score": 0.1521,
    "said": "anomaly",
    "verdict": "normal",
    "labelled_at": "2026-11-24T09:30:12.481516Z",
    "filename": "five.png",
    "comment": "dust on the lens",
    "operator": "Kim",
    "image": "4b1f6f2c5a0e4d7f9c3a8e21d05b6c77.png",
}
KEPT_LABELS: Final[dict[str, Any]] = {"kept": True, "images_kept": True, "labels": [KEPT_LABEL]}
METRICS: Final = """\
# HELP anomaly_images_total Images scored
# TYPE anomaly_images_total counter
anomaly_images_total{model="mnist-5",verdict="normal"} 41.0
anomaly_images_total{model="mnist-5",verdict="anomaly"} 2.0
"""
REPORT: Final = '<!doctype html>\n<html lang="en">…</html>\n'
