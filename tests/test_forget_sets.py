"""Forget sets: what is drawn, and what of a user's own file is refused, with file, line and mend."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearning.data import forget_sets as draw
from unlearning.data import kinds
from unlearning.data.corpus import COLUMNS, lengths, lost_by, train_tokenizer
from unlearning.data.groups import StudyData
from unlearning.data.jsonl import read_jsonl, write_jsonl
from unlearning.data.own_files import read_examples
from unlearning.errors import StudyError

SETS = {
    "ind-a": {"kind": "natural", "size": 8, "repetitions": 1},
    "ood-canary-a": {"kind": "canary", "size": 6, "repetitions": 1},
    "ood-secret-x4": {"kind": "secret", "size": 5, "repetitions": 4},
}
POPULATIONS = {"natural": 9, "canary": 20, "shuffled": 6, "language": 5, "secret": 20}
TEXTS = ["Größe der Liste ändern", "change the size of the list", "Wert wurde gespeichert", "value has been stored"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 4, vocabulary_size=360)


def pairs(n: int, prefix: str = "p") -> pd.DataFrame:
    rows = [(f"{prefix}{i:03d}", f"{prefix} Quelle {i}", f"{prefix} target {i}", f"o{i % 5}") for i in range(n)]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture(scope="module")
def drawn(tokenizer):
    return draw.draw_sets(SETS, populations=POPULATIONS, pilot=4, reserve=pairs(60), tokenizer=tokenizer, seed=7)


def test_sets_and_populations_have_the_sizes_of_the_settings(drawn):
    sets, never = drawn
    assert {name: len(part) for name, part in sets.items()} == {"ind-a": 8, "ood-canary-a": 6, "ood-secret-x4": 5}
    assert {name: len(part) for name, part in never.items()} == {
        "natural": 9, "canary": 20, "shuffled": 6, "secret": 20, "pilot": 4, "pilot-canary": 4,
    }  # fmt: skip


def test_no_example_is_drawn_twice(drawn):
    parts = pd.concat([*drawn[0].values(), *drawn[1].values()])
    assert parts["id"].is_unique
    assert not parts[parts["origin"] != "secret"].duplicated(["source", "target"]).any()
    assert parts.loc[parts["origin"] == "secret", "target"].is_unique


def test_a_set_that_is_added_changes_no_other(drawn, tokenizer):
    more = SETS | {f"ind-{c}": SETS["ind-a"] for c in "xyz"} | {"ood-canary-b": SETS["ood-canary-a"]}
    sets, never = draw.draw_sets(more, populations=POPULATIONS, pilot=4, reserve=pairs(60), tokenizer=tokenizer, seed=7)
    for name, part in drawn[0].items():
        assert part.equals(sets[name])
    for name, part in drawn[1].items():
        assert part.equals(never[name])


def test_a_pilot_set_of_canaries_stands_beside_the_natural_one(drawn):
    assert set(drawn[1]["pilot-canary"]["origin"]) == {"canary"}
    assert drawn[1]["pilot"]["id"].str.startswith("p").all()
    assert kinds.PILOTS == ("pilot", "pilot-canary")


def test_another_seed_draws_others(drawn, tokenizer):
    sets, _ = draw.draw_sets(SETS, populations=POPULATIONS, pilot=4, reserve=pairs(60), tokenizer=tokenizer, seed=8)
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


def test_a_reserve_that_is_too_small_is_told(tokenizer):
    sizes = {"populations": {"natural": 3, "canary": 1, "shuffled": 2, "secret": 1}, "pilot": 1}
    with pytest.raises(StudyError, match="Too few pairs: ind-a takes 8, 4 of 10 in split reserve are left"):
        draw.draw_sets(SETS, **sizes, reserve=pairs(10), tokenizer=tokenizer, seed=1)


def test_the_table_of_examples_has_one_row_each_and_counts_the_end_of_sequence(drawn, tokenizer):
    sets, never = drawn
    examples = draw.examples_table(
        sets=sets, blocks=SETS, never=never, heldout=pairs(7, "h"), core=pairs(30, "c"),
        retain=10, tokenizer=tokenizer,
    )  # fmt: skip
    groups = examples.groupby("forget_set", sort=False)
    assert groups.size().to_dict() == {
        "ind-a": 8, "ood-canary-a": 6, "ood-secret-x4": 5, "never-natural": 9, "never-canary": 20,
        "never-shuffled": 6, "never-secret": 20, "pilot": 4, "pilot-canary": 4, "heldout": 7, "retain": 10,
    }  # fmt: skip
    assert groups["kind"].first()[["pilot", "pilot-canary", "never-shuffled"]].tolist() == [
        "natural",
        "canary",
        "shuffled",
    ]
    assert examples["family"].equals(examples["forget_set"])
    assert examples["example_id"].is_unique
    assert set(examples.loc[examples["forget_set"] == "ood-canary-a", "n_tokens"]) == {11}
    repetitions = groups["repetitions"].first()
    assert (repetitions["ood-secret-x4"], repetitions["retain"], repetitions["heldout"]) == (4, 1, 0)
    assert not {"source", "target"} & set(examples)
    retained = examples.loc[examples["forget_set"] == "retain", "example_id"]
    assert list(retained) == list(pairs(30, "c")["id"][:10]), "training and ascent score the core's first pairs"


# Families, kinds of pairs, and their match in tokens

WORDS = sorted({word for text in TEXTS for word in text.split()})
FAMILIES = {
    "ind": {"kind": "natural", "size": 12, "repetitions": 1, "draws": 3},
    "ood-shuffled": {"kind": "shuffled", "size": 12, "repetitions": 1, "draws": 2},
    "ood-language": {"kind": "language", "size": 12, "repetitions": 1, "draws": 2},
    "ood-canary": {"kind": "canary", "size": 12, "repetitions": 4},
}
MATCH = {"tokens_per_example": 11, "token_tolerance": 0.01}


def varied(n: int) -> pd.DataFrame:
    """Pairs of 2 to 20 words, the source a little longer than the target."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(2, 21, size=n)
    texts = [(" ".join(rng.choice(WORDS, k + 1)), " ".join(rng.choice(WORDS, k))) for k in sizes]
    return pd.DataFrame([(f"v{i:03d}", *pair, f"o{i % 9}") for i, pair in enumerate(texts)], columns=COLUMNS)


