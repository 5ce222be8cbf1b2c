"""TorchServe: a custom handler that scores the requests of a batch in one forward pass."""

from pathlib import Path

from anomaly import Model
from ts.torch_handler.base_handler import BaseHandler


class AnomalyHandler(BaseHandler):
    """Raw image files → answers; TorchServe turns them into JSON."""

    def initialize(self, context):
        """Loads the model from the unpacked archive."""
        self.model = Model(Path(context.system_properties["model_dir"]))
        self.initialized = True

    def handle(self, data, context):  # noqa: ARG002  TorchServe's signature
        """A batch of requests → as many answers."""
        return self.model.score([self.model.decode(bytes(row.get("data") or row.get("body"))) for row in data])
