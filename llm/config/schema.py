"""The keys of every command: their types, their defaults and, as the comment that help shows, what each does."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from llm.bounds import (
    Count,
    NotNegative,
    Positive,
    PositiveShare,
    RepetitionPenalty,
    Share,
    ShareBelowOne,
    Whole,
)
from llm.config.static import Fields


@dataclass(frozen=True)
class Leaf:
    """Marks a node that names its class by `_target_`; its keys are that class's arguments."""


@dataclass(frozen=True)
class Leaves:
    """Marks a node that holds any number of leaves by name, each of the type `leaf`."""

    leaf: Any = Any


@dataclass(frozen=True)
class Beside:
    """Marks a leaf that has the keys of a dataclass of ours beside the class's arguments."""

    schema: type


Node = dict[str, Any]
Target = Annotated[Node, Leaf()]
Targets = Annotated[Node, Leaves()]
Model = Annotated[Node, Fields("llm.model.config.ModelConfig")]
Hardware = Annotated[Node, Fields("llm.plan.hardware.Hardware")]
NonEmpty = Annotated[str, MinLen(1)]
Steps = Annotated[int, Ge(-1)]
Temperature = Annotated[float, Ge(0), Le(100)]
Seed = Annotated[int, Ge(0), Le(2**31 - 1)]
Port = Annotated[int, Ge(0), Le(65535)]
Precision = Literal["auto", "32", "32-true", "bf16", "bf16-mixed", "bf16-true", "64", "64-true"]
Inference = Literal["32-true", "bf16-true", "int8"]
Architecture = Literal["decoder", "encoder", "encoder_decoder"]
LengthKey = Literal["max_tokens", "max_completion_tokens"]
Sampler = Literal["grid", "tpe", "random", "cmaes"]


@dataclass
class CheckpointConfig:
    """When to save, and what to keep."""

    every_n_steps: Count = 250  # steps between two saves
    keep_last: Count = 2  # newest checkpoints to keep
    keep_best: bool = True  # also keep the one with the lowest validation loss
    keep_every_n_steps: Count | None = None  # also keep every save at a multiple of this


@dataclass
class SamplesConfig:
    """The text that a run writes while it trains."""

    every_n_steps: Count | None = 250  # steps between two samples; null for none
    prompts: list[str] = field(default_factory=lambda: [""])  # what the samples begin with
    max_new_tokens: Count = 64  # length of a sample
    temperature: Temperature = 0.8  # 0 always takes the likeliest token
    num_samples: Count = 1  # samples for each prompt


@dataclass
class TrainerConfig:
    """Lightning's Trainer arguments under their own names; whatever counts steps counts optimizer steps."""

    max_steps: Steps = 1000  # optimizer steps; -1 for no limit
    max_epochs: Count | None = None  # passes over the data; null for no limit
    max_time: str | None = None  # wall time as DD:HH:MM:SS
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"  # what to train on
    devices: int | Literal["auto"] | list[int] = "auto"  # how many devices (or which) a node uses
    num_nodes: Count = 1  # machines
    precision: Precision = "auto"  # auto takes bfloat16 where the hardware is good at it
    strategy: Any = "auto"  # set by strategy=
    gradient_clip_val: NotNegative | None = 1.0  # largest norm of the gradient; null for no clipping
    log_every_n_steps: Count = 10  # steps between two rows of metrics
    val_check_interval: Count | None = 250  # steps between two validations
    limit_val_batches: Whole | PositiveShare = 20  # validation batches (or their share) each time
    num_sanity_val_steps: Whole = 0  # validation batches before training
    enable_progress_bar: bool = True  # show the progress bar
    deterministic: bool | Literal["warn"] = False  # use deterministic algorithms only
    benchmark: bool | None = None  # let cuDNN time its algorithms
    detect_anomaly: bool = False  # find where a NaN began; slow


@dataclass
class SourceConfig:
    """What a source of a mixture has beside its own keys."""

    weight: Positive = 1.0  # its share of the training samples, beside the others' weights
    epochs: Positive | None = None  # passes over it at most; then the others go on without it
    steps: Targets | None = field(default_factory=dict)  # what is done to its documents


