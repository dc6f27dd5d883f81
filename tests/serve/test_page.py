"""The chat page: it says what models say as text and nothing else, streams, stops, regenerates and remembers."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llm.serve.page import PAGE, page

HTML = PAGE.read_text(encoding="utf-8")
MODELS = [{"id": "tiny", "continues": True, "chat_template": True}]
CORPUS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '"><iframe src="javascript:alert(1)">',
    "</span></article></div><h1>mine</h1>",
    "<a href='javascript:alert(1)'>x</a>",
    "javascript:alert(1)",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
    "`;alert(1);//",
    "</script><script>alert(1)</script>",
    "<!--<img src=--><img src=x onerror=alert(1)//>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "data: {\"error\": 1}\n\ndata: [DONE]\n\n",
    "__proto__",
    "\u202e\u0000\ufeff\u2028",
]  # fmt: skip


def deltas(*texts, top=()):
    told = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": list(top)}]} if top else None
    return [{"choices": [{"delta": {"content": text}, "logprobs": told}]} for text in texts]


def visit(*steps, answers=(), stored=None, models=MODELS):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node isn't installed")
    given = {"html": HTML, "models": models, "answers": list(answers), "stored": stored, "steps": steps}
    done = subprocess.run(
        [node, str(Path(__file__).with_name("page.mjs"))],
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_served_with_a_policy_that_lets_nothing_else_run(http):
    answer = http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert page()[0] == answer.content


def test_it_needs_nothing_from_elsewhere_and_writes_no_markup():
    assert not re.search(r"https?://|@import|url\(|<link|<img|src=", HTML)
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "srcdoc",
    ):
        assert sink not in HTML
    assert not re.search(r"<[^>]+\son\w+=", HTML)
    assert not re.search(r"<[^>]+\sstyle=", HTML)


def test_it_can_be_used_without_seeing_it():
    labels = set(re.findall(r'<label class="hidden" for="(\w+)"', HTML))
    controls = re.findall(r"<(input|select|textarea)([^>]*)>", HTML)
    assert controls
    for _, attributes in controls:
        name = re.search(r'id="(\w+)"', attributes)[1]
        inside = re.search(rf"<label>[^<]*\n?\s*<\w+ id=\"{name}\"", HTML)
        assert name in labels or inside, name
    assert '<html lang="en">' in HTML
    assert 'role="log" aria-live="polite"' in HTML
    assert "prefers-color-scheme: dark" in HTML
    assert "width=device-width" in HTML


@pytest.mark.parametrize("text", CORPUS)
def test_what_a_model_writes_is_text(text):
    top = [{"token": text, "logprob": -1.0}]
    found = visit(["send", text], answers=[{"events": deltas(text, "!", top=top)}])
    assert found["shown"][-1] == [f"You{text}", f"tiny{text}!"]
    assert text in "".join(json.loads(line.rsplit(" ", 1)[0]) for line in found["titles"][:1])
    assert set(found["made"]) <= {"article", "span", "p", "li", "button", "option"}


def test_a_stream_is_shown_and_stored_and_goes_on_as_a_chat():
    top = [{"token": "Hel", "logprob": -0.5}, {"token": "Hi", "logprob": -1.2}]
    answers = [{"events": deltas("Hel", "", "lo", top=top)}, {"events": deltas("again")}]
    found = visit(["send", "hey"], ["send", "more"], answers=answers)
    assert found["shown"][0] == [
        "Write something below. What you write stays between this browser and the server."
    ]
    assert found["shown"][-1] == ["Youhey", "tinyHello", "Youmore", "tinyagain"]
    path, body = found["posted"][1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "user", "content": "hey"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "more"},
    ]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0.8, 50, True)
    assert found["titles"][0] == '"Hel" 60.7%\n"Hi" 30.1%'
    again = visit(stored=found["kept"])
    assert again["shown"][0] == found["shown"][-1]


def test_stop_keeps_what_came_and_regenerate_asks_anew():
    answers = [{"events": deltas("half"), "hang": True}, {"events": deltas("whole")}]
    found = visit(["send", "hey"], ["click", "stop"], ["click", "again"], answers=answers)
    assert found["shown"][1:] == [["Youhey", "tinyhalf"], ["Youhey", "tinyhalf"], ["Youhey", "tinywhole"]]
    assert found["posted"][0] == found["posted"][1]
    found = visit(["send", "hey"], ["escape", ""], answers=[{"events": deltas("half"), "hang": True}])
    assert found["stop"] is True
    assert found["status"] == "Stopped."


def test_several_conversations():
    answers = [{"events": deltas("one")}, {"events": deltas("two")}]
    found = visit(
        ["send", "first"], ["click", "new"], ["send", "second"], ["open", 1], ["drop", 1], answers=answers
    )
    assert found["shown"][3] == ["Yousecond", "tinytwo"]
    assert found["shown"][4] == ["Youfirst", "tinyone"]
    assert found["talks"] == ["second"]


def test_shift_enter_and_nothing_send_nothing():
    assert visit(["write", "line"], ["send", "  "])["posted"] == []


def test_errors_are_said_in_words():
    refused = {"status": 400, "events": {"error": {"message": "too <b>long</b>"}}}
    broken = {"events": [*deltas("some"), {"error": {"message": "it failed"}}]}
    found = visit(["send", "a"], ["send", "b"], answers=[refused, broken])
    assert found["shown"][-1] == ["Youa", "Errortoo <b>long</b>", "Youb", "tinysome", "Errorit failed"]


def test_going_on_from_a_text_and_models_that_read_it_whole():
    event = {"choices": [{"text": "def", "logprobs": {"top_logprobs": [{"def": -0.1}]}}]}
    found = visit(["set", ["mode", "complete"]], ["send", "abc"], answers=[{"events": [event]}])
    assert found["posted"][0][0] == "/v1/completions"
    assert found["posted"][0][1]["prompt"] == "abc"
    encoder = [{"id": "bert", "continues": False, "chat_template": False}]
    found = visit(["send", "a <mask>"], answers=[{"events": [event]}], models=encoder)
    assert found["posted"][0][0] == "/v1/completions"


@pytest.mark.parametrize(
    "stored",
    ["{", "null", "5", '[{"turns": 5}]', '[{"turns": [{"role": "x"}]}]', "[]", '[{"turns": [null]}]'],
)
def test_what_is_stored_may_be_damaged(stored):
    assert len(visit(stored=stored)["talks"]) == 1
