"""`llm prepare`: make the shards of a corpus before anything trains on them."""

from llm import build
from llm.build import Config
from llm.config import Composed
from llm.data.documents import LeftOut
from llm.data.files.inputs import InputFiles
from llm.data.preparation import preview
from llm.data.preparation.pipeline import Pipeline
from llm.data.preparation.report import render
from llm.errors import ConfigError


def run(composed: Composed) -> int:
    """Prepare the corpus and print its report, or show what steps would do; returns the exit code."""
    config = composed.config
    build.check_mixes(config)
    if config["dry_run"]:
        return _show(config)
    spec = build.tokenizer_spec(config, _architecture(config))
    executor = build.instantiate(config["executor"], config)
    corpus = build.corpus(config, spec, show=True, processes=config["processes"], executor=executor)
    for part in corpus.corpora.values():
        print(render(part.report))
        print(f"\nReport: {part.folder / 'report.html'}\nShards: {part.folder}")
    return 0


def _architecture(config: Config) -> str:
    """What kind of model the corpus is for: the one that is named, else a decoder where the task is for one.

    Raises:
        ConfigError: the task is for none of the named kind.
    """
    named, possible = config["architecture"], config["task"]["architectures"]
    if named is None:
        return "decoder" if "decoder" in possible else possible[0]
    if named not in possible:
        raise ConfigError(f"architecture={named}: the task is for {' or '.join(possible)} alone.")
    return str(named)


def _show(config: Config) -> int:
    """Print what steps would do to some documents of the data, or of each source of a mixture."""
    sources = build.sources_of(config["data"], config)
    for name, node in (sources or {"": config["data"]}).items():
        left_out = LeftOut()
        plan = build.source(node, config).plan(InputFiles())
        previews = preview.preview(plan, Pipeline(build.cleaning_steps(node, config)), left_out)
        print(*([f"data.sources.{name}"] if name else []), preview.render(previews, left_out), sep="\n")
    return 0
