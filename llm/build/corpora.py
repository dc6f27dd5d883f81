"""The corpus, or the mixture of corpora, that a config reads."""

import re
from contextlib import nullcontext

from llm.build.nodes import Config, collator_class, collator_classes, instantiate
from llm.build.tokenizers import FixedTokenizer
from llm.config import resolve
from llm.config.schema import LOADER_KEYS
from llm.data import Source, prepare
from llm.data.collators.conversations import Conversing
from llm.data.executors.processes import Executor
from llm.data.mixture import AnyCorpus, Mixed, Mixture, SourceShare
from llm.data.preparation.pipeline import AnyStep
from llm.data.preparation.prepare import shared_tokenizer
from llm.data.preparation.progress import Bar
from llm.errors import ConfigError
from llm.tokenizer import TokenizerSpec

# The name of a mixture's source goes into column names and errors.
SOURCE_NAME = re.compile(r"[A-Za-z0-9_-]+")
# The tasks of conf/task whose collators mix; a test compares.
MIXING = ("causal_lm", "denoisers", "masked_lm", "prefix_lm", "seq2seq", "span_corruption", "summarization")


def source(data: Config, config: Config) -> Source:
    """Where a `data` node reads its text; the loader's keys in that node are not the source's."""
    found = instantiate({key: value for key, value in data.items() if key not in LOADER_KEYS}, config)
    if config["task"]["template"] is None:
        return found
    return Conversing(found, preferences=getattr(collator_class(config), "of_preferences", False))


def cleaning_steps(data: Config, config: Config) -> dict[str, AnyStep]:
    """What a `data` node does to its documents, by name and in order."""
    named = (data["steps"] or {}).items()
    return {name: instantiate(node, config) for name, node in named if node is not None}


def corpus(
    config: Config,
    spec: TokenizerSpec,
    show: bool,
    processes: int | None = None,
    executor: Executor | None = None,
) -> AnyCorpus:
    """The prepared corpus of the config's `data`, or its corpora, found again by their fingerprints where they exist."""
    data = config["data"]
    sources = sources_of(data, config)
    with Bar() if show else nullcontext() as bar:
        how: Config = {"processes": processes, "executor": executor, "progress": bar}
        if not sources:
            return prepare(
                source(data, config), spec, config["shards_dir"], steps=cleaning_steps(data, config), **how
            )
        shares = {name: SourceShare(node["weight"], node["epochs"]) for name, node in sources.items()}
        texts = {name: (source(node, config), cleaning_steps(node, config)) for name, node in sources.items()}
        tokenizer = shared_tokenizer(list(texts.values()), spec, config["shards_dir"], **how)
        fixed = FixedTokenizer(tokenizer)
        corpora = {
            name: prepare(one, fixed, config["shards_dir"], steps=done, **how)
            for name, (one, done) in texts.items()
        }
        return Mixture(corpora, shares)


def sources_of(data: Config, config: Config) -> dict[str, Config]:
    """The sources of a mixture by name; none of any other data.

    Raises:
        ConfigError: a mixture without sources, other data with them, or a name that can't be one.
    """
    is_mixture = resolve(data["_target_"], config["packages"]) is Mixed
    sources = data.get("sources") or {}
    if is_mixture != bool(sources):
        raise ConfigError(
            "data=mixture needs sources: add data.sources.<name>=<choice of data> for each."
            if is_mixture
            else f"data.sources.{next(iter(sources))}: only data=mixture has sources."
        )
    for name in sources:
        if not SOURCE_NAME.fullmatch(name):
            raise ConfigError(f"data.sources.{name}: a name has letters, digits, _ and - alone.")
    return sources


def check_mixes(config: Config) -> None:
    """Refuse a mixture for a task that can't mix, before any of its sources is prepared.

    Raises:
        ConfigError: samples of several sources can't stand in one batch of the task's collator; or as `sources_of`.
    """
    if not sources_of(config["data"], config):
        return
    classes = collator_classes(config)
    if not all(getattr(one, "mixes", False) for one in classes):
        raise ConfigError(
            f"data=mixture: {config['task']['collator']['_target_']} makes no batches of several sources. "
            f"task={', '.join(MIXING[:-1])} and {MIXING[-1]} do; a collator of your own says by `mixes = True` in its class "
            "that it does."
        )
