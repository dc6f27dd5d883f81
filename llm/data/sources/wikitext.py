"""The prose of a page in wikitext: links by their label, a few templates by what they show, all other markup gone."""

import html
import re
from collections.abc import Callable, Iterable

# Sections without prose: lists of sources and of further pages.
LISTS = re.compile(
    "bibliography|citations|external links|footnotes|further reading|gallery|notes|notes and references|references|"
    "references and notes|see also|sources|works cited",
    re.IGNORECASE,
)
# Elements that go with all that is in them.
DROPPED = (
    "ref|references|gallery|math|chem|ce|score|timeline|imagemap|hiero|graph|templatestyles|syntaxhighlight|source|"
    "mapframe|maplink|categorytree|inputbox|table|style|script|section|indicator|templatedata"
)
# Elements that go, and what is in them stays.
UNWRAPPED = (
    "a|abbr|b|bdi|bdo|big|blockquote|caption|center|cite|code|col|colgroup|data|dd|del|dfn|div|dl|dt|em|font|h[1-6]|"
    "hr|i|img|includeonly|ins|kbd|label|li|link|mark|meta|noinclude|noscript|nowiki|ol|onlyinclude|p|poem|pre|q|rb|"
    "rp|rt|ruby|s|samp|small|span|strike|strong|sub|sup|tbody|td|tfoot|th|thead|time|tr|tt|u|ul|var|wbr"
)
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
CLOSED = re.compile(rf"<(?:{DROPPED})\b[^<>]*/\s*>", re.IGNORECASE)
ELEMENT = re.compile(rf"<({DROPPED})\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
BREAK = re.compile(r"<br\b[^<>]*>|</(?:p|div|li|blockquote|poem|tr)\s*>", re.IGNORECASE)
TAG = re.compile(rf"</?(?:{UNWRAPPED}|{DROPPED}|br)\b[^<>]*>", re.IGNORECASE)
# A table's ends count at the start of a line alone, where a template's arguments can't be taken for them.
BRACKET = re.compile(r"(\{\{|\}\}|\[\[|\]\]|^[ \t:;*#]*\{\||^[ \t]*\|\}(?!\}))", re.MULTILINE)
CLOSERS = {"}}": "{{", "]]": "[[", "|}": "{|"}
EXTERNAL = re.compile(
    r"\[(?:[a-z][a-z+.-]*:)?//[^\s\]]*[ \t]*([^\]\n]*)\]|\[mailto:[^\s\]]*[ \t]*([^\]\n]*)\]", re.I
)
QUOTES = re.compile(r"'{2,}")
MAGIC_WORD = re.compile(r"__[A-Z]+__")
ROW = re.compile(r"^[ \t]*(?:[|!].*|-{4,}.*|\{\|.*)$\n?", re.MULTILINE)
HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$")
ITEM = re.compile(r"^([*#:;]+)[ \t]*", re.MULTILINE)
EMPTY_PARENTHESES = re.compile(r"[ \t]*[(\[][\s,;:–—-]*[)\]]")
AFTER_OPENING = re.compile(r"\([\s,;:]+")
BEFORE_CLOSING = re.compile(r"[\s,;]+\)")
BEFORE_COMMA = re.compile(r"[ \t]+([,.;:!?])(?=\s|$)", re.MULTILINE)
SPACES = re.compile(r"[ \t\u00a0]+")
LEFT_OVER = re.compile(r"\{\{+|\}\}+|\[\[+|\]\]+|\{\||\|\}")
LANGUAGE_LINK = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?:", re.ASCII)
NAMESPACES = frozenset(["file", "image", "category", "media"])

Arguments = list[str]


def prose(wikitext: str, namespaces: Iterable[str] = ()) -> str:
    """The text of a page as a reader sees it, without tables, references and lists of sources.

    `namespaces` are the wiki's own lower-case names of files and categories, whose links show no text.
    """
    text = COMMENT.sub("", wikitext)
    text = ELEMENT.sub("", CLOSED.sub("", text))
    text = BREAK.sub("\n", text)
    text = _without_brackets(text, NAMESPACES.union(namespaces))
    text = EXTERNAL.sub(lambda link: link[1] or link[2] or "", text)
    # Twice, for what was written as entities, themselves written as entities.
    text = html.unescape(html.unescape(text))
    text = TAG.sub("", ELEMENT.sub("", CLOSED.sub("", COMMENT.sub("", text))))
    text = QUOTES.sub(lambda quotes: "'" if len(quotes[0]) == 4 else "", text)
    text = LEFT_OVER.sub("", ROW.sub("", MAGIC_WORD.sub("", text)))
    return _tidy(text)


def _without_brackets(text: str, namespaces: frozenset[str]) -> str:
    """Links, templates and tables by what they show, from the innermost out."""
    opened: list[str] = []
    parts: list[list[str]] = [[]]
    for token in BRACKET.split(text):
        mark = token.strip(" \t:;*#") if len(token) > 2 else token
        if mark in CLOSERS.values():
            opened.append(mark)
            parts.append([])
        elif mark in CLOSERS:
            if CLOSERS[mark] in opened:
                _close(mark, opened, parts, namespaces)
        else:
            parts[-1].append(token)
    # What was never closed shows its text.
    return "".join(piece for level in parts for piece in level)


def _close(mark: str, opened: list[str], parts: list[list[str]], namespaces: frozenset[str]) -> None:
    """Put in place of the innermost bracket of a kind what it shows; those inside that aren't closed show their text."""
    while (kind := opened.pop()) != CLOSERS[mark]:
        inner = parts.pop()
        parts[-1] += inner
    inside = "".join(parts.pop())
    if kind == "[[":
        parts[-1].append(_link(inside, namespaces))
    elif kind == "{{":
        parts[-1].append(_template(inside))


def _link(inside: str, namespaces: frozenset[str]) -> str:
    target, *labels = inside.split("|")
    space = target.partition(":")[0].strip().lower() if ":" in target else ""
    if space in namespaces or (not labels and LANGUAGE_LINK.match(target)):
        return ""
    if labels and labels[-1].strip():
        return labels[-1]
    shown = target.lstrip(":")
    # The pipe trick: an empty label stands for the name without what tells it from others.
    return re.sub(r"\s*\([^()]*\)$", "", shown.partition(":")[2] or shown) if labels else shown


def _template(inside: str) -> str:
    name, *arguments = inside.split("|")
    name = name.strip().lower().replace(" ", "_")
    show = SHOWN.get(name)
    if show is None and name.startswith(("lang-", "langx")):
        show = _last if name == "langx" else _first
    return show(_positional(arguments)) if show else ""


def _positional(arguments: Arguments) -> Arguments:
    """The arguments without a name, or with a number for one."""
    values = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not re.fullmatch(r"\s*[\w -]{1,30}\s*", name):
            values.append(argument.strip())
        elif name.strip().isdigit():
            values.append(value.strip())
    return values


def _first(arguments: Arguments) -> str:
    return arguments[0] if arguments else ""


def _second(arguments: Arguments) -> str:
    return arguments[1] if len(arguments) > 1 else ""


def _last(arguments: Arguments) -> str:
    return arguments[-1] if arguments else ""


def _converted(arguments: Arguments) -> str:
    """A measure as it was given: `5|km` and `5|to|10|km`."""
    for at, argument in enumerate(arguments):
        if at and not re.match(r"[\d.,+−-]*\d$|to$|and$|by$|x$|or$|[–-]$|±$|\+/-$", argument):
            return " ".join(arguments[:at]) + f" {argument}"
    return _first(arguments)


def _fraction(arguments: Arguments) -> str:
    whole = arguments[-3] + " " if len(arguments) > 2 else ""
    return whole + "/".join(arguments[-2:]) if len(arguments) > 1 else f"1/{_first(arguments)}"


def _date(arguments: Arguments) -> str:
    return " ".join(["As of", *reversed(arguments[:3])])


def _fixed(text: str) -> Callable[[Arguments], str]:
    return lambda _: text


def _prefixed(prefix: str) -> Callable[[Arguments], str]:
    return lambda arguments: prefix + _first(arguments)


# What templates in the middle of sentences show; all others are boxes, sources and remarks to editors.
SHOWN = {
    name: show
    for names, show in {
        "nowrap nobr small big em strong smallcaps sc abbr angbr tooltip linktext ill quote blockquote cquote": _first,
        "quotation bq vanchor keypress key mono code math mvar gaps val sub sup unicode polytonic hebrew zh": _first,
        "nihongo iast nastaliq": _first,
        "lang transl transliteration script": _last,
        "convert cvt conv": _converted,
        "frac fraction sfrac": _fraction,
        "circa c. ca.": _prefixed("c. "),
        "snd spnd sndash ndash dash": _fixed(" – "),
        "mdash —": _fixed("—"),
        "' apostrophe": _fixed("'"),
        "'s": _fixed("'s"),
        "!": _fixed("|"),
        "color": _second,
        "as_of": _date,
        "us$ usd": _prefixed("US$"),
        "gbp": _prefixed("£"),
        "inr": _prefixed("₹"),
        "euro": _prefixed("€"),
    }.items()
    for name in names.split()
}


def _tidy(text: str) -> str:
    """Marks of lists, empty parentheses and sections without text gone; paragraphs a blank line apart."""
    text = EMPTY_PARENTHESES.sub("", ITEM.sub(_bullet, text))
    text = BEFORE_CLOSING.sub(")", AFTER_OPENING.sub("(", text))
    text = BEFORE_COMMA.sub(r"\1", SPACES.sub(" ", text))
    kept: list[str] = []
    headings: list[tuple[int, str]] = []
    skipped = 7
    for line in map(str.strip, text.split("\n")):
        if heading := HEADING.match(line):
            level = len(heading[1])
            if level <= skipped:
                skipped = level if LISTS.fullmatch(heading[2].strip()) else 7
            headings = [other for other in headings if other[0] < level] + [(level, heading[2])]
        elif skipped == 7 and any(map(str.isalnum, line)):
            kept += [title for _, title in headings] + [line]
            headings = []
    return _paragraphs(kept)


def _bullet(mark: re.Match[str]) -> str:
    return "- " if mark[1][-1] in "*#" else ""


def _paragraphs(lines: list[str]) -> str:
    """Lines of a list one under another, all else a blank line apart."""
    text = ""
    for line, before in zip(lines, ["", *lines], strict=False):
        both = line.startswith("- ") and before.startswith("- ")
        text += ("\n" if both else "\n\n" if text else "") + line
    return text
