"""A traced step against hand counts, against what torch's own allocator gave out, and against itself, deeper."""

import contextlib
import dataclasses
import functools
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from llm.adapter import Lora
from llm.data.collators.base import SampleCost
from llm.model import ModelConfig, Transformer, init_weights
from llm.objective.cross_entropy import CrossEntropy
from llm.plan import Layout, TrainingStep, blanks, blanks_like, ledger, trace, whole_context
from llm.plan.trace import trace_all
from llm.train.activation_checkpointing import apply_activation_checkpointing
from llm.train.memory import MEASURED_STEPS
from llm.train.optimizers import Muon, adamw
from llm.train.parallelism import STRATEGIES
from llm.train.zero import frozen_share

CONFIG = ModelConfig(d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, context_length=128, vocab_size=500)
SHALLOW = dataclasses.replace(CONFIG, n_layers=1)
# norms 2 x 64 a layer and 64, attention 64 x 64 x 2 + 64 x 32 x 2, feed-forward 3 x 64 x 192
PARAMETERS = 500 * 64 + 64 + 3 * (2 * 64 + 12288 + 36864)
ADAMW = functools.partial(adamw, lr=1e-3)
MUON = functools.partial(Muon, lr=1e-3)


def model(config, checkpointing=None):
    with torch.device("meta"):
        net = Transformer(config)
    apply_activation_checkpointing(net, checkpointing)
    return net


def filled(config, extra_fields=()):
    """Gives batches of samples that fill the context."""
    whole = whole_context(config)
    return functools.partial(blanks, SampleCost(whole, whole, extra_fields))


def step(config=CONFIG, strategy="single", processes=1, tensor=1, checkpointing=None, **changes):
    keys = {
        "layout": Layout(dataclasses.replace(STRATEGIES[strategy], tensor_parallel_size=tensor), processes),
        "model": functools.partial(model, checkpointing=checkpointing),
        "batches": filled(config),
        "optimizer": ADAMW,
        "precision": "32-true",
        "micro_batch_size": 4,
        "pattern_length": checkpointing if isinstance(checkpointing, int) else 1,
        # From the second on all state is there; more of them matter to the gaps of a heap alone.
        "steps": 2,
    }
    return TrainingStep(
        model_config=config,
        objective=CrossEntropy(),
        work=whole_context(config),
        **(keys | changes),
    )


def test_state_is_counted_as_by_hand():
    update = trace_all(step()).peaks["update"]
    assert update.weights == update.gradients == 4 * PARAMETERS
    moments = 8 * PARAMETERS
    steps = 4 * len(list(model(CONFIG).parameters()))
    assert update.optimizer == moments + steps


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_of_an_adapter_what_is_trained_alone_has_gradients(quantize):
    lora = Lora(rank=4, quantize=quantize)

    def adapted(config):
        net = model(config)
        lora.attach(net)
        return net

    update = trace_all(step(model=adapted)).peaks["update"]
    # Rank 4 beside each matrix: of 64 to 64 twice, 64 to 32 twice, and 64 to 192 three times, in each of three layers.
    trained = 3 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 192))
    in_blocks = 3 * (12288 + 36864)
    frozen = 4 * in_blocks if quantize is None else in_blocks * 4.5 / 8
    assert update.gradients == 4 * trained
    weights = 4 * (PARAMETERS - in_blocks + trained) + frozen
    assert update.weights == weights
    # Shares of all weights, and those of what is trained once more.
    shares = trace_all(step(model=adapted, strategy="deepspeed_zero3", processes=4)).peaks["update"]
    assert shares.weights == (weights + 4 * trained) / 4


