"""The chat page in a real browser: it streams, stops, regenerates and remembers, and says what models say as text alone."""

import base64
import hashlib
import json
import re

import httpx
import pytest
from small_server import TOKENIZER, serving, small

from llm.errors import ConfigError
from llm.serve import Served, check_frame_ancestors
from llm.serve.page import PAGE, page
from llm.tokenizer.chat import CHATML
from tests.browsing import DESK, PHONE, faults, width_beyond

HTML = PAGE.read_text(encoding="utf-8")
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
    "<link rel=stylesheet href=//example.org/x.css><base href=//example.org>",
    "<meta http-equiv=refresh content='0;url=//example.org'>",
    "data: {\"error\": 1}\n\ndata: [DONE]\n\n",
    "__proto__",
    "\u202e\ufeff\u2028",
]  # fmt: skip
# Stops an answer as soon as it has three tokens, which no hand is quick enough for.
STOP_AT_THREE = """new MutationObserver((_, observer) => {
  if (document.querySelectorAll('.assistant .token').length >= 3) { observer.disconnect(); document.querySelector('.stop').click(); }
}).observe(document.getElementById('log'), { childList: true, subtree: true })"""


@pytest.fixture(scope="module")
def long_winded():
    """A server of a chat model whose answers may be long."""
    chat = Served("chat", small(7, context_length=1024), TOKENIZER.with_chat_template(CHATML))
    with serving(chat) as address:
        yield address


@pytest.fixture
def visit(browser, server):
    """Opens the page, and notes what a page must not do: dialogs, requests elsewhere, errors."""
    contexts, wrong = [], []

    def visit(path="/", answers=None, address=server, stored=None, models=None, **settings):
        context = browser.new_context(base_url=address, **{"viewport": DESK, **settings})
        context.set_default_timeout(5_000)
        contexts.append(context)
        if models is not None:
            context.route("**/v1/models", lambda route: route.fulfill(json={"data": models}))
        if answers is not None:
            left = iter(answers)
            context.route(re.compile("completions$|/models/"), lambda route: route.fulfill(**next(left)))
        page = context.new_page()
        page.posted = []
        page.on("request", lambda request: request.method == "POST" and page.posted.append(request))
        page.on("request", lambda request: request.url.startswith(address) or wrong.append(request.url))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if stored is not None:
            page.add_init_script(f"for (const [k, v] of {json.dumps(stored)}) localStorage.setItem(k, v)")
        page.goto(path)
        page.locator("#model option").first.wait_for(state="attached")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


def events(*values):
    """The stream of these events, as the server sends it."""
    lines = [f"data: {json.dumps(value)}\n\n" for value in values]
    return {"content_type": "text/event-stream", "body": "".join([*lines, "data: [DONE]\n\n"])}


def deltas(*texts, top=()):
    told = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": list(top)}]} if top else None
    return [{"choices": [{"delta": {"content": text}, "logprobs": told}]} for text in texts]


def idle(page):
    """Waits until nothing is being written. The page's policy keeps Playwright's own waiting for functions out."""
    page.locator("#stop:disabled").wait_for(state="attached")


def write_at_most(page, tokens):
    """Takes the likeliest tokens from now on, so that a model says the same each time."""
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Tokens at most").fill(str(tokens))


def send(page, text):
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")
    idle(page)


def said(page):
    """What the conversation shows: who, and what."""
    return page.locator(".turn").evaluate_all(
        "turns => turns.map(turn => [turn.querySelector('h2').textContent, turn.querySelector('p').textContent])"
    )


def bodies(page):
    return [request.post_data_json for request in page.posted]


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


HUB = "http://hub.example:8080"


def test_only_the_sites_that_are_named_may_frame_it(http):
    assert "frame-ancestors 'none'" in http.get("/").headers["content-security-policy"].split("; ")
    tiny = Served("tiny", small(), TOKENIZER)
    with serving(tiny, frame_ancestors=[HUB, "https://huggingface.co"]) as address:
        policy = httpx.get(address).headers["content-security-policy"].split("; ")
    assert f"frame-ancestors {HUB} https://huggingface.co" in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    "site",
    ["huggingface.co", "https://*", "https://*.hf.space", "*", "'self'", "https://a.b/", "https://a.b; script-src *", ""],
)  # fmt: skip
def test_what_is_no_site_cannot_frame_it(site):
    with pytest.raises(ConfigError, match=r"frame_ancestors: .* as in https://huggingface.co"):
        check_frame_ancestors(["https://huggingface.co", site])


