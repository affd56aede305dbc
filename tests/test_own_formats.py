"""Text of one's own: four formats, names of fields, plain text, scripts without blanks, and BLEU by language."""

import json
import re
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tools import settings
from tools.languages import language_row
from unlearning.data import corpus as data
from unlearning.data import forget_sets, kinds, languages, overlap, own_files, scripts
from unlearning.data.corpus import COLUMNS
from unlearning.data.groups import StudyData
from unlearning.data.own_files import read_examples, read_pairs_of, refuse_empty_source
from unlearning.errors import StudyError
from unlearning.measure import scoring
from unlearning.measure.models import new_t5

ROOT = Path(__file__).parents[1]
CORPUS = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")["corpus"] | {"name": "jsonl"}
ODD = ["007", "NA", "null", "1.50", "2012-01-01", " x ", 'a, "b"\r\nc', "a\u2028b\x85c", "{api_key}", "U\u0308ber"]
SETS = {"ind": {"kind": "natural", "size": 6, "repetitions": 1}}


def write(path: Path, rows: list[dict]) -> Path:
    """The rows in the format that the name of the file says."""
    table = pd.DataFrame(rows)
    if path.suffix == ".csv":
        path.write_bytes(table.to_csv(index=False).encode())
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Formats


@pytest.mark.parametrize("format_", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_every_text_as_it_is_written(format_, tmp_path):
    rows = [{"question": f"q{i}", "answer": text, "group": "g"} for i, text in enumerate(ODD)]
    found = read_pairs_of(write(tmp_path / f"mine.{format_}", rows))
    assert [row["target"] for _, row in found] == ODD
    assert [row["source"] for _, row in found] == [row["question"] for row in rows]
    assert {row["group"] for _, row in found} == {"g"}


def test_lists_over_lines_lines_in_a_json_file_and_a_byte_order_mark_are_read(tmp_path):
    lines, marked = tmp_path / "lines.json", tmp_path / "marked.csv"
    lines.write_text('{"text": "a"}\n{"text": "b"}\n')
    marked.write_bytes(b"\xef\xbb\xbftext,group\r\na,g\r\nb,h\r\n")
    assert [[row["target"] for _, row in read_pairs_of(path)] for path in (lines, marked)] == [["a", "b"]] * 2


def test_the_place_of_a_row_is_its_line_where_there_are_lines_and_its_number_elsewhere(tmp_path):
    rows = [{"text": "a"}, {"text": "b"}]
    found = {
        format_: [str(place) for place, _ in read_examples(write(tmp_path / f"m.{format_}", rows))]
        for format_ in ("jsonl", "json", "csv", "parquet")
    }
    at = f"{tmp_path}/m."
    assert found["jsonl"] == [f"{at}jsonl, line 1", f"{at}jsonl, line 2"]
    assert found["json"] == [f"{at}json, line 2", f"{at}json, line 5"]
    assert found["csv"] == [f"{at}csv, row 1", f"{at}csv, row 2"]
    assert found["parquet"] == [f"{at}parquet, row 1", f"{at}parquet, row 2"]


BROKEN = {
    "more.csv": ("text,group\na,g\nb, c,g\n", r"row 2: it has 3 fields, the header 2\. Put text that holds commas"),
    "twice.csv": ("text,text\na,b\n", r"'text' stands there twice\. Take one out"),
    "open.csv": ('text,group\n"a,g\n', r"line 2: not CSV .*Put double quotes around text"),
    "latin.csv": (b"text,group\n\xe4,g\n", r"line 2: byte 1 is not UTF-8"),
    "semicolons.csv": ("source;target\na;b\n", r"row 1: the field 'source' is missing.* fields: \{source: …, target"),
    "empty.csv": ("text,group\na,\n", r"row 1: the field 'group' is empty"),
    "header.csv": ("text,group\n", r"is empty\. Write"),
    "nothing.csv": ("", r"is empty\. Write"),
    "no.parquet": ("PAR", r"no parquet \(\w+\)\. Save it anew\.$"),
    "comma.json": ('[\n{"text": "a"}\n{"text": "b"}]', r"line 3: not JSON \(Expecting ',' delimiter\)"),
    "twice.json": ('[{"text": "c"},\n\n{"text": "a", "text": "b"}]', r"line 3: the field 'text' stands there twice"),
    "numbers.json": ("[1, 2]", r"line 1: holds a int, not an object"),
    "none.json": ("[]", r"is empty\. Write"),
    "alpaca.jsonl": (
        '{"instruction": "a", "input": "b", "output": "c"}',
        r"line 1: the field 'input' is unknown.*Or say .* fields: \{source: instruction, target: output\}\.$",
    ),
    "late.jsonl": ('{"text": "a"}\n{"text": "b", "group": "g"}', r"line 2: the field 'group' stands here and not in"),
    "missing.jsonl": ('{"text": "a", "group": "g"}\n{"text": "b"}', r"line 2: the field 'group' is missing"),
    "number.parquet": ([{"text": 7}], r"row 1: the field 'text' is of type int"),
    "null.parquet": ([{"text": "a"}, {"text": None}], r"row 2: the field 'text' is of type NoneType"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_is_one_sentence_with_file_place_and_mend(name, tmp_path):
    content, message = BROKEN[name]
    path = tmp_path / name
    if isinstance(content, list):
        write(path, content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StudyError) as caught:
        read_pairs_of(path)
    assert re.match(rf"{re.escape(str(path))}\D.*{message}", str(caught.value).splitlines()[0])
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines())


def test_all_mistakes_of_a_file_are_told_in_its_order_at_most_twenty_and_a_count(tmp_path):
    lines = ['{"id": "a", "text": "a"}', "no JSON", '{"id": "a", "text": "b"}', '{"id": "b", "text": ["c"]}', "", "7"]
    lines += ['{"id": "c", "text": "a"}', '{"id": "c", "id": "d", "text": "e"}', *['{"id": "e"}'] * 30]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    with pytest.raises(StudyError) as caught:
        read_examples(tmp_path / "mine.jsonl")
    told = str(caught.value).splitlines()
    assert len(told) == 21 and told[-1] == "… and 16 more"
    found = [re.match(r".*mine\.jsonl, line (\d+): (.*)", line).groups() for line in told[:7]]
    assert [(int(number), words[:22]) for number, words in found] == [
        (2, "not JSON (Expecting va"),
        (3, "this id stands in line"),
        (4, "the field 'text' is of"),
        (6, "holds a int, not an ob"),
        (7, "this example stands in"),
        (8, "the field 'id' stands "),
        (9, "the field 'text' is mi"),
    ]


def test_rows_of_a_csv_that_are_uneven_are_told_together(tmp_path):
    (tmp_path / "mine.csv").write_text("text,group\na,g\nb,c,g\nd\n")
    with pytest.raises(StudyError, match=r"row 2: it has 3 fields, the header 2\..*\n.*row 3: it has 1 fields"):
        read_pairs_of(tmp_path / "mine.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.json", "a.jsonl"])
def test_a_file_that_is_not_there_is_told(name, tmp_path):
    with pytest.raises(StudyError, match=rf"{name}: there is no such file\. Correct its path"):
        read_pairs_of(tmp_path / name)


# Names of fields


@pytest.mark.parametrize("preset", own_files.PRESETS, ids=lambda preset: "-".join(preset.values()))
def test_usual_names_need_no_setting_and_without_id_or_group_each_line_is_its_own(preset, tmp_path):
    rows = [{theirs: f"{ours} {i}" for ours, theirs in preset.items()} for i in range(2)]
    path = write(tmp_path / "mine.jsonl", rows)
    sources = ["source 0", "source 1"] if "source" in preset else ["", ""]
    assert data.read_own_corpus(path).to_numpy().tolist() == [
        [f"line-{i + 1}", sources[i], f"target {i}", f"line-{i + 1}"] for i in range(2)
    ]
    assert [(row["id"], row["target"]) for _, row in read_examples(path)] == [
        ("line-1", "target 0"),
        ("line-2", "target 1"),
    ]


def test_a_setting_names_the_fields_that_count_and_the_others_are_left_out(tmp_path):
    rows = [{"key": f"k{i}", "q": "ask", "a": f"say {i}", "doc": "d", "wrong": ["x"], "id": 3} for i in range(2)]
    path = write(tmp_path / "mine.jsonl", rows)
    fields = {"source": "q", "target": "a", "id": "key", "group": "doc"}
    assert [row for _, row in read_examples(path, fields)] == [
        {"id": f"k{i}", "source": "ask", "target": f"say {i}", "origin": "d"} for i in range(2)
    ]
    pairs = data.read_pairs(CORPUS | {"path": str(path), "fields": {"target": "a", "group": "doc"}}, seed=1)
    assert pairs.to_numpy().tolist() == [["line-1", "", "say 0", "d"], ["line-2", "", "say 1", "d"]]
    with pytest.raises(StudyError, match=r"mine\.jsonl, line 1: the field 'b' is missing"):
        read_pairs_of(path, {"target": "b"})


def test_a_set_from_a_table_becomes_a_forget_set_and_its_mistakes_name_the_row(tmp_path):
    tokenizer = data.train_tokenizer(["who are you", "nobody"], vocabulary_size=300)
    core = pd.DataFrame([("c1", "who is there", "nobody at all", "o")], columns=COLUMNS)
    limits = {"tokenizer": tokenizer, "max_tokens": 40, "protected": {"core": core}, "near_duplicate": 0.7}
    rows = [{"question": "who are you", "answer": "me, or nobody"}, {"question": "why", "answer": "nobody at all"}]
    fields = {"source": "question", "target": "answer"}
    good = forget_sets.read_own("mine", write(tmp_path / "good.csv", rows[:1]), fields=fields, **limits)
    assert good.to_numpy().tolist() == [["mine:row-1", "who are you", "me, or nobody", "good.csv"]]
    with pytest.raises(StudyError, match=r"bad\.csv, row 2: the target \(nearly\) stands in core as 'c1'"):
        forget_sets.read_own("mine", write(tmp_path / "bad.csv", rows), **limits)


# Plain text


def plain(n: int) -> list[dict]:
    letters = np.random.default_rng(0).integers(ord("a"), ord("z"), size=(n, 7, 6))
    return [{"text": " ".join("".join(map(chr, w)) for w in s), "group": f"doc{i % 9}"} for i, s in enumerate(letters)]


def test_plain_text_survives_cleaning_and_its_sets_are_matched_in_targets_alone(tmp_path):
    pairs = data.read_own_corpus(write(tmp_path / "mine.jsonl", plain(60)))
    kept, excluded = data.clean(pairs, CORPUS)
    assert kept.equals(pairs) and not any(count for _, count in excluded)
    assert len(data.without_near_duplicates(kept, threshold=0.7)) == 60
    assert data.clean(pairs, CORPUS | {"name": "wmt14"})[1][0] == ("no words", 60)  # pairs have two sides
    tokenizer = data.train_tokenizer(pairs["target"].tolist(), vocabulary_size=320)
    mean = data.lengths(tokenizer, pairs["target"].tolist()).mean()
    given = {"populations": {}, "pilot": 2, "reserve": kept, "tokenizer": tokenizer, "seed": 1}
    drawn = forget_sets.draw_sets(SETS, **given, tokens_per_example=mean - 1, token_tolerance=0.01)[0]["ind"]
    assert data.lengths(tokenizer, drawn["target"].tolist()).mean() == pytest.approx(mean - 1, rel=0.01)
    assert forget_sets.tokens_of(kept, tokenizer, mean).tolist() == [0, mean]


def test_an_encoder_decoder_refuses_plain_text_with_the_way_out(tmp_path):
    path = write(tmp_path / "mine.csv", plain(3))
    with pytest.raises(StudyError, match=r"mine\.csv, row 1: the source is empty, and the model is an encoder"):
        refuse_empty_source(read_pairs_of(path))
    pairs = data.read_own_corpus(path)
    with pytest.raises(StudyError, match=r"3 of 3 pairs have no source \(first row-1\).* bring a decoder-only model"):
        data.refuse_sourceless(pairs, None)
    for decoder_only in (True, False):
        (tmp_path / "config.json").write_text("{}" if decoder_only else '{"is_encoder_decoder": true}')
        if decoder_only:
            data.refuse_sourceless(pairs, tmp_path)
        else:
            with pytest.raises(StudyError, match="no source"):
                data.refuse_sourceless(pairs, tmp_path)
    data.refuse_sourceless(pairs.assign(source="x"), None)


# Scripts


@pytest.mark.parametrize(
    ("text", "units", "words"),
    [
        ("The door  is <ph> open.", ["The", "door", "is", "<ph>", "open."], ["the", "door", "is", "ph", "open"]),
        ("灯「打」开了。", ["灯「", "打」", "开", "了。"], ["灯", "打", "开", "了"]),
        (
            "こんにちは、世界",
            ["こ", "ん", "に", "ち", "は、", "世", "界"],
            ["こん", "んに", "にち", "ちは", "世", "界"],
        ),
        ("ที่นี่ ok", ["ที่", "นี่", "ok"], ["ที่นี่", "ok"]),
        ("हिन्दी की किताब", ["हिन्दी", "की", "किताब"], ["हिन्दी", "की", "किताब"]),
        ("문을 열어 12", ["문을", "열어", "12"], ["문을", "열어"]),
        ("שָׁלוֹם 3x", ["שָׁלוֹם", "3x"], [unicodedata.normalize("NFC", "שָׁלוֹם"), "x"]),
    ],
)
def test_words_stand_between_blanks_and_where_there_are_none_characters_count(text, units, words):
    assert scripts.units(text) == units
    assert scripts.words(text) == words


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=40))
def test_units_are_the_text_without_its_white_space(text):
    assert "".join(scripts.units(text)) == "".join(text.split())


