"""MLServer: a custom inference runtime with adaptive batching, in the process of the server."""

import json

from anomaly import Model
from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class AnomalyRuntime(MLModel):
    """V2 protocol: a BYTES tensor of image files in base64 → a BYTES tensor of answers in JSON."""

    async def load(self) -> bool:
        """Loads the model, which makes the server ready."""
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch of image files → answers."""
        files = Base64Codec.decode_input(payload.inputs[0])
        answers = self.model.score([self.model.decode(file) for file in files])
        output = StringCodec.encode_output("answer", [json.dumps(answer) for answer in answers], use_bytes=False)
        return InferenceResponse(model_name=self.name, outputs=[output])
