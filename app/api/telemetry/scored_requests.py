"""Summarises the results of a request for log, metrics and drift."""

from app.api.problems import PROBLEM_TYPES
from app.api.request_state import ScoredRequest
from app.inference.serving.scoring import Results


def summarize(results: Results) -> ScoredRequest:
    """The summary of a request that scored images."""
    manifest, scored = results.bundle.manifest, results.scored
    scores = [each.score for each in scored]
    return ScoredRequest(
        model=manifest.name,
        version=manifest.version,
        calibration=results.bundle.calibration,
        anomalies=sum(map(results.point.is_anomaly, scores)),
        out_of_scope=sum(map(results.out_of_scope, scored)),
        mses=[each.mse for each in scored],
        scores=scores,
        p_values=[each.p_value for each in scored],
        rejected=[PROBLEM_TYPES[type(each.reason)].slug for each in results.rejected],
        queue_s=max([each.queue_s for each in scored], default=0.0),
        compute_s=max([each.compute_s for each in scored], default=0.0),
    )
