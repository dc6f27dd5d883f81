"""Google Cloud Natural Language's official client, both versions of it, against models with labels."""

import html
import json
import logging

import httpx
import pytest
from google.api_core.exceptions import BadRequest, NotFound, Unauthorized
from google.auth.credentials import AnonymousCredentials
from google.cloud import language_v1, language_v2
from small_server import TOKENIZER, serving, small

from llm import build
from llm.cli.main import main
from llm.generation import classify, mentions, tagged_words
from llm.serve import Guarding, Served, guard
from llm.serve.google import answers
from llm.serve.google.schema import Document, DocumentType, EncodingType
from llm.serve.google.text import PlainText, Sentence
from llm.serve.sentiment import polarities, score

TEXT = "It is good. 😀 Très “bon !” And 猫? No"
PIECES = ["It is good.", "😀 Très “bon !”", "And 猫?", "No"]
SERVICES = [language_v1, language_v2]
CLOSED = {"timeout": 20, "retry": None}


def client_of(service, address, **options):
    credentials = {} if "api_key" in options else {"credentials": AnonymousCredentials()}
    return service.LanguageServiceClient(
        transport="rest", client_options={"api_endpoint": address, **options}, **credentials
    )


def document(service, text=TEXT, kind="PLAIN_TEXT", **more):
    return service.Document(content=text, type_=service.Document.Type[kind], **more)


def expected(models, name, text):
    return classify(models[name].model, models[name].tokenizer, [text])[0]


@pytest.fixture(params=SERVICES, ids=["v1", "v2"])
def service(request):
    return request.param


@pytest.fixture
def client(service, server):
    return client_of(service, server)


def test_a_texts_sentiment_and_its_sentences(client, service, models):
    ask = {"document": document(service), "encoding_type": service.EncodingType.UTF32}
    answer = client.analyze_sentiment(request=ask, **CLOSED)
    assert [sentence.text.content for sentence in answer.sentences] == PIECES
    for sentence in answer.sentences:
        told = expected(models, "judge", sentence.text.content)
        assert sentence.sentiment.score == pytest.approx(told["good"] - told["bad"], abs=1e-5)
        assert sentence.sentiment.magnitude == pytest.approx(abs(sentence.sentiment.score))
    told = expected(models, "judge", TEXT)
    assert answer.document_sentiment.score == pytest.approx(told["good"] - told["bad"], abs=1e-5)
    magnitudes = [sentence.sentiment.magnitude for sentence in answer.sentences]
    assert answer.document_sentiment.magnitude == pytest.approx(sum(magnitudes), abs=1e-5)


@pytest.mark.parametrize(
    ("encoding", "unit"), [("UTF8", "utf-8"), ("UTF16", "utf-16-le"), ("UTF32", "utf-32-le"), ("NONE", None)]
)
@pytest.mark.parametrize("kind", ["PLAIN_TEXT", "HTML"])
def test_offsets_are_in_the_clients_units(client, service, encoding, unit, kind):
    sent = TEXT if kind == "PLAIN_TEXT" else f"<p title='a > b'>😀😀</p>{TEXT}"
    ask = {"document": document(service, sent, kind), "encoding_type": service.EncodingType[encoding]}
    answer = client.analyze_sentiment(request=ask, **CLOSED)
    found = [(sentence.text.content, sentence.text.begin_offset) for sentence in answer.sentences]
    assert [content for content, _ in found][-4:] == PIECES
    for content, offset in found:
        if unit is None:
            assert offset == -1
        else:
            width = {"utf-8": 1, "utf-16-le": 2, "utf-32-le": 4}[unit]
            assert sent.encode(unit)[offset * width :].startswith(content.encode(unit))


def test_the_language_is_told_back(server):
    answer = client_of(language_v1, server).analyze_sentiment(
        document=document(language_v1, language="de"), **CLOSED
    )
    assert answer.language == "de"
    two = client_of(language_v2, server)
    answer = two.analyze_sentiment(document=document(language_v2, language_code="fr"), **CLOSED)
    assert (answer.language_code, answer.language_supported) == ("fr", True)
    assert two.analyze_sentiment(document=document(language_v2), **CLOSED).language_code == "und"