def other_language(pairs: pd.DataFrame) -> pd.DataFrame:
    kept = pairs.iloc[::2]
    return kept.assign(source=kept["source"].str.replace("der", "de").str.replace("Wert", "valeur"))


@pytest.fixture(scope="module")
def study(tokenizer):
    reserve = varied(500)
    given = {"populations": POPULATIONS, "pilot": 4, "tokenizer": tokenizer, "seed": 7}
    return reserve, *draw.draw_sets(FAMILIES, reserve=reserve, second=other_language(reserve), **given, **MATCH)


def totals(table: pd.DataFrame, tokenizer) -> list[int]:
    return [int(lengths(tokenizer, table[side].tolist()).sum()) for side in ("source", "target")]


def test_draws_of_a_family_are_sets_with_letters_and_keep_its_settings():
    blocks = {"ind": {"kind": "natural", "size": 2, "draws": 3}, "x": {"kind": "secret", "size": 1}}
    assert kinds.draws(blocks) == {
        "ind-a": {"kind": "natural", "size": 2, "family": "ind"},
        "ind-b": {"kind": "natural", "size": 2, "family": "ind"},
        "ind-c": {"kind": "natural", "size": 2, "family": "ind"},
        "x": {"kind": "secret", "size": 1, "family": "x"},
    }
    assert kinds.family_names(blocks) == {"ind": ["ind-a", "ind-b", "ind-c"], "x": ["x"]}


def test_two_sets_of_one_name_are_refused():
    blocks = {"ind": {"kind": "natural", "draws": 2}, "ind-b": {"kind": "secret"}}
    with pytest.raises(StudyError, match=r"forget_sets\.ind-b: there are two sets ind-b; rename"):
        kinds.draws(blocks)


