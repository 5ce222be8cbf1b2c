"""Asks a server with KServe's own client; runs in whichever environment has the ``kserve`` package.

Arguments: the server's address, a model, a file with images (N, C, H, W) as NumPy saved them, a false-alarm rate.
Prints what the client understood, as JSON.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def ask(url: str, model: str, file: str, rate: str) -> dict[str, Any]:
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
            await client.infer(url, request(binary=True), model_name="nothing")
            refusal = ""
        except httpx.HTTPStatusError as error:
            refusal = str(error)
        wanted = [RequestedOutput("score", {"binary_data": True}), RequestedOutput("is_anomaly")]
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, model),
            "nothing_ready": await client.is_model_ready(url, "nothing"),
            "refusal": refusal,
            "json": await infer(request(binary=False)),
            "binary": await infer(request(binary=True, binary_data_output=True)),
            "mixed": await infer(request(binary=True, outputs=wanted, false_alarm_rate=float(rate))),
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(*sys.argv[1:]))))
