"""`llm evaluate`: score a run on held-out text."""

ABOUT = """Score a run on held-out text, such as by loss and bits per byte over every byte, or on tasks; several runs, and
services, are compared. Figures go into evaluation.json and a page. Without data= the text is the run's own
validation split, with data= all of another set."""

EXAMPLES = {
    "run=runs/mine": "on its validation split",
    "run=runs/mine data=text 'data.paths=[other/*.txt]'": "on all of another set",
    "'run=[runs/mine,runs/demo]' eval=lm_eval 'lm_eval.tasks=[hellaswag]'": "two runs on a task of lm-evaluation-harness",
}