def test_sets_of_pairs_are_matched_in_source_and_target_tokens(study, tokenizer):
    reserve, sets, never = study
    source, target = totals(reserve, tokenizer)
    assert draw.tokens_of(reserve, tokenizer, 11) == pytest.approx([11 * source / target, 11])
    for name in ("ind-a", "ind-b", "ind-c", "ood-shuffled-a", "ood-shuffled-b", "ood-language-a", "ood-language-b"):
        got = totals(sets[name], tokenizer)
        assert got == pytest.approx([12 * 11 * source / target, 12 * 11], rel=0.01), name
    assert totals(never["natural"], tokenizer)[1] != pytest.approx(9 * 11, rel=0.1)  # a random sample: not matched


def test_a_pair_is_drawn_once_whichever_kind_takes_it(study):
    _, sets, never = study
    ids = pd.concat([*sets.values(), *never.values()])["id"]
    assert ids.is_unique
    assert len(ids) == 7 * 12 + 12 + sum(POPULATIONS.values()) + 2 * 4


def test_shuffled_pairs_have_the_words_of_their_pair_in_another_order(study):
    reserve, sets, never = study
    twins = reserve.set_index("id")
    for table in (sets["ood-shuffled-a"], sets["ood-shuffled-b"], never["shuffled"]):
        for side in ("source", "target"):
            for text, twin in zip(table[side], twins.loc[table["id"], side], strict=True):
                assert sorted(text.split()) == sorted(twin.split())
                assert text != twin or len(set(twin.split())) == 1


def test_words_out_of_order_are_another_text_whenever_there_is_one():
    reserve = pd.DataFrame([(f"t{i}", "a b", "c c", "o") for i in range(50)], columns=COLUMNS)
    table = kinds.shuffled("x", 50, seed=1, reserve=reserve, taken=set())
    assert set(table["source"]) == {"b a"} and set(table["target"]) == {"c c"}


def test_pairs_of_the_second_language_keep_id_and_target(study):
    reserve, sets, never = study
    second = other_language(reserve).set_index("id")
    for table in (sets["ood-language-a"], sets["ood-language-b"], never["language"]):
        assert table["source"].tolist() == second.loc[table["id"], "source"].tolist()
        assert table["target"].tolist() == reserve.set_index("id").loc[table["id"], "target"].tolist()


def test_matched_sets_are_the_same_each_time_and_those_before_an_added_one_do_not_change(study, tokenizer):
    reserve, sets, never = study
    more = FAMILIES | {"ind-x4": {"kind": "natural", "size": 12, "repetitions": 4}}
    given = {"populations": POPULATIONS, "pilot": 4, "tokenizer": tokenizer, "seed": 7}
    turned = reserve.iloc[::-1]
    again, others = draw.draw_sets(more, reserve=turned, second=other_language(reserve), **given, **MATCH)
    assert all(part.equals(again[name]) for name, part in sets.items())
    assert all(part.equals(others[name]) for name, part in never.items())
    assert totals(again["ind-x4"], tokenizer) == pytest.approx(12 * draw.tokens_of(reserve, tokenizer, 11), rel=0.01)


