"""Nothing is scored that no reading uses: every score of an ascent is named here with a reading that it changes."""

import shutil

import numpy as np
import pandas as pd
import pytest

from paper import exposure, memorization, runs, trade_off
from paper.runs import read_study
from tests import copies, fake_study

ARM, GAP = "adamw", fake_study.FOLLOW_EVERY


def of_runs(column):
    return lambda study: runs.run_table(study)[column]


def on_the_way(study):
    some = study.select(arm=ARM)
    return pd.concat([pd.concat([run.generator_part, exposure._lost_along(run)]) for run in some])


def at_states(study):
    return pd.concat([pd.concat(exposure.full_states(study, run)) for run in study.select(arm=ARM)])


# (table, what is scored, at which states) -> a reading. At θ0 nothing is scored: training has done so.
READ = {
    ("log_likelihoods", "own", "at every step"): lambda study: memorization.example_rates(study)["rate"],
    ("log_likelihoods", "never", "at every third step"): on_the_way,
    ("log_likelihoods", "never", "around k*"): at_states,
    ("log_likelihoods", "heldout", "around k*/2"): of_runs("lost_50"),
    ("log_likelihoods", "heldout", "around k*"): of_runs("lost_100"),
    ("performance", "heldout_fixed", "at every third step"): on_the_way,
    ("performance", "heldout_fixed", "at the last"): on_the_way,
    ("performance", "heldout", "around k*"): of_runs("lost_to_references"),
    ("performance", "retain", "around k*"): of_runs("lost_retain"),
    ("performance", "retained", "around k*"): lambda study: trade_off.retained_lost(study)["lost"],
    ("performance", "heldout_bleu", "around k*"): of_runs("lost_bleu"),
}
# sums over the sentences that are scored there for `log_likelihoods`: they cost nothing
FREE = {
    ("performance", "heldout", "around k*/2"), ("performance", "heldout_fixed", "around k*/2"),
    ("performance", "heldout_fixed", "around k*"),
}  # fmt: skip


def scores(root, arm):
    """The tables of an arm with columns `scored` and `states`, after the keys of READ."""
    folder = root / "results/tables/unlearn" / arm
    k_star = pd.read_csv(folder / "runs.csv").set_index(runs.RUN)[["k_star", "last_step"]]
    of = pd.read_parquet(root / "results/tables/forget_sets/examples.parquet").set_index("example_id")["forget_set"]
    for name in ("log_likelihoods", "performance"):
        table = runs.plain(pd.read_parquet(folder / f"{name}.parquet")).reset_index(drop=True)
        at = k_star.loc[pd.MultiIndex.from_frame(table[runs.RUN])].reset_index(drop=True)
        if name == "performance":
            table["scored"] = table["split"]
        else:
            groups = table["example_id"].map(of.astype(str))
            table["scored"] = np.where(
                groups == "heldout", "heldout", np.where(groups == table["forget_set"], "own", "never")
            )
        step, near = table["step"], np.ceil(at["k_star"]).clip(lower=1)
        half = step - at["k_star"] // 2 // GAP * GAP
        where = {
            "at every step": table["scored"] == "own",
            "around k*": step.between(near - 1, near),
            "around k*/2": half.isin((0, GAP)) & table["scored"].isin(("heldout",)),
            "at every third step": step % GAP == 0,
            "at the last": step == at["last_step"],
        }
        yield name, table.assign(states=np.select(list(where.values()), list(where), "no state"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    sets = {"ind": {"kind": "natural", "draws": 2}, "ood-canary": {"kind": "canary"}}
    sets = {name: {**block, "size": 8, "repetitions": 1} for name, block in sets.items()}
    few = {"models": 8, "forget_sets": sets, "arms": {ARM: fake_study.ARMS[ARM]}, "placebo": (ARM,), "in_models": 2}
    return fake_study.FakeStudy(tmp_path_factory.mktemp("study"), placebo_models=2, **few).write()


@pytest.mark.parametrize("key", READ, ids=" ".join)
def test_a_score_that_changes_changes_the_reading_that_is_named(made, tmp_path, key):
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    before = READ[key](read_study(tmp_path, **made.settings))
    table = dict(scores(tmp_path, ARM))[key[0]]
    value = "bleu" if key[1] == "heldout_bleu" else "log_likelihood" + "_per_token" * (key[0] == "performance")
    rows = (table["scored"] == key[1]) & (table["states"] == key[2])
    assert rows.any()
    table.loc[rows, value] -= 0.25
    table.drop(columns=["scored", "states"]).to_parquet(tmp_path / f"results/tables/unlearn/{ARM}/{key[0]}.parquet")
    assert not READ[key](read_study(tmp_path, **made.settings)).equals(before)


@pytest.mark.parametrize("arm", ["adamw", "adafactor-restored"])
def test_no_other_score_is_written(arm):
    found = {(name, *row) for name, table in scores(copies.ROOT, arm)
             for row in table[["scored", "states"]].drop_duplicates().itertuples(index=False)}  # fmt: skip
    assert found - FREE <= READ.keys()
