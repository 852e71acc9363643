"""A real browser for tests, where one is installed."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; without one the test is skipped, or fails where SFVQA_REQUIRE_BROWSER=1."""
    if CHROMIUM is None:
        assert os.environ.get("SFVQA_REQUIRE_BROWSER") != "1", "no chromium is installed"
        pytest.skip("no chromium is installed (SFVQA_REQUIRE_BROWSER=1 makes this a failure)")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
        yield browser
