"""What clients of Google Cloud Natural Language may send: JSON as protocol buffers spell it, and nothing unknown."""

from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from llm.serve.schema import Body, Text

Version = Literal["v1", "v2"]
Enum = TypeVar("Enum", bound=IntEnum)


class DocumentType(IntEnum):
    """What the content is written in."""

    TYPE_UNSPECIFIED = 0
    PLAIN_TEXT = 1
    HTML = 2


class EncodingType(IntEnum):
    """The units that the client counts offsets in; NONE asks for none."""

    NONE = 0
    UTF8 = 1
    UTF16 = 2
    UTF32 = 3


def _spelt(kind: type[Enum]) -> Callable[[Any], Enum]:
    """A member as JSON may have it: by name, or by number as the official clients send it."""

    def read(value: Any) -> Enum:
        if isinstance(value, str) and value in kind.__members__:
            return kind[value]
        if isinstance(value, int) and not isinstance(value, bool) and value in list(kind):
            return kind(value)
        raise ValueError(f"it must be one of {', '.join(kind.__members__)}")

    return read


def _words(kind: type[Enum]) -> WithJsonSchema:
    return WithJsonSchema({"enum": [*kind.__members__, *map(int, kind)]})


Type = Annotated[DocumentType, BeforeValidator(_spelt(DocumentType)), _words(DocumentType)]
Encoding = Annotated[EncodingType, BeforeValidator(_spelt(EncodingType)), _words(EncodingType)]


class GoogleBody(Body):
    """An object whose keys may be spelt either way that protocol buffers allow: encodingType or encoding_type."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Document(GoogleBody):
    """A text and what it is written in. Its language is told back, and changes nothing."""

    type: Type = DocumentType.TYPE_UNSPECIFIED
    content: Text | None = None
    gcs_content_uri: Text | None = None
    language: Text = ""  # version 1's name
    language_code: Text = ""  # version 2's

    @model_validator(mode="after")
    def _is_whole(self) -> "Document":
        if self.type == DocumentType.TYPE_UNSPECIFIED:
            raise ValueError("its type must be PLAIN_TEXT or HTML")
        if self.gcs_content_uri is not None:
            raise ValueError("gcsContentUri isn't read by this server; send the text as content")
        if self.content is None:
            raise ValueError("it has no content")
        return self


class AnalyzeRequest(GoogleBody):
    """POST documents:analyzeSentiment."""

    document: Document
    encoding_type: Encoding = EncodingType.NONE


class ModelOptions(GoogleBody):
    """Which of Google's own classifiers is meant, where there are others here."""

    v1_model: dict[str, Any] | None = None
    v2_model: dict[str, Any] | None = None


class ClassifyRequest(GoogleBody):
    """POST documents:classifyText."""

    document: Document
    classification_model_options: ModelOptions | None = None


class Features(GoogleBody):
    """What documents:annotateText is to find."""

    extract_syntax: bool = False
    extract_entities: bool = False
    extract_document_sentiment: bool = False
    extract_entity_sentiment: bool = False
    classify_text: bool = False
    moderate_text: bool = False
    classification_model_options: ModelOptions | None = None


class AnnotateRequest(GoogleBody):
    """POST documents:annotateText."""

    document: Document
    features: Features
    encoding_type: Encoding = EncodingType.NONE
