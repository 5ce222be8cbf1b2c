"""Three instances of the service behind nginx: no request fails when instances are killed or restarted."""

import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app import __main__ as command
from app.api.problems import PROBLEM_TYPES
from app.api.settings import Settings
from app.inference.bundles.store import ModelStore
from tests import warm
from tests.support import ROOT, encode, free_port, gradient, make_bundle

pytestmark = pytest.mark.no_cover  # coverage is measured in the server processes only

CONFIGURATION = (ROOT / "deploy" / "nginx" / "anomaly.conf").read_text()
QUEUE = 8
CLIENTS = 4
FAIL_TIMEOUT_S = float(re.findall(r"fail_timeout=(\d+)s", CONFIGURATION)[0])

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@dataclass
class Instance:
    """A server process on a fixed port."""

    store: Path
    log: Path
    port: int = field(default_factory=free_port)

    def start(self) -> None:
        variables = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ANOMALY_")},
            "ANOMALY_MODEL_STORE": str(self.store), "ANOMALY_MODEL": "m", "ANOMALY_PORT": str(self.port),
            "ANOMALY_DRAIN_S": "0.5", "ANOMALY_QUEUE_SIZE": str(QUEUE), "ANOMALY_MAX_FILES": str(QUEUE),
        }  # fmt: skip
        self.process = warm.Process("app", cwd=ROOT, env=variables, log=self.log, measure_coverage=False)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/health/ready", trust_env=False).status_code == 200:
                    return
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        assert self.process.wait(40) == 0, self.log.read_text()


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Instance]]:
    directory = tmp_path_factory.mktemp("instances")
    ModelStore(directory / "store").publish(*make_bundle("m"))
    fleet = [Instance(directory / "store", directory / f"log-{number}") for number in range(3)]
    try:
        for instance in fleet:
            instance.start()
        for instance in fleet:
            instance.wait()
        yield fleet
    finally:
        for instance in fleet:
            with contextlib.suppress(AttributeError):
                instance.process.kill()
                instance.process.wait()