def test_a_texts_categories(client, service, models):
    answer = client.classify_text(document=document(service), **CLOSED)
    found = {category.name: category.confidence for category in answer.categories}
    assert found == pytest.approx(expected(models, "topics", TEXT), abs=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_one_of_several_models_is_named_by_the_address(service, server, models):
    answer = client_of(service, f"{server}/models/judge").classify_text(document=document(service), **CLOSED)
    assert {category.name for category in answer.categories} == {"good", "bad"}
    with pytest.raises(BadRequest, match="labels that tell a sentiment"):
        client_of(service, f"{server}/models/topics").analyze_sentiment(document=document(service), **CLOSED)
    with pytest.raises(NotFound, match="There is no model 'other'"):
        client_of(service, f"{server}/models/other").classify_text(document=document(service), **CLOSED)
    twins = [
        Served(name, small(4, architecture="encoder", pooler=True, labels=("0", "1")), TOKENIZER)
        for name in "ab"
    ]
    with serving(*twins) as address, pytest.raises(BadRequest, match="a, b have labels"):
        client_of(service, address).classify_text(document=document(service), **CLOSED)


def test_annotations_come_from_the_model_that_can(client, service):
    features = {"extract_document_sentiment": True, "classify_text": True}
    ask = {"document": document(service), "features": features, "encoding_type": service.EncodingType.UTF8}
    answer = client.annotate_text(request=ask, **CLOSED)
    alone = client.analyze_sentiment(
        request={"document": ask["document"], "encoding_type": ask["encoding_type"]}, **CLOSED
    )
    assert answer.document_sentiment == alone.document_sentiment
    assert answer.sentences == alone.sentences
    assert answer.categories == client.classify_text(document=ask["document"], **CLOSED).categories
    only = client.annotate_text(document=ask["document"], features={"classify_text": True}, **CLOSED)
    assert (list(only.sentences), bool(only.categories)) == ([], True)


@pytest.mark.parametrize(("encoding", "unit"), [("UTF8", 1), ("UTF16", 2), ("UTF32", 4), ("NONE", None)])
@pytest.mark.parametrize("kind", ["PLAIN_TEXT", "HTML"])
def test_a_texts_entities_are_what_its_tags_name(client, service, models, encoding, unit, kind):
    sent = TEXT if kind == "PLAIN_TEXT" else f"<p>😀</p>{TEXT} &amp; <b>Ann</b>"
    ask = {"document": document(service, sent, kind), "encoding_type": service.EncodingType[encoding]}
    answer = client.analyze_entities(request=ask, **CLOSED)
    plain = PlainText.of(Document(type=DocumentType[kind], content=sent))
    namer, wanted = models["namer"], []
    for sentence in plain.sentences():
        words = tagged_words(namer.model, namer.tokenizer, sentence.text)
        wanted += [(one.kind, sentence.text[one.start : one.end]) for one in mentions(words)]
    found = [
        (entity.metadata["label"], mention.text.content)
        for entity in answer.entities
        for mention in entity.mentions
    ]
    assert sorted(found) == sorted(wanted)
    assert len(found) > 3
    codec = {1: "utf-8", 2: "utf-16-le", 4: "utf-32-le", None: None}[unit]
    for entity in answer.entities:
        person = entity.metadata["label"] == "PER"
        assert entity.type_ == (service.Entity.Type.PERSON if person else service.Entity.Type.OTHER)
        for mention in entity.mentions:
            assert mention.text.content == entity.name
            assert mention.type_.name == ("PROPER" if person else "TYPE_UNKNOWN")
            if codec is None:
                assert mention.text.begin_offset == -1
            elif "&" not in entity.name:
                assert sent.encode(codec)[mention.text.begin_offset * unit :].startswith(
                    entity.name.encode(codec)
                )
    if service is language_v1:
        assert sum(entity.salience for entity in answer.entities) == pytest.approx(1, abs=1e-5)
    else:
        assert all(0 < mention.probability <= 1 for entity in answer.entities for mention in entity.mentions)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("PER", True), ("Location", True), ("GPE", True), ("product", True), ("MISC", True), ("NORP", True),
        ("DATE", False), ("MONEY", False), ("CARDINAL", False), ("PHONE_NUMBER", False), ("disease", False),
    ],
)  # fmt: skip
def test_which_kinds_are_names(kind, named):
    (entity,) = answers.entities("v1", [answers.Mentioned("x", kind, 0, 0.5)])["entities"]
    assert entity["mentions"][0]["type"] == ("PROPER" if named else "TYPE_UNKNOWN")


