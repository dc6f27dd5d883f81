"""The nearest right name for a wrong one: other tools' words, a leaf without its group, a slip of the fingers."""

import difflib
from collections.abc import Iterable

ALIASES = {
    "learning_rate": "optimizer.lr",
    "max_lr": "optimizer.lr",
    "min_lr": "schedule.final_lr_ratio",
    "wd": "optimizer.weight_decay",
    "adam_beta1": "optimizer.betas",
    "adam_beta2": "optimizer.betas",
    "beta1": "optimizer.betas",
    "beta2": "optimizer.betas",
    "optim": "optimizer",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "warmup": "schedule.warmup_steps",
    "warmup_iters": "schedule.warmup_steps",
    "num_warmup_steps": "schedule.warmup_steps",
    "lr_warmup_steps": "schedule.warmup_steps",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "max_iters": "trainer.max_steps",
    "iterations": "trainer.max_steps",
    "num_steps": "trainer.max_steps",
    "total_steps": "trainer.max_steps",
    "train_steps": "trainer.max_steps",
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "nproc_per_node": "trainer.devices",
    "nodes": "trainer.num_nodes",
    "nnodes": "trainer.num_nodes",
    "device": "trainer.accelerator",
    "dtype": "trainer.precision",
    "fp16": "trainer.precision",
    "bf16": "trainer.precision",
    "grad_clip": "trainer.gradient_clip_val",
    "max_grad_norm": "trainer.gradient_clip_val",
    "clip_grad_norm": "trainer.gradient_clip_val",
    "gradient_clip": "trainer.gradient_clip_val",
    "eval_interval": "trainer.val_check_interval",
    "eval_steps": "trainer.val_check_interval",
    "eval_iters": "trainer.limit_val_batches",
    "log_interval": "trainer.log_every_n_steps",
    "logging_steps": "trainer.log_every_n_steps",
    "accumulate_grad_batches": "data.micro_batch_size",
    "gradient_accumulation_steps": "data.micro_batch_size",
    "grad_accum": "data.micro_batch_size",
    "batch": "data.batch_size",
    "global_batch_size": "data.batch_size",
    "train_batch_size": "data.batch_size",
    "per_device_train_batch_size": "data.micro_batch_size",
    "device_batch_size": "data.micro_batch_size",
    "dataset": "data",
    "dataset_path": "data.paths",
    "data_dir": "data.paths",
    "data_path": "data.paths",
    "path": "data.paths",
    "files": "data.paths",
    "hidden_size": "model.d_model",
    "hidden_dim": "model.d_model",
    "n_embd": "model.d_model",
    "d_hidden": "model.d_model",
    "embed_dim": "model.d_model",
    "embedding_size": "model.d_model",
    "dim": "model.d_model",
    "num_layers": "model.n_layers",
    "n_layer": "model.n_layers",
    "layers": "model.n_layers",
    "depth": "model.n_layers",
    "num_hidden_layers": "model.n_layers",
    "num_heads": "model.n_heads",
    "n_head": "model.n_heads",
    "heads": "model.n_heads",
    "num_attention_heads": "model.n_heads",
    "num_key_value_heads": "model.n_kv_heads",
    "num_kv_heads": "model.n_kv_heads",
    "n_query_groups": "model.n_kv_heads",
    "intermediate_size": "model.d_ff",
    "ffn_dim": "model.d_ff",
    "block_size": "model.context_length",
    "seq_len": "model.context_length",
    "sequence_length": "model.context_length",
    "max_seq_len": "model.context_length",
    "max_seq_length": "model.context_length",
    "max_length": "model.context_length",
    "max_position_embeddings": "model.context_length",
    "n_positions": "model.context_length",
    "n_vocab": "tokenizer.vocab_size",
    "vocab_size": "tokenizer.vocab_size",
    "output_dir": "runs_dir",
    "out_dir": "runs_dir",
    "save_dir": "runs_dir",
    "default_root_dir": "runs_dir",
    "run_name": "name",
    "experiment_name": "name",
    "save_steps": "checkpoint.every_n_steps",
    "save_interval": "checkpoint.every_n_steps",
    "every_n_train_steps": "checkpoint.every_n_steps",
    "save_total_limit": "checkpoint.keep_last",
    "save_top_k": "checkpoint.keep_best",
    "resume_from_checkpoint": "resume",
    "ckpt_path": "resume",
    "load_from": "init_from",
    "finetune_from": "init_from",
    "pretrained": "init_from",
    "pretrained_model": "init_from",
    "model_name_or_path": "init_from",
    "random_seed": "seed",
    "fast_dev_run": "debug",
    "wandb": "logger",
    "torch_compile": "compile",
    "run_dir": "run",
    "max_tokens": "max_new_tokens",
    "num_return_sequences": "num_samples",
    "n": "num_samples",
    "mfu": "matmul_efficiency",
    "t": "temperature",
    "temp": "temperature",
}

