import base64
import copy
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.errors import BenchmarkError
from benchmarks.peers.answers import require_same
from benchmarks.peers.measurement import Bench
from benchmarks.peers.servers import SHARED
from benchmarks.peers.workloads import WORKLOADS, Workload
from benchmarks.servers import SHIPPED
from tests.support import encode, gradient

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process only


def data_uri(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encode(image)).decode()


ANSWER: dict[str, Any] = {
    "model": {"name": "m", "version": "1"},
    "threshold": 0.1,
    "false_alarm_rate": 0.01,
    "results": [
        {
            "status": "scored",
            "filename": None,
            "mse": 0.02,
            "score": 0.03,
            "is_anomaly": False,
            "verdict": "normal",
            "p_value": 0.5,
            "out_of_scope": False,
            "warnings": [],
            "reconstruction": data_uri(gradient()),
        }
    ],
}
DARKER = data_uri(gradient().point(lambda level: level // 2))


def changed(**fields: Any) -> dict[str, Any]:
    answer = copy.deepcopy(ANSWER)
    answer["results"][0].update(fields)
    return answer


def test_answer_that_differs_by_rounding_is_accepted() -> None:
    require_same(changed(mse=0.02 * (1 + 5e-6), p_value=0.501), ANSWER, exact=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mse", 0.02 * (1 + 2e-5)),
        ("score", 0.031),
        ("verdict", "anomaly"),
        ("warnings", ["resized"]),
        ("p_value", 0.51),
        ("reconstruction", DARKER),
        ("reconstruction", None),
        ("additional", 1),
    ],
)
def test_different_answer_is_rejected(field: str, value: object) -> None:
    with pytest.raises(BenchmarkError, match=field):
        require_same(changed(**{field: value}), ANSWER, exact=True)


def test_missing_field_is_rejected() -> None:
    answer = changed()
    del answer["results"][0]["out_of_scope"]
    with pytest.raises(BenchmarkError, match="out_of_scope"):
        require_same(answer, ANSWER, exact=False)


def test_different_threshold_is_rejected() -> None:
    with pytest.raises(BenchmarkError, match="threshold"):
        require_same({**ANSWER, "threshold": 0.2}, ANSWER, exact=True)


def test_reduced_photograph_may_have_another_score_and_no_warnings() -> None:
    expected = changed(warnings=["resized"])
    require_same(changed(mse=0.0205, score=0.0295, reconstruction=DARKER), expected, exact=False)
    for field, value in (("mse", 0.022), ("verdict", "anomaly"), ("p_value", 0.51)):
        with pytest.raises(BenchmarkError, match=field):
            require_same(changed(**{field: value}), expected, exact=False)


@pytest.mark.skipif(not (shutil.which("taskset") and (os.cpu_count() or 1) > 1), reason="needs taskset and two cores")
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_shared_code_of_the_peers_gives_the_answer_of_the_service(workload: Workload, tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("anomaly", SHARED / "anomaly.py")
    assert specification is not None
    assert specification.loader is not None
    shared = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(shared)
    peer = shared.Model(SHIPPED.version)
    expected = Bench.of_service(tmp_path).answers(workload.images)
    answers = peer.score([peer.decode(image) for image in workload.images])
    for answer, ours in zip(answers, expected, strict=True):
        require_same(answer, ours, exact=workload.exact)
