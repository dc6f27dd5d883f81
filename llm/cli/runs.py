"""`llm runs`: list the runs and how they stand, or compare some."""

ABOUT = """List the runs in runs_dir, each with its status, step, losses, bits per byte of the last validation, age and
last sample. With two runs or more: where their configs differ, and a page with their curves over one another."""

EXAMPLES = {
    "runs_dir=elsewhere": "those of another folder than runs/",
    "'run=[runs/mine,runs/demo]'": "two of them, compared",
    "'run=[runs/a,runs/b,runs/c]' out=abc.html": "three, and where the page goes",
}
