import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import free_port
from benchmarks.load.wrk import post_script, run_wrk
from tests.benchmarks.load.echo_server import CORE, echo

pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.skipif(
        sys.platform != "linux" or not (shutil.which("taskset") and shutil.which("wrk")),
        reason="needs Linux, taskset and wrk",
    ),
]


def test_wrk_sends_every_body_and_counts_errors(tmp_path: Path) -> None:
    port = free_port()
    bodies = [bytes(range(256)), b'quotes " and \\ and\nlines']
    check = """
wrong = 0
function response(status, headers, body)
  if #body ~= 256 then wrong = wrong + 1 end
end
"""
    with echo(tmp_path / "log", port):
        url = f"http://127.0.0.1:{port}"
        good = run_wrk(url, post_script("/", bodies, "image/png"), 2, 1, core=CORE)
        checked = run_wrk(url, post_script("/", bodies, "image/png") + check, 1, 1, core=CORE)
        failing = run_wrk(url, post_script("/", [b"fail", *bodies[:1]], "image/png"), 1, 1, core=CORE)
    assert good.errors == 0
    assert good.requests_per_s > 10
    assert 0 < good.p50_ms <= good.p99_ms < 1000
    assert checked.errors == pytest.approx(checked.requests / 2, abs=2)  # every second answer, at any speed
    assert failing.errors == pytest.approx(failing.requests / 2, abs=2)


def test_wrk_failure_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="wrk failed"):
        run_wrk("http://127.0.0.1:1", "", 1, 1, core=CORE)