@given(st.text(alphabet=st.characters(max_codepoint=0x24F, blacklist_categories=["Cs"]), max_size=40))
def test_of_latin_text_the_units_are_what_stands_between_blanks(text):
    assert scripts.units(text) == text.split()


def test_a_text_says_in_what_it_is_measured():
    assert scripts.unit_name(["The door"]) == scripts.unit_name(["12 %"]) == "words"
    assert scripts.unit_name(["灯打开了"]) == "characters"
    assert scripts.unit_name(["ab 灯开"]) == "words; characters in scripts without blanks (50.0% of all letters)"


CHINESE = "子车写难两学家春老树馆河鱼很。"


def test_chinese_is_counted_in_characters_and_one_character_off_is_a_near_duplicate(tmp_path):
    twin, other, long = CHINESE.replace("学", "新"), "骑走来下市子昨老给路时很水放。", CHINESE * 2
    rows = [("a", "one two three"), (CHINESE, "x"), (twin, "y"), (other, "z"), (long, "v"), ("灯开", "w")]
    path = write(tmp_path / "mine.csv", [{"source": f"{s} says", "target": t} for t, s in rows])
    kept, excluded = data.clean(data.read_own_corpus(path), CORPUS)
    assert kept["target"].tolist() == [CHINESE, twin, other]
    assert dict(excluded)["target under 3 words"] == 2 and dict(excluded)["source or target over 24 words"] == 1
    assert overlap.nearest([CHINESE], [twin, other], threshold=0.7)[0] == pytest.approx(13 / 15)
    assert data.without_near_duplicates(kept, threshold=0.7)["target"].tolist() == [CHINESE, other]


