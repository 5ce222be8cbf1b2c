"""LitServe: a LitAPI with dynamic batching and one worker on the CPU."""

import argparse
import base64

import litserve
from anomaly import MAX_BATCH, Model

BATCH_TIMEOUT_S = 0.002


class AnomalyAPI(litserve.LitAPI):
    """JSON with an image file in base64 → answer."""

    def setup(self, device):  # noqa: ARG002  LitServe's signature
        """Loads the model in the worker process."""
        self.model = Model()

    def decode_request(self, request):
        """One request → one tensor."""
        return self.model.decode(base64.b64decode(request["image"]))

    def batch(self, inputs):
        """Keeps the list; ``Model`` stacks the tensors."""
        return inputs

    def predict(self, images):
        """One forward pass."""
        return self.model.score(images)

    def unbatch(self, outputs):
        """One answer per request."""
        return outputs

    def encode_response(self, output):
        """LitServe converts the answer to JSON."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    api = AnomalyAPI(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=parser.parse_args().port, num_api_servers=1, generate_client_file=False)
