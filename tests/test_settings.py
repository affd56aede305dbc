"""params.yaml: what is wrong is told in one message with file, line and mend."""

import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.test_checkpoint import save
from tools.schema import MODEL_IN_FOLDER
from tools.settings import check_own_files, load
from unlearning.errors import StudyError

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "params.yaml").read_text()


def changed(tmp_path, old: str, new: str) -> tuple[Path, int]:
    """A copy of params.yaml with one place changed, and the line of that place."""
    assert TEXT.count(old) >= 1, f"params.yaml no longer holds {old!r}"
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(old, new, 1))
    return path, TEXT[: TEXT.index(old)].count("\n") + 1


def line_of(text: str) -> str:
    return next(line for line in TEXT.splitlines() if line.lstrip().startswith(text))


def test_the_committed_settings_are_valid_and_come_back_as_they_stand():
    settings = load(ROOT / "params.yaml")
    assert settings.corpus.near_duplicate == 0.7
    assert settings.forget_sets["ind"].draws == 10 and settings.forget_sets["ind-x16"].repetitions == 16
    assert settings.arms["adafactor-restored"].restored


def test_an_arm_that_takes_over_another_has_all_of_its_settings_but_those_it_names():
    arms = load(ROOT / "params.yaml").arms
    assert arms["adamw-half"].model_dump() == arms["adamw"].model_dump() | {"rate": 0.5}
    assert arms["adamw-on-adafactor"].trained_with == "adafactor"