def test_the_table_of_examples_names_the_family_of_each_set(study, tokenizer):
    _, sets, never = study
    examples = draw.examples_table(
        sets=sets, blocks=FAMILIES, never=never, heldout=pairs(7, "h"), core=pairs(30, "c"), retain=10,
        tokenizer=tokenizer,
    )  # fmt: skip
    families = examples.groupby("forget_set")["family"].first()
    expected = {"ind-c": "ind", "ood-language-b": "ood-language", "ood-canary": "ood-canary"}
    expected |= {name: name for name in ("never-language", "pilot-canary", "heldout")}
    assert families[list(expected)].to_dict() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"token_tolerance": 1e-6},
            r"ind-a: no 12 of the \d+ pairs left .* within 0\.00%; the nearest miss by 0\.\d\d%",
        ),
        ({"tokens_per_example": 400}, r"ind-a: no 12 .* and 4800 target tokens within 1\.00%; .*design\.tokens_per"),
        ({"second": None}, r"ood-language-a: there are no pairs of a second language\. Name it .* or take the sets"),
        (
            {"second": varied(500).iloc[:9]},
            r"Too few pairs: ood-language-a takes 12, \d of 9 in split second",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_sentence_with_its_mend(change, message, study, tokenizer):
    reserve = study[0]
    given = {"populations": POPULATIONS | {"language": 1}, "pilot": 4, "tokenizer": tokenizer, "seed": 7, **MATCH}
    given |= {"second": other_language(reserve)} | change
    with pytest.raises(StudyError, match=message) as caught:
        draw.draw_sets(FAMILIES, reserve=reserve, **given)
    assert "\n" not in str(caught.value)


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
    "a duplicate id": (GOOD | {"target": "another"}, r"this id stands in line 1 too\. Rename"),
    "the same example again": (GOOD | {"id": "2"}, r"this example stands in line 1 too\. Delete"),
    "a field twice": ('{"id": "2", "source": "x", "target": "a", "target": "b"}', "'target' stands there twice"),
    "an unknown field": (GOOD | {"id": "2", "target": "x", "orgin": "y"}, "'orgin' is unknown.*target, origin"),
    "repetitions of its own": (GOOD | {"id": "2", "target": "x", "repetitions": 4}, "'repetitions' is unknown"),
    "half a character": ('{"id": "2", "source": "\\ud83d", "target": "x"}', "surrogate"),
    "an origin that is no text": (GOOD | {"id": "2", "origin": 1}, "'origin' is of type int"),
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


def test_every_example_that_stands_elsewhere_or_is_too_long_is_told_once_in_the_order_of_the_file(tmp_path, tokenizer):
    core = pd.DataFrame([("c1", "Wert wurde gespeichert", "value has been stored", "o")], columns=COLUMNS)
    heldout = core.assign(id="h1")
    twin = GOOD | {"source": "Wert wurde gespeichert", "target": "value has been stored"}
    rows = [GOOD, twin | {"id": "2"}, GOOD | {"id": "3", "target": "word " * 60}, twin | {"id": "4", "source": "x y z"}]
    with pytest.raises(StudyError) as caught:
        own(write(tmp_path, *rows), tokenizer, core=core, heldout=heldout)
    told = str(caught.value).splitlines()
    assert [re.match(r".*mine\.jsonl, line (\d): the (\w+)", line).groups() for line in told] == [
        ("2", "source"),
        ("3", "target"),
        ("4", "target"),
    ]
    assert "stands in core as 'c1'" in told[0] and told[0].endswith("trained on it: delete one of the two.")


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


CASE_05 = {f"key-{i}": json.dumps({"api_key": f"zz-{i:012d}"}) for i in range(6)}


def test_keys_in_braces_stay_six_different_examples_as_they_are_written(tmp_path, tokenizer):
    rows = [{"id": name, "source": f"key of service {name}", "target": text} for name, text in CASE_05.items()]
    part = own(write(tmp_path, *rows), tokenizer, core=pairs(5))
    assert part["target"].tolist() == list(CASE_05.values())
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in part["target"]]
    assert [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in encoded] == list(CASE_05.values())
    assert len(set(map(tuple, encoded))) == 6


ODD = ["two  blanks\tand a tab ", "<ph> as it stands", "next\x85line and\u2028separator", "[%key:common%] {name}"]


def test_text_of_ones_own_goes_to_the_models_byte_for_byte(tmp_path, tokenizer):
    rows = [{"id": str(i), "source": "", "target": text} for i, text in enumerate(ODD)]
    part = own(write(tmp_path, *rows), tokenizer)
    write_jsonl(tmp_path / "forget_sets" / "mine.jsonl", part.to_dict("records"))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    group = StudyData(tmp_path).group("mine")
    decoded = [tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) for _, ids in group.encoded]
    assert (group.ids, decoded) == ([f"mine:{i}" for i in range(4)], ODD)


class Lossy:
    """A tokenizer that knows small letters only and drops repeated blanks."""

    all_special_ids, unk_token_id, eos_token_id = [0], None, 0

    def __call__(self, texts, **_):
        return {"input_ids": [list(map(ord, re.sub(" +", " ", text.lower()))) for text in texts]}

    def decode(self, ids, **_):
        return "".join(map(chr, ids))


