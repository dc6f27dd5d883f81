"""A trained run behind `llm serve`, in a browser: a message is typed, answered, stopped, and there after a reload."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llm.cli.main import main

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def address(tiny, tmp_path):
    """Where a run that saw two steps is served, and what the server said of it."""
    longer = [word.replace("context_length=32", "context_length=2048") for word in tiny]
    assert main(["train", *longer, "name=mine", "trainer.max_steps=2"]) == 0
    words = ["serve", f"run={tmp_path}/runs/mine", "port=0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "llm", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    told = "".join(server.stdout.readline() for _ in range(3))
    assert "warning: mine was not trained to chat" in told
    yield re.search(r"http://127\.0\.0\.1:\d+", told)[0]
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


def test_a_message_is_typed_answered_stopped_and_kept(address, browser):
    page = browser.new_page()
    page.goto(address)
    assert "mine was not trained to chat" in page.get_by_role("note").inner_text()
    page.get_by_label("Tokens at most").fill("20")
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_text("tokens,").wait_for()
    page.get_by_label("Tokens at most").fill("2000")
    page.get_by_label("Message").fill("And then?")
    page.get_by_role("button", name="Send").click()
    page.locator(".turn").nth(3).locator(".token").nth(2).wait_for(state="attached")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    turns = page.get_by_role("article").all_inner_texts()
    assert [turn.split("\n")[0] for turn in turns] == ["You", "mine", "You", "mine"]
    assert 3 <= page.locator(".turn").nth(3).locator(".token").count() < 2000
    # A page that is left frees the server, and the answer goes on from where the browser kept it.
    page.reload()
    page.get_by_text("And then?").first.wait_for()
    assert page.get_by_role("article").all_inner_texts() == turns
    page.context.close()
