"""Where no browser is installed, a run of the tests says that it has looked at no page."""

import os
import subprocess
import sys

from tests.browsing import NO_CHROMIUM

PAGES = """
import pytest
from tests.browsing import chromium

@pytest.fixture
def browser():
    with chromium() as browser:
        yield browser

def test_one(browser): pass
def test_other(browser): pass
def test_without(): pytest.skip("another reason")
"""


def test_a_run_without_chromium_says_which_tests_it_left_out(tmp_path):
    (tmp_path / "test_pages.py").write_text(PAGES)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.browsing",
        "-p",
        "no:cacheprovider",
        "test_pages.py",
    ]
    found = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert f"Tests of pages that did not run: 2; {NO_CHROMIUM}." in found.stdout
