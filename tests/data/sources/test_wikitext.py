import pytest

from llm.data.sources.wikitext import prose

SHOWN = [
    ("'''Bold''' and ''italic''.", "Bold and italic."),
    ("'''Bob''''s house", "Bob's house"),
    ("a [[link]], a [[target|label]], a [[Paris (Texas)|]]", "a link, a label, a Paris"),
    ("[[File:a.jpg|thumb|A [[nested]] caption]]Text", "Text"),
    ("[[Datei:a.jpg|mini|Text]]Text", "Text"),
    ("[[Category:Things]] [[fr:Chose]] [[:Category:Shown]]", "Category:Shown"),
    ("Water{{citation needed|date=May 2020}} is wet.<ref name=a>{{cite web|url=x}}</ref><ref name=a />", "Water is wet."),
    ("{{Infobox\n| name = {{nowrap|x}}\n| b = [[y|z]]\n}}\nText", "Text"),
    ("It is {{convert|5|to|10|km|mi}} and {{convert|3|ft}}.", "It is 5 to 10 km and 3 ft."),
    ("Greek ({{lang-el|λόγος}}) and {{lang|fr|mot}} ({{IPA|/x/}})", "Greek (λόγος) and mot"),
    ("Born {{circa|1900}}{{snd}}died; {{frac|1|2}}; {{as of|2014|5}}", "Born c. 1900 – died; 1/2; As of 5 2014"),
    ("{| class=x\n|-\n| a || {{b|c}}\n{|\n| inner\n|}\n|}\nText", "Text"),
    ("{{a|b=|}}Text {{{1|x}}}", "Text }"),
    ("Text<!-- hidden\n --> goes<br/>on &amp; on&nbsp;and &lt;b&gt;on&lt;/b&gt;", "Text goes\n\non & on and on"),
    ("[http://x.org A page] and [https://y.org]", "A page and"),
    ("== History ==\nText\n=== Empty ===\n== References ==\n* a\n=== b ===\nc\n== After ==\nd", "History\n\nText\n\nAfter\n\nd"),
    ("* one\n* two\nprose", "- one\n- two\n\nprose"),
    ("__NOTOC__\n----\n<gallery>\nFile:x\n</gallery>\nText<math>x^2</math>", "Text"),
    ("a {{unclosed and [[also '' text", "a unclosed and also text"),
    ("stray }} and ]] and |} here", "stray and and here"),
    ("a < b and c > d, <notatag>", "a < b and c > d, <notatag>"),
]  # fmt: skip


@pytest.mark.parametrize(("wikitext", "text"), SHOWN)
def test_what_a_reader_sees(wikitext, text) -> None:
    assert prose(wikitext, ["datei"]) == text


def test_deep_nesting_takes_no_stack() -> None:
    assert prose("{{a|" * 20_000 + "x" + "}}" * 20_000 + "end") == "end"


def test_much_that_is_never_closed_takes_no_long_time() -> None:
    assert "x" in prose("[[a " * 50_000 + "<ref " * 1000 + "x")
