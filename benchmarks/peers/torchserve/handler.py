"""TorchServe: a custom handler that scores the requests of a batch in one forward pass."""

from pathlib import Path

from anomaly import Model
from ts.torch_handler.base_handler import BaseHandler


class AnomalyHandler(BaseHandler):
    """Image files → answers, which TorchServe converts to JSON."""

    def initialize(self, context):
        """Loads the model from the extracted archive."""
        self.model = Model(Path(context.system_properties["model_dir"]))
        self.initialized = True

    def handle(self, data, context):  # noqa: ARG002  TorchServe's signature
        """A batch of requests → answers."""
        return self.model.score([self.model.decode(bytes(row.get("data") or row.get("body"))) for row in data])
