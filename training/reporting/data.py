"""What the report of a training run is drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.bundles.torchscript import ScoringModel
from app.inference.decisions.regions import Cells
from training.data.images import Images
from training.evaluation.scores import Scores
from training.model.fitting import Epoch
from training.suspects import Suspect


@dataclass(frozen=True)
class ReportData:
    """The data for the charts.

    Attributes:
        model: scored the images.
        normal: the fit part.
        epochs: all epochs, in order.
        calibration: scores of the calibration part.
        threshold: images with a higher score are anomalies.
        false_alarm_rate: α of that threshold.
        test: M images, may be empty.
        test_kinds: M names, ``normal`` or the kind of anomaly.
        test_scores: scores of ``test``.
        test_masks: M masks (H, W) of the true defects; None: it is not known where they are.
        score_is_maximum: whether the score is the maximum of the model's error map.
        suspects: the normal images with the highest scores, the highest first.
    """

    model: ScoringModel
    normal: Images
    epochs: Sequence[Epoch]
    calibration: Sequence[float]
    threshold: float
    false_alarm_rate: float
    test: Images
    test_kinds: Sequence[str]
    test_scores: Scores
    test_masks: Sequence[Cells | None]
    score_is_maximum: bool
    suspects: Sequence[Suspect]