Sources = Annotated[Node, Leaves(Annotated[Node, Leaf(), Beside(SourceConfig)])]


@dataclass
class BatchConfig:
    """How batches are made of a corpus, which a mixture says for all of its sources."""

    batch_size: Count = 32  # sequences in a global batch, one optimizer step
    micro_batch_size: Count | None = None  # sequences in a process's forward pass; null: found out
    repeat_batch: bool = False  # every step takes the first step's batch, as debug=overfit does


@dataclass
class LoaderConfig(BatchConfig):
    """What is done to documents and how batches are made of a corpus, whatever its source."""

    steps: Targets | None = field(default_factory=dict)  # what is done to documents before they are tokenized
    sources: Sources | None = None  # of data=mixture: a data choice by name, each with a weight


Data = Annotated[Node, Leaf(), Beside(LoaderConfig)]
# Of a data node: what says how batches are made, and all that isn't its source's.
BATCH_KEYS = frozenset(entry.name for entry in fields(BatchConfig))
LOADER_KEYS = frozenset(entry.name for kind in (LoaderConfig, SourceConfig) for entry in fields(kind))


@dataclass
class TaskConfig:
    """What a batch is and how it is scored."""

    architectures: list[Architecture] = field(default_factory=lambda: ["decoder"])  # models that it trains
    template: str | None = None  # of chats: auto (the model's own, else ChatML), or a file; null: no chats
    sentinels: Whole = 0  # spare tokens of a trained tokenizer, to stand for hidden spans
    collator: Target | None = field(default_factory=dict)  # what makes batches of samples
    objective: Target | None = field(default_factory=dict)  # the loss of a batch


@dataclass
class HarnessConfig:
    """What `eval=lm_eval` runs of lm-evaluation-harness."""

    tasks: list[NonEmpty] = field(default_factory=list)  # names of tasks, groups or tags, such as hellaswag
    include_path: str | None = None  # a folder with task files (YAML) of your own
    num_fewshot: Whole | None = None  # examples before each question; null: as the task says
    limit: Count | None = None  # examples of each task, from the first on; null: all


@dataclass
class TrainConfig:
    """The keys of `llm train`."""

    name: str | None = None  # the run's folder in runs_dir; empty: made of the chosen groups
    runs_dir: NonEmpty = "runs"  # where runs are kept
    shards_dir: NonEmpty = "shards"  # where prepared corpora are kept
    seed: Seed = 1337  # initial weights, order of the data, dropout and samples
    resume: NonEmpty = "auto"  # auto, never, must, or the checkpoint folder to go on from
    init_from: str | None = None  # start from this run, Hugging Face folder, hub id or .gguf file
    context_length: Count | None = None  # shorten that of the model of init_from to this; null: leave it
    allow_changes: bool = False  # resume although the config changed in a way that matters
    compile: bool | Literal["auto"] = "auto"  # torch.compile; auto: on NVIDIA GPUs, and in long runs on a CPU
    activation_checkpointing: Count | Literal["selective"] | None = None  # every n-th block, or parts of all
    dry_run: bool = False  # show what would run and its cost, then stop
    hang_timeout: Positive | None = 600.0  # seconds without progress that end a job; null: it waits forever
    packages: list[str] = field(default_factory=list)  # packages of your own that `_target_` may name
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)  # what is saved, and when
    samples: SamplesConfig = field(default_factory=SamplesConfig)  # text that the model writes meanwhile
    eval: list[str] = field(default_factory=lambda: ["perplexity"])  # what the trained model is scored by
    eval_every_n_steps: Count | None = None  # steps between two scorings by `eval`; null: at the end alone
    lm_eval: HarnessConfig = field(default_factory=HarnessConfig)  # what eval=lm_eval runs
    save_outputs: bool = True  # keep what each example was scored, in the run's outputs/
    model: Model = field(default_factory=dict)  # sizes and parts of the transformer
    tokenizer: Target = field(default_factory=dict)  # from text to ids
    data: Data = field(default_factory=dict)  # the text, and how it is put into batches
    task: TaskConfig = field(default_factory=TaskConfig)  # what a batch is, and how it is scored
    adapter: Target | None = None  # what is trained beside a frozen model; null: all its weights
    optimizer: Target = field(default_factory=dict)  # makes an update of the gradients
    schedule: Target = field(default_factory=dict)  # the learning rate over the steps
    trainer: TrainerConfig = field(default_factory=TrainerConfig)  # how long, on what, how precisely
    logger: Targets = field(default_factory=dict)  # where metrics go beside metrics.csv
    callbacks: Targets = field(default_factory=dict)  # Lightning callbacks of your own


