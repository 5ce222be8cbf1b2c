"""The servers that are compared: how to start them, and how to send them an image.

The code of each peer is in ``benchmarks/peers/<peer>/``.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load.server_process import free_port
from benchmarks.servers import SHIPPED

SERVERS: Final = Path(__file__).parent
SHARED: Final = SERVERS / "shared"

_MODEL: Final = SHIPPED.folder.name

Answer = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A server to measure.

    Attributes:
        name: of its folder, its environment and its package.
        command: port → command line; the program is taken from the server's environment, if it is there.
        path: for POST requests with an image.
        content_type: of a request.
        body: image file → body of a request.
        answer: JSON of a response → the answer in it.
        variables: port → environment variables.
        prepare: scratch folder → a command that runs once before the first start; the server finds the folder in
            ``$BENCHMARK_SCRATCH``.
        needs: a program that must be on the path, and how to install it.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    path: str
    content_type: str = "application/json"
    body: Callable[[bytes], bytes] = lambda file: file
    answer: Callable[[Any], Answer] = dict
    variables: Callable[[int], Mapping[str, str]] = lambda _: {}
    prepare: Callable[[Path], Sequence[str]] | None = None
    needs: tuple[str, str] | None = None


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()


OURS: Final = Target(
    name="ours",
    command=lambda port: ["python", "-m", "app", "--port", str(port)],
    path="/score",
    content_type="application/octet-stream",
)

PEERS: Final = {
    peer.name: peer
    for peer in (
        Target(
            name="litserve",
            command=lambda port: ["python", "server.py", "--port", str(port)],
            path="/predict",
            body=lambda file: json.dumps({"image": _base64(file)}).encode(),
        ),
        Target(
            name="bentoml",
            command=lambda port: ["bentoml", "serve", "service:Anomaly", "--host", "127.0.0.1", "--port", str(port)],
            path="/score",
            body=lambda file: json.dumps({"images": [_base64(file)]}).encode(),
            answer=lambda envelope: dict(envelope[0]),
            variables=lambda _: {"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Target(
            name="mlserver",
            command=lambda _: ["mlserver", "start", "."],
            path=f"/v2/models/{_MODEL}/infer",
            body=lambda file: json.dumps(
                {
                    "inputs": [
                        {
                            "name": "image",
                            "shape": [1, 1],
                            "datatype": "BYTES",
                            "parameters": {"content_type": "base64"},
                            "data": [_base64(file)],
                        }
                    ]
                }
            ).encode(),
            answer=lambda envelope: dict(json.loads(envelope["outputs"][0]["data"][0])),
            variables=lambda port: {
                "MLSERVER_HTTP_PORT": str(port),
                "MLSERVER_GRPC_PORT": str(free_port()),
                "MLSERVER_METRICS_PORT": str(free_port()),
            },
        ),
        Target(
            name="kserve",
            command=lambda port: [
                "python", "server.py", "--http_port", str(port), "--enable_grpc", "false", "--model_name", _MODEL,
            ],
            path=f"/v1/models/{_MODEL}:predict",
            content_type="image/png",  # it reads application/octet-stream as a tensor
        ),
        Target(
            name="torchserve",
            command=lambda _: ["sh", "serve.sh", _MODEL],
            path=f"/predictions/{_MODEL}",
            content_type="application/octet-stream",
            variables=lambda port: {
                "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{port}",
                "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{free_port()}",
                "TS_METRICS_ADDRESS": f"http://127.0.0.1:{free_port()}",
            },
            prepare=lambda scratch: [
                "torch-model-archiver", "--model-name", _MODEL, "--version", "1.0", "--force",
                "--serialized-file", str(SHIPPED.version / "model.pt"),
                "--handler", "handler.py",
                "--extra-files", f"{SHIPPED.version / 'manifest.json'},{SHARED / 'anomaly.py'}",
                "--config-file", "model-config.yaml",
                "--export-path", str(scratch),
            ],
            needs=("java", "needs Java 11 or newer; on Debian: apt-get install default-jre-headless"),
        ),
    )
}  # fmt: skip
