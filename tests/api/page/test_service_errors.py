"""The page while the service is busy, unreachable, without a model or switching versions."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.inference.bundles.store import ModelStore
from tests.api.conftest import Visit
from tests.api.page.conftest import FIVE, Digits, draw_with_mouse, file, score_files, verdicts, wait_until_scored
from tests.support import encode, gradient, make_bundle, running_server

pytestmark = pytest.mark.no_cover  # the server is measured, not its clients


class TestServiceErrors:
    def test_busy_service_is_retried_after_retry_after(self, visit: Visit, store: Path, tmp_path: Path) -> None:
        large = encode(gradient(3000, 3000))
        with running_server(store, tmp_path / "log", model="digits-5", max_files=4, queue_size=4) as server:
            page = visit(of=server)
            expect(page.locator("#open-card")).to_be_enabled()
            loading = True

            def load(_: int) -> None:
                while loading:
                    server.client.post("/score?include=", files=[("file", large)] * 4)

            with ThreadPoolExecutor(4) as pool:
                requests = [pool.submit(load, number) for number in range(4)]
                try:
                    with page.expect_response(lambda response: response.status == 429) as rejected:
                        for _ in range(20):
                            page.click("#samples button >> nth=0")
                    assert int(rejected.value.headers["retry-after"]) >= 1
                    expect(page.locator("#notice")).to_contain_text("Trying again in")
                finally:
                    loading = False
                for each in requests:
                    each.result()
            wait_until_scored(page, 20)
            expect(page.locator("#notice")).to_be_hidden()
            assert set(verdicts(page)) <= {"normal", "anomaly"}

    def test_images_wait_while_offline_and_are_sent_afterwards(self, visit: Visit, digit_files: Digits) -> None:
        page = visit()
        expect(page.locator("#open-card")).to_be_enabled()
        page.context.set_offline(True)
        page.set_input_files("#files", [file(f"{number}.png", digit_files[5][number]) for number in range(20)])
        expect(page.locator("#notice")).to_contain_text("No response from the service.")
        expect(page.locator("#notice")).to_contain_text("20 images wait and will be sent")
        expect(page.locator("#rows tr.waiting")).to_have_count(20)
        draw_with_mouse(page, FIVE[1])
        expect(page.locator("#rows tr.waiting")).to_have_count(21)
        page.context.set_offline(False)
        expect(page.locator("#rows tr.scored")).to_have_count(21)
        expect(page.locator("#notice")).to_be_hidden()

    def test_restarted_service_gets_the_images_that_wait(
        self, visit: Visit, store: Path, tmp_path: Path, digit_files: Digits
    ) -> None:
        with running_server(store, tmp_path / "first", model="digits-5") as server:
            page = visit(of=server)
            score_files(page, file("first.png", digit_files[5][0]))
        page.set_input_files("#files", [file(f"{number}.png", digit_files[5][number]) for number in range(3)])
        expect(page.locator("#notice")).to_contain_text("3 images wait")
        with running_server(store, tmp_path / "second", model="digits-5", port=server.port):
            expect(page.locator("#rows tr.scored")).to_have_count(4)
            expect(page.locator("#notice")).to_be_hidden()

    def test_page_follows_the_store_from_empty_to_the_second_version(self, visit: Visit, tmp_path: Path) -> None:
        store = ModelStore(tmp_path / "store")
        with running_server(store.root, tmp_path / "log", ready=False, model="m") as server:
            page = visit(of=server)
            expect(page.locator(".banner")).to_contain_text("There is no other model")
            store.publish(*make_bundle("m", seed=1))
            server.wait_for("/health/ready", 200)
            page.click(".banner button")
            expect(page.locator(".banner")).to_have_count(0)
            image = encode(gradient())
            score_files(page, file("a.png", image))
            old = page.locator("#number-threshold").inner_text()
            manifest, files = make_bundle("m", seed=2)
            store.publish(manifest, files)
            deadline = time.monotonic() + 15
            while server.client.get("/health").json()["model"]["version"] != manifest.version:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            score_files(page, file("b.png", image))
            # Thresholds and scores of the old version are replaced, also for the first image.
            expect(page.locator("#number-threshold")).not_to_have_text(old)
            expect(page.locator("#rows tr.waiting")).to_have_count(0)
            first, second = page.locator("#rows .number:nth-child(4)").all_inner_texts()
            assert first == second