@pytest.mark.parametrize("named", [True, False])
def test_a_browser_shows_it_in_a_frame_of_a_named_site_alone(browser, server, named):
    sites = [server] if named else [HUB]
    with serving(Served("tiny", small(), TOKENIZER), frame_ancestors=sites) as address:
        page = browser.new_page()
        page.goto(f"{server}/health")  # any page of that site, which has no policy of its own
        page.set_content(f"<!doctype html><iframe src='{address}/'></iframe>", wait_until="load")
        framed = page.frame_locator("iframe").locator("#model option")
        if named:
            framed.first.wait_for(state="attached", timeout=5_000)
        assert framed.count() == named
        page.context.close()


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


def test_what_a_model_writes_is_text(visit):
    answers = [
        events(*deltas(text, "!", top=[{"token": text, "logprob": -1.0}]))
        for text in CORPUS
        if "\n" not in text
    ]
    page = visit(answers=answers)
    elements = page.evaluate(
        "document.querySelectorAll('script, style, link, meta, base, iframe, img').length"
    )
    shown = []
    for text in CORPUS:
        if "\n" in text:
            continue
        send(page, text)
        shown += [["You", text], ["tiny", f"{text}!"]]
        page.locator(".token").last.focus()
        assert json.dumps(text, ensure_ascii=False) in page.get_by_role("tooltip").inner_text()
    assert said(page) == shown
    page.reload()
    assert said(page) == shown
    assert (
        page.evaluate("document.querySelectorAll('script, style, link, meta, base, iframe, img').length")
        == elements
    )


@pytest.mark.parametrize("text", CORPUS[:3])
def test_names_labels_and_errors_are_text_too(text, visit):
    model = {"id": text, "continues": False, "labels": [text], "labelled": "text", "context_length": 32}
    told = [
        {"json": [[{"label": text, "score": 0.5}]]},
        {"status": 400, "json": {"error": {"message": text}}},
    ]
    page = visit(answers=told, models=[model])
    assert page.url.endswith("#playground")
    assert page.get_by_label("Model").inner_text() == text
    page.get_by_label("Text to classify").fill("a")
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("region", name="Result").get_by_role("rowheader").inner_text() == text
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("alert").inner_text() == text
    assert page.locator("script").count() == 1


def test_a_typed_message_is_answered_in_pieces_and_goes_on_as_a_chat(visit, long_winded):
    page = visit(address=long_winded)
    page.evaluate("""() => { window.seen = new Set(); new MutationObserver(() =>
      seen.add(document.querySelector('.assistant p')?.textContent.length)).observe(
      document.getElementById('log'), { childList: true, subtree: true }) }""")
    write_at_most(page, 40)
    send(page, "hey")
    assert page.evaluate("seen.size") > 10
    (_, (who, first)) = said(page)
    assert who == "chat"
    assert re.fullmatch(r"40 tokens, \d+(\.\d)? a second", page.get_by_role("status").first.inner_text())
    send(page, "more")
    assert page.posted[1].url.endswith("/v1/chat/completions")
    body = bodies(page)[1]
    assert body["messages"] == [
        {"role": "user", "content": "hey"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "more"},
    ]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 40, True)
    shown = said(page)
    page.reload()
    assert said(page) == shown


def test_stop_keeps_what_came_and_regenerate_asks_anew(visit, long_winded):
    page = visit(address=long_winded)
    write_at_most(page, 900)
    page.evaluate(STOP_AT_THREE)
    send(page, "hey")
    assert page.get_by_role("status").first.inner_text() == "Stopped."
    assert page.evaluate("document.activeElement.id") == "text"
    half = said(page)
    assert 3 <= page.locator(".token").count() < 900
    page.reload()
    assert said(page) == half
    write_at_most(page, 5)
    page.get_by_role("button", name="Regenerate").click()
    idle(page)
    ((you, asked), (_, whole)) = said(page)
    assert (you, asked) == ("You", "hey")
    assert len(whole.encode()) <= 5 * 3  # a byte that is no UTF-8 is shown as three
    first, again = bodies(page)
    assert first["messages"] == again["messages"]


def test_leaving_in_the_middle_keeps_what_came(visit, long_winded):
    page = visit(address=long_winded)
    write_at_most(page, 900)
    page.get_by_label("Message").fill("hey")
    page.keyboard.press("Enter")
    page.locator(".token").nth(2).wait_for(state="attached")
    page.reload()
    assert [who for who, _ in said(page)] == ["You", "chat"]
    assert page.locator(".token").count() >= 3


