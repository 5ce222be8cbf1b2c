"""From scores to verdicts, the same for every route that gives them."""

from collections.abc import Sequence
from typing import Literal

from app.api.problems import KINDS
from app.api.telemetry.request_log import Scoring
from app.inference.errors import InferenceError
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Scored


def verdict(scored: Scored, threshold: float) -> Literal["anomaly", "normal"]:
    """What is said of an image."""
    return "anomaly" if scored.score > threshold else "normal"


def account(served: ServedModel, threshold: float, outcomes: Sequence[Scored | InferenceError]) -> Scoring:
    """What the metrics and the log are told of a request."""
    manifest = served.bundle.manifest
    scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
    return Scoring(
        model=manifest.name,
        version=manifest.version,
        calibration=served.bundle.calibration,
        anomalies=[verdict(each, threshold) for each in scored].count("anomaly"),
        mses=[each.mse for each in scored],
        scores=[each.score for each in scored],
        p_values=[each.p_value for each in scored],
        rejected=[KINDS[type(outcome)].slug for outcome in outcomes if not isinstance(outcome, Scored)],
        queue_s=max([each.queue_s for each in scored], default=0.0),
        compute_s=max([each.compute_s for each in scored], default=0.0),
    )