def test_a_set_of_ones_own_may_not_be_one_character_from_the_core(tmp_path):
    tokenizer = data.train_tokenizer([CHINESE], vocabulary_size=300)
    core = pd.DataFrame([("c1", "a b c", CHINESE, "o")], columns=COLUMNS)
    path = write(tmp_path / "mine.jsonl", [{"prompt": "x", "completion": CHINESE.replace("学", "新")}])
    with pytest.raises(StudyError, match=r"line 1: the target \(nearly\) stands in core as 'c1' \(Jaccard 0\.87"):
        forget_sets.read_own(
            "mine", path, tokenizer=tokenizer, max_tokens=60, protected={"core": core}, near_duplicate=0.7
        )  # fmt: skip


def test_without_blanks_characters_are_shuffled_and_blanks_stay_where_they_are():
    reserve = pd.DataFrame([(str(i), f"a  b{i} c", CHINESE[i:], "o") for i in range(4)], columns=COLUMNS)
    found = kinds.shuffled("s", 4, seed=1, reserve=reserve, taken=[]).set_index("id").sort_index()
    for (key, row), before in zip(found.iterrows(), reserve["target"], strict=True):
        assert row["target"] != before and sorted(scripts.units(row["target"])) == sorted(scripts.units(before)), key
        assert re.fullmatch(r"\S+  \S+ \S+", row["source"])


