"""What fits into a model's context, and what is said of what doesn't."""

import pytest

from llm.generation.context import ContextError, check_fits, room_after


def test_a_prompt_leaves_the_rest_of_the_context():
    assert [room_after([1] * length, 4) for length in (1, 4, 5)] == [3, 0, -1]


def test_what_fills_the_context_fits():
    check_fits(4, 4)
    check_fits(4, 1, 3)


@pytest.mark.parametrize(
    ("sizes", "how", "said"),
    [
        ((5,), {}, "The text has 5 tokens; the model's context_length is 4. Shorten it."),
        (
            (1, 4),
            {"what": "The prompt"},
            "The prompt has 1 token and is to have 4 more; the model's context_length is 4. "
            "Shorten it, or ask for fewer.",
        ),
        (
            (5,),
            {"advice": "Begin another."},
            "The text has 5 tokens; the model's context_length is 4. Begin another.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_size_and_what_to_do(sizes, how, said):
    with pytest.raises(ContextError) as caught:
        check_fits(4, *sizes, **how)
    assert str(caught.value) == said
