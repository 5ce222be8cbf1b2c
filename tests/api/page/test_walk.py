"""An operator decides on fifty parts by the keyboard alone, and every decision is kept."""

import pytest
from playwright.sync_api import expect

from tests.api.conftest import Visit
from tests.api.page.conftest import file, score_files
from tests.api.page.station import Station, enter, png_of, wait_for_labels

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients

PARTS = {f"{'anomaly' if number % 5 == 0 else 'normal'}-{number}.png": number for number in range(50)}
"""Names that tell the operator what the parts really are."""


def test_fifty_parts_are_decided_with_fifty_keys_and_kept_after_a_reload(visit: Visit, station: Station) -> None:
    page = visit(of=station.server)
    enter(page)
    page.evaluate("localStorage.setItem('anomaly-operator', 'Kim')")  # as on every day but the first
    score_files(page, *(file(name, png_of(number, spot=number % 5 == 0)) for name, number in PARTS.items()))
    keys: list[str] = []
    walked: list[str] = []

    def press(key: str) -> None:
        page.keyboard.press(key)
        keys.append(key)

    def looked_at() -> tuple[str, str]:
        name, said = page.locator("#result-heading, #verdict-title").all_text_contents()
        return name, said.lower()

    for _ in PARTS:
        name, said = looked_at()
        walked.append(name)
        press("j" if name.startswith(said) else "f")
    assert len(keys) == 50
    assert sorted(walked) == sorted(PARTS)  # none twice, none left out
    expect(page.locator("#summary")).to_contain_text("all decided")
    labels = wait_for_labels(page, station, 50)
    assert {label["filename"]: label["verdict"] for label in labels} == {name: name.partition("-")[0] for name in PARTS}
    assert {label["operator"] for label in labels} == {"Kim"}
    assert {label["image"] for label in labels} == {path.name for path in station.images.iterdir()}

    assert looked_at()[0] == walked[-1]
    before = page.locator(".mark", has_text="wrong").count()
    press("Backspace")  # a slip with the part before it: back, and the other key
    name, _ = looked_at()
    assert name == walked[-2]
    press("f" if keys[48] == "j" else "j")
    expect(page.locator(".mark", has_text="wrong")).to_have_count(before + (1 if keys[48] == "j" else -1))
    last = wait_for_labels(page, station, 51)[-1]
    assert last["filename"] == name
    assert last["verdict"] != name.partition("-")[0]

    expect(page.locator(".mark", has_text="…")).to_have_count(0)  # the page knows that all are stored

    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    page.reload()
    expect(page.locator(".mark:not(:empty)")).to_have_count(50)
    expect(page.locator("#summary")).to_contain_text("all decided")
    assert [each for each in sent if each.startswith("POST")] == []  # neither scored nor labelled again


def test_selection_stays_while_further_images_are_scored(visit: Visit, station: Station) -> None:
    """A key must decide on the part that the operator sees, not on one that has just come in its place."""
    page = visit(of=station.server)
    enter(page)
    page.evaluate("localStorage.setItem('anomaly-operator', 'Kim')")
    first = [file(f"first-{number}.png", png_of(number, spot=number == 3)) for number in range(16)]
    later = [file(f"later-{number}.png", png_of(50 + number, spot=True)) for number in range(4)]
    page.set_input_files("#files", first + later)
    expect(page.locator("#rows tr")).to_have_count(20)
    expect(page.locator("#rows tr.waiting")).to_have_count(0)
    expect(page.locator("#result-heading")).to_have_text("first-3.png")
    page.locator("#boxes").click()  # a box has no use for letters
    page.keyboard.press("j")
    expect(page.locator("tr", has_text="first-3.png").locator(".mark")).to_have_text("✓ right")
