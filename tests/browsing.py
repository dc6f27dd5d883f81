"""A headless Chromium for tests of the pages: what a reader sees there, and what axe-core finds wrong with it."""

import contextlib
import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
NO_CHROMIUM = "there is no Chromium: install the package chromium"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@contextlib.contextmanager
def chromium():
    """A browser that is installed on this machine; where there is none, the test is skipped."""
    api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(NO_CHROMIUM)
    with api.sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def pytest_terminal_summary(terminalreporter):
    """Say in words that nobody has looked at the pages: a skipped test is a letter among hundreds."""
    skipped = [
        report for report in terminalreporter.getreports("skipped") if NO_CHROMIUM in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(
            f"Tests of pages that did not run: {len(skipped)}; {NO_CHROMIUM}.", red=True
        )


def faults(page):
    """What axe-core finds wrong with an open page: each rule with the elements that break it."""
    from axe_playwright_python.sync_playwright import Axe

    broken = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in broken for node in rule["nodes"]]


def width_beyond(page):
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")
