import pytest

from llm.cli.main import main


@pytest.fixture
def trained(tiny_run):
    return tiny_run("a", "trainer.max_steps=2")


def generate(capsys, *words):
    assert main(["generate", *words]) == 0
    return capsys.readouterr().out


PROMPTS = [
    "def main():",
    "",
    " leading",
    "a = b, c: {d}",
    "<|endoftext|>",
    "naïve ▁ 猫 😀\n\t",
    "x" * 500,
    "${oops} [1] ~",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_any_text_is_a_legal_prompt(trained, capsys, prompt):
    out = generate(capsys, f"run={trained}", f"prompt={prompt}", "max_new_tokens=5", "seed=1")
    assert out.startswith(prompt)


def test_the_same_seed_gives_the_same_text(trained, capsys):
    words = [
        f"run={trained}",
        "prompt=def",
        "max_new_tokens=40",
        "top_k=20",
        "top_p=0.9",
        "min_p=0.01",
        "num_samples=2",
    ]
    first, second = generate(capsys, *words, "seed=3"), generate(capsys, *words, "seed=3")
    assert first == second
    assert generate(capsys, *words, "seed=4") != first
    assert first.count("--- sample") == 2


def test_an_empty_value_switches_a_filter_off(trained, capsys):
    words = [f"run={trained}", "max_new_tokens=30", "seed=3"]
    assert generate(capsys, *words, "top_k=") == generate(capsys, *words)


def test_bad_values_are_refused(trained, capsys):
    assert main(["generate", f"run={trained}", "temperature=-1"]) == 2
    assert "temperature" in capsys.readouterr().err


def test_weights_of_eight_bits_write_too(trained, capsys):
    out = generate(capsys, f"run={trained}", "prompt=def", "precision=int8", "max_new_tokens=9", "seed=1")
    assert out.startswith("def")
