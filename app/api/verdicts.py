"""From scores to verdicts, the same for every route that gives them."""

from collections.abc import Sequence
from typing import Literal

from app.api.ledger import Judgement, Scoring
from app.api.problems import KINDS
from app.inference.errors import InferenceError
from app.inference.scorer import Scored
from app.inference.serving import ServedModel


def verdict(scored: Scored, threshold: float) -> Literal["anomaly", "normal"]:
    """What is said of a picture."""
    return "anomaly" if scored.score > threshold else "normal"


def account(served: ServedModel, threshold: float, outcomes: Sequence[Scored | InferenceError]) -> Scoring:
    """What the metrics and the log are told of a request."""
    manifest = served.bundle.manifest
    judgements, rejected, queue_s, compute_s = list[Judgement](), list[str](), 0.0, 0.0
    for outcome in outcomes:
        if isinstance(outcome, Scored):
            judgements.append(Judgement(verdict(outcome, threshold), outcome.mse, outcome.p_value, outcome.score))
            queue_s = max(queue_s, outcome.queue_s)
            compute_s = max(compute_s, outcome.compute_s)
        else:
            rejected.append(KINDS[type(outcome)].slug)
    calibration = served.bundle.calibration
    return Scoring(manifest.name, manifest.version, calibration, judgements, rejected, queue_s, compute_s)