# Languages


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("en", "13a"),
        ("pt-BR", "13a"),
        ("zh", "zh"),
        ("zh-Hans", "zh"),
        ("zh_Hant", "zh"),
        ("th", "char"),
        ("he", "13a"),
    ],
)
def test_bleu_goes_by_the_target_language(code, name):
    assert languages.bleu_tokenizer(code) == name


def test_japanese_and_korean_go_by_mecab_where_it_is_installed(monkeypatch):
    for there, names in ((True, ("ja-mecab", "ko-mecab")), (False, ("char", "char"))):
        monkeypatch.setattr(languages, "find_spec", lambda _, there=there: there or None)
        assert (languages.bleu_tokenizer("ja"), languages.bleu_tokenizer("ko-KR")) == names


def test_targets_that_are_plainly_of_another_language_are_told(tmp_path):
    assert languages.measures("zh", [CHINESE]) == {"target_language": "zh", "bleu_tokenizer": "zh"}
    with pytest.raises(
        StudyError, match=r"corpus\.target_language is en, but 100% .* Name the language of your targets"
    ):
        languages.measures("en", [CHINESE])
    assert languages.measures("en", ["the word 灯"])["bleu_tokenizer"] == "13a"


class Characters:
    """Each id is a character."""

    eos_token_id, pad_token_id = 1, 0

    def decode(self, ids):
        return "".join(map(chr, ids))


