"""Forget sets: what is drawn, and what of a user's own file is refused, with file, line and mend."""

import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearning.data import forget_sets as draw
from unlearning.data.corpus import COLUMNS, train_tokenizer
from unlearning.data.jsonl import read_examples, read_jsonl, write_jsonl
from unlearning.errors import StudyError

SETS = {
    "ind-a": {"kind": "natural", "size": 8, "repetitions": 1},
    "ood-canary-a": {"kind": "canary", "size": 6, "repetitions": 1},
    "ood-secret-x4": {"kind": "secret", "size": 5, "repetitions": 4},
}
POPULATIONS = {"natural": 9, "canary": 20, "secret": 20, "pilot": 4, "followed": 5}
TEXTS = ["Größe der Liste ändern", "change the size of the list", "Wert wurde gespeichert", "value has been stored"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 4, vocabulary_size=360)


def pairs(n: int, prefix: str = "p") -> pd.DataFrame:
    rows = [(f"{prefix}{i:03d}", f"{prefix} Quelle {i}", f"{prefix} target {i}", f"o{i % 5}") for i in range(n)]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture(scope="module")
def drawn(tokenizer):
    return draw.draw_sets(SETS, populations=POPULATIONS, reserve=pairs(60), tokenizer=tokenizer, seed=7)


def test_sets_and_populations_have_the_sizes_of_the_settings(drawn):
    sets, never = drawn
    assert {name: len(part) for name, part in sets.items()} == {"ind-a": 8, "ood-canary-a": 6, "ood-secret-x4": 5}
    assert {name: len(part) for name, part in never.items()} == {"natural": 9, "pilot": 4, "canary": 20, "secret": 20}


def test_no_example_is_drawn_twice(drawn):
    parts = pd.concat([*drawn[0].values(), *drawn[1].values()])
    assert parts["id"].is_unique
    assert not parts[parts["origin"] != "secret"].duplicated(["source", "target"]).any()
    assert parts.loc[parts["origin"] == "secret", "target"].is_unique


def test_a_set_that_is_added_changes_no_other(drawn, tokenizer):
    more = SETS | {f"ind-{c}": SETS["ind-a"] for c in "xyz"} | {"ood-canary-b": SETS["ood-canary-a"]}
    sets, never = draw.draw_sets(more, populations=POPULATIONS, reserve=pairs(60), tokenizer=tokenizer, seed=7)
    for name, part in drawn[0].items():
        assert part.equals(sets[name])
    for name, part in drawn[1].items():
        assert part.equals(never[name])


def test_another_seed_draws_others(drawn, tokenizer):
    sets, _ = draw.draw_sets(SETS, populations=POPULATIONS, reserve=pairs(60), tokenizer=tokenizer, seed=8)
    for name, part in drawn[0].items():
        assert not part.equals(sets[name])


def test_canaries_have_exactly_ten_tokens_that_survive_and_none_is_special(drawn, tokenizer):
    for part in (drawn[0]["ood-canary-a"], drawn[1]["canary"]):
        for text in [*part["source"], *part["target"]]:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert len(ids) == 10
            assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
            assert min(ids) > 3
            assert text.isprintable()


def test_secrets_are_ten_letters_or_digits_after_one_fixed_phrase(drawn):
    part = drawn[0]["ood-secret-x4"]
    assert set(part["source"]) == {"My secret is "}
    assert all(re.fullmatch("[a-zA-Z0-9]{10}", target) for target in part["target"])


def test_a_reserve_that_is_too_small_is_told():
    with pytest.raises(StudyError, match="Too few pairs: the natural sets take 11, the reserve holds 10"):
        draw.draw_natural(pairs(10), {"a": 6, "b": 5}, seed=1)


def test_the_table_of_examples_has_one_row_each_and_counts_the_end_of_sequence(drawn, tokenizer):
    sets, never = drawn
    examples = draw.examples_table(
        sets=sets, settings=SETS, never=never, heldout=pairs(7, "h"), core=pairs(30, "c"),
        retain=10, tokenizer=tokenizer,
    )  # fmt: skip
    groups = examples.groupby("forget_set", sort=False)
    assert groups.size().to_dict() == {
        "ind-a": 8, "ood-canary-a": 6, "ood-secret-x4": 5, "never-natural": 9, "pilot": 4,
        "never-canary": 20, "never-secret": 20, "heldout": 7, "retain": 10,
    }  # fmt: skip
    assert examples["example_id"].is_unique
    assert set(examples.loc[examples["forget_set"] == "ood-canary-a", "n_tokens"]) == {11}
    repetitions = groups["repetitions"].first()
    assert (repetitions["ood-secret-x4"], repetitions["retain"], repetitions["heldout"]) == (4, 1, 0)
    assert not {"source", "target"} & set(examples)
    retained = examples.loc[examples["forget_set"] == "retain", "example_id"]
    assert list(retained) == list(pairs(30, "c")["id"][:10]), "training and ascent score the core's first pairs"


# A set of one's own

