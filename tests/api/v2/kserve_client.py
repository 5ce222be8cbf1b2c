"""Sends requests to a server with KServe's client. Runs in an environment that has the ``kserve`` package.

Arguments: the server's address, a model, a ``.npy`` file with images (N, C, H, W), a false-alarm rate.
Prints what the client received, as JSON.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def query_server(url: str, model: str, file: str, rate: str) -> dict[str, Any]:
    images = np.load(file)
    datatype = {"float32": "FP32", "uint8": "UINT8"}[images.dtype.name]

    def request(*, binary: bool, outputs: list[RequestedOutput] | None = None, **parameters: Any) -> InferRequest:
        tensor = InferInput("image", list(images.shape), datatype)
        tensor.set_data_from_numpy(images, binary_data=binary)
        return InferRequest(
            model, [tensor], request_id="from-kserve", parameters=parameters or None, request_outputs=outputs
        )

    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:

        async def infer(sent: InferRequest) -> dict[str, Any]:
            response = await client.infer(url, sent, model_name=model)
            return {
                "id": response.id,
                "parameters": response.parameters,
                "outputs": {each.name: each.as_numpy().tolist() for each in response.outputs},
            }

        try:
            await client.infer(url, request(binary=True), model_name="unknown")
            error_text = ""
        except httpx.HTTPStatusError as error:
            error_text = str(error)
        requested = [RequestedOutput("score", {"binary_data": True}), RequestedOutput("is_anomaly")]
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, model),
            "unknown_ready": await client.is_model_ready(url, "unknown"),
            "error": error_text,
            "json": await infer(request(binary=False)),
            "binary": await infer(request(binary=True, binary_data_output=True)),
            "mixed": await infer(request(binary=True, outputs=requested, false_alarm_rate=float(rate))),
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(query_server(*sys.argv[1:]))))
