"""From made-up runs with known effects to verdicts, and from these to sentences, a figure and blocks of the README."""

import json
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from paper import memorization, report, runs, verdicts
from tests.copies import ROOT
from tests.fake_study import ARMS, NINE_SETS, FakeStudy, smoke
from unlearning.core import genex, performance
from unlearning.core.effects import main_effects

DELTA = {"C1_auc": 0.95, "C1_outside": 0.10, "C2_share_of_k_star": 0.05, "C3_nats_per_token": 0.05,
         "C4_nats_per_token": 0.05, "C5_rho": 0.1, "C6_rho": 0.1, "identifiable_rho": 0.8}  # fmt: skip
CLAIMS = {"ind": "ind-a", "ood": "ood-canary-a", "headline": ["adafactor-restored", "adamw"], "delta": DELTA}
SETS = ["ind-a", "ind-x16", "ood-canary-a"]
ROWS_A_SET = len(runs.UNITS) + 1 + 3  # k_star_reference, and three worst cases


def claimed(fake, *, change=None, **more):
    """The table of claims of a made-up study; `change` works on its table of runs first."""
    study = runs.load(fake.root, **fake.settings)
    table = runs.run_table(study)
    if change:
        change(table)
    return verdicts.claims_table(study, table, **{"arms": fake.settings["arms"], **CLAIMS, **more})


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Sixteen models, three sets (one repeated), two arms."""
    arms = {"adamw": ("adamw", "adamw", SETS), "adafactor-restored": (*ARMS["adafactor-restored"][:2], SETS[::2])}
    sets, folder = {s: NINE_SETS[s] for s in SETS}, tmp_path_factory.mktemp("study")
    return FakeStudy(folder, size=16, never=20, followed=6, sets=sets, arms=arms).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.load(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def table(fake):
    return claimed(fake)


@pytest.fixture(scope="module")
def sets(study):
    return report.set_table(study, runs.run_table(study))


@pytest.fixture
def small(tmp_path):
    """The smoke study, of which each test takes something away."""
    return smoke(tmp_path).write()


def decisive(table, claim, arm="adamw", part=""):
    rows = table[(table["claim"] == claim) & (table["part"] == part) & (table["arm"] == arm)]
    return rows.iloc[0]


# The table


def test_the_claims_table_has_twelve_tests_and_no_empty_cell_without_a_reason(table):
    assert list(table.columns) == verdicts.COLUMNS
    assert len(table[table["part"] != "beside"].drop_duplicates(["claim", "arm"])) == 12
    assert (table.loc[~np.isfinite(table["low"]), "reason"] != "").all()


def test_every_row_names_a_claim_and_a_margin_that_there_is():
    for row in verdicts.ROWS:
        assert row.claim in verdicts.SAYS and row.margin in {"", *DELTA}
        assert ("{}" in row.statement) == (row.cases is not verdicts._once)
    assert {row.claim for row in verdicts.ROWS if row.part != "beside"} == set(verdicts.SAYS)


def test_a_new_claim_is_one_row_and_its_words(fake, monkeypatch):
    row = verdicts.Row("C7", "", "all steps", "last_step", verdicts.BOTH, "steps")
    monkeypatch.setattr(verdicts, "ROWS", (*verdicts.ROWS, row))
    monkeypatch.setattr(verdicts, "SAYS", verdicts.SAYS | {"C7": "steps are taken"})
    assert decisive(claimed(fake), "C7")["claim_verdict"] == "supported"


def test_more_steps_for_canaries_are_found_as_they_were_made_up(table, study):
    row = decisive(table, "C2")
    k = {s: {r.model: r.k_star for r in study.select(arm="adamw", forget_set=s)} for s in ("ind-a", "ood-canary-a")}
    both = sorted(k["ind-a"].keys() & k["ood-canary-a"].keys())
    differences = np.array([k["ood-canary-a"][m] - k["ind-a"][m] for m in both])
    assert row["n"] == len(both) == 4 and row["estimate"] == pytest.approx(differences.mean())
    half = scipy.stats.t.ppf(0.975, 3) * differences.std(ddof=1) / 2
    assert row["high"] - row["estimate"] == pytest.approx(half) and row["verdict"] == "supported"
    assert row["delta"] == pytest.approx(0.05 * np.mean([k["ind-a"][m] for m in both]))


def test_a_lower_loss_of_canaries_goes_the_way_that_supports(table):
    row = decisive(table, "C3")
    assert row["estimate"] == decisive(table, "C4", part="b")["estimate"]
    faster = decisive(table, "C4", part="c")
    assert faster["n"] == 8 and faster["delta"] == 0 and faster["estimate"] > 0  # losses grow with the square of steps


def test_the_rate_goes_with_memorization_in_fishers_z(table, study):
    row = decisive(table, "C5")
    rho = memorization.correlations_by_model(memorization.example_rates(study)).query("arm == 'adamw'")
    rho = rho[rho["forget_set"] != "ind-x16"]
    z = np.arctanh(rho.set_index("model")["rate_mem"]).groupby(level=0).mean()
    assert row["n"] == 12 and row["estimate"] == pytest.approx(np.tanh(z.mean()))


def test_with_a_censored_run_the_pairs_enter_a_sign_test(fake, study):
    model = sorted(set.intersection(*(set(study.models(s, "adamw", inside=True)) for s in SETS[::2])))[0]

    def censor(runs_found):
        here = (runs_found["arm"] == "adamw") & (runs_found["forget_set"] == "ood-canary-a")
        here &= runs_found["model"] == model
        runs_found.loc[here, "k_star"], runs_found.loc[here, "last_step"] = np.nan, 200

    row = decisive(claimed(fake, change=censor), "C2")
    assert "1 of 4 pairs hold a censored run: sign test by bounds, 4 longer" in row["reason"]
    assert row["p"] == pytest.approx(2 / 16) and row["verdict"] == "inconclusive" and np.isnan(row["low"])


def test_where_every_pair_is_censored_nothing_is_computed(fake):
    def censor(runs_found):
        runs_found.loc[runs_found["arm"] == "adamw", "k_star"] = np.nan

    row = decisive(claimed(fake, change=censor), "C2")
    assert row["verdict"] == "not computed" and row["reason"] != ""


def test_a_set_of_which_only_the_format_was_learnt_is_reported_and_not_counted(fake):
    def forget(runs_found):
        runs_found.loc[runs_found["forget_set"] == "ood-canary-a", "instance_share"] = 0.3

    table = claimed(fake, change=forget)
    row = decisive(table, "C2", arm="adafactor-restored")
    assert row["verdict"] == "supported" and row["claim_verdict"] == "not counted"
    assert "ood-canary-a not memorized (instance part 30%" in row["reason"]
    assert decisive(table, "C1", part="a")["claim_verdict"] != "not counted"


def _parts(*rows):
    table = pd.DataFrame(rows, columns=["claim", "part", "arm", "p", "verdict"])
    return table.assign(p_holm=np.nan, claim_verdict="", reason="")


def test_a_claim_needs_all_of_its_parts_and_holm_needs_all_of_its_tests():
    decided = verdicts.decide(_parts(("C1", "a", "x", 0.001, "supported"), ("C1", "b", "x", 0.01, "supported"),
                                     ("C2", "", "x", 0.03, "supported"), ("C4", "a", "x", 0.001, "supported"),
                                     ("C4", "b", "x", 0.9, "inconclusive")))  # fmt: skip
    assert list(decided["p_holm"]) == pytest.approx([0.03, 0.03, 0.06, 0.9, 0.9])
    assert list(decided["claim_verdict"]) == ["supported"] * 2 + ["inconclusive"] * 3
    assert decided["reason"][2] == "not beyond the margin after Holm"


def test_one_contradicted_part_contradicts_a_claim_and_what_stands_beside_decides_nothing():
    decided = verdicts.decide(_parts(("C4", "a", "x", 0.001, "contradicted"), ("C4", "b", "x", 0.9, "inconclusive"),
                                     ("C4", "beside", "x", 0.5, "supported")))  # fmt: skip
    assert list(decided["claim_verdict"]) == ["contradicted", "contradicted", ""]
    assert decided["p_holm"][0] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("words", "whole"),
    [(("equivalent", "equivalent"), "equivalent"), (("equivalent", "supported"), "inconclusive"),
     (("supported", "not computed"), "not computed")],
)  # fmt: skip
def test_a_claim_says_what_its_parts_say_together(words, whole):
    decided = verdicts.decide(_parts(*(("C4", part, "x", 0.001, word) for part, word in zip("ab", words, strict=True))))
    assert set(decided["claim_verdict"]) == {whole}


# What stands beside the claims


def test_other_learning_rates_are_found_by_the_settings_of_an_arm_and_stand_beside_c2_alone(fake, study):
    arms = fake.settings["arms"]
    arms |= {"slow": arms["adamw"] | {"rate": 0.5}, "none": arms["adamw"] | {"rate": 2.0}}
    slow = [replace(run, arm="slow") for run in study.select(arm="adamw") if run.forget_set != "ind-x16"]
    more = replace(study, runs=[*study.runs, *slow], rates=study.rates | {"slow": 0.5, "none": 2.0})
    assert len(runs.run_table(more)) == len(runs.run_table(study))
    table = verdicts.claims_table(more, runs.run_table(more), arms=arms, **CLAIMS | {"headline": ["adamw"]})
    rows = table[table["statement"].str.contains("learning rate")].set_index("statement")
    assert set(rows["claim"]) == {"C2"} and set(rows["arm"]) == {"adamw"}
    at = {times: rows[rows.index.str.endswith(f"(learning rate × {times})")].iloc[0] for times in "½12"}
    assert at["½"]["estimate"] == at["1"]["estimate"] and np.isfinite(at["1"]["low"])
    assert at["½"]["delta"] == pytest.approx(at["1"]["delta"]) and at["1"]["delta"] > 0  # each from its own k*
    assert at["2"]["reason"].startswith("no runs in arm none") and at["2"]["n"] == 0


def test_as_many_nats_from_the_start_take_the_ood_steps_to_their_level_against_all_of_the_smaller_set(study, table):
    rows = table[(table["arm"] == "adamw") & table["statement"].str.startswith("steps that take as many nats")]
    by_hand = []
    for model in set.intersection(*(set(study.models(s, "adamw", inside=True)) for s in SETS[::2])):
        pair = [study.select(arm="adamw", forget_set=name) for name in ("ind-a", "ood-canary-a")]
        curves = [next(r.exposure.mean(axis=1) for r in some if r.model == model) for some in pair]
        least = min(curve[0] for curve in curves)
        passed = [genex.steps_to_forget(curve - curve[0] + least, np.arange(len(curve))) for curve in curves]
        by_hand.append(passed[1] - passed[0])
    assert rows["n"].item() == len(by_hand) == 4
    assert rows["estimate"].item() == pytest.approx(np.mean(by_hand))


def test_the_other_draw_of_both_kinds_and_both_together_stand_beside_the_claims(tmp_path):
    names = ["ind-a", "ind-b", "ind-x4", "ood-canary-a", "ood-canary-b"]
    sets, arms = {s: NINE_SETS[s] for s in names}, {"adamw": ("adamw", "adamw", names)}
    fake = FakeStudy(tmp_path, sets=sets, arms=arms, size=16, never=20, followed=6).write()
    table = claimed(fake, headline=["adamw"])
    rows = table[table["statement"].str.contains("(ind-b, ood-canary-b)", regex=False)]
    assert rows["claim"].tolist() == ["C2", "C3", "C3", "C4", "C4"] and set(rows["part"]) == {"beside"}
    k_star = runs.run_table(runs.load(fake.root, **fake.settings))
    k_star = k_star[k_star["role"] == "in"].pivot(index="model", columns="forget_set", values="k_star")
    pair = k_star[["ind-b", "ood-canary-b"]].dropna()
    assert rows["estimate"].iloc[0] == pytest.approx((pair["ood-canary-b"] - pair["ind-b"]).mean())
    both = table[table["statement"].str.contains("(all draws of both kinds)", regex=False)].iloc[0]
    sides = [k_star[[f"{kind}-a", f"{kind}-b"]].mean(axis=1) for kind in ("ood-canary", "ind")]  # inside a model
    difference = (sides[0] - sides[1]).dropna()
    assert both["n"] == len(difference) > 4 and both["estimate"] == pytest.approx(difference.mean())


def case(study, **more):
    values = runs.run_table(study).query("role == 'in'")
    given = {"arms": {}, "values": values, "arm": "adamw", "ind": ("ind-a",), "ood": ("ood-canary-a",)}
    return verdicts.Case(study, **given | {"delta": DELTA, "confidence": 0.95} | more)


def test_a_pair_that_was_drawn_once_or_is_of_one_kind_has_no_other_draw(study, tmp_path):
    assert verdicts.by_draw(case(study)) == {}
    sets = {s: NINE_SETS[s] for s in ("ind-a", "ind-b", "ood-canary-a")}
    fake = FakeStudy(tmp_path, sets=sets, arms={"adamw": ("adamw", "adamw", list(sets))}, size=8, never=10).write()
    alike = runs.load(fake.root, **fake.settings)
    assert verdicts.by_draw(case(alike, ood=("ind-b",))) == {}


def test_repetition_has_one_row_a_kind_beside_memorization(tmp_path):
    names = ["ind-a", "ind-x16", "ood-secret-x1", "ood-secret-x16"]
    sets, arms = {s: NINE_SETS[s] for s in names}, {"adamw": ("adamw", "adamw", names)}
    fake = FakeStudy(tmp_path, sets=sets, arms=arms, size=16, never=20, followed=6).write()
    table = claimed(fake, ood="ood-secret-x1", headline=["adamw"])
    rows = table[(table["claim"] == "C5") & table["statement"].str.startswith("performance lost")]
    assert [s.rpartition("least repeated ")[2] for s in rows["statement"]] == ["natural set", "secret set"]
    assert (rows["n"] == 4).all() and np.isfinite(rows["low"]).all()


def test_what_cannot_be_told_apart_has_no_verdict_with_the_other_held_fixed(fake):
    table = claimed(fake, delta=DELTA | {"identifiable_rho": 0.0})
    fixed = table["statement"].str.endswith("held fixed")
    assert set(table.loc[fixed, "verdict"]) == {"not identifiable"}
    assert "not identifiable" not in set(table.loc[~fixed, "verdict"])


def test_the_placebo_is_a_scale_and_has_no_verdict(table):
    rows = table[table["statement"].str.startswith("placebo")].set_index("arm")
    assert rows.loc["adamw", "n"] == 2 and (rows["verdict"] == "").all() and rows["delta"].isna().all()
    assert rows.loc["adafactor-restored", "reason"] == "no placebo runs in this arm"


def test_thirty_two_models_have_verdicts_without_the_sign_flip_of_more_than_twenty(tmp_path):
    arms = {"adamw": ("adamw", "adamw", ["ind-a", "ood-canary-a"])}
    table = claimed(FakeStudy(tmp_path, models=32, arms=arms, size=8, never=10).write(), headline=["adamw"])
    row = decisive(table, "C1", part="a")
    assert row["n"] == 24 and np.isfinite(row["p"]) and np.isnan(row["p_sign_flip"])
    assert report.sentence(row).endswith(".")


def test_a_model_without_a_value_is_counted_in_the_reason(fake):
    def lose(runs_found):
        here = (runs_found["arm"] == "adamw") & (runs_found["forget_set"] == "ind-a")
        runs_found.loc[runs_found.index[here][0], ["lost_50", "lost_100"]] = np.nan

    row = decisive(claimed(fake, change=lose), "C4", part="c")
    assert row["n"] == 7 and row["reason"] == "1 of 8 models left out: censored or not measured"


# Every set


def test_a_censored_run_makes_the_steps_a_lower_bound_and_stays_in_the_table(study):
    table = runs.run_table(study)
    first = table.index[(table["arm"] == "adamw") & (table["forget_set"] == "ind-a")][0]
    table.loc[first, ["k_star", "lost_100"]] = np.nan
    table.loc[first, "last_step"] = 200
    rows = report.set_table(study, table).set_index(["arm", "forget_set", "quantity"]).loc[("adamw", "ind-a")]
    assert rows.loc["k_star", "reason"] == "1 of 8 runs censored: the estimate is a lower bound"
    assert rows.loc["k_star", "estimate"] > 30 and np.isnan(rows.loc["k_star", "low"])
    assert rows.loc["lost_100", "n"] == 7 and "over the 7 of 8 runs" in rows.loc["lost_100", "reason"]
    shown = report.by_set(rows.reset_index().assign(arm="adamw", forget_set="ind-a"), {"k_star": "k*"})
    assert shown["k*"].item().startswith("≥ ")


def test_half_an_interval_of_the_reference_moves_k_star_by_as_many_steps(study, sets):
    some = study.select(arm="adamw", forget_set="ind-a")
    means = [run.exposure.mean(axis=1) for run in some]
    falls = [m[int(np.ceil(r.k_star)) - 1] - m[int(np.ceil(r.k_star))] for r, m in zip(some, means, strict=True)]
    design = study.design.loc[study.references["adamw"].index].to_numpy()
    set_mean = study.references["adamw"][study.members("ind-a")].mean(axis=1).to_numpy()
    x = np.column_stack([np.ones(len(design)), design])
    fitted, *_ = np.linalg.lstsq(x, set_mean, rcond=None)
    variance = np.sum((set_mean - x @ fitted) ** 2) / (len(x) - x.shape[1])
    # the reference of the in-models, on average: intercept minus the set's own effect
    half = scipy.stats.t.ppf(0.975, len(x) - x.shape[1]) * np.sqrt(2 * variance / len(x))
    row = sets.set_index(["arm", "forget_set", "quantity"]).loc[("adamw", "ind-a", "k_star_reference")]
    assert row["estimate"] == pytest.approx(half / np.mean(falls), rel=0.1)


def test_exposure_at_the_start_has_the_interval_of_the_regression_that_makes_the_references(study, sets):
    start = sets[(sets["arm"] == "adamw") & (sets["forget_set"] == "ind-a")].set_index("quantity")
    whole = study.references["adamw"][study.members("ind-a")].mean(axis=1)
    fit = main_effects(whole.to_numpy()[:, None], study.design.to_numpy())
    column = list(study.design.columns).index("ind-a")
    half = scipy.stats.t.ppf(0.975, fit.df) * 2 * fit.standard_error[column, 0]
    row = start.loc["exposure_0"]
    assert row["estimate"] == pytest.approx(2 * fit.effects[column, 0]) and row["n"] == 16
    assert row["high"] - row["estimate"] == pytest.approx(half)
    some = study.select(arm="adamw", forget_set="ind-a")
    assert row["estimate"] == pytest.approx(np.mean([r.exposure[0].mean() for r in some]))  # runs share the effect
    per_step = np.mean([performance.interpolate(r.exposure.mean(axis=1), r.steps, r.k_star - 1) for r in some])
    one_side = half / np.sqrt(2)  # of in minus out, the reference is one side
    assert start.loc["k_star_reference", "estimate"] == pytest.approx(one_side / per_step)


def test_the_worst_case_is_that_of_all_in_models_against_all_out_models(study, sets):
    some = study.select(arm="adamw", forget_set="ind-a")
    start = np.array([run.log_likelihoods[0] for run in some])
    rows = sets[(sets["arm"] == "adamw") & (sets["forget_set"] == "ind-a")].set_index("quantity")
    expected = genex.worst_case(unlearned=start, reference=runs.outside_scores(study, some[0]))
    assert rows.loc["worst_case_theta0", "estimate"] == pytest.approx(expected)
    assert rows.loc["worst_case_k_star", "estimate"] < expected
    assert rows.loc["worst_case_two_groups_of_references", "n"] == 8


def test_of_a_set_without_never_trained_examples_the_instance_part_has_its_reason(small):
    small.sets = {"ind-a": ("natural", 1), "mine": ("own", 1)}
    small.arms = {"adamw": ("adamw", "adamw", ["ind-a", "mine"])}
    study = runs.load(small.write().root, **small.settings)
    sets = report.set_table(study, runs.run_table(study)).set_index(["forget_set", "quantity"])
    for quantity in ("instance_0", "instance_share"):
        assert sets.loc[("mine", quantity), "reason"] == "no never-trained examples of its kind"
        assert sets.loc[("ind-a", quantity), "reason"] != sets.loc[("mine", quantity), "reason"]


# What is missing is said, never silently dropped


def test_the_smoke_study_has_a_reason_in_every_empty_cell(small):
    arms = small.settings["arms"] | {"adafactor-restored": {"trained_with": "adafactor", "method": "x"}}
    table = claimed(small, arms=arms)
    assert (table.loc[~np.isfinite(table["low"]), "reason"] != "").all()
    absent = table[(table["arm"] == "adafactor-restored") & (table["claim"] == "C2")]
    assert absent["reason"].str.startswith("no runs in arm adafactor-restored").all()
    few = decisive(table, "C1", part="b")
    assert few["verdict"] == "not computed" and few["reason"] == "fewer than three references a set"
    assert set(report.decisions(table)["claim"]) == set(verdicts.SAYS)


@pytest.mark.parametrize(
    "gone", ["train/adamw/log_likelihoods.parquet", "base/log_likelihoods.parquet",
             "unlearn/ind-a-adamw/performance.parquet"],
)  # fmt: skip
def test_without_one_of_the_tables_the_rest_goes_on(small, gone):
    (small.tables / gone).unlink()
    study = runs.load(small.root, **small.settings)
    table, settings = runs.run_table(study), CLAIMS | {"headline": ["adamw"]}
    made = verdicts.claims_table(study, table, arms=small.settings["arms"], **settings)
    assert study.missing and (made.loc[~np.isfinite(made["low"]), "reason"] != "").all()
    assert len(report.set_table(study, table)) == len(table.groupby(["arm", "forget_set"])) * ROWS_A_SET


def test_without_any_run_every_claim_is_not_computed(small):
    study = runs.load(small.root, arms=small.settings["arms"], ascents={})
    settings = CLAIMS | {"headline": ["adamw"]}
    table = verdicts.claims_table(study, runs.run_table(study), arms=small.settings["arms"], **settings)
    assert set(table.loc[table["part"] != "beside", "claim_verdict"]) == {"not computed"}
    sets = report.set_table(study, runs.run_table(study))
    assert sets.empty and report.by_set(sets, report.TITLES).empty
    rho = memorization.correlation_table(
        memorization.correlations_by_model(memorization.example_rates(study)), identifiable=1
    )
    assert report.findings_block(study, table, sets, rho, ind="ind-a", ood="ood-canary-a", delta=DELTA) == ""
    assert report.numbers_block(sets, ["adamw"], []).startswith("*None was run.*")


# In words, in a figure, for programs and for the README


def test_every_row_can_be_said_in_a_sentence(table):
    for row in table.itertuples():
        assert report.sentence(row).endswith(".")
    row = next(table[(table["claim"] == "C2") & (table["arm"] == "adamw") & (table["part"] == "")].itertuples())
    said = report.sentence(row)
    assert said.startswith("C2 adamw: k*(OOD) − k*(InD) inside models that hold both: ") and "n = 4, δ " in said


def test_the_summary_names_every_claim_and_is_valid_json(table, study):
    inside = runs.run_table(study).query("role == 'in'")
    found = json.loads(json.dumps(report.summarize(table, study, inside), allow_nan=False))
    assert list(found["claims"]) == list(verdicts.SAYS) and found["runs"] == 40
    assert found["claims"]["C2"]["arms"]["adamw"]["verdict"] == decisive(table, "C2")["claim_verdict"]


def test_the_figure_of_claims_says_the_verdict_after_holm_of_a_claim_in_one_part():
    row = {"arm": "adamw", "estimate": 1.0, "low": 0.5, "high": 1.5, "unit": "steps", "delta": 0.1}
    row |= {"verdict": "supported", "claim_verdict": "inconclusive"}
    rows = [{**row, "claim": claim, "part": part} for claim, part in (("C2", ""), ("C4", "a"), ("C4", "b"))]
    fig = report.claim_forest(pd.DataFrame(rows))
    assert [text.get_text() for text in fig.axes[0].texts] == ["inconclusive (supported)", "supported", "supported"]
    plt.close(fig)


def claims_row(claim, **more):
    row = {
        "claim": claim,
        "part": "",
        "arm": "adamw",
        "statement": "the way of the claim",
        "estimate": 3.25,
        "low": 1.5,
    }
    row |= {"high": 5.0, "unit": "steps", "delta": 0.5, "n": 4, "p_holm": 0.03}
    return row | {"verdict": "supported", "claim_verdict": "supported", "reason": ""} | more


def test_verdicts_link_to_a_figure_and_a_notebook_and_tell_the_minutes_of_the_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/runs").mkdir(parents=True)
    (tmp_path / "results/runs/trade_off.json").write_text('{"seconds": 90}')
    table = pd.DataFrame(
        [claims_row(claim) for claim in verdicts.SAYS] + [claims_row("C3", part="beside", estimate=99)]
    )
    line = next(line for line in report.verdict_block(table, up="../").splitlines() if "**C3**" in line)
    assert line == (
        "| **C3** OOD data have the better trade-off | **supported**<br>3.25 [1.5, 5] steps | "
        "[trade_off](../figures/trade_off/trade_off.png) | [trade_off](../results/notebooks/trade_off.ipynb) | 1.5 |"
    )
    assert "| – |" in report.verdict_block(table) and "99" not in report.verdict_block(table)
    assert "](figures/trade_off/trade_off.png)](results/notebooks/trade_off.ipynb)" in report.figure_block()


def test_every_claim_points_at_a_figure_that_is_drawn():
    assert list(report.SHOWN_BY) == list(verdicts.SAYS)
    for stage, figure in report.SHOWN_BY.values():
        assert (ROOT / "figures" / stage / f"{figure}.png").exists()


def test_a_row_beside_a_claim_is_shown_where_it_goes_against_the_claim():
    beside = {"part": "beside", "statement": "another way"}
    rows = [claims_row("C2"), claims_row("C2", **beside)]
    assert "another way" not in report.beside_block(pd.DataFrame(rows))
    rows.append(claims_row("C2", verdict="contradicted", **beside))
    assert "- C2, `adamw`: another way: 3.25 [1.5, 5] steps: contradicted" in report.beside_block(pd.DataFrame(rows))


def test_what_differs_in_a_parenthesis_alone_is_told_in_one_line():
    rows = [claims_row("C2")]
    for times, low in (("½", 1.5), ("2", 2.5)):
        beside = {"part": "beside", "statement": f"another way (rate × {times})", "low": low}
        rows.append(claims_row("C2", verdict="inconclusive", **beside))
    line = "- C2, `adamw`: another way: 3.25 [1.5, 5] (rate × ½); 3.25 [2.5, 5] (rate × 2) steps: inconclusive"
    assert line in report.beside_block(pd.DataFrame(rows))


def test_numbers_are_shown_for_every_set_and_arm_headline_first(sets):
    text = report.numbers_block(sets, ["adamw"], SETS)
    lines = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| `")]
    expected = [("adamw", name) for name in SETS] + [("adafactor-restored", name) for name in SETS[::2]]
    assert lines == [[f"| `{name}`", f"`{arm}`"] for arm, name in expected]
    assert set(report.TITLES) <= set(sets["quantity"])


def test_findings_name_the_sets_that_they_are_about(study, table, sets):
    rho = memorization.correlation_table(
        memorization.correlations_by_model(memorization.example_rates(study)), identifiable=1
    )
    found = report.findings_block(study, table, sets, rho, ind="ind-a", ood="ood-canary-a", delta=DELTA).splitlines()
    by_title = {line.split(":**")[0].removeprefix("- **"): line for line in found}
    assert len(found) <= 10 and not any(title.startswith("Fewer steps") for title in by_title)  # canaries take more
    lost = sets.set_index(["arm", "forget_set", "quantity"])["estimate"]["adamw", "ind-a", "lost_50"]
    half = next(line for title, line in by_title.items() if title.startswith("Half-way"))
    assert f"`ind-a` {lost:.3g}" in half and "`ood-canary-a`" in half
    nats = next(line for title, line in by_title.items() if "further from zero" in title)
    assert "for as many nats: C2 " in nats and "ind-x16" not in nats


def test_the_corpus_is_told_in_a_sentence_or_said_to_be_missing(tmp_path):
    path = tmp_path / "exclusions.csv"
    assert report.corpus_block(path) == "*The corpus has not been built here yet.*"
    path.write_text("reason,pairs,left\nno words,300,1200\nuntranslated,200,1000\n")
    assert report.corpus_block(path) == "Of 1,500 raw pairs 1,000 are left. Taken out: 300 no words, 200 untranslated."


def test_blocks_are_written_between_their_markers(tmp_path):
    report.write_blocks({"one": "first", "two": "second"}, tmp_path / "new/readme.md")
    text = (tmp_path / "new/readme.md").read_text()
    assert text == (
        "<!-- begin one -->\n\nfirst\n\n<!-- end one -->\n\n<!-- begin two -->\n\nsecond\n\n<!-- end two -->\n"
    )
