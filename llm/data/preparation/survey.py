"""What kind of text a corpus holds, for its report: lengths of all documents; of a sample, languages and personal data."""

import importlib.util
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from llm.data.documents import Document
from llm.data.steps.language import identify

# Of each piece the first documents are looked at, and then one of so many, chosen by its digest.
FIRST = 100
ONE_OF = 16
# Patterns of what may be about a person; each begins with what is rare, so that text without it passes quickly.
PERSONAL = {
    "e-mail addresses": re.compile(r"(?<=[\w.+-])@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"),
    "phone numbers": re.compile(
        r"(?<![\w.,/+-])(?:\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w-])"
    ),
    "IP addresses": re.compile(
        r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w.]\w|\w)"
    ),
}


@dataclass
class Survey:
    """Documents by the power of two that bounds their bytes, and what a sample of them shows."""

    lengths: Counter[str] = field(default_factory=Counter)
    looked_at: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    personal: Counter[str] = field(default_factory=Counter)

    def add(self, document: Document) -> None:
        """Count a document, by its beginning where it comes in parts."""
        self.lengths[str(1 << (document.total - 1).bit_length())] += 1
        if self.lengths.total() > FIRST and int(document.digest[-4:], 16) % ONE_OF:
            return
        self.looked_at += 1
        text = document.text
        if importlib.util.find_spec("py3langid"):
            self.languages[identify(text)[0]] += 1
        for kind, pattern in PERSONAL.items():
            self.personal[kind] += sum(1 for _ in pattern.finditer(text))

    def include(self, other: Mapping[str, Mapping[str, int]]) -> None:
        """Add what another piece holds."""
        for name in ("lengths", "languages", "personal"):
            getattr(self, name).update(other[name])
        self.looked_at += int(other["looked_at"])  # type: ignore[call-overload]
