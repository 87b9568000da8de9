"""Data, training, the artifact on disk, and the classifier against scikit-learn's own pipeline."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline

from app.domain.errors import ModelUnusable
from models.artifact import (
    DEFAULT_PATH,
    is_linear,
    load,
    load_pipeline,
    put_together,
    read_manifest,
    save,
    take_apart,
)
from models.classifier import LinearClassifier, PipelineClassifier
from models.data import DataInvalid, Example, read_examples, require_labels, strip_message
from models.evaluate import score, stripped
from models.train import train
from models.vocabulary import BLOCK_BYTES, WORD, Vocabulary

PROJECT = Path(__file__).parents[2]
OWN = PROJECT / "tests" / "data" / "texts.ndjson"

ODD = [
    "",
    " " * 1_000,
    "a b c",
    "!?#",
    "The QUICK brown fox_jumps over 2 lazy dogs, it's 1993.",
    "ünïcode wörds and Straße, ΣΊΣΥΦΟΣ and İstanbul",
    "emoji 😀 in between space orbit",
    "space " * 100_000,
    "tab\tnewline\nvertical\x0bform\x0cfile\x1cgroup\x1dnel\x85nbsp\xa0end",
    "\x00nul and \x7fdel",
    "the Kelvin sign \u212a and a long s \u017f in words",
]


@pytest.fixture(scope="module")
def shipped():
    return load(DEFAULT_PATH), load_pipeline(DEFAULT_PATH)


def own_texts():
    return [json.loads(line)["text"] for line in OWN.read_text().splitlines()]


def test_every_form_of_data_reads_the_same(tmp_path):
    rows = [("pay me", "billing"), ('it "crashed",\nagain', "technical")]
    for number, (text, label) in enumerate(rows):
        (tmp_path / "folder" / label).mkdir(parents=True)
        (tmp_path / "folder" / label / f"{number}.txt").write_text(text)
    ndjson = "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows)
    (tmp_path / "a.ndjson").write_text(ndjson)
    with gzip.open(tmp_path / "a.ndjson.gz", "wt") as file:
        file.write(ndjson)
    with lzma.open(tmp_path / "a.jsonl.xz", "wt") as file:
        file.write(ndjson)
    (tmp_path / "a.csv").write_text(
        'label,text\nbilling,pay me\ntechnical,"it ""crashed"",\nagain"\n'
    )
    expected = [Example(text, label) for text, label in rows]
    for name in ("folder", "a.ndjson", "a.ndjson.gz", "a.jsonl.xz", "a.csv"):
        assert read_examples(str(tmp_path / name)) == expected, name


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.ndjson", '{"text": "a", "label": "b"}\n{"text": \n', "a.ndjson:2"),
        ("a.ndjson", "[1]\n", "a.ndjson:1"),
        ("a.ndjson", '{"text": "a"}\n', "a.ndjson:1"),
        ("a.csv", "text,kind\na,b\n", "label"),
        ("a.csv", "text,label\nhello,  \n", "a.csv:2"),
        ("a.csv", b"text,label\ncaf\xe9,b\n", "a.csv: not UTF-8"),
        ("a.ndjson", '{"text": "a", "label": "\\ud800"}\n', "a.ndjson:1: its label"),
        ("a.ndjson", "[" * 200_000, "a.ndjson:1: not JSON"),
        ("a.csv.gz", b"no gzip", "a.csv.gz: cannot be read"),
        (
            "a.csv.gz",
            gzip.compress(b"text,label\na,b\n" * 99, mtime=0)[:-12],
            "a.csv.gz: cannot be read",
        ),
        ("a.csv.xz", b"no xz", "a.csv.xz: cannot be read"),
        ("a.txt", "hello", "a.txt"),
    ],
)
def test_bad_data_is_named_by_its_place(tmp_path, name, content, place):
    written = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(written)
    with pytest.raises(DataInvalid, match=place):
        read_examples(str(tmp_path / name))


def test_a_spreadsheets_mark_and_long_cells_are_read(tmp_path):
    long = "word " * 50_000
    (tmp_path / "a.csv").write_bytes(f"\ufefftext,label\r\n{long},b\r\n".encode())
    (tmp_path / "a.ndjson").write_bytes(b'\xef\xbb\xbf{"text": "a", "label": "b"}\r\n')
    assert read_examples(str(tmp_path / "a.csv")) == [Example(long, "b")]
    assert read_examples(str(tmp_path / "a.ndjson")) == [Example("a", "b")]


@pytest.mark.parametrize("program", ["train", "evaluate"])
@pytest.mark.parametrize("content", ["text,label\n", "text,label\n" + "a,x\nb,y\n" * 6])
def test_data_without_words_and_folders_that_are_files_are_sentences(tmp_path, program, content):
    data = tmp_path / "a.csv"
    data.write_text(content)
    option = {"train": "--out", "evaluate": "--model"}[program]
    done = subprocess.run(
        [sys.executable, "-m", f"models.{program}", str(data), option, str(data)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_texts_without_words_are_nothing_to_learn_from(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "a,x\nb,y\n" * 6)
    with pytest.raises(DataInvalid, match="nothing to learn"):
        train(str(tmp_path / "a.csv"), tmp_path / "model", name="none")


def test_missing_or_empty_sources_are_sentences(tmp_path):
    for source in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(DataInvalid):
            read_examples(str(source))


def test_one_label_is_not_enough():
    with pytest.raises(DataInvalid, match="two labels"):
        require_labels([Example("a", "x"), Example("b", "x")])
    with pytest.raises(DataInvalid, match="rare"):
        require_labels([Example("a", "x"), Example("b", "x"), Example("c", "rare")])


def test_messages_lose_header_quotes_and_signature():
    message = "From: a@b\nSubject: c\n\nIn article <1> d wrote:\n> old\nnew\n\n--\nsignature"
    assert strip_message(message).strip() == "new"
    assert strip_message("No header.\n\nSecond paragraph.") == "No header.\n\nSecond paragraph."


@pytest.mark.parametrize("labels", [2, 3])
def test_a_model_of_ones_own_classifies_like_its_pipeline(tmp_path, capsys, labels):
    lines = OWN.read_text().splitlines()[-12:]
    source = tmp_path / "own.ndjson"
    source.write_text("\n".join(lines[: 4 * labels]) + "\n")
    out = tmp_path / "model"
    train(str(source), out, name="own")
    assert "accuracy" in capsys.readouterr().out or labels
    classifier = load(out)
    assert isinstance(classifier, LinearClassifier)
    assert len(classifier.labels) == labels
    texts = [*ODD, *own_texts()]
    expected = load_pipeline(out).predict_proba(texts)
    assert np.abs(classifier.probabilities(texts) - expected).max() < 1e-5
    (prediction,) = classifier.classify(["please refund my payment and send the invoice"])
    assert prediction.category == "billing"
    assert prediction.model_version.startswith("own-")


def test_the_fast_way_says_what_scikit_learn_says(shipped):
    fast, pipeline = shipped
    texts = [*ODD, *own_texts()]
    expected = pipeline.predict_proba(texts)
    assert np.abs(fast.probabilities(texts) - expected).max() < 1e-5
    assert [one.category for one in fast.classify(texts)] == list(pipeline.predict(texts))
    assert fast.classify([]) == []


def test_a_large_chunk_is_classified_in_pieces_to_the_same_end(shipped):
    fast, _ = shipped
    texts = [f"{text} " * 400 for text in own_texts()]
    assert sum(map(len, texts)) > 2 << 20
    assert [one.category for one in fast.classify(texts)] == [
        fast.classify([text])[0].category for text in texts
    ]


def test_any_other_pipeline_is_used_as_it_is(tmp_path):
    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2)), SGDClassifier(loss="log_loss", random_state=0)
    ).fit(["pay the invoice", "it crashed"], ["billing", "technical"])
    save(tmp_path, pipeline, name="other", data={}, scores={}, parameters={})
    classifier = load(tmp_path)
    assert isinstance(classifier, PipelineClassifier)
    assert classifier.classify(["invoice"])[0].category == "billing"
    bigrams = make_pipeline(TfidfVectorizer(), LogisticRegression())
    bigrams.fit(["pay the invoice", "it crashed"], ["billing", "technical"])
    save(tmp_path, bigrams, name="other", data={}, scores={}, parameters={})
    assert isinstance(load(tmp_path), PipelineClassifier), "no sublinear tf: not our form"


_IN_PLACE = """
import sys
from pathlib import Path
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from models.artifact import load, save