@contextlib.contextmanager
def running_nginx(directory: Path, ports: list[int]) -> Iterator[str]:
    """The shipped configuration with other addresses, included by a main file like Debian's."""
    listen = free_port()
    site = CONFIGURATION.replace("listen 8000;", f"listen 127.0.0.1:{listen};")
    for shipped, port in zip((8001, 8002, 8003), ports, strict=True):
        site = site.replace(f"server 127.0.0.1:{shipped} ", f"server 127.0.0.1:{port} ")
    (directory / "site.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off;\nuser {getpass.getuser()};\npid {directory}/pid;\nworker_processes 1;\n"
        "events { worker_connections 256; }\n"
        f"http {{\naccess_log off;\n{temporary}include {directory}/site.conf;\n}}\n"
    )
    log = directory / "error.log"
    process = subprocess.Popen(
        ["nginx", "-e", log, "-c", directory / "nginx.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{listen}"
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url + "/metrics", trust_env=False)
                break
            time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def url(instances: list[Instance], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_nginx(tmp_path_factory.mktemp("nginx"), [each.port for each in instances]) as address:
        yield address


class Load:
    """Clients that send images in a loop, without retries."""

    def __init__(self, url: str, image: bytes, clients: int, *, pause_s: float) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._image, self._pause_s = url, image, pause_s
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _send(self) -> None:
        with httpx.Client(base_url=self._url, timeout=50, trust_env=False) as client:
            while not self._end.is_set():
                try:
                    answer = client.post("/score", content=self._image, headers={"Content-Type": "image/png"})
                    scored = answer.status_code == 200 and answer.json()["results"][0]["status"] == "scored"
                    self.outcomes["scored" if scored else f"{answer.status_code} {answer.headers}"] += 1
                except httpx.TransportError as error:
                    self.outcomes[repr(error)] += 1
                time.sleep(self._pause_s)

    def wait_for_more(self, answers: int) -> None:
        """Waits until this many further requests are answered."""
        goal, deadline = self.outcomes.total() + answers, time.monotonic() + 60
        while self.outcomes.total() < goal:
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(0.02)


@needs_nginx
class TestNginx:
    def test_no_request_fails_when_an_instance_is_killed(self, instances: list[Instance], url: str) -> None:
        """The instance is paused before it is killed, so that it has unanswered requests."""
        killed = instances[0]
        with Load(url, encode(gradient(64, 64)), CLIENTS, pause_s=0.01) as load:
            load.wait_for_more(50)
            killed.process.send_signal(signal.SIGSTOP)
            time.sleep(0.7)  # within milliseconds, it receives a request
            killed.process.kill()
            killed.process.wait()
            load.wait_for_more(100)
        killed.start()
        killed.wait()
        assert set(load.outcomes) == {"scored"}, load.outcomes

    def test_no_request_fails_during_a_rolling_restart(self, instances: list[Instance], url: str) -> None:
        with Load(url, encode(gradient(64, 64)), 2, pause_s=0.02) as load:
            for instance in instances[1:]:
                time.sleep(FAIL_TIMEOUT_S)  # the previous instance has just become ready
                load.wait_for_more(20)
                instance.stop()
                instance.start()
                instance.wait()
            load.wait_for_more(20)
        assert set(load.outcomes) == {"scored"}, load.outcomes

    def test_429_is_not_retried(self, instances: list[Instance], tmp_path: Path) -> None:
        """The client gets 429 with Retry-After. All three addresses are the same instance here."""
        with (
            running_nginx(tmp_path, [instances[0].port] * 3) as address,
            Load(address, encode(gradient(2000, 2000)), 2 * QUEUE, pause_s=0) as load,
        ):
            load.wait_for_more(4 * QUEUE)
        refused = [outcome for outcome in load.outcomes if outcome.startswith("429")]
        assert refused
        assert {"scored", *refused} == set(load.outcomes), load.outcomes
        assert all("'retry-after': '1'" in outcome and "application/problem+json" in outcome for outcome in refused)

    def test_body_limit_equals_that_of_the_service(self, url: str) -> None:
        """At the limit the service answers; with one more byte, nginx answers with the same problem type."""
        largest = Settings.model_fields["max_body_bytes"].default
        headers = {"Content-Type": "image/png", "X-Request-ID": "one-too-many"}
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            assert client.post("/score", content=bytes(largest), headers=headers).status_code == 422
            refusal = client.post("/score", content=bytes(largest + 1), headers=headers)
        assert refusal.status_code == 413
        assert refusal.headers["content-type"] == "application/problem+json"
        assert refusal.json()["instance"] == "one-too-many"

    def test_metrics_are_not_public(self, url: str) -> None:
        assert httpx.get(url + "/metrics", trust_env=False).status_code == 404

    def test_no_instance_is_a_502_problem_document(self, tmp_path: Path) -> None:
        with running_nginx(tmp_path, [free_port() for _ in range(3)]) as address:
            answer = httpx.get(address + "/health", trust_env=False)
        assert answer.status_code == 502
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"


def directive(name: str) -> int:
    """The value of a directive, in seconds or MiB."""
    found = re.search(rf"^ *{name} (\d+)[sm];", CONFIGURATION, re.MULTILINE)
    assert found, name
    return int(found[1])


def test_limits_match_the_service() -> None:
    assert directive("client_max_body_size") * 2**20 == Settings.model_fields["max_body_bytes"].default
    timeout = Settings.model_fields["request_timeout_s"].default
    for direction in ("read", "send"):
        assert timeout < directive(f"proxy_{direction}_timeout") <= timeout + 10


def test_nginx_closes_idle_connections_first() -> None:
    """nginx closes them after 60 s by default. If the service closed one first, a request could fail."""
    setting = re.search(r"^ *keepalive_timeout (\d+)s;", CONFIGURATION, re.MULTILINE)
    assert (int(setting[1]) if setting else 60) < command._KEEP_ALIVE_S


def test_problem_documents_match_the_service() -> None:
    documents = [json.loads(text) for text in re.findall(r"return \d+ '(\{.*\})';", CONFIGURATION)]
    assert {document["status"] for document in documents} == {413, 502, 504}
    of_service = {(kind.type, kind.title, kind.status) for kind in PROBLEM_TYPES.values()}
    for document in documents:
        if document["status"] != 502:  # the service itself never answers 502
            assert (document["type"], document["title"], document["status"]) in of_service