# Earlier spellings of keys, which command lines may go on to use.
RENAMED = {
    "eval.tasks": "lm_eval.tasks",
    "eval.include_path": "lm_eval.include_path",
    "eval.num_fewshot": "lm_eval.num_fewshot",
    "eval.limit": "lm_eval.limit",
}

# Keys that a Lightning user would reach for, of which ours is another: the value follows from it.
REFUSED = {
    "trainer.accumulate_grad_batches": "it follows from data.batch_size and data.micro_batch_size; set those",
    "trainer.strategy": "choose it with strategy=, for example strategy=ddp",
    "trainer.logger": "choose it with logger=, for example logger=tensorboard",
    "trainer.callbacks": "callbacks are chosen with callbacks=, and saving is set under checkpoint.*",
    "trainer.default_root_dir": "a run's folder is runs_dir/name; set runs_dir= or name=",
    "trainer.enable_checkpointing": "saving is always on; set checkpoint.every_n_steps",
    "trainer.use_distributed_sampler": "the data decides which process sees what; leave it out",
    "trainer.reload_dataloaders_every_n_epochs": "the order of the data is a function of seed=; leave it out",
    "trainer.plugins": "precision and strategy bring their plugins; set trainer.precision or strategy=",
    "trainer.overfit_batches": "use debug=overfit",
    "trainer.fast_dev_run": "use debug=fast",
    "trainer.max_steps_per_epoch": "an epoch is one pass over the data; set trainer.max_steps",
    "trainer.barebones": "leave it out; it would switch off saving and logging",
}

# Values that another tool would take, with the reason why no key of ours does.
_FLOAT16 = "float16 overflows without a loss scale, which is not there"
REFUSED_VALUES = {"trainer.precision": {"16": _FLOAT16, "16-mixed": _FLOAT16, "16-true": _FLOAT16}}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that `word` most likely stands for, or None where nothing is near enough."""
    names = list(known)
    leaf = word.rpartition(".")[2].lower().replace("-", "_")
    alias = ALIASES.get(leaf)
    if alias in names:
        return alias
    same_leaf = [name for name in names if name.rpartition(".")[2] == leaf]
    if same_leaf:
        return max(same_leaf, key=lambda name: _likeness(word, name))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.7 if len(word) > 4 else 0.6)
    return close[0] if close else _nearest_leaf(word, leaf, names)


def _nearest_leaf(word: str, leaf: str, names: list[str]) -> str | None:
    close = difflib.get_close_matches(leaf, {name.rpartition(".")[2] for name in names}, n=1, cutoff=0.75)
    owners = [name for name in names if close and name.rpartition(".")[2] == close[0]]
    return max(owners, key=lambda name: _likeness(word, name), default=None)


def _likeness(word: str, name: str) -> float:
    return difflib.SequenceMatcher(None, word, name).ratio()
