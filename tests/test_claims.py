"""From made-up runs with known effects to verdicts, and from these to sentences, figures and blocks of the README."""

import json
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from paper import memorization, report, robust, runs, verdicts
from tests.copies import ROOT
from tests.fake_study import ARMS, FakeStudy, smoke
from unlearning.core import draws, stats
from unlearning.data import kinds

DELTA = {"C1_auc": 0.95, "C1_outside": [0.025, 0.075], "C2_share_of_k_star": 0.05, "C3_nats_per_token": 0.05,
         "C4_nats_per_token": 0.05, "C5_rho": 0.1, "C6_rho": 0.1, "identifiable_rho": 0.8}  # fmt: skip
CLAIMS = {"ind": "ind", "ood": "ood-canary", "level": "ind-x4", "headline": ["adafactor-restored", "adamw"],
          "delta": DELTA, "confidence": 0.95}  # fmt: skip
ADAMW = CLAIMS | {"headline": ["adamw"]}


def read(fake, **more):
    return runs.read_study(fake.root, **fake.settings, **more)


def claimed(study, fake, claims=CLAIMS):
    return verdicts.claims_table(verdicts.headline_cases(study, fake.settings["arms"], claims))


def after(cases, change, claim, part=""):
    """A row of the second arm, once its table of runs is changed."""
    values = cases[1].values.copy()
    change(values)
    return verdicts.computed(of(claim, part), replace(cases[1], values=values))


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Twelve models; three draws of two kinds, one of each of four others; two arms, and one at another rate."""
    return FakeStudy(tmp_path_factory.mktemp("study")).write()


@pytest.fixture(scope="module")
def study(fake):
    return read(fake)


@pytest.fixture(scope="module")
def cases(study, fake):
    return verdicts.headline_cases(study, fake.settings["arms"], CLAIMS)


@pytest.fixture(scope="module")
def table(cases):
    return verdicts.claims_table(cases)


@pytest.fixture(scope="module")
def families(study):
    return report.family_table(study, study.table.query("role == 'in'"))


@pytest.fixture
def small(tmp_path):
    """The smoke study, of which each test takes something away."""
    return smoke(tmp_path).write()


def one(table, claim, part="", arm="adamw"):
    rows = table[(table["claim"] == claim) & (table["part"] == part) & (table["arm"] == arm)]
    return rows.iloc[0]


def beside(table, words, arm="adamw"):
    rows = table[(table["arm"] == arm) & table["statement"].str.contains(words, regex=False)]
    return rows[rows["part"] == "beside"].iloc[0]


def of(claim, part=""):
    return next(row for row in verdicts.ROWS if (row.claim, row.part) == (claim, part))


# The table


def test_the_claims_table_has_fourteen_tests_and_no_empty_cell_without_a_reason(table):
    assert list(table.columns) == [*verdicts.COLUMNS, *verdicts.PARTS]
    decided = table[table["part"] != "beside"]
    assert len(decided.drop_duplicates(["claim", "arm"])) == 14
    assert (table.loc[~np.isfinite(table["low"]), "reason"] != "").all()
    assert (decided["verdict"] != "").all() and (decided["claim_verdict"] != "").all()


def test_a_row_beside_a_claim_has_an_interval_and_no_word(table):
    rows = table[table["part"] == "beside"]
    assert (rows["verdict"] == "").all() and (rows["claim_verdict"] == "").all()
    assert rows[["p", "p_holm", "delta"]].isna().all(axis=None) and rows["low"].notna().mean() > 0.8


def test_every_row_names_a_claim_a_margin_and_sides_that_there_are():
    for row in verdicts.ROWS:
        assert row.claim in verdicts.SAYS and row.margin in {"", *DELTA} and row.sides in verdicts.SIDES
    assert {row.claim for row in verdicts.ROWS if row.part != "beside"} == set(verdicts.SAYS)
    assert [c for c in kinds.family_names({"ind": {}, "ood": {"draws": 2}})["ood"]] == ["ood-a", "ood-b"]


def test_a_new_claim_is_one_row_and_its_words(cases, monkeypatch):
    row = verdicts.Row("C8", "", "all steps", "last_step", verdicts.BOTH, "made-up")
    monkeypatch.setattr(verdicts, "ROWS", (row,))
    monkeypatch.setattr(verdicts, "SAYS", {"C8": "steps are taken"})
    assert one(verdicts.claims_table(cases), "C8")["claim_verdict"] == "supported"


def test_more_steps_for_canaries_are_found_with_the_draw_as_unit(table, study):
    row = one(table, "C2")
    found = study.table.query("arm == 'adamw' and role == 'in' and family in ['ind', 'ood-canary']")
    means = found.groupby(["family", "forget_set"])["k_star"].mean()
    assert row["estimate"] == pytest.approx(means["ood-canary"].mean() - means["ind"].mean())
    assert row["delta"] == pytest.approx(0.05 * means["ind"].mean())
    assert row["n"] == 6 and row["runs"] == 24 and row["df"] <= 4
    side = np.where(found["family"] == "ood-canary", 1, -1)
    plain = draws.two_way(found["k_star"], draw=found["forget_set"], model=found["model"], side=side)
    half = row["high"] - row["estimate"]
    assert half == pytest.approx(scipy.stats.t.ppf(0.975, plain.df) * np.sqrt(plain.se**2 + row["var_reference"]))
    by_hand = draws.permutation_p(means.to_numpy(), [-1, -1, -1, 1, 1, 1])
    assert row["p_permutation"] == by_hand.p == 0.1


def test_the_parts_of_the_variance_sum_to_that_of_the_interval(table):
    row = one(table, "C3")
    parts, spread = row[verdicts.PARTS].astype(float), row["high"] - row["estimate"]
    variance = (spread / scipy.stats.t.ppf(0.975, row["df"])) ** 2
    first = parts["var_draw"] + parts["var_model"] + parts["var_residual"]
    largest = max(first, parts["var_draw"] + parts["var_residual"], parts["var_model"] + parts["var_residual"])
    assert variance == pytest.approx(largest + parts["var_reference"] + parts["var_sentences"])
    assert parts["var_sentences"] > 0 and one(table, "C2")["var_sentences"] == 0


def test_the_errors_that_references_share_move_k_star_by_the_nats_of_the_last_step(cases, study):
    case, row = cases[1], of("C2")
    names = [*study.families["ood-canary"], *study.families["ind"]]
    falls = []
    for name in names:
        some = study.select(arm="adamw", forget_set=name)
        means = [run.exposure.mean(axis=1) for run in some]
        at = [int(np.ceil(run.k_star)) for run in some]
        falls.append(np.mean([m[k - 1] - m[k] for m, k in zip(means, at, strict=True)]))
    table = study.references["adamw"]
    set_means = np.column_stack([table[study.members(name)].mean(axis=1) for name in names])
    design, side = study.design.loc[table.index], np.repeat([1, -1], 3)
    by_hand = draws.reference_variance(
        set_means, design=design[names].to_numpy(), base=design["base"], per_nat=-1 / np.array(falls), side=side
    )
    assert verdicts.computed(row, case)["var_reference"] == pytest.approx(by_hand, rel=0.2, abs=1e-6)


def test_a_lower_loss_of_canaries_goes_the_way_that_supports(table):
    assert one(table, "C3")["estimate"] > 0
    assert one(table, "C4", "b")["n"] == 3 and one(table, "C4", "b")["delta"] == 0
    assert one(table, "C4", "b")["estimate"] > 0  # losses grow with the square of steps


def test_rates_are_held_against_those_of_models_that_never_saw_the_set(table, study):
    z = memorization.z_by_side(study, memorization.correlations_by_model(memorization.example_rates(study)))
    z = z[(z["arm"] == "adamw") & (z["quantity"] == "rate_mem") & z["family"].isin(["ind", "ood-canary"])]
    by_set = z.groupby(["family", "forget_set", "side"])["z"].mean().unstack("side")
    net = (by_set["in"] - by_set["placebo"]).groupby("family").mean().mean()
    assert one(table, "C5")["estimate"] == pytest.approx(net) and one(table, "C5")["unit"] == "Fisher's z"
    held, placebo = (beside(table, f"the correlation in {side}")["estimate"] for side in ("models", "placebo"))
    assert one(table, "C5")["estimate"] == pytest.approx(held - placebo)


def test_without_placebo_runs_memorization_is_not_computed(tmp_path):
    fake = FakeStudy(tmp_path, placebo=(), arms={"adamw": ARMS["adamw"]}, ascents={"adamw": ["ind", "ood-canary"]})
    table = claimed(read(fake.write()), fake, ADAMW)
    assert one(table, "C5")["verdict"] == "not computed" and one(table, "C5")["reason"] != ""


def test_calibration_has_a_band_on_both_sides(cases, monkeypatch):
    row, case = of("C1", "b"), cases[1]
    for level, word in ((0.05, "supported"), (0.01, "contradicted"), (0.2, "contradicted")):
        values = [(s, m, level + 1e-4 * m) for s in case.study.forget_sets for m in range(4)]
        made = pd.DataFrame(values, columns=["forget_set", "model", "value"])
        asked = replace(row, value=lambda _, made=made: made)
        found = verdicts.computed(asked, case)
        assert found["verdict"] == word and (found["delta_low"], found["delta"]) == (0.025, 0.075)
        assert (found["p"] < 0.05) == (word == "supported")


def test_what_is_read_without_references_separates_less(table):
    auc = {words: beside(table, words)["estimate"] for words in ("alone", "by population", "by checkpoint")}
    assert one(table, "C1", "a")["estimate"] > auc["alone"] and all(0.5 < value <= 1 for value in auc.values())


def test_relative_exposure_by_population_is_what_its_function_gives(cases):
    case, name = cases[1], "ind-a"
    scores, never = case._readings(name)["population"], case.study.never_trained(name)
    n_tokens, table = case.study.examples["n_tokens"], case.study.references["adamw"]
    from unlearning.core import stand_ins

    by_set = stand_ins.relative_exposure_population(
        forget_set=table[case.study.members(name)].to_numpy(), n_tokens=n_tokens[case.study.members(name)].to_numpy(),
        never_trained=table[never].to_numpy(), never_trained_n_tokens=n_tokens[never].to_numpy(),
    )  # fmt: skip
    assert scores.mean(axis=1) == pytest.approx(by_set)


def test_the_ladder_has_a_point_a_kind_that_stood_once_in_training(table, cases, study):
    points = verdicts.ladder(cases[1], "k_star")
    assert list(dict.fromkeys(points["family"])) == ["ind", "ood-canary", "ood-shuffled", "ood-secret-x1"]
    outside = study.held_by("ind-a", "adamw", inside=False)
    level = outside.mean().sum() / study.examples["n_tokens"][outside.columns].sum()
    assert points.set_index("forget_set").loc["ind-a", "x"] == pytest.approx(level)
    means = points.groupby("family")[["x", "value"]].mean()
    line = scipy.stats.linregress(means["x"], means["value"])
    row = one(table, "C7", "a")
    assert row["estimate"] == pytest.approx(line.slope) and row["n"] == 4 and row["df"] == 2
    assert row["p"] == pytest.approx(line.pvalue)
    assert beside(table, "slope of k*, every draw a point")["n"] == 8


def test_at_equal_exposure_the_kinds_are_compared_beside_a_common_slope(table, study):
    found = study.table.query("arm == 'adamw' and role == 'in' and family in ['ind', 'ood-canary']")
    means = found.groupby(["family", "forget_set"])[["k_star", "exposure_0"]].mean().reset_index()
    x = np.column_stack([means["family"] == "ood-canary", means["exposure_0"], np.ones(6)]).astype(float)
    by_hand = np.linalg.lstsq(x, means["k_star"], rcond=None)[0][0]
    assert beside(table, "by regression over draws")["estimate"] == pytest.approx(by_hand)


def test_the_log_ratio_has_the_error_of_a_ratio(table, study):
    row, found = beside(table, "log of the ratio"), study.table.query("arm == 'adamw' and role == 'in'")
    means = found.groupby(["family", "forget_set"])["lost_100"].mean().groupby("family").mean()
    assert row["estimate"] == pytest.approx(np.log(means["ind"] / means["ood-canary"]))
    assert row["high"] - row["estimate"] == pytest.approx(row["estimate"] - row["low"]) and row["var_sentences"] > 0


# What is missing is said, never silently dropped


def test_a_family_with_one_draw_has_an_interval_for_that_set_alone(table):
    row = beside(table, "InD repeated until")
    assert row["reason"].startswith("one draw of a kind") and row["reason"].endswith("for these sets alone")
    assert np.isfinite([row["low"], row["high"]]).all()


def test_a_headline_kind_with_one_draw_is_not_decided(cases):
    row = verdicts.computed(of("C2"), replace(cases[1], ind="ind-x4"))
    assert row["verdict"] == "not computed" and np.isfinite(row["low"])
    assert "for these sets alone" in row["reason"] and np.isnan(row["p"])


def censored(n, *sets):
    def change(table):
        for name in sets:
            at = table.index[(table["arm"] == "adamw") & (table["forget_set"] == name) & (table["role"] == "in")][:n]
            table.loc[at, ["k_star", "lost_50", "lost_100"]] = np.nan
            table.loc[at, "last_step"] = 200

    return change


def test_censored_runs_of_one_side_make_a_bound_that_can_support(cases):
    row = after(cases, censored(4, "ood-canary-a"), "C2")
    assert "4 of 24 runs did not get to k*, in 1 draws none did: the estimate is a lower bound" in row["reason"]
    assert row["high"] == np.inf and row["estimate"] > 50 and row["verdict"] in ("supported", "inconclusive")
    row = after(cases, censored(1, "ind-a"), "C2")
    assert "an upper bound" in row["reason"] and row["low"] == -np.inf and row["verdict"] != "supported"


def test_censored_runs_of_both_sides_make_no_bound(cases):
    row = after(cases, censored(1, "ind-a", "ood-canary-a"), "C2")
    assert row["verdict"] == "not computed" and "no bound" in row["reason"]


def test_losses_without_a_whole_draw_are_not_computed_and_single_runs_are_counted_out(cases):
    row = after(cases, censored(4, "ind-b"), "C3")
    assert row["verdict"] == "not computed" and "4 of 24 runs have no value, in 1 draws none did" in row["reason"]
    row = after(cases, censored(1, "ind-b"), "C3")
    assert row["verdict"] != "not computed" and row["reason"].startswith("1 of 24 runs have no value")


def test_a_kind_of_which_only_the_format_was_learnt_is_reported_and_not_counted(cases):
    def forget(table):
        table.loc[table["family"] == "ood-canary", "instance_share"] = 0.3

    rows = pd.DataFrame([after(cases, forget, "C2"), after(cases, forget, "C1", "a")])
    decided = verdicts.decide(rows.assign(p_holm=np.nan, claim_verdict=""), confidence=0.95)
    row = one(decided, "C2")
    assert row["verdict"] != "not computed" and row["claim_verdict"] == "not counted"
    assert "ood-canary not memorized (instance part 30%" in row["reason"]
    assert one(decided, "C1", "a")["claim_verdict"] != "not counted"


def test_the_smoke_study_has_a_reason_in_every_empty_cell(small):
    arms = small.settings["arms"] | {"adafactor-restored": {"trained_with": "adamw", "method": "x"}}
    study = read(small)
    table = verdicts.claims_table(verdicts.headline_cases(study, arms, CLAIMS))
    assert (table.loc[~np.isfinite(table["low"]), "reason"] != "").all()
    absent = one(table, "C2", arm="adafactor-restored")
    assert absent["reason"] == "arm adafactor-restored has no values of ind or ood-canary"
    assert set(report.decisions(table)["claim"]) == set(verdicts.SAYS)
    for row in table.itertuples():
        assert report.sentence(row).endswith(".")


def test_without_any_run_every_claim_but_the_first_is_not_computed(small):
    study = runs.read_study(small.root, **small.settings | {"ascents": {}})
    table = claimed(study, small, ADAMW)
    later = table[(table["part"] != "beside") & (table["claim"] != "C1")]
    assert set(later["claim_verdict"]) == {"not computed"}
    families = report.family_table(study, study.table)
    assert families.empty and report.by_family(families, report.TITLES).empty
    assert report.findings_block(study, table, families, ind="ind", ood="ood-canary") == ""
    assert report.numbers_block(families, ["adamw"], []).startswith("*None was run.*")
    assert isinstance(robust.variance_figure(later), str)


# Decisions


def _parts(*rows):
    table = pd.DataFrame(rows, columns=["claim", "part", "arm", "p", "verdict"])
    return table.assign(p_holm=np.nan, claim_verdict="", reason="")


def decide(table):
    return verdicts.decide(table, confidence=0.95)


def test_a_claim_needs_all_of_its_parts_and_holm_needs_all_of_its_tests():
    decided = decide(_parts(("C1", "a", "x", 0.001, "supported"), ("C1", "b", "x", 0.01, "supported"),
                                     ("C2", "", "x", 0.03, "supported"), ("C4", "a", "x", 0.001, "supported"),
                                     ("C4", "b", "x", 0.9, "inconclusive")))  # fmt: skip
    assert list(decided["p_holm"]) == pytest.approx([0.03, 0.03, 0.06, 0.9, 0.9])
    assert list(decided["claim_verdict"]) == ["supported"] * 2 + ["inconclusive"] * 3
    assert decided["reason"][2] == "not beyond the margin after Holm"


def test_a_contradicted_part_makes_a_claim_not_borne_out_where_its_p_is_small_enough():
    rows = ("C4", "a", "x", 0.001, "contradicted"), ("C4", "b", "x", 0.9, "inconclusive")
    decided = decide(_parts(*rows, ("C4", "beside", "x", np.nan, "")))
    assert list(decided["claim_verdict"]) == ["not borne out", "not borne out", ""]
    assert decided["p_holm"][0] == pytest.approx(0.002)
    weak = decide(_parts(("C4", "a", "x", 0.03, "contradicted"), rows[1]))
    assert list(weak["claim_verdict"]) == ["inconclusive"] * 2


@pytest.mark.parametrize(
    ("words", "whole"),
    [(("equivalent", "equivalent"), "not borne out"), (("small", "supported"), "not borne out"),
     (("supported", "not computed"), "not computed"), (("small",), "small"), (("contradicted",), "contradicted")],
)  # fmt: skip
def test_a_claim_says_what_its_parts_say_together(words, whole):
    decided = decide(_parts(*(("C4", part, "x", 0.001, word) for part, word in zip("ab", words, strict=False))))
    assert set(decided["claim_verdict"]) == {whole}


# Every family


def test_means_of_families_rest_on_draws_and_censored_steps_are_bounds(study, families):
    rows = families.set_index(["arm", "family", "quantity"])
    row = rows.loc[("adamw", "ind", "k_star")]
    assert row["draws"] == 3 and row["per"] == "draw" and np.isfinite(row["low"])
    assert rows.loc[("adamw", "ind-x4", "k_star"), "per"] == "model"
    inside = study.table.query("role == 'in'").copy()
    censored(1, "ind-a")(inside)
    bound = report.family_table(study, inside).set_index(["arm", "family", "quantity"])
    assert bound.loc[("adamw", "ind", "k_star"), "reason"] == "1 of 12 runs censored: the estimate is a lower bound"
    assert bound.loc[("adamw", "ind", "lost_100"), "reason"] == "1 of 12 runs do not have it"
    assert report.by_family(bound.reset_index(), {"k_star": "k*"}).query("arm == 'adamw'")["k*"].iloc[0][0] == "≥"


def test_the_worst_case_is_that_of_the_draws_in_models_against_all_out_models(study, families):
    from unlearning.core import genex

    expected = []
    for name in study.families["ind"]:
        some = study.select(arm="adamw", forget_set=name)
        start = np.array([run.log_likelihoods[0] for run in some])
        expected.append(genex.worst_case(unlearned=start, reference=runs.outside_scores(study, some[0])))
    rows = families.set_index(["arm", "family", "quantity"])
    row = rows.loc[("adamw", "ind", "worst_case_theta0")]
    assert row["estimate"] == pytest.approx(np.mean(expected)) and row["draws"] == 3
    assert rows.loc[("adamw", "ind", "worst_case_k_star"), "estimate"] < row["estimate"]


# Beside the verdicts


@pytest.fixture(scope="module")
def robustness(fake, study):
    arms = {name: {**arm, "learning_rate": 1e-4} for name, arm in fake.settings["arms"].items()}
    pilot = pd.DataFrame({"forget_set": "pilot-canary", "trained_with": "adamw", "method": "adamw", "k_star": 21.0,
                          "learning_rate": [1e-4, 2e-4], "chosen": [False, True]})  # fmt: skip
    other = read(fake, reference="out-average")
    return robust.specifications(study, arms, CLAIMS, other=other, pilot=pilot)


def test_every_headline_contrast_is_measured_under_every_choice(robustness, table):
    rows = robustness.set_index(["arm", "contrast", "specification"])
    for contrast in ("C2", "C3", "C4a"):
        names = set(rows.loc[("adamw", contrast)].index)
        assert {"as decided", "learning rate × 2", "k* per token", "first half of the draws",
                "second half of the draws", "reference: out-average"} <= names  # fmt: skip
        assert ("by BLEU" in names) == (contrast == "C3")
    decided, as_share = one(table, "C2"), rows.loc[("adamw", "C2", "as decided")]
    assert as_share["estimate"] / as_share["delta"] == pytest.approx(decided["estimate"] / decided["delta"])
    assert as_share["delta"] == pytest.approx(0.05)


def test_losses_by_the_other_reference_are_read_where_its_k_star_lies(robustness):
    # its k* is another: all held-out sentences are scored around the one that decides, the followed ones on the way
    rows = robustness.set_index(["arm", "contrast", "specification"]).xs("reference: out-average", level=2)
    decided = robustness.set_index(["arm", "contrast", "specification"]).xs("as decided", level=2)
    for contrast in ("C3", "C4a"):
        assert rows.loc[("adamw", contrast), "estimate"] == pytest.approx(
            decided.loc[("adamw", contrast), "estimate"], abs=0.2
        )
        assert rows.loc[("adamw", contrast), "delta"] == pytest.approx(
            decided.loc[("adamw", contrast), "delta"], rel=0.3
        )


def test_the_rate_that_canaries_choose_is_an_arm_or_said_to_be_none(robustness):
    rows = robustness[robustness["specification"] == "learning rate of the canary pilot"].set_index("arm")
    assert set(rows.loc["adamw", "reason"]) >= {"arm adamw-double"} and rows.loc["adamw", "estimate"].notna().all()
    assert set(rows.loc["adafactor-restored", "reason"]) == {"the pilot chose no rate on canaries"}


def test_half_of_three_draws_is_one_and_two(robustness):
    rows = robustness.set_index(["arm", "contrast", "specification"]).loc[("adamw", "C2")]
    assert rows.loc["first half of the draws", "n"] == 2 and "one draw" in rows.loc["first half of the draws", "reason"]
    assert rows.loc["second half of the draws", "n"] == 4


def test_both_kinds_of_figures_are_drawn(robustness, table):
    for figure in (robust.specification_figure(robustness), robust.variance_figure(table)):
        assert figure.axes
        plt.close(figure)
    assert isinstance(robust.specification_figure(robustness.assign(estimate=np.nan)), str)


def test_an_arm_with_fewer_contrasts_leaves_the_rows_of_the_other_in_place(table):
    both, few = table, table[(table["arm"] != "adamw") | (table["claim"] == "C1")]
    names = [[t.get_text() for t in robust.variance_figure(rows).axes[0].get_yticklabels()] for rows in (both, few)]
    assert names[0] == names[1] and len(names[0]) > 4
    plt.close("all")


def made_up(rng, sd):
    draw = np.repeat(np.arange(12), 4)
    model = np.concatenate([rng.choice(16, 4, replace=False) for _ in range(12)])
    side = np.where(draw < 6, 1, -1)
    by_draw, by_model = rng.normal(0, sd[0], 12), rng.normal(0, sd[1], (16, 2))
    y = side + by_draw[draw] + by_model[model, (side + 1) // 2] + rng.normal(0, sd[2], len(draw))
    return y, {"draw": draw, "model": model, "side": side}


def test_a_mixed_model_finds_the_same_contrast():
    pytest.importorskip("statsmodels")
    y, where = made_up(np.random.default_rng(0), (1.0, 0.7, 0.5))
    mixed, plain = robust.mixed_lm(y, **where), draws.two_way(y, **where)
    assert (
        mixed.estimate == pytest.approx(plain.estimate, abs=0.5 * plain.se) and mixed.low < mixed.estimate < mixed.high
    )
    assert 0.4 < mixed.sd_draw < 2 and 0.2 < mixed.sd_residual < 0.9 and mixed.says == ""


def test_a_mixed_model_with_a_variance_at_zero_says_that_its_interval_is_too_narrow():
    pytest.importorskip("statsmodels")
    y, where = made_up(np.random.default_rng(1), (0.0, 0.0, 1.0))
    residual = y - y.mean()
    y = where["side"] + residual - pd.Series(residual).groupby(where["draw"]).transform("mean").to_numpy()
    mixed = robust.mixed_lm(y, **where)
    assert mixed.sd_draw < 0.1 and "variance between draws" in mixed.says and "too narrow" in mixed.says
    assert robust.mixed_lm(np.ones(8), draw=np.arange(8) // 2, model=range(8), side=[1] * 4 + [-1] * 4).says


def test_the_cross_check_stands_beside_every_decided_contrast_of_two_kinds(table, cases):
    pytest.importorskip("statsmodels")
    check = robust.cross_check(table, cases)
    assert (check["claim"] + check["part"]).tolist() == ["C2", "C3", "C4a", "C4c"] * 2
    assert np.allclose(check["estimate"], check["mixed_estimate"], rtol=0.2, atol=1e-3)


def test_the_power_table_comes_from_the_first_studys_components():
    first = pd.read_csv(robust.FIRST / "first_study.csv")
    size = {"n_draws": 10, "n_models": 4, "pool": 32, "tests": 14, "confidence": 0.95}
    power = robust.power_table(first, DELTA, **size)
    assert len(power) == 14 and power["beyond_holm"].le(power["beyond"]).all()
    steps = power.set_index(["claim", "arm"]).loc["C2"]
    assert (steps["beyond"] > 0.9).all() and (steps["least"] < steps["effect"]).all()
    few = robust.power_table(first, DELTA, **size | {"n_draws": 2})
    assert (few["se"] > power["se"]).all() and "| C2 | `adamw` | steps |" in report.power_block(power)


def test_the_first_verdicts_stand_beside_the_new_ones(table):
    first = pd.read_csv(robust.FIRST / "first_verdicts.csv")
    lines = report.first_block(table, first).splitlines()
    assert len(lines) == 2 + 7 and lines[3].startswith("| **C2** ") and "| inconclusive | **" in lines[3]
    assert "| – | **" in lines[8]


# In words, in a figure, for programs and for the README


def test_every_row_can_be_said_in_a_sentence(table):
    for row in table.itertuples():
        assert report.sentence(row).endswith(".")
    said = report.sentence(next(r for r in table.itertuples() if (r.claim, r.part, r.arm) == ("C2", "", "adamw")))
    assert said.startswith("C2 adamw: k*(OOD) − k*(InD), each example as often in training: ")
    assert "n = 6 draws in " in said and "δ " in said and "permuted labels 0.1" in said


def test_the_summary_names_every_claim_and_is_valid_json(table, study):
    inside = study.table.query("role == 'in'")
    found = json.loads(json.dumps(report.summarize(table, study, inside), allow_nan=False))
    assert list(found["claims"]) == list(verdicts.SAYS) and found["runs"] == len(inside)
    assert found["claims"]["C2"]["arms"]["adamw"]["verdict"] == one(table, "C2")["claim_verdict"]


def test_the_figure_of_claims_says_the_verdict_after_holm_of_a_claim_in_one_part():
    row = {"arm": "adamw", "estimate": 1.0, "low": 0.5, "high": np.inf, "unit": "steps", "delta": 0.1}
    row |= {"delta_low": np.nan, "verdict": "supported", "claim_verdict": "inconclusive"}
    rows = [{**row, "claim": claim, "part": part} for claim, part in (("C2", ""), ("C4", "a"), ("C4", "b"))]
    fig = report.claim_forest(pd.DataFrame(rows))
    assert [text.get_text() for text in fig.axes[0].texts] == ["inconclusive (supported)", "supported", "supported"]
    plt.close(fig)


def claims_row(claim, **more):
    row = {"claim": claim, "part": "", "arm": "adamw", "statement": "the way of the claim", "estimate": 3.25}
    row |= {"low": 1.5, "high": 5.0, "unit": "steps", "delta": 0.5, "n": 4, "p_holm": 0.03}
    return row | {"verdict": "supported", "claim_verdict": "supported", "reason": ""} | more


def test_verdicts_link_to_a_figure_and_a_notebook_and_tell_the_minutes_of_the_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/runs").mkdir(parents=True)
    (tmp_path / "results/runs/trade_off.json").write_text('{"seconds": 90}')
    rows = [claims_row(claim) for claim in verdicts.SAYS] + [claims_row("C3", part="beside", estimate=99)]
    block = report.verdict_block(pd.DataFrame(rows))
    assert next(line for line in block.splitlines() if "**C3**" in line) == (
        "| **C3** OOD data have the better trade-off | **supported**<br>3.25 [1.5, 5] steps | "
        "[trade_off](figures/trade_off/trade_off.png) | [trade_off](results/notebooks/trade_off.ipynb) | 1.5 |"
    )
    assert "| – |" in block and "99" not in block
    assert "](figures/trade_off/trade_off.png)](results/notebooks/trade_off.ipynb)" in report.figure_block()


def test_every_claim_points_at_a_figure_that_is_drawn():
    assert list(report.SHOWN_BY) == list(verdicts.SAYS)
    notebooks = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("notebooks/*.ipynb"))
    for name in report.SHOWN_BY.values():
        assert f'\\"{name}\\"' in notebooks or "exposure/{name}" in notebooks, name


def test_all_rows_beside_the_claims_are_shown_without_a_word():
    rows = [claims_row("C2"), claims_row("C2", part="beside", statement="another way", verdict="", reason="few")]
    block = report.beside_block(pd.DataFrame(rows))
    assert "| C2 | another way (steps) | 3.25 [1.5, 5] (few) |" in block and "the way of the claim" not in block


def test_numbers_are_shown_for_every_family_and_arm_headline_first(families, study):
    text = report.numbers_block(families, ["adamw"], list(study.families))
    lines = [line.split(" | ")[:3] for line in text.splitlines() if line.startswith("| `")]
    assert [line[:2] for line in lines[:6]] == [[f"| `{name}`", "`adamw`"] for name in study.families]
    assert lines[0][2] == "3 × 4" and set(report.TITLES) <= set(families["quantity"])


def test_findings_name_the_families_that_they_are_about(study, table, families):
    found = report.findings_block(study, table, families, ind="ind", ood="ood-canary").splitlines()
    by_title = {line.split(":**")[0].removeprefix("- **"): line for line in found}
    factor = next(line for title, line in by_title.items() if "further from zero" in title)
    assert "InD repeated until" in factor and "[" in factor
    held = np.tanh(beside(table, "the correlation in models that held")["estimate"])
    assert f"rate with memorization {held:.2f}, there " in by_title["As much in models that never saw the set"]


def test_the_corpus_is_told_in_a_sentence_or_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report.corpus_block() == "*The corpus has not been built here yet.*"
    (tmp_path / "results/tables/corpus").mkdir(parents=True)
    path = tmp_path / "results/tables/corpus/exclusions.csv"
    path.write_text("reason,pairs,left\nno words,300,1200\nuntranslated,200,1000\n")
    assert report.corpus_block() == "Of 1,500 raw pairs 1,000 are left. Taken out: 300 no words, 200 untranslated."


def test_blocks_are_written_between_their_markers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/tables/claims").mkdir(parents=True)
    report.write_blocks({"one": "first", "two": "second"})
    text = (tmp_path / "results/tables/claims/readme.md").read_text()
    assert text == (
        "<!-- begin one -->\n\nfirst\n\n<!-- end one -->\n\n<!-- begin two -->\n\nsecond\n\n<!-- end two -->\n"
    )


def test_words_of_verdicts_are_those_of_the_statistics(table):
    known = {*stats.VERDICTS, stats.NOT_BORNE_OUT, stats.NOT_COMPUTED, "not counted"}
    assert set(table.loc[table["part"] != "beside", "claim_verdict"]) <= known
