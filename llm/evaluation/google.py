"""Google Cloud Natural Language through its official client: what it makes of texts, and labels made of that."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import torch

from llm.data.documents.bio import OUTSIDE, is_bio
from llm.errors import ConfigError, DataError, missing_package
from llm.evaluation.classification import confusion
from llm.evaluation.examples import text_id
from llm.evaluation.kept import Answer, Kept, in_parallel
from llm.evaluation.result import Result
from llm.redaction import redacted_text

if TYPE_CHECKING:
    from google.cloud.language_v1 import LanguageServiceClient

# What Google charges by.
UNIT_CHARACTERS = 1000
REFUSED = "(refused)"
# What the service calls a mention that is no common noun.
BY_NAME = "PROPER"


@dataclass
class GoogleLanguage:
    """The service. Its credentials are those of the environment, as Google's clients find them, and are not kept.

    Args:
        answers: the folder of what it said; None keeps nothing.
        base_url: the address of a stand-in, which is asked without credentials; None is Google's own.
        language: of the texts, such as en; None lets it find out.
        concurrency: requests at a time.
        timeout: seconds until a text that gets no answer is given up; until then it is asked again.
        price: of a thousand units of 1,000 characters.
    """

    answers: Path | None = None
    base_url: str | None = None
    language: str | None = None
    concurrency: int = 4
    timeout: float = 60.0
    price: float | None = None
    n_texts: int = field(default=0, init=False)
    n_kept: int = field(default=0, init=False)
    n_units: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        try:
            self._client = _client(self.base_url)
        except ImportError:
            raise missing_package("model=google_nl", "google-cloud-language", "google") from None

    def sentiment(self, texts: Sequence[str]) -> list[Answer]:
        """For each text its score, from -1 to 1, and its magnitude."""
        return self._all("sentiment", texts, self._sentiment)

    def categories(self, texts: Sequence[str]) -> list[Answer]:
        """For each text its categories, such as /Arts & Entertainment/Movies, with how sure they are."""
        return self._all("categories", texts, self._categories)

    def entities(self, texts: Sequence[str]) -> list[Answer]:
        """For each text the entities in it: name, type, and each mention's first character, text and type."""
        return self._all("entities", texts, self._entities)

    def _all(self, what: str, texts: Sequence[str], ask: Callable[[str], Answer]) -> list[Answer]:
        kept = Kept(self.answers)

        def answered(text: str) -> tuple[Answer, bool]:
            asked = {"service": "google_nl", "what": what, "language": self.language, "text": text}
            asked["base_url"] = redacted_text(self.base_url or "")
            return kept.answer(asked, lambda: self._tried(ask, text))

        found = in_parallel(answered, list(dict.fromkeys(texts)), self.concurrency)
        self.n_texts += len(found)
        self.n_kept += sum(was_kept for _, was_kept in found.values())
        self.n_units += sum(math.ceil(len(text) / UNIT_CHARACTERS) for text in found)
        return [found[text][0] for text in texts]

    def _tried(self, ask: Callable[[str], Answer], text: str) -> Answer:
        """The answer, or that the text was refused, for instance as too short for a category."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        try:
            return ask(text)
        except exceptions.BadRequest as error:
            return {REFUSED: redacted_text(error.message)}
        except (exceptions.Unauthorized, exceptions.Forbidden, exceptions.NotFound, GoogleAuthError) as error:
            raise ConfigError(f"model=google_nl: the service refuses the request: {_said(error)}") from None
        except (exceptions.GoogleAPIError, OSError) as error:
            raise DataError(
                f"model=google_nl: the service gives no answer: {_said(error)} What was answered is kept: the same command "
                "goes on from there."
            ) from None

    def _request(self, text: str) -> dict[str, Any]:
        from google.cloud import language_v1

        return {
            "document": {
                "content": text,
                "type_": language_v1.Document.Type.PLAIN_TEXT,
                **({"language": self.language} if self.language else {}),
            }
        }

    def _keys(self) -> dict[str, Any]:
        """How a request is repeated: as long as there is time, longer apart each time."""
        from google.api_core import exceptions
        from google.api_core.retry import Retry, if_exception_type
        from requests.exceptions import ConnectionError, Timeout

        passing = (exceptions.TooManyRequests, exceptions.ServerError, ConnectionError, Timeout)
        retry = Retry(predicate=if_exception_type(*passing), initial=0.5, maximum=30.0, timeout=self.timeout)
        return {"retry": retry, "timeout": self.timeout}

    def _sentiment(self, text: str) -> Answer:
        found = self._client.analyze_sentiment(request=self._request(text), **self._keys())
        return {"score": found.document_sentiment.score, "magnitude": found.document_sentiment.magnitude}

    def _categories(self, text: str) -> Answer:
        found = self._client.classify_text(request=self._request(text), **self._keys())
        return {"categories": [[one.name, one.confidence] for one in found.categories]}

    def _entities(self, text: str) -> Answer:
        from google.cloud import language_v1

        request = {**self._request(text), "encoding_type": language_v1.EncodingType.UTF32}
        found = self._client.analyze_entities(request=request, **self._keys())
        return {
            "entities": [
                {
                    "name": one.name,
                    "type": one.type_.name,
                    "mentions": [
                        [part.text.begin_offset, part.text.content, part.type_.name] for part in one.mentions
                    ],
                }
                for one in found.entities
            ]
        }

    def cost(self) -> str:
        """What was asked and what it cost, in a line."""
        line = (
            f"Google Cloud Natural Language: {self.n_texts:,} texts, {self.n_kept:,} of them answered before; "
            f"{self.n_units:,} units of {UNIT_CHARACTERS:,} characters"
        )
        return line if self.price is None else f"{line}, {self.n_units * self.price / 1000:.4f} in all"


def _client(base_url: str | None) -> "LanguageServiceClient":
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud.language_v1 import LanguageServiceClient
    from google.cloud.language_v1.services.language_service.transports import LanguageServiceRestTransport

    try:
        if base_url is None:
            return LanguageServiceClient(transport="rest")
    except DefaultCredentialsError as error:
        raise ConfigError(
            f"model=google_nl: there are no credentials: {_said(error)} `gcloud auth application-default login` makes some, or "
            "GOOGLE_APPLICATION_CREDENTIALS names a file with them."
        ) from None
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise ConfigError(f"google_nl.base_url={base_url}: an address looks like http://127.0.0.1:8080.")
    transport = LanguageServiceRestTransport(
        host=address.netloc, url_scheme=address.scheme, credentials=AnonymousCredentials()
    )
    return LanguageServiceClient(transport=transport)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {redacted_text(' '.join(str(error).split()))[:500]}"


def label_of_sentiment(answer: Answer, labels: Mapping[str, str | None], neutral_within: float) -> str:
    """The label that a score means: positive or negative by its sign, or neutral near 0 where there is such a label."""
    if "score" not in answer:
        return REFUSED
    if labels["neutral"] and abs(answer["score"]) <= neutral_within:
        return labels["neutral"]
    return str(labels["positive"] if answer["score"] >= 0 else labels["negative"])


def label_of_categories(answer: Answer, labels: Sequence[str]) -> str:
    """The label that is part of the likeliest category's name, whatever its case; none of them where none is."""
    for name, _ in sorted(answer.get("categories", []), key=lambda one: -one[1]):
        parts = {part.strip().lower() for part in name.split("/")} | {name.lower()}
        for label in labels:
            if label.lower() in parts:
                return label
    return REFUSED if REFUSED in answer else "(another)"


