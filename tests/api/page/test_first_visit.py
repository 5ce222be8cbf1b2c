"""The first visit with a cold cache, as Chromium measures it: what the first paint waits for, and what moves later."""

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from app.api.routes import page as page_route
from tests.api.conftest import PHONE, Visit
from tests.api.page.conftest import file, wait_until_scored
from tests.api.page.station import Station, enter, png_of

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients

MOST_BLOCKING_REQUESTS = 3
MOST_BLOCKING_BYTES = 32 * 1024
MOST_SHIFT = 0.01

# Installed before the page: entries of a load that is over are not kept for ever.
OBSERVE = """
    window.measured = { shift: 0, moved: [] };
    new PerformanceObserver(list => {
        for (const entry of list.getEntries()) {
            measured.shift += entry.value;
            measured.moved.push(...entry.sources.map(({ node }) => node?.id || node?.className || node?.nodeName));
        }
    }).observe({ type: "layout-shift", buffered: true });
"""


def measured(page: Page) -> dict[str, Any]:
    """Shifts, with what moved, first paint in ms, and the resources that the first paint waited for."""
    found: dict[str, Any] = page.evaluate(
        """() => new Promise(resolve => requestAnimationFrame(() => setTimeout(() => {
            const resources = performance.getEntriesByType("resource");
            const isBlocking = entry => entry.renderBlockingStatus === "blocking";
            resolve({
                ...measured,
                paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
                blocking: resources.filter(isBlocking).map(({ name }) => new URL(name).pathname),
                bytes: resources.filter(isBlocking).reduce((sum, entry) => sum + entry.transferSize, 0),
                cached: resources.filter(({ transferSize }) => transferSize === 0).length,
                modules: resources.map(({ name }) => new URL(name).pathname).filter(path => path.endsWith(".js")),
            });
        })))"""
    )
    return found


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_first_paint_waits_for_little_and_nothing_moves_when_results_arrive(
    visit: Visit, station: Station, options: dict[str, Any]
) -> None:
    page = visit("/health/live", of=station.server, **options)
    page.add_init_script(OBSERVE)
    page.goto(f"http://127.0.0.1:{station.server.port}/")
    enter(page)
    page.locator("#samples img[src] >> nth=3").wait_for()
    first = measured(page)
    print(f"first paint after {first['paint']:.0f} ms: {first['blocking']}, {first['bytes']:,} bytes")
    assert len(first["blocking"]) <= MOST_BLOCKING_REQUESTS
    assert 0 < first["bytes"] <= MOST_BLOCKING_BYTES
    assert first["shift"] < MOST_SHIFT, first["moved"]
    folder = page_route._FOLDER
    files = [folder / "page.js", *(folder / "page").rglob("*.js")]
    assert sorted(first["modules"]) == sorted(f"/static/{path.relative_to(folder).as_posix()}" for path in files)

    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/score?*", hold, times=1)
    page.set_input_files("#files", [file(f"{n}.png", png_of(n, (90, 60), spot=n < 3)) for n in range(20)])
    expect(page.locator("#rows tr.waiting")).to_have_count(20)
    expect(page.locator("#stage.filled")).to_be_visible()
    measured(page)  # on a phone, the first images bring the picture to the top
    page.evaluate("Object.assign(measured, { shift: 0, moved: [] })")
    held[0].continue_()
    wait_until_scored(page, 20)
    expect(page.locator("#map")).to_be_visible()
    assert measured(page)["shift"] < MOST_SHIFT, measured(page)["moved"]
