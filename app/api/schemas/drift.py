"""Whether the images have changed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, Self

from pydantic import BaseModel, Field

from app.api.telemetry.drift_state import DriftState
from app.inference.bundles.manifest import (
    Manifest,
)
from app.inference.decisions.drift_test import (
    FALSE_ALARM_PROBABILITY,
    SMALLEST_P_VALUE,
    WINDOW,
    critical_value,
    p_value,
)

_LIMITS: Final = (
    "Only scores are compared. Real anomalies also count as a change if they are more than about one image in ten; "
    "labels are needed to distinguish the two. A change that does not affect the scores is not detected."
)


class LastWindow(BaseModel):
    """The window that was compared most recently."""

    at: datetime
    statistic: float = Field(
        description="largest log-likelihood ratio of the window against the calibration scores, at least 0"
    )
    limit: float = Field(description="a window with at least this statistic counts as changed")
    p_value: float = Field(
        description=f"probability of a statistic this large without a change; at least {SMALLEST_P_VALUE:g}"
    )
    mean_p_value: float = Field(
        description="mean p-value of the images: about 0.5 without a change, less if their scores are higher"
    )


class DriftAnswer(BaseModel):
    """Whether the scores of recent images are distributed like those of the calibration images."""

    name: str
    version: str
    verdict: Literal["too few pictures yet", "no change seen", "changed"] = Field(
        description="the result for the last window"
    )
    scores: Literal["higher", "lower"] | None = Field(description="direction of the change, if any")
    since: datetime | None = Field(description="time of the first window in the current series of changed windows")
    window: int = Field(description="number of images in a window")
    false_alarm_probability: float = Field(
        description="upper bound on the probability that a window counts as changed without a change, over the draw of "
        "the calibration images and of the window"
    )
    pictures: int = Field(description="images scored since the last window, by all workers")
    windows: int = Field(description="windows compared since this version was first served")
    alarms: int = Field(description="windows that counted as changed")
    last: LastWindow | None
    limits: str = Field(description="what this comparison cannot detect")

    @classmethod
    def of(cls, manifest: Manifest, states: Sequence[DriftState]) -> Self:
        """Combines the states of all workers for a version. Blocking."""
        compared = [(state.last, state.since) for state in states if state.last is not None]
        last, since = max(compared, key=lambda window: window[0].at, default=(None, None))
        size = manifest.calibration.effective_size
        return cls(
            name=manifest.name,
            version=manifest.version,
            verdict="too few pictures yet" if last is None else "changed" if last.changed else "no change seen",
            scores=None if last is None or not last.changed else "higher" if last.higher else "lower",
            since=since,
            window=WINDOW,
            false_alarm_probability=FALSE_ALARM_PROBABILITY,
            pictures=sum(len(state.ranks) for state in states),
            windows=sum(state.windows for state in states),
            alarms=sum(state.alarms for state in states),
            last=None
            if last is None
            else LastWindow(
                at=last.at,
                statistic=last.statistic,
                limit=critical_value(WINDOW, size),
                p_value=p_value(last.statistic, WINDOW, size),
                mean_p_value=last.mean_p_value,
            ),
            limits=_LIMITS,
        )