def test_several_conversations_are_kept_in_two_tabs(visit):
    page = visit(answers=[events(*deltas(text)) for text in ("one", "two", "three")])
    send(page, "first")
    page.get_by_role("button", name="New conversation").click()
    send(page, "second")
    other = page.context.new_page()
    other.goto("/")
    talks = other.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    assert [text.rstrip("×") for text in talks.all_inner_texts()] == ["second\n", "first\n"]
    other.get_by_role("button", name="first", exact=True).click()
    assert said(other) == [["You", "first"], ["tiny", "one"]]
    send(page, "more")
    assert said(other) == [["You", "first"], ["tiny", "one"]]
    page.get_by_role("button", name="Delete conversation: first").click()
    other.get_by_text("Write something below.").wait_for()
    page.reload()
    assert said(page) == [["You", "second"], ["tiny", "two"], ["You", "more"], ["tiny", "three"]]


def test_what_else_a_token_might_have_been_is_shown_to_pointers_and_keys(visit):
    top = [{"token": "Hel", "logprob": -0.5}, {"token": "Hi", "logprob": -1.2}]
    told = {"content": [{"token": "Hel", "logprob": -0.5, "top_logprobs": top}]}
    page = visit(
        answers=[
            events(*({"choices": [{"delta": {"content": text}, "logprobs": told}]} for text in ("Hel", "lo")))
        ]
    )
    send(page, "hey")
    tooltip = page.get_by_role("tooltip")
    assert not tooltip.is_visible()
    page.locator(".token").first.hover()
    assert tooltip.inner_text().split() == ['"Hel"', "60.7%", '"Hi"', "30.1%"]
    page.get_by_label("Message").hover()
    assert not tooltip.is_visible()
    page.get_by_role("log").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Hel"
    assert tooltip.is_visible()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "lo"
    assert page.locator("#heard").inner_text() == '"Hel" 60.7%; instead: "Hi" 30.1%'
    page.keyboard.press("Escape")
    assert not tooltip.is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"