def write(words):
    pipeline = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression())
    pipeline.fit([" ".join(words[::2]), " ".join(words[1::2])], ["even", "odd"])
    save(Path(sys.argv[1]), pipeline, name="m", data={}, scores={}, parameters={})

write([f"word{number:05}" for number in range(20_000)])
classifier = load(Path(sys.argv[1]))
write(["few", "words"])
print(classifier.classify(["word19999"])[0].category)
"""


def test_a_model_that_is_trained_anew_in_its_folder_leaves_those_who_use_it_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _IN_PLACE, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "odd\n"), done.stderr
    assert load(tmp_path).classify(["few"])[0].category == "even"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", *[".npy"] * 3, ".txt"]


@pytest.mark.parametrize("pickled", [b"cnosuch_module\nthing\n.", b"", b"I1\n."])
def test_a_pipeline_that_cannot_be_loaded_is_refused(tmp_path, pickled):
    pipeline = make_pipeline(TfidfVectorizer(), SGDClassifier(loss="log_loss"))
    pipeline.fit(["pay the invoice", "it crashed"], ["billing", "technical"])
    save(tmp_path, pipeline, name="other", data={}, scores={}, parameters={})
    (tmp_path / "pipeline.joblib").write_bytes(pickled)
    _change(files={"pipeline.joblib": hashlib.sha256(pickled).hexdigest()})(tmp_path)
    with pytest.raises(ModelUnusable):
        load(tmp_path)


def test_a_pipeline_without_probabilities_is_refused(tmp_path):
    pipeline = make_pipeline(TfidfVectorizer(), SGDClassifier(loss="hinge"))
    pipeline.fit(["pay the invoice", "it crashed"], ["billing", "technical"])
    save(tmp_path, pipeline, name="other", data={}, scores={}, parameters={})
    with pytest.raises(ModelUnusable, match="predict_proba"):
        load(tmp_path)


def _damage_model(folder):
    with (folder / "weights.npy").open("r+b") as file:
        file.seek(1_000)
        file.write(b"x")


def _change(**fields):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, **fields}))

    return change


def _a_file_in_its_place(folder):
    shutil.rmtree(folder)
    folder.write_text("a model?")


def _a_folder_for_a_manifest(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_damage_model, "sha256"),
        (_change(files={"words.txt": "0"}), "words.txt is not the file"),
        (_change(files={}), "does not vouch for all its files"),
        (_change(files={"../words.txt": "0"}), "a file elsewhere"),
        (_change(labels=["a", "b"]), "arrays do not fit together"),
        (_change(format=99), "format is 99"),
        (_change(files=["words.txt"]), "wrong kind"),
        (_change(labels=None), "wrong kind"),
        (_a_file_in_its_place, "has no manifest"),
        (_a_folder_for_a_manifest, "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest"),
        (lambda folder: (folder / "weights.npy").unlink(), "cannot be read"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_to_do(tmp_path, damage, reason):
    folder = tmp_path / "model"
    shutil.copytree(DEFAULT_PATH, folder)
    damage(folder)
    with pytest.raises(ModelUnusable, match=reason) as refused:
        load(folder)
    assert refused.value.remedy in str(refused.value)


def test_a_pipeline_of_other_versions_is_refused_with_what_to_install(tmp_path):
    pipeline = make_pipeline(TfidfVectorizer(), SGDClassifier(loss="log_loss"))
    pipeline.fit(["pay the invoice", "it crashed"], ["billing", "technical"])
    save(tmp_path, pipeline, name="other", data={}, scores={}, parameters={})
    _change(libraries={"scikit-learn": "0.1.0"})(tmp_path)
    with pytest.raises(ModelUnusable, match=r"trained with scikit-learn 0\.1\.0") as refused:
        load(tmp_path)
    assert "Install scikit-learn==0.1.0" in refused.value.remedy


def test_a_linear_model_is_loaded_without_scikit_learn():
    program = (
        "import sys\n"
        "from models.artifact import DEFAULT_PATH, load\n"
        "assert load(DEFAULT_PATH).classify(['The shuttle reached orbit.'])\n"
        "heavy = {'sklearn', 'scipy', 'joblib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PROJECT)


@pytest.mark.parametrize("labels", [2, 3])
def test_a_pipeline_taken_apart_is_the_same_put_together(labels):
    texts = [f"{word} and more {word}s" for word in ("space", "hockey", "crypt")[:labels]]
    pipeline = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression())
    pipeline.fit(texts, [str(number) for number in range(labels)])
    assert is_linear(pipeline)
    again = put_together(take_apart(pipeline))
    expected = pipeline.predict_proba([*texts, *ODD])
    assert np.abs(again.predict_proba([*texts, *ODD]) - expected).max() < 1e-6


WORDS = st.text(alphabet="abz09_é中ß", min_size=2, max_size=12)


@given(
    st.lists(WORDS, unique=True, max_size=40),
    st.lists(st.text(alphabet="abz09_é中ß .,A\n"), max_size=8),
)
def test_words_are_found_as_a_dictionary_finds_them(words, texts):
    known = {word: column for column, word in enumerate(words)}
    texts = [*texts, " ".join(words)]
    expected = [
        (row, known[word])
        for row, text in enumerate(texts)
        for word in WORD.findall(text.lower())
        if word in known
    ]
    rows, columns = Vocabulary(words).look_up(texts)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


@pytest.mark.parametrize("length", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_texts_of_any_length_are_cut_between_words(length):
    filler = "filler " * (length // 7 + 1)
    texts = ["space", filler[: length - 6] + " space", "", filler[:length], "orbit space"]
    rows, columns = Vocabulary(["space", "orbit"]).look_up(texts)
    assert rows.tolist() == [0, 1, 4, 4]
    assert columns.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("length", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES])
@pytest.mark.parametrize("ending", ["space", " space", "é space", "space orbit"])
def test_the_end_of_a_word_that_is_longer_than_a_block_is_no_word(length, ending):
    known = {"space": 0, "orbit": 1}
    for text in ("x" * length + ending, "orbit " + "x" * length + ending):
        expected = [known[word] for word in WORD.findall(text) if word in known]
        assert Vocabulary(list(known)).look_up([text])[1].tolist() == expected


def test_a_vocabulary_has_each_word_once():
    with pytest.raises(ValueError, match="same"):
        Vocabulary(["orbit", "orbit"])


def test_the_shipped_model_is_small_and_its_manifest_promises_enough():
    assert sum(file.stat().st_size for file in DEFAULT_PATH.iterdir()) <= 6_000_000
    manifest = read_manifest(DEFAULT_PATH)
    assert manifest.scores["whole"]["accuracy"] >= 0.86
    assert manifest.scores["stripped"]["accuracy"] >= 0.73
    assert manifest.scores["whole"]["calibration_error"] <= 0.05
    assert len(manifest.labels) == 20
    assert 0 < manifest.parameters["threshold"] < 1


def test_the_shipped_model_keeps_its_promise_on_the_test_split(shipped):
    places = [os.environ.get("NEWSGROUPS_DIR"), str(PROJECT.parent / "shared/data/20newsgroups")]
    files = [Path(place) / "20news-bydate.ndjson.xz" for place in places if place]
    file = next((one for one in files if one.is_file()), None)
    if file is None:
        pytest.skip("set NEWSGROUPS_DIR to the folder with 20news-bydate.ndjson.xz")
    test = [example for example in read_examples(str(file)) if example.split == "test"]
    whole, bare = score(shipped[0], test), score(shipped[0], stripped(test))
    assert whole["accuracy"] >= 0.86
    assert bare["accuracy"] >= 0.73
    assert max(whole["calibration_error"], bare["calibration_error"]) <= 0.05