def test_our_yardstick_finds_what_our_server_finds(server, models, tmp_path, monkeypatch):
    namer = models["namer"]
    texts = ["Ann saw New York .", "é Rome is a city", "Byron read Notes on it"]
    told = [tagged_words(namer.model, namer.tokenizer, text) for text in texts]
    predicted = [[word.tag for word in words] for words in told]
    people = [[tag if tag.endswith("PER") else "O" for tag in tags] for tags in predicted]
    assert sum(tag == "B-PER" for tags in people for tag in tags) > 1
    lines = [
        "\n".join(f"{word} {tag}" for word, tag in zip(text.split(), tags, strict=True))
        for text, tags in zip(texts, people, strict=True)
    ]
    (tmp_path / "a.conll").write_text("\n\n".join(lines))
    monkeypatch.chdir(tmp_path)
    words = ["google_nl.task=entities", f"google_nl.base_url={server}", "data=conll", "data.paths=a.conll"]
    assert main(["evaluate", "model=google_nl", *words]) == 0
    (entry,) = json.loads((tmp_path / "answers/google_nl/evaluation.json").read_text())
    assert entry["metrics"]["f1"] == 1.0


def test_entities_among_the_annotations(client, service):
    ask = {"document": document(service), "encoding_type": service.EncodingType.UTF8}
    alone = client.analyze_entities(request=ask, **CLOSED)
    features = {"extract_entities": True, "classify_text": True}
    answer = client.annotate_text(request={**ask, "features": features}, **CLOSED)
    assert answer.entities == alone.entities
    assert answer.categories == client.classify_text(document=ask["document"], **CLOSED).categories
    empty = client.analyze_entities(document=document(service, " \n"), **CLOSED)
    assert list(empty.entities) == []


def test_what_is_not_served_says_so(client, service, server):
    with pytest.raises(BadRequest, match="moderateText needs a kind of model"):
        client.moderate_text(document=document(service), **CLOSED)
    with pytest.raises(BadRequest, match="moderateText needs"):
        client.annotate_text(document=document(service), features={"moderate_text": True}, **CLOSED)
    with pytest.raises(BadRequest, match="tags that name things"):
        client_of(service, f"{server}/models/topics").analyze_entities(document=document(service), **CLOSED)
    for name in ("namer", "reader"):  # whose labels are of words, and of no text
        with pytest.raises(BadRequest, match="needs a model with labels"):
            client_of(service, f"{server}/models/{name}").classify_text(document=document(service), **CLOSED)


def test_documents_without_text(client, service):
    for kind, text in [("PLAIN_TEXT", ""), ("PLAIN_TEXT", " \n"), ("HTML", "<p></p><script>a. b</script>")]:
        empty = document(service, text, kind)
        answer = client.analyze_sentiment(document=empty, **CLOSED)
        assert (answer.document_sentiment.score, answer.document_sentiment.magnitude) == (0, 0)
        assert list(answer.sentences) == []
        with pytest.raises(BadRequest, match="no text"):
            client.classify_text(document=empty, **CLOSED)


def test_documents_that_are_refused(client, service):
    with pytest.raises(BadRequest, match="type must be"):
        client.analyze_sentiment(document=document(service, kind="TYPE_UNSPECIFIED"), **CLOSED)
    elsewhere = service.Document(gcs_content_uri="gs://a/b", type_=service.Document.Type.PLAIN_TEXT)
    with pytest.raises(BadRequest, match="gcsContentUri"):
        client.analyze_sentiment(document=elsewhere, **CLOSED)
    with pytest.raises(BadRequest, match="2000 sentences"):
        client.analyze_sentiment(document=document(service, "A. " * 2000), **CLOSED)


