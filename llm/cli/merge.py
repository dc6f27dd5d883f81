"""`llm merge`: a run's adapter folded into its weights."""

ABOUT = """Fold the adapter of a run into its weights: the folder that is made is an ordinary run's, of the same model without
an adapter, for all other commands."""

EXAMPLES = {
    "run=runs/tuned out=runs/merged": "the last good checkpoint",
    "run=runs/tuned out=runs/merged checkpoint=best": "that of the lowest validation loss",
    "run=runs/tuned out=runs/half checkpoint=step_00000500": "that of a step",
}
