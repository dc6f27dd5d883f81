"""What a search for the fastest layout traces, and what it needn't."""

import dataclasses

import pytest
from test_trace import PARAMETERS, step

from llm.plan import Choice, Hardware, Layout, Memory, Planner, Trace, search
from llm.train.derive import check_activation_checkpointing
from llm.train.parallelism import STRATEGIES

H100 = Hardware("cuda", 80, 989, 67, 3350, 450, 64, 50)


@pytest.fixture
def searched(monkeypatch):
    """Gives what was traced of a search for eight devices: strategy, tensor parallel size and micro-batch size."""

    def search_for(room, sent=lambda layout: {}):
        seen = []

        def traced(step):
            layout = step.layout
            seen.append(
                (layout.parallelism.name, layout.parallelism.tensor_parallel_size, step.micro_batch_size)
            )
            weights = 4 * PARAMETERS // (1 if layout.parallelism.has_whole_weights else layout.world_size)
            return Trace({"update": Memory(weights, activations=step.micro_batch_size)}, sent(layout))

        monkeypatch.setattr(search, "trace", traced)
        best = planner(room).fastest(8)
        return best, seen

    return search_for


def planner(room):
    def make(choice):
        check_activation_checkpointing(choice.activation_checkpointing, choice.parallelism)
        layout = Layout(choice.parallelism, 8, "cuda")
        accumulation = 64 // (layout.data_parallel_size * choice.micro_batch_size)
        return dataclasses.replace(
            step(layout=layout, micro_batch_size=choice.micro_batch_size), accumulation=accumulation
        )

    return Planner(
        make, H100, room, batch_size=64, peak_flops=989e12, float32_flops=67e12, matmul_efficiency=0.4
    )


def test_where_weights_do_not_fit_whole_nothing_is_traced(searched):
    best, seen = searched(room=3 * PARAMETERS)
    assert best.choice.parallelism.name not in ("ddp", "deepspeed_zero1", "deepspeed_zero2")
    assert {strategy for strategy, *_ in seen} == {"fsdp", "fsdp_tp", "deepspeed_zero3"}


def test_what_is_slow_whatever_the_micro_batch_is_traced_once(searched):
    def sent(layout):
        return {"tensor": 1e12 if layout.parallelism.tensor_parallel_size > 1 else 0}

    best, seen = searched(room=1e9, sent=sent)
    assert best.choice == Choice(STRATEGIES["ddp"], 8, None)
    slow = [size for strategy, _, size in seen if strategy == "fsdp_tp"]
    assert set(slow) == {1}
