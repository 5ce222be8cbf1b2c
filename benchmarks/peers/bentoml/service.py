"""BentoML: a Service with adaptive batching and one worker."""

import base64

import bentoml
from anomaly import MAX_BATCH, Model


@bentoml.service(workers=1)
class Anomaly:
    """JSON with a list of image files in base64 → list of answers."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def score(self, images: list[str]) -> list[dict]:
        """A batch, collected from requests with one image file each → answers."""
        return self.model.score([self.model.decode(base64.b64decode(image)) for image in images])