@pytest.mark.parametrize(("words", "value"), [("13a", 0.0), ("zh", 80.03)])
def test_one_wrong_character_of_fifteen_is_a_good_translation_by_characters_alone(words, value, monkeypatch):
    size = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    size |= {"feed_forward_proj": "relu", "tie_word_embeddings": True}
    model = new_t5(size, vocabulary_size=50, dropout=0.0, seed=0)
    said = torch.tensor([[0, *map(ord, CHINESE.replace("学", "新")), 1]])
    monkeypatch.setattr(scoring, "_greedy", lambda *_, **__: said)
    target = [*map(ord, CHINESE), 1]
    found = scoring.bleu(model, Characters(), [([5, 1], target)], max_new_tokens=15, words=words)
    assert found == pytest.approx(value, abs=0.01)


def test_stages_take_the_tokenizer_that_stage_corpus_wrote(tmp_path):
    assert StudyData(tmp_path).bleu_tokenizer == "13a"
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / languages.MEASURES).write_text(json.dumps(languages.measures("ja", ["灯"])))
    assert StudyData(tmp_path).bleu_tokenizer == languages.bleu_tokenizer("ja") != "13a"


# Settings


PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")


def checked(folder: Path, *changes: tuple[str, str]) -> None:
    """The settings check in a folder, with changes to params.yaml."""
    text = PARAMS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    settings.check_own_files(settings.load("params.yaml"))


