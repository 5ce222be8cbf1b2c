"""Calibration scores and thresholds, files of the training report, and static files of the web page."""

import time

import pytest

from app.api.schemas.model_cards import CalibrationScores, ModelCard
from app.inference.bundles.manifest import CalibrationRecord
from app.inference.decisions.conformal import Calibration, finest_false_alarm_rate
from tests.support import Server, encode, gradient, make_bundle
from training.run import Published


class TestCalibration:
    def test_calibration_stops_have_the_thresholds_of_scoring(self, server: Server, trained: Published) -> None:
        answer = CalibrationScores.model_validate_json(server.client.get("/models/digits-5/calibration").content)
        manifest = trained.manifest
        assert (answer.name, answer.version, answer.guarantee) == ("digits-5", manifest.version, "marginal")
        assert answer.scores == manifest.calibration.scores
        rates = [stop.false_alarm_rate for stop in answer.stops]
        assert rates == sorted(rates)
        assert rates[0] == manifest.false_alarm_rate  # with so few scores, the finest rate has the same threshold
        assert answer.stops[0].threshold == manifest.threshold == answer.scores[-1]
        for stop in answer.stops:
            query = f"include=&false_alarm_rate={stop.false_alarm_rate!r}"
            scored = server.client.post(f"/score?{query}", files={"file": encode(gradient())}).json()
            assert scored["threshold"] == stop.threshold
        assert len({stop.threshold for stop in answer.stops}) == len(answer.stops)

    @pytest.mark.parametrize("guarantee", ["marginal", "strict"])
    def test_calibration_stops_reach_from_the_finest_rate_to_one_half(self, guarantee: str) -> None:
        manifest, _ = make_bundle("m")
        calibration = Calibration(manifest.calibration.scores)
        changed = manifest.model_copy(
            update={"guarantee": guarantee, "threshold": calibration.threshold_for(0.05, guarantee)}  # type: ignore[arg-type]
        )
        stops = CalibrationScores.of(changed).stops
        assert stops[0].false_alarm_rate == finest_false_alarm_rate(99, guarantee)  # type: ignore[arg-type]
        assert stops[-1].false_alarm_rate == 0.5
        assert (0.05, changed.threshold) in [(stop.false_alarm_rate, stop.threshold) for stop in stops]
        thresholds = [stop.threshold for stop in stops]
        assert thresholds == sorted(set(thresholds), reverse=True)

    def test_card_and_calibration_count_groups(self) -> None:
        manifest, _ = make_bundle("m")
        calibration = Calibration(manifest.calibration.scores, [image % 33 for image in range(99)])
        grouped = manifest.model_copy(
            update={"calibration": CalibrationRecord.of(calibration), "threshold": calibration.threshold_for(0.05)}
        )
        summary, answer = ModelCard.of(grouped).calibration, CalibrationScores.of(grouped)
        assert (summary.size, summary.groups, summary.finest_false_alarm_rate) == (99, 33, 1 / 34)
        assert answer.groups == calibration.groups
        assert answer.stops[0].false_alarm_rate == 1 / 34
        assert {stop.threshold for stop in answer.stops} <= set(answer.scores)
        assert all(calibration.threshold_for(s.false_alarm_rate) == s.threshold for s in answer.stops)
        plain = ModelCard.of(manifest).calibration
        assert (plain.size, plain.groups, CalibrationScores.of(manifest).groups) == (99, 99, None)

    def test_calibration_of_an_unknown_model_is_404(self, server: Server) -> None:
        assert server.client.get("/models/nothing/calibration").status_code == 404


class TestReport:
    def test_report_files_are_served_unchanged(self, server: Server, trained: Published) -> None:
        names = [name for name in trained.manifest.files if name.startswith("report/")]
        assert len(names) > 5
        for name in names:
            response = server.client.get(f"/models/digits-5/{name}")
            assert response.content == (trained.directory / name).read_bytes()
            assert response.headers["content-type"] == (
                "image/png" if name.endswith(".png") else "text/html; charset=utf-8"
            )
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["Content-Security-Policy"].startswith("sandbox;")
            tag = response.headers["ETag"]
            assert tag == f'"{trained.manifest.files[name].sha256}"'
            again = server.client.get(f"/models/digits-5/{name}", headers={"If-None-Match": tag})
            assert (again.status_code, again.content) == (304, b"")

    @pytest.mark.parametrize(
        "path",
        [
            "nothing.png", "..%2fmodel.pt", "..%2Fmanifest.json", "../model.pt", "%2e%2e%2fmodel.pt", "",
            "..%2f..%2fCURRENT", "%00", "x" * 5000,
        ],
    )  # fmt: skip
    def test_other_report_paths_are_404(self, server: Server, path: str) -> None:
        response = server.client.get(f"/models/digits-5/report/{path}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


class TestStaticFiles:
    """The files of the web page, without a browser."""

    def test_static_file_headers(self, server: Server) -> None:
        for path in ("/", "/docs", "/static/page.js", "/static/page.css", "/static/samples/five.png"):
            response = server.client.get(path)
            assert response.status_code == 200
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-cache"
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            again = server.client.get(path, headers={"If-None-Match": response.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["Content-Security-Policy"] == policy
            for wanted in ("bytes=0-3", "bytes=999999999-", "lines=?"):
                part = server.client.get(path, headers={"Range": wanted})
                assert (part.status_code, part.content) == (200, response.content)
            head = server.client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["Content-Length"] == str(len(response.content))

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "samples",
            "samples/",
            "%ff%fe",
            "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "nothing.js",
            "..%2froutes%2fpage.py",
            "../routes/page.py",
            "%00",
            "page",
            "x" * 5000,
        ],
    )
    def test_other_static_paths_are_404(self, server: Server, path: str) -> None:
        response = server.client.get(f"/static/{path}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"

    def test_static_files_are_counted_under_their_route(self, server: Server) -> None:
        server.client.get("/static/page.css")
        deadline = time.monotonic() + 60  # a file response is counted after its file is closed in a thread
        while 'route="/static/{path:path}",status="200"' not in server.client.get("/metrics").text:
            assert time.monotonic() < deadline