def test_keys_alone_are_enough(visit, long_winded):
    page = visit(address=long_winded)
    write_at_most(page, 900)
    page.get_by_label("Message").focus()
    page.keyboard.type("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("b")
    assert not page.posted
    page.keyboard.press("Enter")
    page.locator(".token").first.wait_for(state="attached")
    page.keyboard.press("Escape")
    idle(page)
    assert bodies(page)[0]["messages"] == [{"role": "user", "content": "a\nb"}]
    page.keyboard.press("Enter")
    assert len(page.posted) == 1
    # Every control can be reached by Tab, in the order that it stands in.
    page.evaluate("document.activeElement.blur(); document.querySelector('.views a').focus()")
    reached = []
    for _ in range(20):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        page.keyboard.press("Tab")
    for one in ("model", "temperature", "length", "system", "look", "new", "log", "text", "again", "send"):
        assert one in reached
    assert reached.index("model") < reached.index("new") < reached.index("text") < reached.index("send")


def test_errors_are_said_in_words(visit):
    refused = {"status": 400, "json": {"error": {"message": "too <b>long</b>"}}}
    broken = events(*deltas("some"), {"error": {"message": "it failed"}})
    short = {"content_type": "text/event-stream", "body": f"data: {json.dumps(deltas('cut')[0])}\n\n"}
    proxy = {"status": 502, "content_type": "text/html", "body": "<h1>Bad gateway</h1>"}
    page = visit(answers=[refused, broken, short, proxy])
    for text in "abcd":
        send(page, text)
    page.context.unroute_all()
    page.context.set_offline(True)
    send(page, "e")
    assert said(page) == [
        ["You", "a"],
        ["Error", "too <b>long</b>"],
        ["You", "b"],
        ["tiny", "some"],
        ["Error", "it failed"],
        ["You", "c"],
        ["tiny", "cut"],
        ["Error", "The answer broke off: the server ended it early."],
        ["You", "d"],
        ["Error", "The server answered 502 Bad Gateway"],
        ["You", "e"],
        ["Error", "The server can't be reached."],
    ]
    assert "too <b>long</b>" not in json.dumps(bodies(page)[-1]["messages"])


def test_a_chat_takes_what_the_context_leaves(visit):
    page = visit()
    write_at_most(page, 200)
    send(page, "x" * 150)
    assert [who for who, _ in said(page)] == ["You", "tiny"]
    assert [body.get("max_tokens") for body in bodies(page)] == [200, None]


def test_numbers_out_of_bounds_are_brought_back_and_settings_kept(visit):
    page = visit()
    for name, typed, becomes in [
        ("Temperature", "7", "2"),
        ("Temperature", "", "0.8"),
        ("Tokens at most", "99999", "255"),
        ("Tokens at most", "-3", "1"),
        ("Tokens at most", "7.6", "7"),
    ]:
        page.get_by_label(name).fill(typed)
        page.get_by_label(name).blur()
        assert page.get_by_label(name).input_value() == becomes
    page.get_by_label("Model").select_option("chatty")
    page.get_by_label("Instructions").fill("Be brief.")
    page.get_by_label("Colours").select_option("dark")
    page.reload()
    page.locator("option[value=chatty]").first.wait_for(state="attached")  # the models are asked for
    assert page.get_by_label("Model").input_value() == "chatty"
    assert page.get_by_label("Tokens at most").input_value() == "7"
    assert page.evaluate("document.documentElement.dataset.look") == "dark"
    send(page, "hey")
    assert bodies(page)[0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_the_playground_goes_on_from_a_text(visit):
    page = visit()
    assert page.get_by_role("note").inner_text().startswith("tiny was not trained to chat")
    page.get_by_role("link", name="Playground").click()
    write_at_most(page, 20)
    page.get_by_label("Text to go on from").fill("def f(")
    page.get_by_role("button", name="Write on").click()
    idle(page)
    result = page.get_by_role("region", name="Result")
    assert result.locator("p").text_content().startswith("def f(")
    assert result.locator(".token").count() > 3
    # Bytes that are no UTF-8 look alike, so that a single token may have one way alone.
    ways = []
    for number in range(result.locator(".token").count()):
        result.locator(".token").nth(number).focus()
        ways.append(page.get_by_role("tooltip").locator("tr").count())
    assert min(ways) >= 1
    assert max(ways) > 1
    assert page.posted[0].url.endswith("/v1/completions")
    assert bodies(page)[0]["prompt"] == "def f("
    page.get_by_label("Text to go on from").press("Control+Enter")
    assert len(page.posted) == 2


def test_the_playground_shows_the_likeliest_first_also_before_digits(visit):
    top = {" two": -0.5, "1": -3.0, " 7": -2.5, "7": -2.0, "bytes:\\xc3": -1.5}
    told = {"tokens": ["7"], "token_logprobs": [-2.0], "top_logprobs": [top], "text_offset": [0]}
    choice = {"index": 0, "text": "7", "logprobs": told, "finish_reason": "length"}
    page = visit("/#playground", answers=[events({"choices": [choice]})])
    page.get_by_label("Text to go on from").fill("1 + 1 =")
    page.get_by_role("button", name="Write on").click()
    idle(page)
    page.get_by_role("region", name="Result").locator(".token").nth(0).focus()
    rows = page.get_by_role("tooltip").locator("tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ['"7"', '" two"', '"bytes:\\\\xc3"', '" 7"', '"1"']


def test_the_playground_asks_each_model_for_what_it_does(visit):
    page = visit("/#playground")
    page.get_by_label("Model").select_option("topics")
    page.get_by_label("Text to classify").fill("a game of football")
    page.get_by_role("button", name="Classify").click()
    rows = page.get_by_role("region", name="Result").get_by_role("row")
    rows.nth(2).wait_for()
    shares = [float(text.split()[-1].rstrip("%")) for text in rows.all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares == sorted(shares, reverse=True)
    assert rows.first.get_by_role("meter").get_attribute("value")
    page.get_by_label("Model").select_option("filler")
    page.get_by_label("Text with <mask>").fill("a <mask> c")
    page.get_by_role("button", name="Fill in").click()
    page.locator("#result p").filter(has_text="a").wait_for()
    assert not page.get_by_label("Temperature").is_visible()
    page.get_by_label("Model").select_option("translator")
    page.get_by_label("Source text").fill("a text")
    page.get_by_role("button", name="Write", exact=True).click()
    idle(page)
    assert bodies(page)[-1]["prompt"] == "a text"


def test_tags_answers_and_numbers_are_shown_where_they_stand(visit):
    def model(kind, *labels):
        return {"id": kind, "continues": False, "labels": labels, "labelled": kind, "context_length": 64}

    answers = [
        {"json": [{"entity_group": "name", "word": "Bob", "score": 0.75, "start": 10, "end": 13}]},
        {"json": []},
        {"json": {"answer": "Bob", "score": 0.5, "start": 10, "end": 13}},
        {"json": {"answer": "", "score": 0.9, "start": 0, "end": 0}},
        {"json": [[{"label": "stars", "score": 3.14159265}]]},
    ]
    models = [model("words", "B-name", "O"), model("answer", "start", "end"), model("number", "stars")]
    page = visit("/#playground", answers=answers, models=models)
    result = page.get_by_role("region", name="Result")
    text = "\U0001f600 Ada met Bob."  # whose places JavaScript would count otherwise
    page.get_by_label("Text to tag").fill(text)
    page.get_by_role("button", name="Tag").click()
    assert result.locator("mark").inner_text() == "Bobname"
    assert result.get_by_role("row").nth(1).inner_text().split() == ["name", "Bob", "75.0%"]
    page.get_by_role("button", name="Tag").click()
    result.get_by_text("(nothing found)").wait_for()
    page.get_by_label("Model").select_option("answer")
    page.get_by_label("Question").fill("Who?")
    page.get_by_label("Text that holds the answer").fill(text)
    page.get_by_role("button", name="Answer").click()
    assert result.locator("mark").inner_text() == "Bob"
    assert result.locator("strong").inner_text() == "Bob"
    page.get_by_role("button", name="Answer").click()
    result.get_by_text("(no answer)").wait_for()
    page.get_by_label("Model").select_option("number")
    page.get_by_label("Text to rate").fill("a")
    page.get_by_role("button", name="Rate").click()
    result.get_by_text("stars: 3.14159").wait_for()
    assert bodies(page)[2]["inputs"] == {"question": "Who?", "context": text}
    assert faults(page) == []


def test_models_that_read_a_text_whole_are_not_chatted_with(visit):
    page = visit()
    page.get_by_label("Model").select_option("filler")
    assert page.get_by_role("note").inner_text() == "filler doesn't chat: use the playground."
    assert page.get_by_label("Message").is_disabled()
    assert page.get_by_role("button", name="Send").is_disabled()


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", PHONE)], ids=["desk", "phone"])
def test_axe_finds_nothing_and_nothing_is_too_wide(scheme, viewport, visit):
    wide = events(*deltas("word " * 30, "x" * 300, top=[{"token": "y" * 80, "logprob": -1.0}]))
    refused = {"status": 400, "json": {"error": {"message": "no"}}}
    page = visit(answers=[wide, refused], color_scheme=scheme, viewport=viewport)
    assert faults(page) == []
    send(page, "hey")
    send(page, "hey " * 40)
    page.locator(".token").last.focus()
    assert page.get_by_role("tooltip").is_visible()
    assert faults(page) == []
    assert width_beyond(page) == 0
    if viewport is PHONE:
        page.get_by_role("button", name="Menu").click()
        assert page.get_by_role("button", name="Menu", expanded=True).is_visible()
        assert faults(page) == []
        page.keyboard.press("Escape")
        assert not page.get_by_label("Model").is_visible()
    page.goto("/#playground")
    assert faults(page) == []
    assert width_beyond(page) == 0
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    )
    assert (red + green + blue < 200) == (scheme == "dark")


def test_what_is_stored_may_be_damaged(visit):
    whole = json.dumps({"id": "b", "turns": [{"role": "user", "text": "kept"}]})
    damaged = [
        "{",
        "null",
        "5",
        '{"turns": 5}',
        '{"id": 5, "turns": [{"role": "user", "text": "x"}]}',
        '{"id": "a", "turns": [{"role": "x"}]}',
        '{"id": "a", "turns": [null]}',
        '{"id": "a", "turns": [{"role": "assistant", "text": "x", "parts": [null]}]}',
        '{"id": "a", "turns": [{"role": "assistant", "text": "x", "parts": [{"text": "y", "others": [5]}]}]}',
    ]
    keys = [[f"llm-talk-{number}", value] for number, value in enumerate(damaged)]
    page = visit(stored=[*keys, ["llm-talk-b", whole], ["llm-settings", "[null]"]])
    assert said(page) == [["You", "kept"]]
    assert page.get_by_role("navigation", name="Conversations").get_by_role("listitem").count() == 1


def test_a_full_storage_loses_the_alternatives_first_and_then_says_so(visit):
    page = visit(
        answers=[
            events(*deltas("one", top=[{"token": "z" * 5000, "logprob": -1.0}])),
            events(*deltas("y" * 9000)),
        ]
    )
    page.evaluate("""() => { for (let size = 1 << 20; size > 900; size >>= 1)
      try { for (;;) localStorage.setItem("else" + Math.random(), "x".repeat(size)) } catch {} }""")
    send(page, "a")
    assert page.evaluate("Object.keys(localStorage).some(key => key.startsWith('llm-talk-'))")
    send(page, "b")
    assert "storage is full" in page.get_by_role("status").first.inner_text()