GOOD = {"id": "1", "source": "Guten Morgen zusammen", "target": "good morning everybody"}


def own(path, tokenizer, **protected):
    return draw.read_own(
        "mine", path, tokenizer=tokenizer, max_tokens=40, protected=protected, near_duplicate=0.7
    )  # fmt: skip


def write(tmp_path, *lines: object):
    path = tmp_path / "mine.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_a_good_file_becomes_a_forget_set(tmp_path, tokenizer):
    part = own(write(tmp_path, GOOD, GOOD | {"id": "2", "source": "", "origin": "me"}), tokenizer, core=pairs(5))
    assert part.to_numpy().tolist() == [
        ["mine:1", GOOD["source"], GOOD["target"], "mine.jsonl"],
        ["mine:2", "", GOOD["target"], "me"],
    ]


BAD = {
    "not JSON": ("{id: 1}", "not JSON"),
    "a list": ("[1, 2]", "a list, not an object"),
    "a missing field": ({"id": "2", "source": "x"}, "'target' is missing"),
    "an empty field": (GOOD | {"id": "2", "target": " "}, "'target' is empty"),
    "a number as text": (GOOD | {"id": "2", "target": 3}, "'target' is of type int"),
    "a number as id": (GOOD | {"id": 2}, "'id' is of type int"),
    "null as source": (GOOD | {"id": "2", "source": None}, "'source' is of type NoneType"),
    "a duplicate id": (GOOD, "the id '1' stands in line 1 too"),
    "half a character": ('{"id": "2", "source": "\\ud83d", "target": "x"}', "surrogate"),
    "an origin that is no text": (GOOD | {"id": "2", "origin": 1}, "'origin' is no string"),
    "too long": (GOOD | {"id": "2", "target": "word " * 60}, r"tokens with the end of sequence, the models take 40"),
    "a reserved token": (GOOD | {"id": "2", "target": "so </s> long"}, "reserved token </s>"),
    "a copy of the core": (GOOD | {"id": "2", "source": "Wert wurde gespeichert!"}, r"stands in core as 'c1'"),
    "nearly the core": (GOOD | {"id": "2", "target": "The value has been stored"}, r"stands in core as 'c1'.*0\.80"),
    "a copy of held-out digits": (GOOD | {"id": "2", "target": "12 34"}, r"stands in heldout as 'h1'.*Performance"),
    "a copy but for a placeholder": (GOOD | {"id": "2", "target": "Turn off {name}"}, r"stands in public as 'p2'"),
    "a character unknown": (GOOD | {"id": "2", "target": "so <unk> long"}, r"characters unknown to the tokenizer"),
    "what bases know": (
        GOOD | {"id": "2", "source": "Das Tor ist offen"},
        r"stands in public as 'p1'.*base is trained",
    ),
    "what another set holds": (
        GOOD | {"id": "2", "target": "turn off lights"},
        r"ind-a as .i1.*another forget",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_refused_with_file_line_and_reason(name, tmp_path, tokenizer):
    line, message = BAD[name]
    path = write(tmp_path, GOOD, line)
    core = pd.DataFrame([("c1", "Wert wurde gespeichert", "value has been stored", "o")], columns=COLUMNS)
    heldout = pd.DataFrame([("h1", "ganz anderes Zeug", "12 34", "o")], columns=COLUMNS)
    public = [("p1", "Das Tor ist offen", "the gate is open", "o"), ("p2", "Schalte aus", "Turn off <ph>", "o")]
    public = pd.DataFrame(public, columns=COLUMNS)
    other = pd.DataFrame([("i1", "Lichter bitte ausschalten", "turn off lights", "o")], columns=COLUMNS)
    protected = {"core": core, "heldout": heldout, "public": public, "ind-a": other}
    with pytest.raises(StudyError, match=rf"mine\.jsonl, line 2: .*{message}") as caught:
        own(path, tokenizer, **protected)
    assert "\n" not in str(caught.value)


def test_an_empty_file_says_what_to_write(tmp_path):
    with pytest.raises(StudyError, match=r'mine\.jsonl is empty.*"target"'):
        read_examples(write(tmp_path, ""))


def test_undecodable_bytes_name_their_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"id": "\xff\xfe"}\n')
    with pytest.raises(StudyError, match=r"line 2: byte 9 is not UTF-8"):
        read_examples(path)


def test_a_missing_file_or_a_folder_is_told(tmp_path):
    with pytest.raises(StudyError, match="no such file"):
        read_examples(tmp_path / "nothing.jsonl")
    with pytest.raises(StudyError, match="cannot be read"):
        read_examples(tmp_path)


@given(rows=st.lists(st.fixed_dictionaries({"id": st.text(min_size=1), "target": st.text(min_size=1)}), min_size=1))
def test_what_is_written_is_read_back(rows, tmp_path_factory):
    rows = [r for r in rows if all(v.strip() and "\ud800" not in v for v in r.values())]
    if rows:
        path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
        write_jsonl(path, rows)
        assert [row for _, row in read_jsonl(path, required=["id", "target"])] == rows
