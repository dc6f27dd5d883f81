"""What clients may send: strict types, bounds on everything, and nothing unknown."""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llm.bounds import LEAST_PENALTY

MOST_PROMPTS = 16
SEEDS = 2**63


def _valid_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds a lone surrogate, which is no valid Unicode") from None
    return text


Text = Annotated[str, AfterValidator(_valid_unicode)]
Name = Annotated[Text, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[TokenId], Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
Prompts = Text | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
StopText = Annotated[Text, Field(min_length=1, max_length=256)]
Stops = StopText | Annotated[list[StopText], Field(max_length=4)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
RepeatPenalty = Annotated[float, Field(ge=LEAST_PENALTY, le=10)]
BiasKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Biases = Annotated[dict[BiasKey, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=300)]


class Body(BaseModel):
    """A JSON object of known keys; no number is read from a text, and none is infinite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(Body):
    """What a stream tells beside the text."""

    include_usage: bool = False
    include_obfuscation: bool | None = None  # the official client may send it; nothing is obfuscated


class TextFormat(Body):
    """The format that an answer has anyway."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]

    @property
    def schema_given(self) -> dict[str, Any]:
        """What such an answer must be."""
        return {"type": "object"}


class JsonSchema(Body):
    """A schema under a name."""

    given: dict[str, Any] = Field(alias="schema")
    name: Name | None = None
    description: Text | None = None
    strict: bool | None = None


class JsonSchemaFormat(Body):
    """JSON as a schema has it."""

    type: Literal["json_schema"]
    json_schema: JsonSchema

    @property
    def schema_given(self) -> dict[str, Any]:
        """What such an answer must be."""
        return self.json_schema.given


Format = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class Asked(Body):
    """What every request for text may set; null is the default.

    What else differs between kinds of request, each says of itself: whether it is a chat, which ends as the model's template
    has it, and the field that an error about its prompt names.
    """

    is_chat: ClassVar[bool]
    prompt_field: ClassVar[str]

    model: Name
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Count | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: RepeatPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    max_tokens: Count | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=-SEEDS, lt=SEEDS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Format | None = None
    user: Text | None = None

    @property
    @abstractmethod
    def top_logprobs(self) -> int | None:
        """How many of the likeliest tokens are told; None where not even the chosen one is."""

    @property
    def most_tokens(self) -> int | None:
        """The tokens that a text may have, if the client says it."""
        return self.max_tokens

    @property
    def schema_given(self) -> dict[str, Any] | None:
        """What the text must be as JSON, if it must be JSON."""
        return (
            None if isinstance(self.response_format, TextFormat | None) else self.response_format.schema_given
        )

    @property
    def stops(self) -> list[str]:
        """The strings that end a text."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class CompletionRequest(Asked):
    """POST /v1/completions."""

    is_chat = False
    prompt_field = "prompt"

    prompt: Prompts
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def top_logprobs(self) -> int | None:
        """The chosen token is told with any number, also with 0."""
        return self.logprobs


class TextPart(Body):
    """A part of a message that comes in parts."""

    type: Literal["text"]
    text: Text


class Message(Body):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=64)]
    name: Name | None = None

    @property
    def text(self) -> str:
        """The content in one piece."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(Asked):
    """POST /v1/chat/completions."""

    is_chat = True
    prompt_field = "messages"

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    likeliest: Annotated[int, Field(ge=0, le=20)] | None = Field(None, alias="top_logprobs")

    @property
    def top_logprobs(self) -> int | None:
        """`logprobs` says whether any are told."""
        return (self.likeliest or 0) if self.logprobs else None

    @property
    def most_tokens(self) -> int | None:
        """The newer field goes before the older one."""
        return self.max_completion_tokens or self.max_tokens


class EmbeddingRequest(Body):
    """POST /v1/embeddings."""

    model: Name
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    user: Text | None = None


def listed(given: Any) -> list[Any]:
    """A text or a list of token ids as a list of one; several as they are."""
    several = isinstance(given, list) and not isinstance(given[0], int)
    return given if several else [given]
