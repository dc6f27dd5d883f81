"""What clients may send: strict types, bounds on everything, and nothing unknown."""

import json
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from llm.bounds import LEAST_PENALTY
from llm.serve.faults import LONE_SURROGATE

MOST_PROMPTS = 16
SEEDS = 2**63


def _valid_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(LONE_SURROGATE) from None
    return text


class Only:
    """Of a field that changes nothing: these values and null say what is done anyway, and any other is refused."""

    def __init__(self, why: str, *values: Any) -> None:
        """`why` goes before what to do instead."""
        self._values = values
        instead = f", or send {json.dumps(values[0])}" if values else ""
        self._refusal = f"{why}; leave it out{instead}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What checks a value."""
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """What the OpenAPI document says of it."""
        return {"enum": [None, *self._values]}

    def _checked(self, value: Any) -> Any:
        # In Python 0 equals False, and in JSON it doesn't.
        if value is not None and all(type(value) is not type(one) or value != one for one in self._values):
            raise ValueError(self._refusal)
        return value


KINDS: dict[type, str] = {
    str: "text",
    list: "list",
    dict: "object",
    int: "number",
    float: "number",
    bool: "number",
}


def kind_of(value: Any) -> str | None:
    """What a value of JSON is."""
    return KINDS.get(type(value))


def _kind_of_prompt(value: Any) -> str | None:
    """The same, of a list with what its first item is."""
    kind = kind_of(value)
    return f"list of {kind_of(value[0])}" if kind == "list" and value else kind


def one_of(told: str, kind: Callable[[Any], str | None] = kind_of) -> Discriminator:
    """What tells by `kind` which of several types a value is to be; one of none of them must be what is `told`."""
    return Discriminator(kind, custom_error_type="wrong_type", custom_error_message=f"it must be {told}")


Text = Annotated[str, AfterValidator(_valid_unicode)]
# Counted before it is looked at, so that an error speaks of characters.
ShortText = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_valid_unicode)]
Name = ShortText
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[TokenId], Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
Prompts = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Texts, Tag("list of text")]
    | Annotated[Tokens, Tag("list of number")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS), Tag("list of list")],
    one_of(f"a text, a list of token ids, or a list of 1 to {MOST_PROMPTS} of either", _kind_of_prompt),
]

Stops = Annotated[
    Annotated[ShortText, Tag("text")] | Annotated[list[ShortText], Field(max_length=4), Tag("list")],
    one_of("a text or a list of at most 4 texts"),
]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=-SEEDS, lt=SEEDS)]
Likeliest = Annotated[int, Field(ge=0, le=20)]
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
    value: dict[str, Any] | None = None  # a schema: huggingface_hub's client sends json_schema so

    @property
    def schema_given(self) -> dict[str, Any]:
        """What such an answer must be."""
        return {"type": "object"} if self.value is None else self.value


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

    model: Name | None = None  # the one that is served, where it is one
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Count | None = None
    min_p: Share | None = None
    repetition_penalty: RepeatPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    max_tokens: Count | None = None
    stop: Stops | None = None
    seed: Seed | None = None
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
    logprobs: Likeliest | None = None
    best_of: Annotated[Any, Only("as many texts are written as n says, and all are given", 1)] = None
    echo: Annotated[Any, Only("the prompt isn't repeated before its completion", False)] = None
    suffix: Annotated[Any, Only("a completion goes on from its prompt alone", "")] = None

    @property
    def top_logprobs(self) -> int | None:
        """The chosen token is told with any number, also with 0."""
        return self.logprobs


class TextPart(Body):
    """A part of a message that comes in parts."""

    type: Literal["text"]
    text: Text


NO_TOOLS = "no model here calls tools"


def _of_no_tool(role: Any) -> Any:
    if role in ("tool", "function"):
        raise ValueError(f"{NO_TOOLS}, so that none has an answer to read; put it into a user's message")
    return role


Role = Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(_of_no_tool)]
Content = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[TextPart], Field(max_length=64), Tag("list")],
    one_of("a text or a list of text parts"),
]


class Message(Body):
    """One turn of a chat, also as an answer has it that a client sends back."""

    role: Role
    tool_calls: Annotated[Any, Only(NO_TOOLS, [])] = None
    tool_call_id: Annotated[Any, Only(NO_TOOLS)] = None
    function_call: Annotated[Any, Only(NO_TOOLS)] = None
    refusal: Annotated[Any, Only("what an assistant said is read as its content alone")] = None
    reasoning: Annotated[Any, Only("what an assistant said is read as its content alone")] = None
    audio: Annotated[Any, Only("what an assistant said is read as its content alone")] = None
    annotations: Annotated[Any, Only("what an assistant said is read as its content alone", [])] = None
    content: Content
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
    likeliest: Likeliest | None = Field(None, alias="top_logprobs")
    # What the official client knows beside these.
    audio: Annotated[Any, Only("no model here speaks")] = None
    function_call: Annotated[Any, Only(NO_TOOLS, "none", "auto")] = None
    functions: Annotated[Any, Only(NO_TOOLS, [])] = None
    metadata: Annotated[Any, Only("nothing is stored here", {})] = None
    modalities: Annotated[Any, Only("models here write texts alone", ["text"])] = None
    moderation: Annotated[Any, Only("no text is moderated here")] = None
    parallel_tool_calls: Annotated[Any, Only(NO_TOOLS, True, False)] = None
    prediction: Annotated[Any, Only("a text isn't compared with another that is expected")] = None
    prompt_cache_key: Text | None = None  # what begins alike is read once, whatever the key
    prompt_cache_options: Annotated[Any, Only("what begins alike is read once in any case")] = None
    prompt_cache_retention: Annotated[Any, Only("what was read is kept in memory alone", "in_memory")] = None
    reasoning_effort: Annotated[Any, Only("a model writes its answer at once", "none")] = None
    safety_identifier: Text | None = None
    service_tier: Annotated[Any, Only("all requests are served alike", "auto", "default")] = None
    store: Annotated[Any, Only("nothing is stored here", False)] = None
    tool_choice: Annotated[Any, Only(NO_TOOLS, "none", "auto")] = None
    tools: Annotated[Any, Only(NO_TOOLS, [])] = None
    verbosity: Annotated[Any, Only("a model has no measure of how much it says", "medium")] = None
    web_search_options: Annotated[Any, Only("nothing is searched for here")] = None

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

    model: Name | None = None
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Any, Only("a vector is as long as its model makes it")] = None
    user: Text | None = None


def listed(given: Any) -> list[Any]:
    """A text or a list of token ids as a list of one; several as they are."""
    several = isinstance(given, list) and not isinstance(given[0], int)
    return given if several else [given]