def test_a_key_comes_as_googles_clients_send_it(service):
    judge = Served("judge", small(4, architecture="encoder", pooler=True, labels=("0", "1")), TOKENIZER)
    with serving(judge, guarding=Guarding("sk-secret")) as address:
        ask = {"document": document(service), **CLOSED}
        assert client_of(service, address, api_key="sk-secret").classify_text(**ask).categories
        with pytest.raises(Unauthorized, match="API key"):
            client_of(service, address, api_key="sk-secret-not").classify_text(**ask)


def test_a_key_comes_in_the_address_as_in_googles_rest(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    judge = Served("judge", small(4, architecture="encoder", pooler=True, labels=("0", "1")), TOKENIZER)
    body = {"document": {"type": "PLAIN_TEXT", "content": "a"}}
    with serving(judge, guarding=Guarding("sk-se+cret")) as address, httpx.Client(base_url=address) as client:

        def status(path, query, **headers):
            return client.post(f"{path}?{query}", json=body, headers=headers).status_code

        for path in ("/v1/documents:classifyText", "/v2/documents:classifyText", "/models/judge/v1/documents:classifyText"):  # fmt: skip
            assert status(path, "key=sk-se%2Bcret") == 200
            assert status(path, "alt=json&key=sk-se%2Bcret") == 200
            for wrong in ("", "key", "key=", "key=sk-se", "key=sk-se%2Bcret2", "api_key=sk-se%2Bcret", "key=%ff",
                          "&".join(["a=1"] * 999)):  # fmt: skip
                assert status(path, wrong) == 401, wrong
            # A header that brings a key is what counts.
            assert status(path, "key=sk-se%2Bcret", Authorization="Bearer wrong") == 401
        for path in ("/v1/completions", "/models/judge", "/v1/models", "/metrics", "/"):
            assert status(path, "key=sk-se%2Bcret") == 401, path
        figures = client.get("/metrics", headers={"Authorization": "Bearer sk-se+cret"}).text
    # httpx, the client, logs what it asks for.
    said = [
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]
    for secret in ("sk-se+cret", "sk-se%2Bcret"):
        assert secret not in "".join(said) + "".join(capfd.readouterr()) + figures


def test_a_key_in_the_address_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or False)
    judge = Served("judge", small(4, architecture="encoder", pooler=True, labels=("0", "1")), TOKENIZER)
    with serving(judge, guarding=Guarding("sk-secret")) as address:
        httpx.post(f"{address}/v1/documents:classifyText?key=wrong", json={})
    assert compared == [(b"wrong", b"sk-secret")]


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1}, {"encodingType": 4}, {"encodingType": "UTF64"}, {"encodingType": 1.5}, {"encodingType": True},
        {"document": None}, {"document": "text"}, {"document": {}}, {"document": {"type": "HTML"}},
        {"document": {"type": "PDF", "content": "a"}}, {"document": {"type": 1, "content": 5}},
        {"document": {"type": 1, "content": "\ud800"}}, {"document": {"type": 1, "content": "a", "more": 1}},
        {"document": {"type": 1, "content": "a", "gcsContentUri": "gs://a"}},
    ],
    ids=str,
)  # fmt: skip
def test_bad_bodies_are_refused_in_googles_shape(http, change):
    good = {"document": {"type": "PLAIN_TEXT", "content": "a"}, "encodingType": "UTF8"}
    assert http.post("/v1/documents:analyzeSentiment", json=good).status_code == 200
    changed = json.dumps({**good, **change})
    answer = http.post(
        "/v1/documents:analyzeSentiment", content=changed, headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert error["message"]


def test_both_spellings_of_a_key(http):
    given = {"content": "a. b", "type": "PLAIN_TEXT"}
    answers = [
        http.post("/v1/documents:analyzeSentiment", json={"document": given, key: "UTF8"})
        for key in ("encodingType", "encoding_type")
    ]
    assert [answer.json()["sentences"][1]["text"]["beginOffset"] for answer in answers] == [3, 3]


def test_other_routes_of_documents(http):
    assert http.post("/v1/documents:translate", json={}).json()["error"]["status"] == "NOT_FOUND"
    assert http.get("/v1/documents:classifyText").json()["error"]["code"] == 405
    assert http.post("/v3/documents:classifyText", json={}).json()["error"]["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (("negative", "positive"), (-1, 1)),
        (("NEG", "Neutral", "pos"), (-1, 0, 1)),
        (("very_negative", "negative", "neutral", "positive", "very positive"), (-1, -0.5, 0, 0.5, 1)),
        (("0", "1"), (-1, 1)),
        (("1 star", "2 stars", "3 stars", "4 stars", "5 stars"), (-1, -0.5, 0, 0.5, 1)),
        (("-1", "0", "1"), (-1, 0, 1)),
        (("sports", "politics"), None),
        (("positive", "sports"), None),
        (("1", "sports"), None),
        (("neutral",), None),
        (("positive", "neutral"), None),
        (("7",), None),
        (("LABEL_0", "LABEL_1"), None),
        ((), None),
    ],
)
def test_what_labels_are_worth(labels, wanted):
    assert polarities(labels) == (wanted and dict(zip(labels, wanted, strict=True)))