def kinds_of(labels: Iterable[str], named: Mapping[str, str]) -> dict[str, str]:
    """The kind of entity that each of the service's types means, of those that BIO tags name.

    That of `named`; else the kind whose name, whatever its case, the type's begins with: PERSON is person, or PER.

    Raises:
        ConfigError: the tags are no BIO, or `named` has a type that the service doesn't know, or a kind that no tag has.
    """
    from google.cloud.language_v1 import Entity

    labels = sorted({*labels})
    if not is_bio(labels):
        raise ConfigError(
            f"google_nl.task=entities: the tags {', '.join(labels[:5])} mark no entities as B-x, I-x and O do."
        )
    kinds = sorted({label[2:] for label in labels if label != OUTSIDE})
    types = list(Entity.Type.__members__)
    for told, kind in named.items():
        if told not in types or kind not in kinds:
            raise ConfigError(
                f"google_nl.kinds: {told}: {kind}: the service's types are {', '.join(types)}, and the tags' kinds "
                f"{', '.join(kinds)}."
            )
    begins = {told: kind for told in types for kind in kinds if told.lower().startswith(kind.lower())}
    return begins | dict(named)


def tags_of_entities(words: Sequence[str], answer: Answer, kinds: Mapping[str, str]) -> list[str]:
    """BIO tags of words that were asked as a text with a space between two, by the mentions of entities in it.

    A word belongs to the longest mention that touches it. Mentions by a common noun, such as `the city`, and of types
    without a kind are none.
    """
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    begins = np.concatenate([[0], ends[:-1] + 1])
    found = [
        (begin, begin + len(content), kinds[one["type"]])
        for one in answer.get("entities", [])
        for begin, content, named in one["mentions"]
        if one["type"] in kinds and named == BY_NAME
    ]
    tags = [OUTSIDE] * len(words)
    for begin, end, kind in sorted(found, key=lambda mention: mention[0] - mention[1]):
        touched = np.flatnonzero((begins < end) & (ends > begin)).tolist()
        if all(tags[place] == OUTSIDE for place in touched):
            for place in touched:
                tags[place] = f"{'B' if place == touched[0] else 'I'}-{kind}"
    return tags


def judged_labels(
    texts: Sequence[str], targets: Sequence[str], predicted: Sequence[str], answers: Sequence[Answer]
) -> Result:
    """Figures of labels that were predicted without probabilities: accuracy, macro F1 over the texts' labels, majority."""
    from torchmetrics.functional.classification import multiclass_f1_score

    labels = sorted({*targets})
    names = [*labels, *sorted({*predicted} - {*labels})]
    target_n = torch.tensor([names.index(target) for target in targets])
    predicted_n = torch.tensor([names.index(one) for one in predicted])
    f1_l = multiclass_f1_score(predicted_n, target_n, average="none", num_classes=max(2, len(names)))
    rows = [
        {
            "id": text_id(text),
            "text": text,
            "target": target,
            "prediction": one,
            "answer": answer,
            "scores": {"accuracy": [float(one == target), 1.0]},
        }
        for text, target, one, answer in zip(texts, targets, predicted, answers, strict=True)
    ]
    metrics = {
        "accuracy": (target_n == predicted_n).double().mean().item(),
        "macro_f1": f1_l[: len(labels)].mean().item(),
        "majority": target_n.bincount().max().item() / len(target_n),
    }
    details = {"labels": names, "confusion": confusion(predicted_n, target_n, len(names))}
    return Result(metrics, len(texts), rows, details)