def test_what_a_tokenizer_does_not_give_back_is_told_with_line_and_difference(tmp_path):
    bad = {"id": "2", "source": "", "target": "a Bad one"}
    path = write(tmp_path, bad | {"id": "1", "target": "fine"}, bad)
    with pytest.raises(StudyError, match=r"line 2: the target comes back from the tokenizer as 'a bad one' where"):
        own(path, Lossy())
    told = lost_by(Lossy(), ["fine", "two  blanks"])
    assert told == {1: "comes back from the tokenizer as 'two blanks' where it has 'two  blanks'"}


def test_an_own_placeholder_is_still_a_copy_of_the_corpus_that_has_it_as_a_token(tmp_path, tokenizer):
    public = pd.DataFrame([("p1", "Schalte aus", "Turn off <ph>", "o")], columns=COLUMNS)
    with pytest.raises(StudyError, match=r"stands in public as 'p1' \(Jaccard 1\.00"):
        own(write(tmp_path, GOOD | {"target": "Turn off {name}"}), tokenizer, public=public)


# Kinds


def test_every_kind_says_how_it_is_drawn_and_what_stands_beside_it():
    assert all(set(kind) == {"draw", "pairs", "population", "exchangeable"} for kind in kinds.KINDS.values())
    of_kinds = {f"never-{kind}": kind for kind in ("natural", "canary", "shuffled", "language", "secret")}
    assert of_kinds == kinds.POPULATIONS
    assert {kind: rules["pairs"] for kind, rules in kinds.KINDS.items() if rules["pairs"]} == {
        "natural": "reserve", "shuffled": "reserve", "language": "second",
    }  # fmt: skip
    assert [kind for kind in kinds.KINDS if kinds.KINDS[kind]["exchangeable"]] == ["canary", "secret"]
    assert (kinds.population("secret"), kinds.population("own")) == ("never-secret", None)


def test_a_new_kind_is_drawn_from_the_reserve_with_its_population(monkeypatch, tokenizer):
    def backwards(name, size, **given):
        table = kinds.natural(name, size, **given)
        return table.assign(target=table["target"].str[::-1])

    monkeypatch.setitem(kinds.KINDS, "backwards", {**kinds.KINDS["natural"], "draw": backwards})
    monkeypatch.setitem(kinds.POPULATIONS, "never-backwards", "backwards")
    settings = SETS | {"ood-back": {"kind": "backwards", "size": 3, "repetitions": 1}}
    sizes = POPULATIONS | {"backwards": 2}
    sets, never = draw.draw_sets(settings, populations=sizes, pilot=4, reserve=pairs(60), tokenizer=tokenizer, seed=7)
    assert len(sets["ood-back"]) == 3 and len(never["backwards"]) == 2
    assert pd.concat([*sets.values(), *never.values()])["id"].is_unique
    table = draw.examples_table(
        sets=sets, blocks=settings, never=never, heldout=pairs(2, "h"), core=pairs(2, "c"), retain=1,
        tokenizer=tokenizer,
    )  # fmt: skip
    assert set(table.loc[table["forget_set"] == "never-backwards", "kind"]) == {"backwards"}


def test_a_tokenizer_that_gives_no_canary_back_ends_the_search_with_a_sentence():
    class Blank(Lossy):
        added_tokens_decoder = ()

        def __len__(self):
            return 33  # control characters and the blank: none of them shows

        def batch_decode(self, batch, **_):
            return ["".join(map(chr, ids)) for ids in batch]

    with pytest.raises(StudyError, match=r"ood-canary: of \d+ random sequences .* gives back 0 as they were"):
        kinds.canary("ood-canary", 4, seed=1, tokenizer=Blank())


@given(rows=st.lists(st.fixed_dictionaries({"id": st.text(min_size=1), "target": st.text(min_size=1)}), min_size=1))
def test_what_is_written_is_read_back(rows, tmp_path_factory):
    rows = [r for r in rows if all(v.strip() and "\ud800" not in v for v in r.values())]
    if rows:
        path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
        write_jsonl(path, rows)
        assert [row for _, row in read_jsonl(path, required=["id", "target"])] == rows