SET = "  ind: {kind: natural, size: 64, repetitions: 1, draws: 10}"
LANGUAGE = "  ood-language: {kind: language, size: 64, repetitions: 1, draws: 2}"
ASCENT = "  sgd: [ind-a, ind-b, ood-canary-a, ood-canary-b]"
HEADLINE = "  adamw: [ind, ood-canary, ood-shuffled, ood-language, ind-x4,"
ARM = "  sgd: {trained_with: adamw, method: sgd,"
WRONG = {
    "two arms of one method with other settings": (
        "  adamw-half: {<<: *adamw, rate: 0.5}",
        "  adamw-half: {<<: *adamw, learning_rate: 2.5e-5}",
        r"arms.adamw-half.method: is adamw, as adamw is, with another learning_rate\. Rename its method",
    ),
    "a headline arm at another rate": (
        "headline: [adafactor-restored, adamw]",
        "headline: [adafactor-restored, adamw-half]",
        r"claims.headline.1: adamw-half has rate 0.5\. A headline arm has rate 1",
    ),
    "a headline arm that unlearns one family of the claims": (
        HEADLINE,
        HEADLINE.replace(" ood-canary,", ""),
        r"claims.headline.1: ood-canary is not unlearned in adamw\. Add it under ascents, or take the arm out",
    ),
    "a headline arm without the level": (
        HEADLINE,
        HEADLINE.replace(" ind-x4,", ""),
        r"claims.headline.1: ind-x4 is not unlearned in adamw\.",
    ),
    "a headline arm without ascents": (
        "headline: [adafactor-restored, adamw]",
        "headline: [adafactor-restored, adamw, sgd]",
        r"claims.headline.2: ind-x4 is not unlearned in sgd\.",
    ),
    "a set unlearned twice": (
        ASCENT,
        ASCENT.replace("ind-b", "ind"),
        r"ascents.sgd.1: ind-a stands there already, as ind-a\. Take one out",
    ),
    "a family unlearned twice": (
        HEADLINE,
        HEADLINE.replace("ood-canary", "ind"),
        r"ascents.adamw.1: ind-a stands there already, as ind\. Take one out",
    ),
    "an arm that unlearns nothing": (ASCENT, "  sgd: []", r"ascents.sgd is \[\]\..*at least 1 item"),
    "an ascent of another form": (ASCENT, "  sgd: {forget_set: ind-a}", r"ascents.sgd is .*valid list"),
    "one draw": (SET, SET.replace("10", "1"), r"forget_sets.ind.draws is 1.*greater than or equal to 2"),
    "more draws than letters": (SET, SET.replace("10", "27"), r"forget_sets.ind.draws is 27.*less than or equal to 26"),
    "draws of an own set": (
        SET,
        f"  mine: {{kind: own, path: own/forget_sets/a.jsonl, repetitions: 1, draws: 2}}\n{SET}",
        r"unknown key 'forget_sets.mine.draws'",
    ),
    "a set with the name of another's draw": (
        LANGUAGE,
        f"{LANGUAGE}\n  ind-c: {{kind: natural, size: 64, repetitions: 1}}",
        r"forget_sets.ind-c: is also the name of a draw of ind\. Rename one of them",
    ),
    "a language without its name": (
        "  second_language: fr",
        "  second_language: null",
        r"forget_sets.ood-language: there is no second language.*Name corpus.second_language",
    ),
    "a corpus without a second language": (
        "  name: localisation",
        "  name: wmt14",
        r"corpus.second_language: a corpus of wmt14 has one source language\. Write null",
    ),
    "a second language that is the first": (
        "  second_language: fr",
        "  second_language: de",
        r"corpus.second_language: is de, as another one is\. Take a third",
    ),
    "more in-models than hold a set": (
        "  in_models: 4 ",
        "  in_models: 17 ",
        r"design.in_models: takes 17 models a set, and 16 hold it\. Lower it",
    ),
    "more placebo models than there are": (
        "  placebo_models: 8 ",
        "  placebo_models: 33 ",
        r"design.placebo_models: takes 17 models a set, and 16 never saw it\. Lower it",
    ),
    "an alias of more than one": ("  largest_alias: 0.25", "  largest_alias: 1.25", r"largest_alias is 1.25"),
    "a share for the pair that calibration lies in": ("[0.025, 0.075]", "0.10", r"C1_outside is 0.1\..*valid list"),
    "shares in the other order": ("[0.025, 0.075]", "[0.075, 0.025]", r"C1_outside.0: is too large .*0.025"),
    "exact partners of a family": (
        "forget_sets: [ind-a, ind-b, ind-c,",
        "forget_sets: [ind,",
        r"exact_partners.forget_sets.0 is 'ind'\. Unknown forget set\. Did you mean 'ind-",
    ),
    "an optimizer of the exact partners": (
        "exact_partners: {models: 1,",
        "exact_partners: {optimizer: adamw, models: 1,",
        r"unknown key 'train.exact_partners.optimizer'",
    ),
    "a claim about a draw": ("  ind: ind ", "  ind: ind-a ", r"claims.ind is 'ind-a'\. Unknown family"),
    "a claim's level that is its other side": (
        "  level: ind-x4",
        "  level: ood-canary",
        r"claims.level: is ood-canary once more",
    ),
    "a population of an unknown kind": (
        "  canary: 2000",
        "  canari: 2000",
        r"unknown key 'populations.canari'\. Take one of",
    ),
    "a kind without a population": ("  canary: 2000\n", "", r"populations: how many examples of kind canary"),
    "a seed that numpy does not take": ("seed: 4388", "seed: 4294967296", r"seed is 4294967296.*less than 4294967296"),
    "a set compared with itself": ("  ood: ood-canary", "  ood: ind", r"claims.ood: is ind once more"),
    "an unknown key": ("  near_duplicate:", "  near_duplicat:", r"unknown key.*Did you mean 'near_duplicate'"),
    "an unknown key in a set": (SET, SET[:-1] + ", repetition: 2}", r"unknown key 'forget_sets.ind.repetition'"),
    "an unknown key at the top": ("track: tiny", "trakc: 1\ntrack: tiny", r"unknown key 'trakc'.*'track'"),
    "a negative number of steps": ("  follow_every: 3", "  follow_every: -3", r"follow_every is -3.*greater than"),
    "a step that is text": ("  follow_every: 3", "  follow_every: three", r"follow_every is 'three'.*valid integer"),
    "an unknown forget set": (
        ASCENT,
        ASCENT.replace("ind-a", "ind-aa"),
        r"ascents.sgd.0 is 'ind-aa'. Unknown family or forget set. Did you mean 'ind-a'\?$",
    ),
    "an unknown arm of the pilot": (
        "  arms: [adamw, sgd,",
        "  arms: [adamw, sdg,",
        r"pilot.arms.1 is 'sdg'. Unknown arm. Did you mean 'sgd'",
    ),
    "an unknown arm": (
        ASCENT,
        ASCENT.replace("sgd", "adamv"),
        r"ascents.adamv: Unknown arm. Did you mean 'adamw",
    ),
    "an optimizer nobody trained with": (
        ARM,
        ARM.replace("trained_with: adamw", "trained_with: lion"),
        r"arms.sgd.trained_with is 'lion'. Take one of 'adamw' or 'adafactor'",
    ),
    "restored moments of another optimizer": (
        "adafactor-fresh, restored: false}",
        "adafactor-fresh, restored: true}",
        r"arms.adafactor-fresh.trained_with: training with adamw leaves no moments.*Write adafactor",
    ),
    "a number of models without a design": ("  models: 32", "  models: 30", r"design.models: .*30"),
    "too many sets": ("  models: 32", "  models: 24", r"too many sets.*models: 32"),
    "no column for one more set": (
        "  min_free_columns: 1",
        "  min_free_columns: 3",
        r"design.models: too many sets",
    ),
    "columns that alias": ("  largest_alias: 0.25", "  largest_alias: 0.2", r"design.models: .*alias"),
    "an unknown kind": (SET, SET.replace("natural", "natrual"), r"ind.kind is 'natrual'.*natural"),
    "a set without a size": (SET, SET.replace("size: 64, ", ""), r"'forget_sets.ind.size' is missing"),
    "a name with blanks": (SET, SET.replace("ind", "In d"), r"Rename it"),
    "a name that the tables use": (SET, SET.replace("ind", "heldout"), r"Rename the set"),
    "an own corpus without a path": ("  name: localisation", "  name: jsonl", r"name the JSONL file"),
    "a batch of another kind": ("  batch: whole", "  batch: some", r"batch is 'some'. Write whole, or"),
    "an unknown placebo": (
        "placebo: [adafactor-restored, adamw]",
        "placebo: [adafactor-restored, adam]",
        r"placebo.1 is 'adam'. Unknown arm",
    ),
    "a placebo in an arm that unlearns nothing": (
        line_of("adamw: [ind"),
        "",
        r"unlearn.placebo.1: nothing is unlearned in adamw",
    ),
    "an unknown headline": ("  ood: ood-canary", "  ood: ood-canari", r"claims.ood is 'ood-canari'. Unknown family"),
    "dropout in ascent": ("  dropout: 0.0\n  batch: whole", "  dropout: 0.1\n  batch: whole", r"no effect.*write 0.0"),
    "weight decay of Adafactor": (
        "  weight_decay: 0.0\n    clip_norm: null",
        "  weight_decay: 0.1\n    clip_norm: null",
        r"train.adafactor.weight_decay is 0.1. It has no effect",
    ),
    "translations cut short": (
        "  bleu_tokens: 64 ",
        "  bleu_tokens: 32 ",
        r"unlearn.bleu_tokens: would cut translations: corpus.max_tokens is 64",
    ),
    "a duplicate key": ("track: tiny", "track: tiny\ntrack: tiny", r"not YAML.*duplicate key"),
    "no YAML": ("track: tiny", "track: [tiny", r"not YAML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_the_settings_is_told_with_file_and_line(name, tmp_path):
    old, new, message = WRONG[name]
    path, _ = changed(tmp_path, old, new)
    with pytest.raises(StudyError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert all(re.search(r"params\.yaml, line \d+: |^… and \d+ more$", line) for line in lines)
    assert any(re.search(rf"line \d+: .*({message})", line) for line in lines), lines


@pytest.mark.parametrize("name", ["an unknown kind", "an unknown arm", "too many sets", "a step that is text"])
def test_the_line_is_that_of_the_mistake(name, tmp_path):
    old, new, _ = WRONG[name]
    path, line = changed(tmp_path, old, new)
    with pytest.raises(StudyError, match=rf"line {line}:"):
        load(path)


def test_a_learning_rate_in_quotes_is_no_number(tmp_path):
    old = next(line for line in TEXT.splitlines() if line.startswith("  sgd: {"))
    rate = old.partition("learning_rate: ")[2].partition(",")[0]
    path, line = changed(tmp_path, old, old.replace(f"learning_rate: {rate}", 'learning_rate: "1e-4"'))
    with pytest.raises(
        StudyError, match=rf"line {line}: arms.sgd.learning_rate is '1e-4'. It should be a valid number"
    ):
        load(path)


def test_an_unquoted_1e_4_is_the_number_that_dvc_reads(tmp_path):
    path, _ = changed(tmp_path, "eps: 1.0e-8", "eps: 1e-8")
    assert load(path).base.eps == 1e-8


def test_a_missing_block_names_itself(tmp_path):
    path, _ = changed(tmp_path, line_of("design:"), "unused:")
    with pytest.raises(StudyError, match="unknown key 'unused'"):
        load(path)


def test_a_missing_file_is_told_without_a_traceback(tmp_path):
    done = run(tmp_path / "nothing.yaml")
    assert done.returncode == 1
    assert "there is no such file" in done.stderr
    assert "Traceback" not in done.stderr


def run(path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tools.settings", str(path)]
    return subprocess.run(command, capture_output=True, text=True, cwd=path.parent, check=False)


def test_the_command_says_ok_for_good_settings():
    done = run(ROOT / "params.yaml")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_reads_own_forget_sets_and_names_file_and_line(tmp_path):
    own = Path("own/forget_sets/mine.jsonl")
    (tmp_path / own).parent.mkdir(parents=True)
    (tmp_path / own).write_text(
        '{"id": "1", "source": "Guten Tag", "target": "Good day"}\n{"id": "2", "source": "Hallo"}\n'
    )
    path, _ = changed(tmp_path, SET, f"  my-set: {{kind: own, path: {own}, repetitions: 1}}\n{SET}")
    done = run(path)
    assert done.returncode == 1
    assert f"{own}, line 2: the field 'target' is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_own_forget_set_that_is_not_there_names_its_line_in_the_settings(tmp_path):
    file = "own/forget_sets/nowhere.jsonl"
    path, line = changed(
        tmp_path, SET, f"  my-set: {{kind: own, path: own/forget_sets/nowhere.jsonl, repetitions: 1}}\n{SET}"
    )
    done = run(path)
    assert f"params.yaml, line {line}: {file} is not there" in done.stderr


# A pre-trained model


def with_model(folder: Path, block: str) -> Path:
    """A copy of params.yaml with another block `model`."""
    text = re.sub(r"^model:.*?(?=^base:)", f"model: {block}\n\n", TEXT, flags=re.MULTILINE | re.DOTALL)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder / "params.yaml"


COMMIT = "0123456789abcdef0123456789abcdef01234567"
WRONG_MODEL = {
    "a hub without a commit": ("{hub: some/model}", r"the key 'model\.revision' is missing"),
    "a branch for a commit": ("{hub: some/model, revision: main}", r"model\.revision is 'main'"),
    "a folder and a hub": (f"{{path: own/models/a, hub: b/c, revision: {COMMIT}}}", r"unknown key 'model\.hub'"),
    "a folder with a commit": (f"{{path: own/models/a, revision: {COMMIT}}}", r"unknown key 'model\.revision'"),
    "a configuration beside": ("{path: own/models/a, d_model: 128}", r"unknown key 'model\.d_model'"),
    "a folder that is empty": ("{path: null}", r"model\.path is None\. It should be a valid string"),
    "a word": ("t5-small", r"model is 't5-small'"),
}


@pytest.mark.parametrize("name", WRONG_MODEL)
def test_a_mistake_in_a_pretrained_model_is_told_with_its_line(name, tmp_path):
    block, message = WRONG_MODEL[name]
    path = with_model(tmp_path, block)
    line = next(
        n for n, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if text.startswith("model:")
    )
    with pytest.raises(StudyError, match=rf"params\.yaml, line {line}: .*{message}"):
        load(path)


def test_a_pretrained_model_takes_the_place_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(with_model(tmp_path, f"{{hub: some/model, revision: {COMMIT}}}")).model.revision == COMMIT
    path = with_model(tmp_path, "{path: own/models/mine}")
    with pytest.raises(StudyError, match=r"line \d+: own/models/mine is not there\. Correct the path"):
        check_own_files(load(path), path)
    Path("own/models/mine").mkdir(parents=True)
    with pytest.raises(StudyError, match=r"own/models/mine holds no model"):
        check_own_files(load(path), path)
    check_own_files(load(with_model(tmp_path, f"{{path: {save(Path('own/models/whole'), 'gpt2')}}}")))


# Files of one's own


def with_own_set(folder: Path, file: str) -> Path:
    """A copy of params.yaml with one more set."""
    line = f"forget_sets:\n  mine: {{kind: own, path: {file}, repetitions: 1}}\n"
    (folder / "params.yaml").write_text(TEXT.replace("forget_sets:\n", line, 1), encoding="utf-8")
    return folder / "params.yaml"


@pytest.mark.parametrize(
    "file", ["mine.jsonl", "own/corpus/mine.jsonl", "/elsewhere/mine.jsonl", "own/forget_sets/../a.jsonl"]
)
def test_a_file_that_dvc_does_not_watch_is_refused_with_the_place_to_put_it(file, tmp_path):
    with pytest.raises(StudyError, match=rf"mine\.path is .* Move it to own/forget_sets/{Path(file).name}\."):
        load(with_own_set(tmp_path, file))


def test_corpora_and_models_have_folders_of_their_own_too(tmp_path):
    path, _ = changed(tmp_path, "  path: null", "  path: mine.jsonl")
    with pytest.raises(StudyError, match=r"corpus\.path is .* Move it to own/corpus/mine\.jsonl\."):
        load(path)
    with pytest.raises(StudyError, match=r"model\.path is .* Move it to own/models/m\."):
        load(with_model(tmp_path, "{path: /data/m}"))


def test_an_encoder_decoder_needs_sources_and_a_decoder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own/forget_sets/mine.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"id": "a", "source": "x", "target": "y"}\n{"id": "b", "source": " ", "target": "y"}\n')
    found = load(with_own_set(tmp_path, "own/forget_sets/mine.jsonl"))
    with pytest.raises(StudyError, match=r"mine\.jsonl, line 2: the source is empty, and the model is an encoder"):
        check_own_files(found)
    found.corpus.max_tokens = 8  # of the small models
    for family, decoder in {"gpt2": True, "t5": False}.items():
        save(tmp_path / "own/models" / family, family)
        other = found.model_copy(update={"model": MODEL_IN_FOLDER(path=f"own/models/{family}")})
        with nullcontext() if decoder else pytest.raises(StudyError, match="line 2"):
            check_own_files(other)