@dataclass
class PlanConfig(TrainConfig):
    """The keys of `llm plan` beside those of `llm train`."""

    goal: Literal["answer", "fastest"] = "answer"  # answer: does it fit; fastest: the most tokens/s
    tokens: Positive | None = None  # to train on; null: as many as trainer.max_steps takes
    matmul_efficiency: PositiveShare = 0.4  # share of the peak that matrix products reach while they run
    headroom: ShareBelowOne = 0.1  # share of a device's memory that is kept free
    out: str | None = None  # a JSON file to write the plan to
    hardware: Hardware = field(default_factory=dict)  # what to plan for


@dataclass
class SweepConfig:
    """How `llm train -m` chooses its jobs and judges them."""

    sampler: Sampler = "grid"  # grid: every combination; else Optuna's sampler of that name chooses
    trials: Count = 20  # jobs, where Optuna chooses them
    metric: NonEmpty = "bits_per_byte"  # what judges a job, in its results.json or metrics.csv
    goal: Literal["minimize", "maximize"] = "minimize"  # which figures are better
    seed: Seed = 1337  # of Optuna's choices


@dataclass
class SweepRoot:
    """The keys of `llm train -m` beside those of its jobs."""

    sweep: SweepConfig = field(default_factory=SweepConfig)  # how jobs are chosen and judged


@dataclass
class ApiConfig:
    """The endpoint of model=api, compatible with OpenAI's API; its key comes from the environment alone."""

    base_url: str | None = None  # such as http://127.0.0.1:8000/v1; null: OpenAI's own
    model: str = ""  # what the endpoint calls the model
    key_env: str | None = "OPENAI_API_KEY"  # the environment variable with the key; null: none is needed
    kind: Literal["chat", "completions"] = "chat"  # ask as a user of a chat, or give a text to go on from
    length_key: LengthKey = "max_tokens"  # what the endpoint calls the most tokens of an answer
    answer_tokens: Count = 16  # tokens of an answer that names one of several choices
    concurrency: Count = 4  # requests at a time
    max_retries: Whole = 8  # of a request that fails, or gets no answer in time
    timeout: Positive = 60.0  # seconds to wait for an answer
    price_in: NotNegative | None = None  # of a million tokens read
    price_out: NotNegative | None = None  # of a million tokens written


@dataclass
class GoogleConfig:
    """Google Cloud Natural Language, for model=google_nl; its credentials come from the environment alone."""

    task: Literal["sentiment", "classification", "entities"] = "sentiment"  # what the labels of data= are
    positive: NonEmpty = "positive"  # the label of a sentiment of 0 or more
    negative: NonEmpty = "negative"  # the label of one below 0
    neutral: str | None = None  # the label of one near 0; null: there is none
    neutral_within: Share = 0.25  # how near
    kinds: dict[str, str] = field(default_factory=dict)  # tags by type of entity: {WORK_OF_ART: work}
    language: str | None = None  # of the texts, such as en; null: the service finds out
    base_url: str | None = None  # a stand-in, asked without credentials; null: Google's own
    concurrency: Count = 4  # requests at a time
    timeout: Positive = 60.0  # seconds in which a text is asked again until it is answered
    price: NotNegative | None = None  # of a thousand units of 1,000 characters


