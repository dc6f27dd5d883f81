from llm.data.documents import LeftOut
from llm.data.files import cutting
from llm.data.files.inputs import InputFiles
from llm.data.preparation.pipeline import Pipeline
from llm.data.preparation.preview import preview, render
from llm.data.sources import TextFiles
from llm.data.steps import Length, LowerCase


def test_documents_from_all_over_before_and_after(write, monkeypatch) -> None:
    monkeypatch.setattr(cutting, "MIN_PIECE_BYTES", 1 << 10)
    texts = {f"{number:03d}.txt": f"Document {number} " + "x" * (number % 2 * 200) for number in range(500)}
    plan, left_out = TextFiles([f"{write(texts)}/*"]).plan(InputFiles()), LeftOut()
    found = preview(plan, Pipeline({"length": Length(min_characters=100), "lower": LowerCase()}), left_out)
    assert len(found) == 20
    assert found[-1].before.startswith("Document 4")
    for document in found:
        short = len(document.before) < 100
        assert document.after == (None if short else document.before.lower())
        assert document.told == ("left out by length: too short" if short else "changed by lower")
    lines = render(found, left_out).splitlines()
    kept = sum(document.after is not None for document in found)
    assert lines[-1] == f"{kept} of 20 documents kept. Nothing was written."
    assert any(line.startswith("  after   'document") for line in lines)


def test_fewer_documents_than_are_asked_for(write) -> None:
    plan = TextFiles([f"{write({'a.txt': 'One', 'b.txt': 'Two'})}/*"]).plan(InputFiles())
    assert [document.told for document in preview(plan, Pipeline({}), LeftOut())] == ["kept as it is"] * 2
