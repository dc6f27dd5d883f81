import pytest

from llm.data.documents import Document
from llm.data.preparation.survey import FIRST, ONE_OF, PERSONAL, Survey

FOUND = [
    ("write to jane.doe+x@mail.example.org.", "e-mail addresses", 1),
    ("@handle, a @b, x@y and decorator @cache", "e-mail addresses", 0),
    ("call +49 30 901820 or (555) 123-4567 or 555-123-4567", "phone numbers", 3),
    ("in 1914-1918, 2024-01-02, 12345678, ISBN 978-3-16-148410-0, 10.5.3", "phone numbers", 0),
    ("from 192.168.0.1 and 8.8.8.8", "IP addresses", 2),
    ("version 1.2.3, 1.2.3.4.5 and 300.1.1.1", "IP addresses", 0),
]


@pytest.mark.parametrize(("text", "kind", "count"), FOUND)
def test_suspected_personal_data(text, kind, count) -> None:
    assert len(PERSONAL[kind].findall(text)) == count


def test_patterns_take_no_long_time() -> None:
    for pattern in PERSONAL.values():
        assert not pattern.findall("1." * 50_000 + "a@" + "a-" * 50_000 + "+1 " * 50_000)


def test_all_lengths_and_the_languages_of_a_sample() -> None:
    survey = Survey()
    for number in range(2000):
        survey.add(
            Document(str(number), f"This is an English sentence, and its number is {number}.".encode())
        )
    survey.add(Document("long", b"x", 0, 1025, "f" * 64))
    assert survey.lengths == {"64": 2000, "2048": 1}
    assert survey.languages.total() == survey.looked_at
    assert survey.languages["en"] > 0.9 * survey.looked_at
    assert survey.looked_at == pytest.approx(FIRST + 1900 / ONE_OF, rel=0.25)