def test_a_score_is_what_the_labels_are_worth():
    polarity = polarities(("1 star", "2 stars", "3 stars"))
    assert score({"1 star": 0.2, "2 stars": 0.3, "3 stars": 0.5}, polarity) == pytest.approx(0.3)


def test_html_is_read_as_a_reader_sees_it():
    source = (
        "<h1>A &amp; B</h1>\n<p>One <b>two</b>. Three<br>four<!-- five. --> &#x1F600;<style>p {}</style></p>"
    )
    text = PlainText(source, source, range(len(source)))
    assert text.sentences()[0] == Sentence("<h1>A &amp; B</h1>\n<p>One <b>two</b>.", 0)
    read = PlainText.of(Document(type=DocumentType.HTML, content=source))
    assert [sentence.text for sentence in read.sentences()] == ["A & B", "One two.", "Three", "four 😀"]
    offsets = read.offsets([sentence.start for sentence in read.sentences()], EncodingType.UTF32)
    assert [source[offset:][:5] for offset in offsets] == ["A &am", "One <", "Three", "four<"]
    assert html.unescape("&amp;") in read.text


@pytest.mark.parametrize(
    "piece", ["<!--", "<a", "<a b='", '<a b="" ', "<script></", "</", "&#", "....", "\n ", '!"']
)
def test_a_megabyte_of_nonsense_is_read_in_time(http, piece):
    content = piece * (900_000 // len(piece) // 2)
    answer = http.post("/v1/documents:classifyText", json={"document": {"type": "HTML", "content": content}})
    assert answer.status_code in (200, 400)
    assert answer.elapsed.total_seconds() < 2


def test_a_run_of_classification(tmp_path, tiny_words):
    texts = [f"fine {n},positive\nawful {n},negative\n" for n in range(40)]
    (tmp_path / "rows.csv").write_text("".join(["text,label\n", *texts]))
    kept = [word for word in tiny_words if not word.startswith("data=")]
    words = [
        "data=csv",
        f"data.paths=[{tmp_path}/rows.csv]",
        "task=classification",
        "data.validation_share=0.2",
        "data.label=label",
        "name=mine",
        f"runs_dir={tmp_path}/runs",
        f"shards_dir={tmp_path}/shards",
        "trainer.max_steps=4",
    ]
    assert main(["train", *kept, *words]) == 0
    net, tokenizer = build.usable_model(f"{tmp_path}/runs/mine", None)
    with serving(Served("mine", net, tokenizer)) as address:
        answer = client_of(language_v2, address).analyze_sentiment(
            document=document(language_v2, "fine and nice"), **CLOSED
        )
    told = classify(net, tokenizer, ["fine and nice"])[0]
    assert answer.document_sentiment.score == pytest.approx(told["positive"] - told["negative"], abs=1e-5)
