"""`llm train`: train a language model, or go on with one."""

ABOUT = """Train a language model from raw text, or go on with one: the same command resumes where it stopped.
The first run needs no network and no data of yours: it learns Python's own standard library.
Everything that a run makes is in runs_dir/name; shards of a corpus are kept and used again."""

EXAMPLES = {
    "experiment=demo": "a first run, minutes on two cores",
    "model=gpt_small data=text 'data.paths=[my_folder/**/*.txt]' name=mine": "your own text",
    "strategy=ddp trainer.devices=2 optimizer.lr=3e-4 trainer.max_steps=5000": "two processes",
}
