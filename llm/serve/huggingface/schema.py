"""What Hugging Face's clients may send: the tasks' parameters, and text-generation-inference's."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from llm.generation import GREEDY, Sampling
from llm.serve.schema import (
    Body,
    Count,
    JsonSchema,
    Likeliest,
    Only,
    Penalty,
    RepeatPenalty,
    Seed,
    Share,
    ShortText,
    Temperature,
    Text,
    Texts,
    one_of,
)

WINDOWS = "what is longer than the context is read in windows that the model's own context gives"


class JsonGrammar(Body):
    """JSON as a schema has it."""

    type: Literal["json"]
    value: dict[str, Any]

    @property
    def schema_given(self) -> dict[str, Any]:
        """What a text must be."""
        return self.value


class NamedJsonGrammar(Body):
    """The same, of a schema under a name."""

    type: Literal["json_schema"]
    value: JsonSchema

    @property
    def schema_given(self) -> dict[str, Any]:
        """What a text must be."""
        return self.value.given


class WritingParameters(Body):
    """How a text is written, as text-generation-inference has it; without any of them, the likeliest token each time."""

    max_new_tokens: Count | None = None
    do_sample: bool | None = None
    temperature: Temperature | None = None
    top_k: Count | None = None
    top_p: Annotated[Share, Field(gt=0)] | None = None
    repetition_penalty: RepeatPenalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    stop: Annotated[list[ShortText], Field(max_length=4)] | None = None
    grammar: Annotated[JsonGrammar | NamedJsonGrammar, Field(discriminator="type")] | None = None
    adapter_id: Annotated[Any, Only("a model with an adapter has an address of its own")] = None
    best_of: Annotated[Any, Only("one text is written", 1)] = None
    decoder_input_details: Annotated[Any, Only("nothing is told of the prompt's tokens", False)] = None
    truncate: Annotated[Any, Only("a prompt is read whole or refused")] = None
    typical_p: Annotated[Any, Only("no token is left out for being untypical", 1.0, 1)] = None
    watermark: Annotated[Any, Only("no text gets a watermark", False)] = None

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn: from all of them only where something says so."""
        is_drawn = self.do_sample or any(
            value is not None for value in (self.temperature, self.top_k, self.top_p)
        )
        if not is_drawn:
            return Sampling(GREEDY.temperature, repetition_penalty=self.repetition_penalty)
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(temperature, self.top_k, self.top_p, repetition_penalty=self.repetition_penalty)


class Parameters(WritingParameters):
    """What the tasks may be told; each takes what concerns it."""

    function_to_apply: Annotated[Any, Only("labels are told by their probabilities", "softmax")] = None
    # Of texts that are written: here, or beside the others.
    generate_parameters: WritingParameters | None = None
    details: bool | None = None
    return_full_text: bool | None = None
    top_n_tokens: Likeliest | None = None
    truncation: Annotated[Any, Only("a text is read whole or refused", "do_not_truncate")] = None
    clean_up_tokenization_spaces: Annotated[Any, Only("a text stays as it was written", False)] = None
    src_lang: Annotated[Any, Only("a model translates between the languages that it learnt")] = None
    tgt_lang: Annotated[Any, Only("a model translates between the languages that it learnt")] = None
    # Words are tagged whole here, so that there is nothing to choose between but none.
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    ignore_labels: Annotated[list[Text], Field(max_length=1000)] | None = None
    stride: Annotated[Any, Only(WINDOWS)] = None
    handle_impossible_answer: bool | None = None
    max_answer_len: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_question_len: Annotated[Any, Only("a question is read whole or refused")] = None
    max_seq_len: Annotated[Any, Only(WINDOWS)] = None
    doc_stride: Annotated[Any, Only(WINDOWS)] = None
    align_to_words: Annotated[Any, Only("an answer begins and ends with words", True)] = None
    targets: Annotated[list[ShortText], Field(max_length=1000)] | None = None

    @property
    def writing(self) -> WritingParameters:
        """How a text is written."""
        return self if self.generate_parameters is None else self.generate_parameters


class Question(Body):
    """What is asked, and the text that holds the answer."""

    question: Text
    context: Text


Inputs = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Texts, Tag("list")] | Annotated[Question, Tag("object")],
    one_of("a text, a list of texts, or a question with its context"),
]


class TaskRequest(Body):
    """POST /models/NAME."""

    inputs: Inputs
    parameters: Annotated[Parameters, Field(default_factory=Parameters)]
    stream: bool | None = None
    # Of embeddings, whose parameters stand here.
    normalize: Annotated[Any, Only("a vector has unit length", True)] = None
    prompt_name: Annotated[Any, Only("nothing is put before a text")] = None
    truncate: Annotated[Any, Only("a text is read whole or refused", False)] = None
    truncation_direction: Literal["left", "right"] | None = None
    dimensions: Annotated[Any, Only("a vector is as long as its model makes it")] = None
    encoding_format: Annotated[Any, Only("a vector is a list of numbers", "float")] = None

    @property
    def wants_fillings(self) -> bool:
        """Whether an encoder is to fill in a text, rather than embed it: huggingface_hub's client tells these apart so."""
        return "parameters" in self.model_fields_set
