"""The slider that limits false ones among the alarms: Benjamini-Hochberg over all images of the list."""

import csv
import io
import random
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.false_discovery import largest_flagged
from app.inference.decisions.conformal import Calibration
from tests.api.conftest import Visit
from tests.api.page.conftest import file, score_files, serious_violations, verdict_of
from tests.api.page.station import Station, enter, png_of

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients

IMAGES = {f"{number}.png": png_of(number, spot=number < 10) for number in range(30)}


def test_verdicts_are_those_of_one_request_with_all_images(visit: Visit, station: Station) -> None:
    page = visit(of=station.server, accept_downloads=True)
    with_key = {"X-API-Key": "key"}
    enter(page)
    answered: list[str] = []
    page.on("response", lambda response: answered.append(response.url))
    score_files(page, *(file(name, data) for name, data in IMAGES.items()))
    assert len([url for url in answered if "/score?" in url]) > 1  # no request had all images
    answered.clear()
    page.check("#limit-discoveries")
    slider, flagged = page.locator("#sensitivity"), []
    slider.press("Home")
    for _ in range(int(slider.get_attribute("max") or "nan") + 1):
        share = re.search(r"\((.+)%\)", page.locator("#rate").inner_text())
        assert share is not None
        answer = station.server.client.post(
            "/score",
            params={"include": "", "fdr": float(share[1]) / 100},
            files=[("file", (name, data)) for name, data in IMAGES.items()],
            headers=with_key,
        ).json()
        shown = verdict_of(page)
        assert shown == {each["filename"]: each["verdict"] for each in answer["results"]}
        assert float(page.locator("#number-threshold").inner_text()) == pytest.approx(answer["threshold"], rel=1e-3)
        flagged.append(list(shown.values()).count("anomaly"))
        expect(page.locator("#rule")).to_contain_text("The 30 scored images are decided together")
        slider.press("ArrowRight")
    assert flagged[0] >= 10
    assert flagged[-1] == 0
    expect(page.locator("#rule")).to_contain_text("at least 25 of them must be more unusual")  # 30 / (61 · 2%)
    assert [url for url in answered if "/score?" in url] == []
    assert serious_violations(page) == []

    slider.press("Home")
    for choice, rule, filled in (
        ("discoveries", "false discovery rate", {"fdr": "0.5"}),
        ("alarms", "false alarm rate", {"false_alarm_rate": "0.05"}),
    ):
        page.check(f"#limit-{choice}")
        with page.expect_download() as downloading:
            page.click("#download")
        rows = list(csv.DictReader(io.StringIO(Path(downloading.value.path()).read_text("utf-8"), newline="")))
        assert {row["rule"] for row in rows} == {rule}
        assert {key: value for key in ("fdr", "false_alarm_rate") if (value := rows[0][key])} == filled
        assert {row["name"]: row["verdict"] for row in rows} == verdict_of(page)
    expect(page.locator("#rule")).to_have_text(
        "Of normal images, at most 1 in 20 raises an alarm. Each image is decided by itself."
    )


def test_page_decides_as_the_service_does_for_any_p_values_and_groups(visit: Visit, station: Station) -> None:
    page = visit(of=station.server)
    draw = random.Random(3)
    cases = []
    for size in (1, 4, 19, 60):
        for groups in (None, [draw.randrange(size // 2 + 1) for _ in range(size)]):
            calibration = Calibration([round(draw.gauss(0, 1), 1) for _ in range(size)], groups)
            scores = [draw.choice([*calibration.scores, draw.gauss(0.5, 1)]) for _ in range(30)]
            p_values = [calibration.p_value(score) for score in scores]
            for rate in (0.05, 0.2, 0.5, 0.9):
                largest = largest_flagged(p_values, rate)
                expected = [largest, None if largest is None else calibration.threshold_for(largest)]
                cases.append(([calibration.scores, calibration.groups, p_values, rate], expected))
    decided = page.evaluate(
        """async cases => {
            const { Calibration, largestFlagged } = await import("/static/page/sensitivity/false_discovery.js");
            return cases.map(([scores, groups, pValues, rate]) => {
                const largest = largestFlagged(pValues, rate);
                return [largest, largest === null ? null : new Calibration({ scores, groups }).thresholdFor(largest)];
            });
        }""",
        [case for case, _ in cases],
    )
    assert decided == [expected for _, expected in cases]
    assert {None} < {largest for largest, _ in decided}
