"""Operations, time and budgets against figures that others published."""

import dataclasses
import functools

import pytest

from llm.cli.compose import compose
from llm.model import ModelConfig, parameter_count
from llm.plan import (
    Hardware,
    Layout,
    Memory,
    Trace,
    TrainingStep,
    compute_optimal,
    data_link,
    messages,
    step_flops,
    tensor_link,
    whole_context,
)
from llm.plan.time import pace, twice_flops, update_seconds
from llm.train.parallelism import STRATEGIES


def model_config(name, vocab_size):
    keys = compose("train", [f"model={name}"]).config["model"]
    return ModelConfig.from_dict({**keys, "vocab_size": vocab_size})


def step(config, strategy="single", processes=1, **changes):
    keys = {"precision": "bf16-mixed", "micro_batch_size": 1}
    layout = Layout(STRATEGIES[strategy], processes)
    work = whole_context(config)
    return TrainingStep(None, config, layout, None, None, work=work, batches=None, **(keys | changes))


GPT3 = functools.cache(lambda: model_config("gpt3_175b", 50257))


def test_gpt_3_as_its_paper_has_it():
    # arXiv 2005.14165, tables 2.1 and D.1: 174.6 billion parameters, 3.14e23 operations for 300 billion tokens.
    assert parameter_count(GPT3()) == pytest.approx(174.6e9, rel=1e-3)
    each = step_flops(step(GPT3()), 1) / 2048
    # The paper leaves attention's own products out, which are 3% here.
    assert each * 300e9 == pytest.approx(3.14e23, rel=0.04)
    without = 6 * parameter_count(GPT3())
    assert without * 300e9 == pytest.approx(3.14e23, rel=2e-3)


def test_chinchilla():
    # arXiv 2203.15556: 70 billion parameters and 1.4 trillion tokens for 5.76e23 operations.
    parameters, tokens = compute_optimal(5.76e23)
    assert parameters == pytest.approx(70e9, rel=0.02)
    assert tokens == pytest.approx(1.4e12, rel=0.02)
    assert tokens / parameters == pytest.approx(20)


@pytest.mark.parametrize(
    ("name", "length", "tokens_per_second", "mfu"),
    # torchtitan's docs/performance.md: Llama 3 8B on 64 A100 under FSDP2, operator-wise selective checkpointing.
    [("llama_8b", 8192, 2973, 0.582)],
)
def test_operations_are_counted_as_others_count_them(name, length, tokens_per_second, mfu):
    config = dataclasses.replace(model_config(name, 128256), context_length=length)
    # They count the embedding's look-up as a product.
    each = step_flops(step(config), 1) / length + 6 * config.vocab_size * config.d_model
    assert each * tokens_per_second / 312e12 == pytest.approx(mfu, rel=0.01)


def test_every_block_again_is_a_forward_pass_of_the_blocks_more():
    # A third more work, but for the head.
    one = step(GPT3())
    assert twice_flops(one, 1, 1) / step_flops(one, 1) == pytest.approx(1 / 3, rel=0.01)
    assert twice_flops(one, 1, 4) == pytest.approx(twice_flops(one, 1, 1) / 4)
    assert twice_flops(one, 1, "selective") == twice_flops(one, 1, None) == 0


H = Hardware("cuda", 80, 1000, 60, memory_gb_per_s=1000, node_gb_per_s=100, network_gb_per_s=10)
TRACE = Trace({"update": Memory(weights=10**9, gradients=10**9, optimizer=2 * 10**9)}, {"data": 5e9})
NANO = functools.cache(lambda: model_config("gpt_nano", 512))


def test_what_is_sent_once_a_step_is_counted_once():
    trace = dataclasses.replace(TRACE, sent={}, sent_once={"data": 1.5e9})
    assert messages(step(NANO(), "ddp", 4, accumulation=3), trace) == {"data": 1.5e9, "tensor": 0}


def test_fsdp_sends_in_each_micro_batch():
    assert messages(step(NANO(), "fsdp", 4, accumulation=3), TRACE)["data"] == 15e9


@pytest.mark.parametrize(
    ("processes", "peak_flops", "compute", "data", "seconds"),
    [
        (8, 1e15, 0.0001385, 0.05, 0.057),
        # Each node's eight devices share what passes between nodes: 80 GB/s, and not 100.
        (16, 1e15, 0.0000693, 0.0625, 0.0695),
        # 5.54e11 operations cover the messages.
        (8, 1e12, 0.1385, 0.05, 0.1455),
    ],
)
def test_a_step_takes_computing_or_messages_and_then_its_update(
    processes, peak_flops, compute, data, seconds
):
    paced = pace(step(NANO(), "fsdp", processes), TRACE, 64, None, peak_flops, 0.5, H)
    assert paced.compute == pytest.approx(compute, rel=1e-3)
    assert paced.data == pytest.approx(data)
    assert paced.update == pytest.approx(0.007)
    assert paced.seconds == pytest.approx(seconds, rel=1e-3)


def test_on_an_undescribed_machine_products_alone_take_time_at_four_tenths_of_their_peak():
    paced = pace(step(NANO(), "fsdp", 8), TRACE, 64, None, 1e12)
    assert paced.seconds == paced.compute == pytest.approx(0.1731, rel=1e-3)


def shared(size):
    """Sixteen devices of which so many share each matrix product."""
    return Layout(dataclasses.replace(STRATEGIES["fsdp_tp"], tensor_parallel_size=size), 16)


def test_devices_that_share_a_product_leave_each_other_fewer_network_cards():
    assert data_link(H, shared(4)) == 20
    assert data_link(H, shared(8)) == 10
    assert tensor_link(H, shared(8)) == 100
    assert tensor_link(H, shared(16)) == 10


def test_eight_network_cards_are_no_faster_than_the_links_in_a_node():
    assert data_link(dataclasses.replace(H, network_gb_per_s=50), Layout(STRATEGIES["fsdp"], 16)) == 100


def test_what_is_offloaded_travels_to_the_host_and_back():
    layout = Layout(dataclasses.replace(STRATEGIES["deepspeed_zero2"], offload=True), 4, "cuda")
    hardware = dataclasses.replace(H, host_gb_per_s=50)
    # Four float32 values a weight lie on the host: weight and gradient travel, two moments stay.
    assert update_seconds(layout, Memory(host=16 * 10**9), hardware) == pytest.approx(8 / 50)
