import pyarrow as pa
import pytest
from pyarrow import parquet

from llm.data import prepare
from llm.data.documents import LeftOut
from llm.data.files.inputs import InputFiles
from llm.data.sources import ParquetFiles
from llm.data.sources import parquet as module
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec

TEXTS = [f"text {number} \u00e9" for number in range(1000)]


@pytest.fixture
def folder(tmp_path):
    table = pa.table({"id": range(600), "body": TEXTS[:600]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    parquet.write_table(
        pa.table({"body": TEXTS[600:]}), tmp_path / "b.parquet", row_group_size=70, compression="zstd"
    )
    return tmp_path


def read(paths, left_out: LeftOut | None = None, text: str = "body") -> list[str]:
    plan = ParquetFiles(paths, text, validation_share=0).plan(InputFiles())
    return [document.text for piece in plan.pieces for document in piece.documents(left_out or LeftOut())]


@pytest.mark.parametrize("size", [1, 1500, 1 << 20])
def test_each_row_is_read_once_wherever_the_pieces_end(folder, monkeypatch, size) -> None:
    monkeypatch.setattr(module, "piece_bytes", lambda total: size)
    assert read([f"{folder}/*.parquet"]) == TEXTS


def test_a_missing_column_is_named(folder) -> None:
    with pytest.raises(ConfigError, match=r"no field 'bod'.*only id, body\. Did you mean data\.text=body\?"):
        read([f"{folder}/a.parquet"], text="bod")


def test_rows_without_text_are_told(tmp_path) -> None:
    parquet.write_table(pa.table({"body": ["one", None, "two"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    left_out = LeftOut()
    assert read([f"{tmp_path}/a.parquet"], left_out) == ["one", "", "two"]
    with pytest.raises(DataError, match=r"no text.*3 bad"):
        read([f"{tmp_path}/a.parquet"], text="n")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-50], lambda data: b"PAR1" + bytes(len(data)), lambda data: b""]
)
def test_a_damaged_file_is_told_and_passed_over(folder, damage) -> None:
    path = folder / "b.parquet"
    path.write_bytes(damage(path.read_bytes()))
    left_out = LeftOut()
    assert read([f"{folder}/*.parquet"], left_out) == TEXTS[:600]
    assert left_out.counts == {"bad": 1}


def test_from_parquet_to_shards(folder, tmp_path) -> None:
    corpus = prepare(ParquetFiles([f"{folder}/*.parquet"], "body"), ByteSpec(), tmp_path / "shards")
    assert corpus.report["documents"] == 1000
