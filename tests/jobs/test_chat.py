"""`llm chat`: turns go in by lines, answers come out, and a chat can be stopped, asked anew and begun again."""

import io
import json

import pytest

from llm.cli.main import main
from llm.data.documents.messages import conversation
from llm.jobs import chat


@pytest.fixture(scope="module")
def trained(tiny_words, text_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    longer = [word.replace("context_length=32", "context_length=128") for word in tiny_words]
    folders = [f"data.paths=[{text_folder}/*.txt]", f"runs_dir={folder}/runs", f"shards_dir={folder}/shards"]
    assert main(["train", *longer, *folders, "name=a", "trainer.max_steps=2"]) == 0
    return folder / "runs/a"


@pytest.fixture
def talk(trained, capsys, monkeypatch):
    def talk(*lines, **keys):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        words = [f"{key}={value}" for key, value in {"seed": 1, "max_new_tokens": 12, **keys}.items()]
        assert main(["chat", f"run={trained}", *words]) == 0
        return capsys.readouterr()

    return talk


def test_a_line_is_answered_and_the_same_seed_answers_alike(talk):
    first = talk("Hello", "", "and?")
    assert first.out.count("\n") >= 2
    assert first.out == talk("Hello", "and?").out
    assert "not trained to chat" in first.err


def test_again_asks_the_same_and_new_forgets(talk):
    once = talk("Hello").out
    assert talk("Hello", "/again").out == once * 2
    assert talk("Hello", "/new", "Hello").out == once * 2
    assert talk("/again", "/new").out == ""


def test_instructions_stand_before_the_chat(talk):
    assert (
        "The chat has 218 tokens" in talk("Hello", system="x" * 194).err
    )  # and two lines of six and ten letters


def test_what_does_not_fit_is_said_and_the_chat_goes_on(talk):
    found = talk("x" * 300, "Hello")
    assert "The chat has" in found.err
    assert found.out.endswith(talk("Hello").out)


def test_ctrl_c_stops_an_answer_alone(capsys):
    closed = []

    def pieces():
        try:
            yield "half"
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    chat._show(pieces())
    assert capsys.readouterr().out == "half\n"
    assert closed == [True]


def test_settings_change_between_answers(talk):
    once = talk("Hello", temperature=0, max_new_tokens=5).out
    found = talk("/set temperature=0", "/set max_new_tokens=5", "Hello", temperature=1.5, max_new_tokens=60)
    assert found.out == once


def test_wrong_commands_are_told_and_change_nothing(talk):
    told = {
        "/set temperature=-1": "temperature=-1: expected float from 0 up to 100",
        "/set temperature=warm": "temperature=warm: expected float",
        "/set temperature=.nan": "temperature=nan: expected",
        "/set run=x": "/set takes KEY=VALUE",
        "/set": "Type /set KEY=VALUE",
        "/agian": "Did you mean /again?",
        "/open 7": "There is no conversation 7",
        "/open x": "Type /open NUMBER",
        "/new now": "Type /new",
    }
    found = talk("Hello", *told, "/again")
    errors = [line for line in found.err.splitlines() if line.startswith("error: ")]
    for error, message in zip(errors, told.values(), strict=True):
        assert message in error
    assert found.out == talk("Hello").out * 2


def test_a_path_is_a_message(talk):
    assert talk("/usr/bin is what?").out.strip()
    assert "no such command" in talk("/usr").err
    assert "no such command" not in talk(" /usr").err


def test_what_else_each_token_might_have_been(talk):
    lines = talk("Hello", "/tokens", temperature=0, max_new_tokens=3).out.splitlines()[-3:]
    for line in lines:
        shares = [float(word.rstrip("%")) for word in line.split() if word.endswith("%")]
        assert len(shares) == 5
        assert shares == sorted(shares, reverse=True)


def test_conversations_are_kept_and_taken_up(talk, tmp_path):
    file = tmp_path / "chats.jsonl"
    once = talk("Hello", "/new", "And you?", "/chats", out=file, temperature=0).out
    assert "    1  Hello\n*   2  And you?\n" in once
    first, second = map(json.loads, file.read_text().splitlines())
    assert first["messages"][0] == {"role": "user", "content": "Hello"}
    again = talk("/chats", "/open 1", "More", out=file, temperature=0).out
    assert again.startswith("    1  Hello\n    2  And you?\n*   3  (new)\n> Hello\n")
    longer, same = map(json.loads, file.read_text().splitlines())
    assert longer["messages"][:3] == [*first["messages"], {"role": "user", "content": "More"}]
    assert same == second
    # What is said in one turn after the other is what was said at once.
    assert longer["messages"][3]["content"] == talk("Hello", "More", temperature=0).out.splitlines()[-1]
    assert conversation(longer["messages"])


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"messages": 5}', '{"messages": [{"role": "root", "content": ""}]}']
)
def test_a_file_of_something_else_is_left_alone(line, trained, tmp_path, capsys):
    file = tmp_path / "notes.jsonl"
    file.write_text(line)
    assert main(["chat", f"run={trained}", f"out={file}"]) == 1
    assert "line 1" in capsys.readouterr().err
    assert file.read_text() == line
    assert main(["chat", f"run={trained}", f"out={tmp_path}/nowhere/x.jsonl"]) == 2
