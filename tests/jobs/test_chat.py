"""`llm chat`: turns go in by lines, answers come out, and a chat can be stopped, asked anew and begun again."""

import io

import pytest

from llm.cli.main import main
from llm.jobs import chat


@pytest.fixture
def trained(tiny, tmp_path, capsys):
    longer = [word.replace("context_length=32", "context_length=128") for word in tiny]
    assert main(["train", *longer, "name=a", "trainer.max_steps=2"]) == 0
    capsys.readouterr()
    return tmp_path / "runs/a"


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
