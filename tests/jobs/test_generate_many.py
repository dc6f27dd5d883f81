"""`llm generate data.paths=…`: a line for each prompt, what each would be alone, and going on after a kill."""

import json

import pytest

from llm.cli.main import main
from llm.generation.offline import BatchWriter
from llm.jobs import generate_many

PROMPTS = ["def main():", "", "<|endoftext|> naïve 猫 😀", "x" * 500, "a\nb", "import", "class A", "return"]


@pytest.fixture
def trained(tiny_run):
    return tiny_run("a", "trainer.max_steps=2")


@pytest.fixture
def words(trained, tmp_path):
    for name, some in (("a", PROMPTS[:3]), ("b", PROMPTS[3:])):
        lines = [json.dumps({"prompt": prompt, "body": prompt}) for prompt in some]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    files = f"data.paths=[{tmp_path}/a.jsonl,{tmp_path}/b.jsonl]"
    return ["generate", f"run={trained}", files, "max_new_tokens=9", "num_samples=2", "max_batch_size=3"]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_each_prompt_in_their_order(words, trained, tmp_path, capsys):
    out = tmp_path / "deep/out.jsonl"
    assert main([*words, "seed=3", f"out={out}"]) == 0
    assert f"Wrote 8 prompts' texts to {out}." in capsys.readouterr().out
    found = records(out)
    assert [record["index"] for record in found] == list(range(8))
    assert [record["prompt"] for record in found] == PROMPTS
    assert all(len(record["texts"]) == 2 for record in found)
    assert {reason for record in found for reason in record["finish_reasons"]} <= {"stop", "length"}
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    alone = ["generate", f"run={trained}", "prompt=import", "max_new_tokens=9", "seed=13"]
    assert main(alone) == 0
    assert capsys.readouterr().out == f"import{found[5]['texts'][0]}\n"


def test_what_a_kill_left_is_gone_on_from(words, tmp_path, capsys, monkeypatch):
    once, out = tmp_path / "once.jsonl", tmp_path / "out.jsonl"
    assert main([*words, "seed=3", f"out={once}"]) == 0
    write, count = BatchWriter.write, []

    def killed(*args):
        for number, written in enumerate(write(*args)):
            if number == 3:
                raise KeyboardInterrupt
            yield written

    monkeypatch.setattr(BatchWriter, "write", killed)
    assert main([*words, "seed=3", f"out={out}"]) == 130
    assert not out.exists()
    partial = tmp_path / "out.jsonl.partial"
    partial.write_text(partial.read_text() + '{"index": 7, "te')
    monkeypatch.setattr(
        BatchWriter,
        "write",
        lambda self, engine, prompts: (count.append(len(prompts)), write(self, engine, prompts))[1],
    )
    capsys.readouterr()
    assert main([*words, "seed=3", f"out={out}"]) == 0
    assert "Going on: 3 prompts are done, 5 are left." in capsys.readouterr().out
    assert count == [5]
    assert out.read_text() == once.read_text()
    assert not partial.exists()


def test_a_run_without_a_seed_goes_on_with_its_own(words, tmp_path, monkeypatch):
    write = BatchWriter.write
    seeds = []
    monkeypatch.setattr(
        BatchWriter,
        "write",
        lambda self, *rest: (seeds.append(self.seed), (_ for _ in ()).throw(KeyboardInterrupt))[1],
    )
    for _ in range(2):
        assert main([*words, f"out={tmp_path}/out.jsonl"]) == 130
    assert seeds[0] == seeds[1]
    monkeypatch.setattr(BatchWriter, "write", write)
    assert main([*words, f"out={tmp_path}/out.jsonl"]) == 0


def test_other_settings_and_a_finished_file_are_refused(words, tmp_path, capsys, monkeypatch):
    out = f"out={tmp_path}/out.jsonl"
    with monkeypatch.context() as context:
        context.setattr(
            generate_many.Journal, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert main([*words, "seed=3", out]) == 130
    assert main([*words, "seed=4", out]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([*words, "seed=3", out]) == 0
    assert main([*words, "seed=3", out]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["prompt=x", "out=o.jsonl"], "leave it out"),
        ([], "go together"),
        (["data.text=nothing", "out=o.jsonl"], "there is no field 'nothing'"),
        (["data.paths=[nowhere.jsonl]", "out=o.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_is_wrong_is_said(words, changes, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {change.partition("=")[0] for change in changes}
    kept = [word for word in words if word.partition("=")[0] not in keys]
    assert main([*kept, *changes]) != 0
    assert said in capsys.readouterr().err