@dataclass
class EvaluateConfig:
    """The keys of `llm evaluate`."""

    run: NonEmpty | list[NonEmpty] | None = None  # the run folder, or a list of them
    model: Literal["api", "google_nl"] | None = None  # what else is scored, beside the runs or alone
    api: ApiConfig = field(default_factory=ApiConfig)  # the endpoint of model=api
    google_nl: GoogleConfig = field(default_factory=GoogleConfig)  # the service of model=google_nl
    answers_dir: NonEmpty = "answers"  # where answers of services, and what came of them, are kept
    checkpoint: str | None = None  # a checkpoint folder, its name, or best; empty: the last good one
    data: Data | None = None  # score the whole of this set; null: the run's own validation split
    shards_dir: NonEmpty = "shards"  # where prepared corpora are kept
    batch_size: Count = 16  # sequences scored at a time
    eval: list[str] | None = None  # evaluations by name; null: those that the run ended with
    lm_eval: HarnessConfig = field(default_factory=HarnessConfig)  # what eval=lm_eval runs
    save_outputs: bool = True  # keep what each example was scored, in the run's outputs/
    out: str | None = None  # the page; empty: evaluation.html in the run's folder, or beside several runs
    seed: int = 1337  # of what is sampled
    packages: list[str] = field(default_factory=list)  # packages of your own that `_target_` may name


@dataclass
class PromptsConfig:
    """Where `llm generate` reads many prompts."""

    paths: list[NonEmpty] = field(default_factory=list)  # JSON lines, a prompt a line; empty: prompt= alone
    text: NonEmpty = "prompt"  # the field that holds the prompt


@dataclass
class GenerateConfig:
    """The keys of `llm generate`."""

    run: NonEmpty = ""  # the run folder
    checkpoint: str | None = None  # a checkpoint folder, its name, or best; empty: the last good one
    prompt: str = ""  # what the text begins with; any text
    max_new_tokens: Count = 200  # tokens to write at most
    temperature: Temperature = 0.8  # 0 always takes the likeliest token
    top_k: Count | None = None  # choose among this many likeliest tokens
    top_p: PositiveShare | None = None  # choose among the likeliest tokens that make up this probability
    min_p: PositiveShare | None = None  # drop tokens below this share of the likeliest one's probability
    repetition_penalty: RepetitionPenalty | None = None  # above 1 makes repetition less likely
    seed: int | None = None  # same seed, same text
    num_samples: Count = 1  # how many texts to write
    data: PromptsConfig = field(default_factory=PromptsConfig)  # a file of prompts
    out: str | None = None  # where the texts for data.paths go, as JSON lines
    max_batch_size: Count = 16  # how many of data.paths' texts to write at a time
    cache_gib: Positive = 4.0  # memory of their cache; where short, fewer texts at a time
    precision: Inference = "32-true"  # bf16-true: faster, less exact; int8: for CPUs, the least exact


@dataclass
class ChatConfig:
    """The keys of `llm chat`."""

    run: NonEmpty = ""  # a run or Hugging Face folder
    checkpoint: str | None = None  # a checkpoint folder, its name, or best; empty: the last good one
    system: str = ""  # instructions that stand before the chat
    max_new_tokens: Count = 500  # tokens of an answer at most
    temperature: Temperature = 0.8  # 0 always takes the likeliest token
    top_k: Count | None = None  # choose among this many likeliest tokens
    top_p: PositiveShare | None = None  # choose among the likeliest tokens that make up this probability
    min_p: PositiveShare | None = None  # drop tokens below this share of the likeliest one's probability
    repetition_penalty: RepetitionPenalty | None = None  # above 1 makes repetition less likely
    seed: int | None = None  # same seed, same answers
    out: str | None = None  # a file that keeps the conversations, as JSON lines that data=chat reads
    speculate: Whole = 0  # tokens that a step guesses from repetitions, while one text is written
    precision: Inference = "32-true"  # bf16-true: faster, less exact; int8: for CPUs, the least exact