OWN = [
    ("  name: localisation", "  name: jsonl"),
    ("second_language: fr", "second_language: null"),
    ("  ood-language: {kind: language, size: 64, repetitions: 1, draws: 2}\n", ""),
    (" ood-language,", ""),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("own/corpus", "own/forget_sets", "data/raw"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_the_check_reads_a_corpus_of_ones_own(here):
    path = ("path: null", "path: own/corpus/mine.csv")
    with pytest.raises(StudyError, match=r"params\.yaml, line \d+: own/corpus/mine\.csv is not there"):
        checked(here, *OWN, path)
    write(here / "own/corpus/mine.csv", [{"query": "q", "reply": CHINESE}])
    with pytest.raises(StudyError, match=r"mine\.csv, row 1: the field 'source' is missing"):
        checked(here, *OWN, path)
    named = ("path: null", "path: own/corpus/mine.csv\n  fields: {source: query, target: reply}")
    with pytest.raises(StudyError, match=r"corpus\.target_language is en"):
        checked(here, *OWN, named)
    chinese = ("target_language: en", "target_language: zh")
    checked(here, *OWN, named, chinese)
    plain_text = (named[0], named[1].replace("source: query, ", ""))
    with pytest.raises(StudyError, match=r"mine\.csv, row 1: the source is empty, and the model is an encoder-decoder"):
        checked(here, *OWN, plain_text, chinese)
    with pytest.raises(StudyError, match=r"corpus\.fields: a corpus of localisation has no file of yours"):
        checked(here, named)


def test_the_check_reads_sets_by_the_names_of_their_fields(here):
    write(here / "own/forget_sets/mine.parquet", [{"query": "q", "reply": "r", "key": k, "other": 1} for k in "aa"])
    fields = "fields: {source: query, target: reply}"
    line = f"  mine: {{kind: own, path: own/forget_sets/mine.parquet, repetitions: 1, {fields}}}"
    with pytest.raises(StudyError, match=r"mine\.parquet, row 2: this example stands in row 1 too"):
        checked(here, ("\nforget_sets:\n", f"\nforget_sets:\n{line}\n"))
    keyed = line.replace("reply}", "reply, id: key}")
    with pytest.raises(StudyError, match=r"mine\.parquet, row 2: this id stands in row 1 too"):
        checked(here, ("\nforget_sets:\n", f"\nforget_sets:\n{keyed}\n"))


def test_a_wrong_language_code_is_told_with_its_line_once_the_archive_is_there(here):
    wrong = ("source_language: de", "source_language: zh")
    checked(here, wrong)
    name = re.search(r"archive: (\S+)", PARAMS)[1]
    with zipfile.ZipFile(here / "data/raw" / name, "w") as package:
        for code in ("de", "en", "fr", "zh-Hans", "zh-Hant"):
            package.writestr(f"homeassistant/components/x/translations/{code}.json", "{}")
    checked(here)
    line = PARAMS[: PARAMS.index(wrong[0])].count("\n") + 1
    with pytest.raises(
        StudyError, match=rf"line {line}: corpus\.source_language: zh is no .* Take zh-Hans or zh-Hant\."
    ):
        checked(here, wrong)


# The table of languages


def test_a_language_works_where_its_pairs_fill_the_splits():
    letters = np.random.default_rng(1).integers(ord("a"), ord("z"), size=(2, 200, 4, 6))
    sides = [[" ".join("".join(map(chr, w)) for w in s) for s in side] for side in letters]
    pairs = pd.DataFrame({"id": map(str, range(200)), "source": sides[0], "target": sides[1], "origin": "o"})
    pairs["origin"] = [f"o{i % 20}" for i in range(200)]
    twins = pairs.assign(target=[f"{t} {c}" for t, c in zip(pairs["target"], "ab" * 100, strict=True)])
    small = CORPUS | {"heldout": 20, "validation": 10, "public_share": 0.5}
    rows = [
        language_row(small | {"core": core}, table, taken=10, seed=1)
        for core, table in ((50, pairs), (100, pairs), (100, pairs[:60]), (100, pd.concat([pairs, twins])))
    ]
    assert [row["settings"] for row in rows[:3]] == ["as they are", "corpus.core: 60", "too few pairs"]
    assert list(rows[0].values()) == ["words", 200, 200, 200, 60, "as they are"]
    assert rows[3]["cleaned"] == 400 and rows[3]["without_near_duplicates"] == 200
