"""What `--help` says of each command above its keys: what it does, in a line and at length, and three examples."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What help says of a command.

    Args:
        summary: what it does, in a line.
        text: the same at length.
        examples: what may stand behind the command's name, with a remark on each.
    """

    summary: str
    text: str
    examples: Mapping[str, str]


ABOUT = {
    "train": About(
        "train a language model, or go on with one",
        """Train a language model from raw text, or go on with one: the same command resumes where it stopped.
The first run needs no network and no data of yours: it learns Python's own standard library.
Everything that a run makes is in runs_dir/name; shards of a corpus are kept and used again.""",
        {
            "experiment=demo": "a first run, minutes on two cores",
            "model=gpt_small data=text 'data.paths=[my_folder/**/*.txt]' name=mine": "your own text",
            "strategy=ddp trainer.devices=2 optimizer.lr=3e-4 trainer.max_steps=5000": "two processes",
        },
    ),
    "evaluate": About(
        "score a run on held-out text",
        """Score a run on held-out text, such as by loss and bits per byte over every byte, or on tasks; several runs, and
services, are compared. Figures go into evaluation.json and a page. Without data= the text is the run's own
validation split, with data= all of another set.""",
        {
            "run=runs/mine": "on its validation split",
            "run=runs/mine data=text 'data.paths=[other/*.txt]'": "on all of another set",
            "'run=[runs/mine,runs/demo]' eval=lm_eval 'lm_eval.tasks=[hellaswag]'": "two runs on a task of lm-evaluation-harness",
        },
    ),
    "generate": About(
        "write text with a run",
        """Write text with a run, shown as it comes. Any text is a legal prompt: all that stands after prompt= is
taken as typed.""",
        {
            'run=runs/demo prompt="def main():"': "go on from a prompt",
            "run=runs/demo temperature=0.8 top_p=0.95 max_new_tokens=500": "shape the choice of tokens",
            "run=runs/demo 'data.paths=[prompts.jsonl]' out=texts.jsonl": "go on from each line of a file",
        },
    ),
    "chat": About(
        "chat with a run in the terminal",
        """Chat with a run, or the folder of a Hugging Face model. Ctrl-C stops an answer, Ctrl-D ends; /again asks
anew, /set temperature=0 says how it is written, /tokens shows what else each token might have been, /new, /chats and
/open go between conversations, /help lists all. Any other text is a message, as typed.""",
        {
            "run=runs/demo": "chat",
            'run=runs/demo system="Answer in one line."': "with instructions that stand before the chat",
            "run=runs/demo temperature=0 out=chats.jsonl": "always the likeliest token, in conversations that are kept",
        },
    ),
    "serve": About(
        "answer programs and people over HTTP with one run or several",
        """Serve runs, or folders of Hugging Face models, over HTTP: OpenAI's API at /v1 and a page to chat at /. Each
is named after its folder. Only this machine can reach it, unless host= says otherwise, which needs a key.""",
        {
            "run=runs/demo": "one model, at http://127.0.0.1:8000",
            "'run=[runs/demo,runs/mine]' port=9000": "several, chosen by name in each request",
            "run=runs/demo host=0.0.0.0 api_key=secret": "for other machines too, with a key",
        },
    ),
    "export": About(
        "write a run's model for other programs",
        """Write a run's model and tokenizer in a format that other programs load: whole, or not at all. What the format
has no name for is said before anything is written.""",
        {
            "run=runs/mine out=mine-hf dtype=bfloat16": "a folder for transformers and vLLM, with a model card",
            "run=runs/mine out=mine.gguf format=gguf": "one file for llama.cpp and Ollama",
            "run=runs/mine out=mine-onnx format=onnx": "a folder for ONNX Runtime",
        },
    ),
    "prepare": About(
        "make the shards of a corpus",
        """Make the shards of a corpus ahead of training: train the tokenizer, encode, write, report. A run with the
same data= and tokenizer= finds them by their fingerprint. A killed preparation goes on where it stopped.""",
        {
            "data=text 'data.paths=[my_folder/**/*.txt]' tokenizer.vocab_size=8192": "your own text",
            "data=wikipedia data.paths=[enwiki-latest-pages-articles.xml.bz2]": "the articles of a dump",
            "data=common_crawl data.paths=[wet.paths.gz]": "web pages, as a list of Common Crawl names them",
        },
    ),
    "convert": About(
        "a checkpoint from shards to whole files, and back",
        """Write a run's checkpoint anew, weights and optimizer state in whole safetensors files or in shards. No more
than the largest tensor is held in memory.""",
        {
            "run=runs/demo out=whole": "one file of weights, as other programs read it",
            "run=runs/demo checkpoint=best out=whole": "that of the lowest validation loss",
            "run=runs/demo out=split to=sharded shards=8": "eight files of weights, for eight processes to read at once",
        },
    ),
    "merge": About(
        "a run's adapter folded into its weights",
        """Fold the adapter of a run into its weights: the folder that is made is an ordinary run's, of the same model without
an adapter, for all other commands.""",
        {
            "run=runs/tuned out=runs/merged": "the last good checkpoint",
            "run=runs/tuned out=runs/merged checkpoint=best": "that of the lowest validation loss",
            "run=runs/tuned out=runs/half checkpoint=step_00000500": "that of a step",
        },
    ),
    "plan": About(
        "what a training command would take, on hardware that need not be here",
        """Say whether a training command fits, where the memory goes, what to change, how long it takes and what it
costs: from a step on tensors without storage, on any machine, in a minute or so. It takes all that llm train takes.""",
        {
            "model=gpt_small": "on this machine",
            "model=gpt3_175b strategy=fsdp trainer.devices=1024 hardware=h100 tokens=3e11": "a cluster, from a laptop",
            "model=llama_8b trainer.devices=8 hardware=a100_80 goal=fastest": "the best way to lay it out",
        },
    ),
    "runs": About(
        "list the runs and how they stand, or compare some",
        """List the runs in runs_dir, each with its status, step, losses, bits per byte of the last validation, age and
last sample. With two runs or more: where their configs differ, and a page with their curves over one another.""",
        {
            "runs_dir=elsewhere": "those of another folder than runs/",
            "'run=[runs/mine,runs/demo]'": "two of them, compared",
            "'run=[runs/a,runs/b,runs/c]' out=abc.html": "three, and where the page goes",
        },
    ),
    "doctor": About(
        "look at this machine and installation, and say what to do",
        """Look at this machine and installation: Python and packages, cores, accelerators, bfloat16, torch.compile,
memory, disk, optional packages, W&B's key, each with what to do where something is amiss. Ends with exit code 1
where something that is needed is missing.""",
        {
            "compile=false": "without the seconds that torch.compile takes",
            "runs_dir=/data/runs": "whether runs have room there",
            "runs_dir=/data/runs shards_dir=/data/shards": "and shards",
        },
    ),
}