@dataclass
class ServeConfig:
    """The keys of `llm serve`."""

    run: NonEmpty | list[NonEmpty] = ""  # a run or Hugging Face folder, or a list of them
    checkpoint: str | None = None  # a checkpoint folder, its name, or best; empty: the last good one
    host: NonEmpty = "127.0.0.1"  # the address to listen on; any but this machine's own needs api_key
    port: Port = 8000  # 0 takes a free one
    api_key: str | None = None  # what clients must send; better in the environment, as LLM_API_KEY
    allowed_hosts: list[NonEmpty] = field(default_factory=list)  # a proxy's names, as chat.example.com
    frame_ancestors: list[NonEmpty] = field(default_factory=list)  # sites that may frame the page
    max_batch_size: Count = 16  # texts that a model writes at a time
    max_waiting: Whole = 64  # texts that may wait beside them; more are refused with 429
    cache_gib: Positive = 4.0  # memory of all models' caches; where short, fewer texts at a time
    speculate: Whole = 0  # tokens that a step guesses and checks, while one text is written
    draft: str | None = None  # a small run with the same tokenizer, which guesses them; null: repetitions do
    precision: Inference = "32-true"  # bf16-true: faster, less exact; int8: for CPUs, the least exact


@dataclass
class ExportConfig:
    """The keys of `llm export`."""

    run: NonEmpty = ""  # the run folder
    checkpoint: str | None = None  # a checkpoint folder, its name, or best; empty: the last good one
    format: Literal["hf", "gguf", "onnx", "peft"] = "hf"  # of transformers, llama.cpp, ONNX Runtime or PEFT
    out: NonEmpty = ""  # the folder to make; nothing may stand there yet
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the weights
    shard_bytes: Count = 5_000_000_000  # the largest file of weights, for format=hf
    push_to: Literal["hub"] | None = None  # hub: send it to Hugging Face's hub, by the token in HF_TOKEN
    repo: str | None = None  # what it is called there, such as me/my-model
    private: bool = True  # a repository that is made for it is seen by its owner alone
    dry_run: bool = False  # show which files would be written and sent, then stop


@dataclass
class ConvertConfig:
    """The keys of `llm convert`."""

    run: NonEmpty = ""  # the run folder
    checkpoint: str | None = None  # a checkpoint folder, its name, or best; empty: the last good one
    out: NonEmpty = ""  # the folder to write the checkpoint's folder into
    to: Literal["whole", "sharded"] = "whole"  # one file of weights and one of optimizer state, or shards
    shards: Count = 1  # how many files of each, where sharded


@dataclass
class MergeConfig:
    """The keys of `llm merge`."""

    run: NonEmpty = ""  # the run folder, of a run with an adapter
    checkpoint: str | None = None  # a checkpoint folder, its name, or best; empty: the last good one
    out: NonEmpty = ""  # the run folder to make; nothing may stand there yet


@dataclass
class PrepareConfig:
    """The keys of `llm prepare`."""

    shards_dir: NonEmpty = "shards"  # where prepared corpora are kept
    processes: Count | None = None  # worker processes; null for one a core, or as many as a cluster gives
    executor: Target = field(default_factory=dict)  # what does the work, on this machine or on many
    architecture: Architecture | None = None  # whom task=seq2seq and summarization are for; null: a decoder
    dry_run: bool = False  # show 20 documents before and after the steps, then stop
    data: Data = field(default_factory=dict)  # the text, and how it is put into batches
    tokenizer: Target = field(default_factory=dict)  # from text to ids
    task: TaskConfig = field(default_factory=TaskConfig)  # what a batch is, and how it is scored
    packages: list[str] = field(default_factory=list)  # packages of your own that `_target_` may name


@dataclass
class RunsConfig:
    """The keys of `llm runs`."""

    runs_dir: NonEmpty = "runs"  # where the runs are
    run: list[NonEmpty] | None = None  # two run folders or more, to be compared; null lists all
    out: str | None = None  # the page of a comparison; empty: compare.html in runs_dir


@dataclass
class DoctorConfig:
    """The keys of `llm doctor`."""

    runs_dir: NonEmpty = "runs"  # where runs would be kept
    shards_dir: NonEmpty = "shards"  # where prepared corpora would be kept
    compile: bool = True  # whether to try torch.compile, which takes seconds


SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "sweep": SweepRoot,
    "evaluate": EvaluateConfig,
    "generate": GenerateConfig,
    "export": ExportConfig,
    "convert": ConvertConfig,
    "merge": MergeConfig,
    "chat": ChatConfig,
    "serve": ServeConfig,
    "prepare": PrepareConfig,
    "plan": PlanConfig,
    "runs": RunsConfig,
    "doctor": DoctorConfig,
}
