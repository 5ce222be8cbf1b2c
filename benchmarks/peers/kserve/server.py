"""KServe: a custom predictor on the ModelServer, with one worker. The Python SDK has no batching."""

import argparse

import kserve
from anomaly import Model


class AnomalyModel(kserve.Model):
    """V1 protocol; ``predict`` receives a body that is not JSON as bytes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.load()

    def load(self) -> bool:
        """Loads the model, which makes the server ready."""
        self.model = Model()
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002  KServe's signature
        """Image file → answer."""
        return self.model.score([self.model.decode(payload)])[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    options, _ = parser.parse_known_args()
    kserve.ModelServer(workers=1).start([AnomalyModel(options.model_name)])
