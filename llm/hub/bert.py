"""BERT as Hugging Face writes it: with its masked-language head, with its pooler as embedding models, or with labels."""

from llm.errors import ConfigError
from llm.hub.rules import UNGATED, Family, Layers, Rule, Values
from llm.model import ModelConfig

LAYER_RULES = (
    Rule("attention.self.query", "attention.query"),
    Rule("attention.self.key", "attention.key"),
    Rule("attention.self.value", "attention.value"),
    Rule("attention.output.dense", "attention.output"),
    Rule("attention.output.LayerNorm", "residual.norms.attention"),
    Rule("intermediate.dense", "feed_forward.up"),
    Rule("output.dense", "feed_forward.down"),
    Rule("output.LayerNorm", "residual.norms.feed_forward"),
)
# Their class -> what it has of our parts.
PARTS: dict[str, Values] = {
    "BertForMaskedLM": {"head": "transformed", "head_bias": True, "pooler": False},
    "BertForPreTraining": {"head": "transformed", "head_bias": True, "pooler": True},
    "BertModel": {"head": "linear", "head_bias": False, "pooler": True},
}
# Their class for what our labels tell, and whether it has the pooler.
LABELLED = {
    "BertForSequenceClassification": ("text", True),
    "BertForTokenClassification": ("words", False),
    "BertForQuestionAnswering": ("answer", False),
}


def gives_states(config: ModelConfig) -> bool:
    """Whether a model's hidden states are what it is for, as an embedding model's: it has BERT's pooler and no head."""
    ours = config.to_dict()
    return not config.labels and all(ours[key] == value for key, value in PARTS["BertModel"].items())


def write_parts(config: ModelConfig) -> Values:
    """Return the class that has the parts of `config`, the one for masked text where none has, and the labels."""
    if config.labels:
        names = dict(enumerate(config.labels))
        fitting = [name for name, (told, _) in LABELLED.items() if told == config.labelled]
        return {
            "architectures": (fitting or list(LABELLED))[:1],
            "id2label": {str(number): label for number, label in names.items()},
            "label2id": {label: number for number, label in names.items()},
        }
    ours = config.to_dict()
    fitting = [name for name, parts in PARTS.items() if all(ours[key] == parts[key] for key in parts)]
    return {"architectures": (fitting or list(PARTS))[:1]}


def read_parts(theirs: Values) -> Values:
    """Return the parts that their class has."""
    name = next(iter(theirs.get("architectures") or ["BertModel"]))
    if name in LABELLED:
        told, pooler = LABELLED[name]
        return {**PARTS["BertModel"], "pooler": pooler, "labels": _read_labels(theirs), "labelled": told}
    if name not in PARTS:
        raise ConfigError(
            f"bert: architectures={name!r} is not supported, only {', '.join([*PARTS, *LABELLED])}"
        )
    return PARTS[name]


def _read_labels(theirs: Values) -> list[str]:
    """Return the labels by their numbers, of which transformers leaves out two that nobody named."""
    given = theirs.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}
    names = {str(number): label for number, label in given.items()} if isinstance(given, dict) else {}
    if not names or set(names) != set(map(str, range(len(names)))):
        raise ConfigError(f"bert: id2label={given!r} must name the labels from 0 on")
    return [names[str(number)] for number in range(len(names))]


BERT = Family(
    model_type="bert",
    architecture="BertForMaskedLM",
    keys={
        "d_model": ("hidden_size",),
        "n_layers": ("num_hidden_layers",),
        "n_heads": ("num_attention_heads",),
        "d_ff": ("intermediate_size",),
        "context_length": ("max_position_embeddings",),
        "vocab_size": ("vocab_size",),
        "n_segments": ("type_vocab_size",),
        "dropout": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
        "norm_eps": ("layer_norm_eps",),
    },
    constants={
        "architecture": "encoder",
        "norm": "layer",
        "residual": "post",
        "position": "learned",
        "attention_bias": True,
        "mlp_bias": True,
        "embedding_norm": True,
        "tie_embeddings": True,
    },
    required={
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
        "position_embedding_type": "absolute",
    },
    defaults={
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    },
    activation_key="hidden_act",
    activations=UNGATED,
    base="bert.",
    tokens="embeddings.word_embeddings.weight",
    rules=(
        Rule("bert.embeddings.word_embeddings", "embedding.tokens"),
        Rule("bert.embeddings.position_embeddings", "embedding.positions"),
        Rule("bert.embeddings.token_type_embeddings", "embedding.segments"),
        Rule("bert.embeddings.LayerNorm", "embedding.norm"),
        Rule("bert.pooler.dense", "pooler.dense"),
        Rule("classifier", "label_head.output", when=lambda config: config.labelled != "answer"),
        Rule("qa_outputs", "label_head.output", when=lambda config: config.labelled == "answer"),
        Rule("cls.predictions.transform.dense", "unembedding.transform.dense"),
        Rule("cls.predictions.transform.LayerNorm", "unembedding.transform.norm"),
        Rule("cls.predictions", "unembedding"),
    ),
    layers=(Layers("bert.encoder.layer.{}", "stack.blocks.{}", LAYER_RULES),),
    # Position numbers, the head's bias by its second name, and what the class for masked text does not have.
    ignored=r"bert\.embeddings\.position_ids|cls\.predictions\.decoder\.bias|(bert\.pooler|cls\.seq_relationship)\..*",
    head="cls.predictions.decoder.weight",
    older={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    write_more=write_parts,
    read_more=read_parts,
)
