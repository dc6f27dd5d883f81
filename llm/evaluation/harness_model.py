"""A live model as lm-evaluation-harness asks for one: likelihoods of continuations and of texts, and texts written.

Shapes: b rows, t time, k continuation tokens of a batch, d width, v vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from llm.data.collators.spans import filled, shifted
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.generation import BatchEngine, Request, Sampling, TextWriter, inference, translate, write_texts
from llm.generation.context import check_fits
from llm.model import Transformer
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer, start_token

# Predictions whose logits are held at once: bounds memory where the vocabulary is large.
LOGIT_ROWS = 2048
LEAVE_OUT = "Leave the task out, or train a model with a longer context."

# The text of a request (None where it is a window of one), and the ids of context and continuation.
Scored = tuple[Any, list[int], list[int]]


class LiveModel(TemplateLM):
    """A decoder that goes on from a context, or an encoder-decoder whose source is the context.

    Of a context that is too long its end is kept, as the harness's own models do; `n_cut` counts them.

    Args:
        model: in evaluation mode or not; it is left as it was.
        tokenizer: the model's.
        batch_size: texts scored or written at a time.
        seed: of what a task samples.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, *, batch_size: int, seed: int) -> None:
        super().__init__()
        config = model.config
        if config.labels or config.architecture == "encoder":
            what = "labels" if config.labels else "architecture=encoder"
            raise ConfigError(
                f"eval=lm_eval: a model with {what} gives no likelihood of a text and writes none. It is for decoders "
                "and encoder-decoders."
            )
        if config.prefix_lm:
            raise ConfigError(
                "eval=lm_eval: a model with prefix_lm=true reads contexts on both sides. It is for causal decoders and "
                "encoder-decoders."
            )
        self.model, self.batch_size, self.seed = model, batch_size, seed
        self.ids = tokenizer
        self.max_length = config.context_length
        self.reads_source = config.architecture == "encoder_decoder"
        self.backend = "seq2seq" if self.reads_source else "causal"
        self.n_cut = 0

    @property
    def eot_token_id(self) -> int:
        """What precedes every document."""
        return self.ids.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text; a source ends with an end of text, as in training."""
        end = [self.eot_token_id] if self.reads_source and add_special_tokens is not False else []
        return [*self.ids.encode(string), *end]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text: every token once, in windows that each begin with one known token."""
        windows = [list(self._windows(request.args[0])) for request in requests]
        scores = iter(self._loglikelihood_tokens([window for some in windows for window in some]))
        return [sum(next(scores)[0] for _ in some) for some in windows]

    def _windows(self, text: str) -> Iterator[Scored]:
        cut = get_rolling_token_windows(self.ids.encode(text), self.prefix_token_id, self.max_length, 1)
        for window in cut:
            yield None, *make_disjoint_window(window)

    def _loglikelihood_tokens(self, requests: Sequence[Scored], **_: Any) -> list[tuple[float, bool]]:
        """For each request the continuation's log-likelihood, and whether each token of it is the likeliest."""
        for _text, _context, continuation in requests:
            self._check_continuation(continuation)
        by_length = sorted(range(len(requests)), key=lambda n: -len(requests[n][1]) - len(requests[n][2]))
        found: dict[int, tuple[float, bool]] = {}
        for first in range(0, len(by_length), self.batch_size):
            numbers = by_length[first : first + self.batch_size]
            pairs = [requests[number][1:] for number in numbers]
            with inference(self.model):
                hidden_kd = self._pair_states(pairs) if self.reads_source else self._states(pairs)
                answers = self._judged(hidden_kd, [continuation for _, continuation in pairs])
            found |= dict(zip(numbers, answers, strict=True))
        return [found[number] for number in range(len(requests))]

    def _check_continuation(self, continuation: Sequence[int]) -> None:
        what = "eval=lm_eval: a continuation of a task"
        if not continuation:
            raise ConfigError(f"{what} has no tokens. Leave the task out.")
        check_fits(self.max_length, len(continuation), what=what, advice=LEAVE_OUT)

    def _states(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        """The hidden states (k, d) that predict the continuations, one after the other."""
        rows = [
            np.array((context + continuation)[-self.max_length - 1 :][:-1]) for context, continuation in pairs
        ]
        self.n_cut += sum(len(a) + len(b) > self.max_length + 1 for a, b in pairs)
        # What fills a row up stands behind all that is scored, where attention doesn't look.
        tokens_bt = filled(rows, max(map(len, rows)), self.eot_token_id)
        hidden_btd = self.model.hidden_states(self._tensor(tokens_bt))
        ends = [
            (row, len(tokens), len(pair[1]))
            for row, (tokens, pair) in enumerate(zip(rows, pairs, strict=True))
        ]
        return torch.cat([hidden_btd[row, end - length : end] for row, end, length in ends])

    def _pair_states(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        """The same of an encoder-decoder."""
        sources = [np.array(source[-self.max_length :]) for source, _ in pairs]
        self.n_cut += sum(len(source) > self.max_length for source, _ in pairs)
        targets = [np.array(target) for _, target in pairs]
        source_bs = filled(sources, max(map(len, sources)), PADDING)
        targets_bk = filled(targets, max(map(len, targets)), IGNORED)
        memory = self.model.encode_source(
            self._tensor(np.where(source_bs == PADDING, self.eot_token_id, source_bs)),
            self._tensor(np.where(source_bs == PADDING, PADDING, 0)),
        )
        written_bt = self._tensor(shifted(targets_bk, start_token(self.ids)))
        hidden_btd = self.model.hidden_states(written_bt, memory=memory)
        return hidden_btd[self._tensor(targets_bk != IGNORED)]

    def _judged(self, hidden_kd: Tensor, continuations: Sequence[list[int]]) -> list[tuple[float, bool]]:
        target_k = self._tensor(np.concatenate(continuations))
        parts = zip(hidden_kd.split(LOGIT_ROWS), target_k.split(LOGIT_ROWS), strict=True)
        predicted = [_predicted(self.model.head(part_kd).float(), part_k) for part_kd, part_k in parts]
        logprob_k, likeliest_k = (torch.cat(some).cpu() for some in zip(*predicted, strict=True))
        lengths = [len(continuation) for continuation in continuations]
        each = zip(logprob_k.double().split(lengths), likeliest_k.split(lengths), strict=True)
        return [(logprobs.sum().item(), bool(likeliest.all())) for logprobs, likeliest in each]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(next(self.model.parameters()).device)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes for each context, up to the first of its stops or so many tokens."""
        settings = [normalize_gen_kwargs(request.args[1]) for request in requests]
        contexts = [request.args[0] for request in requests]
        return (
            self._translated(contexts, settings) if self.reads_source else self._written(contexts, settings)
        )

    def _written(self, contexts: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
        engine = BatchEngine(self.model, rows=min(self.batch_size, max(1, len(contexts))))
        writers = {
            self._request(context, keys, self.seed + number): TextWriter(self.ids, stops_of(keys))
            for number, (context, keys) in enumerate(zip(contexts, settings, strict=True))
        }
        return write_texts(engine, writers)

    def _request(self, context: str, keys: Mapping[str, Any], seed: int) -> Request:
        length = keys["max_gen_toks"]
        what = f"eval=lm_eval: a task sets max_gen_toks={length}, and its shortest prompt"
        check_fits(self.max_length, 1, length, what=what, advice=LEAVE_OUT)
        ids = self.ids.encode(context) or [self.eot_token_id]
        room = self.max_length - length
        self.n_cut += len(ids) > room
        return Request(ids[-room:], length, _sampling(keys), seed, [self.eot_token_id])

    def _translated(self, contexts: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
        texts = []
        sources = [self.tok_encode(context) for context in contexts]
        self.n_cut += sum(len(source) > self.max_length for source in sources)
        for first in range(0, len(contexts), self.batch_size):
            keys = settings[first : first + self.batch_size]
            written = translate(
                self.model,
                self.ids,
                [source[-self.max_length :] for source in sources[first : first + self.batch_size]],
                sampling=_sampling(keys[0]),
                max_new_tokens=min(max(one["max_gen_toks"] for one in keys), self.max_length),
                seed=self.seed + first,
            )
            texts += [until(text, stops_of(one)) for text, one in zip(written, keys, strict=True)]
        return texts


def _predicted(logits_kv: Tensor, target_k: Tensor) -> tuple[Tensor, Tensor]:
    """Of each target its log-probability, and whether it is the likeliest."""
    logprob_k = logits_kv.log_softmax(-1).gather(-1, target_k[:, None])[:, 0]
    return logprob_k, logits_kv.argmax(-1) == target_k


def _sampling(keys: Mapping[str, Any]) -> Sampling:
    known = {name: keys[name] for name in ("temperature", "top_k", "top_p") if keys.get(name) is not None}
    return Sampling(**({"temperature": float(keys["do_sample"])} | known))


def stops_of(keys: Mapping[str, Any]) -> list[str]:
    """The strings that end what a task lets a model write."""
    return [stop for stop in keys["until"] if stop]


def until(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of its stops."""
    return text[: min((end for stop in stops if (end := text.find(stop)) >= 0), default=len(text))]