@pytest.mark.parametrize("quantize", [None, "int8", "nf4"])
def test_adapters_are_traced_where_each_matrix_is_split(quantize):
    def adapted(config):
        net = model(config)
        Lora(rank=4, dora=True, quantize=quantize).attach(net)
        return net

    one, two = (
        trace_all(step(SHALLOW, model=adapted, strategy="fsdp_tp", processes=n, tensor=n)).peaks["update"]
        for n in (1, 2)
    )
    assert 0.5 <= two.weights / one.weights < 0.56


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_tp"])
def test_a_share_is_that_of_one_process(strategy):
    update = trace_all(step(strategy=strategy, processes=4, tensor=2 if strategy == "fsdp_tp" else 1))
    held = update.peaks["update"]
    assert held.weights == pytest.approx(PARAMETERS, rel=0.02)  # four bytes, four processes
    assert held.optimizer == pytest.approx(2 * PARAMETERS, rel=0.02)
    assert held.gradients == pytest.approx(PARAMETERS, rel=0.02)


def test_muon_is_traced_too():
    update = trace_all(step(optimizer=MUON)).peaks["update"]
    assert 4 * PARAMETERS < update.optimizer < 8 * PARAMETERS


def really_allocated(config, checkpointing, precision, batch):
    """The most bytes that torch's allocator had given out in two steps on real tensors."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        net = Transformer(config)
        init_weights(net, 0)
        apply_activation_checkpointing(net, checkpointing)
        optimizer = ADAMW(net.named_parameters())
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = CrossEntropy()(net, batch).mean
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("checkpointing", [None, 1, "selective"])
@pytest.mark.parametrize("micro_batch_size", [1, 8])
def test_the_peak_is_what_torch_gives_out(checkpointing, precision, micro_batch_size):
    said = trace_all(
        step(checkpointing=checkpointing, precision=precision, micro_batch_size=micro_batch_size)
    ).peak.tensors
    taken = really_allocated(CONFIG, checkpointing, precision, next(filled(CONFIG)(micro_batch_size)))
    assert said == pytest.approx(taken, rel=0.1)


MASKED = {
    "encoder": ("documents_bt",),
    "encoder_decoder": ("documents_bt", "source_documents_bs"),
}


@pytest.mark.parametrize("architecture", MASKED)
def test_masks_dropout_and_learned_biases_take_what_torch_gives_out(architecture):
    config = dataclasses.replace(
        CONFIG, architecture=architecture, position="relative", dropout=0.1, n_kv_heads=4
    )
    batch = filled(config, MASKED[architecture])
    said = trace_all(step(config, batches=batch)).peak.tensors
    assert said == pytest.approx(really_allocated(config, None, "32-true", next(batch(4))), rel=0.1)


@pytest.mark.parametrize("strategy", ["single", "fsdp"])
def test_a_trace_that_takes_too_long_is_given_up(strategy):
    late = step(strategy=strategy, processes=1 if strategy == "single" else 4)
    with pytest.raises(TimeoutError):
        trace(late, seconds=0)
    assert trace(late).peak.total > 0  # and nothing of it is left


def test_a_trace_is_given_up_at_any_moment_without_an_end_to_the_process(monkeypatch):
    config = dataclasses.replace(SHALLOW, architecture="encoder")
    late = step(config, batches=filled(config, MASKED["encoder"]))
    for moment in itertools.count():
        looks = itertools.count()
        clock = SimpleNamespace(monotonic=lambda looks=looks, moment=moment: float(next(looks) > moment))
        monkeypatch.setattr(ledger, "time", clock)
        with contextlib.suppress(TimeoutError):
            assert trace_all(late, deadline=0.5).peak.total > 0
            break
    assert moment > 2 * config.n_layers


def test_a_cpu_keeps_gaps_between_tensors_and_an_accelerator_does_not():
    cpu, cuda = (
        trace_all(step(layout=Layout(STRATEGIES["single"], accelerator=a), steps=MEASURED_STEPS)).peak
        for a in ("cpu", "cuda")
    )
    assert cpu.gaps > cuda.gaps == 0
    assert cpu.total == cpu.tensors + cpu.gaps


def test_an_accelerators_attention_keeps_no_scores():
    config = dataclasses.replace(CONFIG, architecture="encoder", dropout=0.1, n_kv_heads=4)
    batch, layouts = (
        filled(config, ("documents_bt",)),
        (Layout(STRATEGIES["single"], accelerator=a) for a in ("cpu", "cuda")),
    )
    cpu, cuda = (trace_all(step(config, batches=batch, layout=layout)).peak.activations for layout in layouts)
    # A block's scores, and what dropout leaves of them, in float32.
    scores = 4 * 4 * 128 * 128 * 4
    assert cpu - cuda > 2 * scores * config.n_layers


def test_frozen_weights_have_no_gradient():
    def half_frozen(config):
        net = model(config)
        net.stack.requires_grad_(False)
        return net

    update = trace_all(step(model=half_frozen)).peaks["update"]
    assert update.weights == 4 * PARAMETERS
    assert update.gradients == 4 * 500 * 64  # the tied embedding's


def test_zero_1_shares_the_update():
    traced = trace_all(step(strategy="deepspeed_zero1", processes=4, accumulation=3))
    update = traced.peaks["update"]
    # Whole weights and a share of them in float32; two moments of the share.
    assert update.weights == pytest.approx(4 * PARAMETERS * 5 / 4, rel=0.01)
    assert update.optimizer == pytest.approx(8 * PARAMETERS / 4, rel=0.01)
    # Gradients are summed and weights gathered once a step.
    assert traced.sent.get("data", 0) == 0
    assert traced.sent_once["data"] == pytest.approx(3 / 4 * (2 + 1) * 4 * PARAMETERS, rel=0.01)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_what_zero_rounds_of_frozen_weights_is_kept_beside_it(accelerator):
    def adapted(config):
        net = model(config)
        Lora(rank=4).attach(net)
        return net

    layout = Layout(STRATEGIES["deepspeed_zero2"], 2, accelerator)
    rounded, as_they_are = (
        trace_all(step(model=adapted, layout=layout, precision=precision)).peaks["update"]
        for precision in ("bf16-mixed", "bf16-true")
    )
    # Of every second parameter, by their order, in float32: what the strategy itself copies of such a model.
    net = Transformer(CONFIG)
    Lora(rank=4).attach(net)
    copied = sum(copy.nbytes for copy in frozen_share(net, 0, 2).values())
    assert 4 * PARAMETERS / 3 < copied < 4 * PARAMETERS
    assert rounded.weights - as_they_are.weights == (copied if accelerator == "cpu" else 0)


def test_zero_2_sums_gradients_in_each_pass():
    traced = trace_all(step(strategy="deepspeed_zero2", processes=4, accumulation=3))
    assert traced.sent["data"] == pytest.approx(3 / 4 * 2 * 4 * PARAMETERS, rel=0.01)
    assert traced.sent_once["data"] == pytest.approx(3 / 4 * 4 * PARAMETERS, rel=0.01)


def test_zero_3_shares_weights_too():
    two, eight = (trace_all(step(strategy="deepspeed_zero3", processes=n)).peaks["update"] for n in (2, 8))
    for kind in ("weights", "gradients", "optimizer"):
        assert getattr(eight, kind) == pytest.approx(getattr(two, kind) / 4, rel=0.01)


def test_what_is_offloaded_is_the_hosts():
    layout = Layout(dataclasses.replace(STRATEGIES["deepspeed_zero2"], offload=True), 4, "cuda")
    update = trace_all(step(layout=layout)).peaks["update"]
    assert update.optimizer == 0
    assert update.host > 12 * PARAMETERS / 4  # weights and two moments
    assert update.total < 4 * PARAMETERS + update.buffers + update.gradients + 1
    on_cpu = trace_all(step(layout=dataclasses.replace(layout, accelerator="cpu"))).peaks["update"]
    assert on_cpu.host == 0
    assert on_cpu.total > update.total


@pytest.mark.parametrize(
    ("strategy", "checkpointing"),
    [
        ("single", None),
        # A step of each is traced three times, in seconds.
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("single", 1), ("single", 3), ("fsdp", None), ("fsdp", 1), ("fsdp", 3))
        ),
    ],
)
def test_a_deep_model_is_on_the_line_through_two_shallow_ones(strategy, checkpointing):
    # Deeper than two shallow ones together.
    deep = dataclasses.replace(CONFIG, n_layers=20 if checkpointing == 3 else 10)
    processes = 2 if strategy == "fsdp" else 1
    whole = step(deep, strategy, processes, checkpointing=checkpointing, steps=MEASURED_STEPS)
    counted, traced = trace(whole), trace_all(whole)
    assert len(counted.peaks) < len(traced.peaks)
    assert counted.peak.tensors == pytest.approx(traced.peak.tensors, rel=1e-3)
    # Where tensors find a place is no matter of a line.
    assert counted.peak.total == pytest.approx(traced.peak.total, rel=0.1)
    assert counted.sent == pytest.approx(traced.sent)


def test_more_takes_more():
    one, four = (trace_all(step(micro_batch_size=n)).peak.tensors for n in (1, 4))
    assert one < four
    again, products, kept = (
        trace_all(step(checkpointing=r, micro_batch_size=16)).peak.tensors for r in (1, "selective", None)
    )
    assert again < products < kept
    two, eight = (trace_all(step(strategy="fsdp", processes=n)).peak.tensors for n in (2, 8))
    assert eight < two
    assert trace_all(step(strategy="ddp", processes=2)).peak.tensors > trace_all(step()).peak.tensors


def test_fsdp_sends_each_weight_twice_and_each_gradient_once():
    sent = trace_all(step(strategy="fsdp", processes=4)).sent["data"]
    # What belongs to no block is gathered once.
    blocks = 4 * (PARAMETERS - 500 * 64 - 64)
    assert sent == pytest.approx(3 / 4 * (3 * blocks + 2 * 4 * (500 * 64 + 64)), rel=0.01)


def test_a_thousand_processes_need_no_second_one():
    peak = trace_all(step(strategy="fsdp", processes=1024)).peaks["update"]
    assert peak.weights < 4 * PARAMETERS / 100
    assert not torch.distributed.is_initialized()


def test_the_first_trace_of_a_process_is_as_any_other():
    # No other test has this shape, of which DTensor remembers what it needs to know.
    config = dataclasses.replace(CONFIG, d_model=72, n_heads=6, n_kv_heads=6)
    first, again = (trace_all(step(config, "fsdp_tp", 4, tensor=2, steps=MEASURED_STEPS)) for _ in range(2))
    assert first.peaks == again.peaks
    assert first.peak.total == again.peak.total


LENGTHS = {"s": 32, "l": 128}


def test_each_micro_batch_has_its_own_shape():
    works = {
        name: whole_context(dataclasses.replace(CONFIG, context_length=n)) for name, n in LENGTHS.items()
    }
    known = {name: next(blanks(SampleCost(work, work), 4)) for name, work in works.items()}

    def peak(order):
        return trace_all(step(batches=lambda _: blanks_like(known[name] for name in order))).peak.tensors

    peaks = {order: peak(order) for order in ("sss", "sls", "lss", "lll")}
    # The longest counts, whenever it comes; in the first step no moments are there yet.
    assert peaks["sss"] < peaks["lss"] <= peaks["sls"] == peaks["lll"]


def test_tracing_leaves_the_default_dtype_alone():
    trace_all(step(precision="bf16-true"))
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("architecture", ["encoder", "encoder_decoder"])
def test_every_architecture_is_traced(architecture):
    assert trace(step(dataclasses.replace(CONFIG, architecture=architecture))).peak.activations > 0
