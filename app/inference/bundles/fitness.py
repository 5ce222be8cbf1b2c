"""Whether a model is fit for use, in plain words: what it finds of its test anomalies, what it misses, what helps."""

from typing import Final, NamedTuple

from app.inference.bundles.manifest import Evaluation, KindFigures, Manifest

_GOOD: Final = 0.9  # of the anomalies are found
_FAIR: Final = 0.5
_SEPARATES: Final = 0.95  # AUROC from which on only the threshold stands in the way
_EXCESS: Final = 2  # times the promised rate of false alarms
_FEW_ALARMS: Final = 3  # more than so many may be chance
_NORMAL: Final = "normal"
_MOST_KINDS: Final = 3
_UNTESTED: Final = (
    "Not tested: there were no labelled anomalies, so nobody knows what this model finds. Put some into "
    "test/anomaly/KIND/ and train again."
)
_UNKNOWN: Final = (
    "It says nothing about anomalies of other kinds, nor about images from another camera or in other light."
)


class _Rates(NamedTuple):
    """The rates at the threshold: shares of anomalies and of normal images above it."""

    found: float
    false_alarms: float | None


def fitness(manifest: Manifest) -> str:
    """Some sentences for the people who decide whether to use a model. They follow from its evaluation alone."""
    evaluation = manifest.evaluation
    if evaluation is None or not evaluation.anomalies:
        return _UNTESTED
    if evaluation.detection_rate is None:
        return (
            f"Not tested at this threshold, which was set later. {_separation(evaluation)} Score labelled anomalies "
            f"before you rely on it. {_UNKNOWN}"
        )
    rates = _Rates(evaluation.detection_rate, evaluation.false_alarm_rate)
    alarms = _too_many_alarms(evaluation, rates, manifest.false_alarm_rate)
    verdict = _verdict(rates.found, alarms=alarms)
    parts = [f"{verdict}: {_outcome(evaluation, rates)}", _missed(evaluation.kinds)]
    parts += [_advice(manifest, evaluation)] if rates.found < _GOOD else []
    if alarms:
        parts.append(
            "It raises more false alarms than promised: the normal test images are unlike those of the calibration. "
            "Add normal images like them."
        )
    return " ".join(filter(None, [*parts, _UNKNOWN]))


def _verdict(found: float, *, alarms: bool) -> str:
    if found < _FAIR:
        return "Not fit for use"
    return "Fit for use with care" if found < _GOOD or alarms else "Fit for use"


def _outcome(evaluation: Evaluation, rates: _Rates) -> str:
    if rates.found < _FAIR:
        counted = f"it misses {1 - rates.found:.0%} of the {evaluation.anomalies:,} test anomalies"
    else:
        counted = f"it finds {rates.found:.0%} of the {evaluation.anomalies:,} test anomalies"
    if rates.false_alarms is None:
        return f"{counted}; there were no normal test images."
    return f"{counted} and calls {rates.false_alarms:.1%} of the {evaluation.normal:,} normal test images anomalies."


def _missed(kinds: dict[str, KindFigures]) -> str:
    """The kinds of which most are missed."""
    missed = sorted((each.flagged, kind) for kind, each in kinds.items() if kind != _NORMAL and each.flagged < _FAIR)
    if not missed or len(kinds) <= 2:  # noqa: PLR2004  normal and one kind: the rate says it all
        return ""
    listed = ", ".join(f"{kind} ({1 - flagged:.0%} missed)" for flagged, kind in missed[:_MOST_KINDS])
    return f"It misses most of: {listed}{', and others' if len(missed) > _MOST_KINDS else ''}."


def _separation(evaluation: Evaluation) -> str:
    if evaluation.auroc is None:
        return ""
    return f"An anomaly had a higher score than a normal image in {evaluation.auroc:.0%} of the pairs."


def _advice(manifest: Manifest, evaluation: Evaluation) -> str:
    recipe = str(manifest.training.recipe.get("name", ""))
    if evaluation.auroc is not None and evaluation.auroc >= _SEPARATES:
        return (
            "The scores separate well, so the threshold is the limit: try a higher --false-alarm-rate, or more normal "
            "images to calibrate on."
        )
    larger = f"a larger --size than {manifest.input.height}x{manifest.input.width}"
    other = larger if recipe == "features" else f"--recipe features, {larger}"
    return f"Try {other}, or more normal images; make sure that the images show the defects at all."


def _too_many_alarms(evaluation: Evaluation, rates: _Rates, promised: float) -> bool:
    alarms = (rates.false_alarms or 0) * evaluation.normal
    return alarms > max(_FEW_ALARMS, _EXCESS * promised * evaluation.normal)
