"""Training loops as one writes them by hand, around models of others and of ours, and Hugging Face's Trainer.

A contestant of throughput.py: it runs in a process of its own and prints tokens per second. It imports nothing of
ours but for the model named `ours`, so that it runs in an environment of its own too.

    python benchmarks/loops.py huggingface '{"precision": "bf16", ...}'     (see Job)
"""

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from timing import give_up, say


@dataclass(frozen=True)
class Job:
    """A GPT-2 of some shape and how it is trained; only the steps after the first `warm` are timed.

    `torch` is the release that it has to run on, so that all contestants share one; empty for any.
    """

    n_layers: int
    d_model: int
    n_heads: int
    vocab_size: int
    context_length: int
    batch_size: int
    warm: int
    timed: int
    precision: str = "float32"
    compile: bool = False
    torch: str = ""

    @property
    def tokens(self) -> int:
        """Of the timed steps."""
        return self.timed * self.batch_size * self.context_length

    def to_json(self) -> str:
        """What the second argument of this script is."""
        return json.dumps(asdict(self))


def need(package: str) -> Any:
    """Import a package, or end this process saying that it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        return give_up(f"{package} is not installed for {sys.executable}")


def random_ids(job: Job) -> Any:
    """The one batch (b, t) that a loop trains on: data that costs it nothing."""
    import torch

    return torch.randint(
        job.vocab_size, (job.batch_size, job.context_length), generator=torch.Generator().manual_seed(0)
    )


def gpt2(job: Job) -> Any:
    """Hugging Face's GPT-2, without dropout, its attention torch's own."""
    transformers = need("transformers")
    config = transformers.GPT2Config(
        vocab_size=job.vocab_size,
        n_positions=job.context_length,
        n_embd=job.d_model,
        n_layer=job.n_layers,
        n_head=job.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    return transformers.GPT2LMHeadModel(config)


def huggingface(job: Job) -> Callable[[Any], Any]:
    """Ids to loss by Hugging Face's GPT-2; the model is the function's attribute `model`."""
    import torch

    model = gpt2(job)
    call = torch.compile(model) if job.compile else model
    return scored(model, lambda ids: call(input_ids=ids, labels=ids).loss)


def litgpt(job: Job) -> Callable[[Any], Any]:
    """Ids to loss by litgpt's GPT: rotary where GPT-2 learns its positions, tied as GPT-2 is."""
    package = need("litgpt")
    import torch

    config = package.Config(
        n_layer=job.n_layers,
        n_embd=job.d_model,
        n_head=job.n_heads,
        vocab_size=job.vocab_size,
        padded_vocab_size=job.vocab_size,
        block_size=job.context_length,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        gelu_approximate="tanh",
        parallel_residual=False,
        bias=True,
        lm_head_bias=False,
        rotary_percentage=1.0,
    )
    model = package.GPT(config)
    model.apply(model._init_weights)
    model.lm_head.weight = model.transformer.wte.weight
    call = torch.compile(model) if job.compile else model
    return scored(model, lambda ids: next_token_loss(call(ids), ids))


def ours(job: Job) -> Callable[[Any], Any]:
    """Ids to loss by our model of GPT-2's parts and our objective."""
    import torch

    from llm.data.collators.base import Batch
    from llm.model import ModelConfig, Transformer, init_weights
    from llm.objective.cross_entropy import CrossEntropy

    config = ModelConfig(
        d_model=job.d_model,
        n_layers=job.n_layers,
        n_heads=job.n_heads,
        context_length=job.context_length,
        vocab_size=job.vocab_size,
        norm="layer",
        norm_eps=1e-5,
        position="learned",
        attention_bias=True,
        mlp_bias=True,
        activation="gelu_tanh",
    )
    model = Transformer(config)
    init_weights(model, 0)
    objective = torch.compile(CrossEntropy()) if job.compile else CrossEntropy()
    samples = torch.arange(job.batch_size)
    return scored(model, lambda ids: objective(model, Batch(ids, ids.roll(-1, 1), samples)).mean)


def scored(model: Any, loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`loss` with the model as its attribute."""
    loss.model = model  # type: ignore[attr-defined]
    return loss


def next_token_loss(logits_btv: Any, ids_bt: Any) -> Any:
    """Cross-entropy of each token but the first."""
    import torch.nn.functional as F

    return F.cross_entropy(logits_btv[:, :-1].flatten(0, 1).float(), ids_bt[:, 1:].flatten())


def bare_loop(loss: Callable[[Any], Any], job: Job, device: str = "cpu") -> dict[str, float]:
    """Train by a loop of nothing but what every loop needs; its tokens per second."""
    step = bare_step(loss, job, device)
    for _ in range(job.warm):
        step()
    began = clock(device)
    for _ in range(job.timed):
        step()
    return {"tokens_per_second": job.tokens / (clock(device) - began)}


def bare_step(loss: Callable[[Any], Any], job: Job, device: str = "cpu") -> Callable[[], None]:
    """One optimizer step of that loop."""
    import torch

    model = loss.model.to(device).train()  # type: ignore[attr-defined]
    ids = random_ids(job).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=job.precision == "bf16"):
            value = loss(ids)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def clock(device: str) -> float:
    """The time when the device has done what it was given."""
    import torch

    if device != "cpu":
        getattr(torch, device).synchronize()
    return time.perf_counter()


def hf_trainer(job: Job) -> dict[str, float]:
    """Train by Hugging Face's Trainer; its tokens per second."""
    need("accelerate")
    transformers = need("transformers")
    model, (ids,) = gpt2(job), random_ids(job)[:1]
    times = {}

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            times[state.global_step] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=job.precision == "bf16",
            torch_compile=job.compile,
            max_steps=job.warm + job.timed,
            per_device_train_batch_size=job.batch_size,
            optim="adamw_torch_fused",
            learning_rate=3e-4,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        )
        rows = [{"input_ids": ids, "labels": ids}] * (job.batch_size * (job.warm + job.timed))
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[Watch()]).train()
    return {"tokens_per_second": job.tokens / (times[job.warm + job.timed] - times[job.warm])}


LOSSES = {"huggingface": huggingface, "litgpt": litgpt, "ours": ours}


def main() -> None:
    name, job = sys.argv[1], Job(**json.loads(sys.argv[2]))
    here = need("torch").__version__.partition("+")[0]
    if job.torch not in ("", here):
        give_up(f"torch is {here} for {sys.executable}, and {job.torch} for the others")
    say(hf_trainer(job) if name == "hf_trainer" else bare_loop(LOSSES[name](job), job))


if __name__ == "__main__":
    main()
