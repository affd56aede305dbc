"""What forgetting costs, on a made-up study whose losses are known."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper import look, runs, trade_off, words
from tests.fake_study import NINE_SETS, FakeStudy, smoke

SETS = ["ind-a", "ind-x16", "ood-canary-a"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Sixteen models, three sets (one repeated), one arm with placebos."""
    folder, arms = tmp_path_factory.mktemp("study"), {"adamw": ("adamw", "adamw", SETS)}
    fake = FakeStudy(folder, size=16, never=20, followed=6, sets={s: NINE_SETS[s] for s in SETS}, arms=arms).write()
    return runs.load(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def looks(study):
    return look.looks(study.examples.reset_index(), study.forget_sets)


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        look.use_style()
        yield
    plt.close("all")


def test_a_path_starts_at_the_exposure_of_the_original_and_has_none_left_at_k_star(study):
    some = study.select(forget_set="ind-a")
    exposure, lost = trade_off.paths(study, some)
    assert exposure.shape == lost.shape == (8, len(trade_off.SHARES))
    assert exposure[:, 0] == pytest.approx([run.exposure[0].mean() for run in some])
    assert trade_off.SHARES[trade_off.AT] == 1 and np.abs(exposure[:, trade_off.AT]).max() < 1e-9
    assert (lost[:, -1] > lost[:, 0]).all()


def test_a_path_counts_from_the_reference_what_theta0_had_lost_to_it_and_what_ascent_added(study):
    run = study.select(forget_set="ind-a")[0]
    _, lost = trade_off.paths(study, [run])
    own = study.performance["adamw"].loc[run.model, "heldout"]
    expected = runs.reference_performance(study, run) - own + run.lost(run.k_star)
    assert lost[0, trade_off.AT] == pytest.approx(expected)


def test_a_path_of_a_censored_run_goes_to_its_last_step(study):
    run = replace(study.select(forget_set="ind-a")[0])
    run.__dict__["k_star"] = np.nan
    exposure, _ = trade_off.paths(study, [run])
    assert exposure[0, -1] == pytest.approx(run.exposure[-1].mean())


def test_without_scores_of_held_out_text_a_path_has_exposure_and_no_loss(study):
    none = replace(study, performance={})
    exposure, lost = trade_off.paths(none, none.select(forget_set="ind-a"))
    assert np.isfinite(exposure[:, : trade_off.AT]).all() and np.isnan(lost).all()
    assert trade_off.reference_points(none, "adamw", "ind-a")["lost"].isna().all()


def test_references_lie_around_the_origin_each_against_the_mean_of_the_others(study):
    points = trade_off.reference_points(study, "adamw", "ind-a").set_index("model")
    assert len(points) == 8
    assert points["exposure"].mean() == pytest.approx(0) and points["lost"].mean() == pytest.approx(0)
    heldout = study.performance["adamw"].loc[points.index, "heldout"]
    assert points["lost"].iloc[0] == pytest.approx(heldout.iloc[1:].mean() - heldout.iloc[0])


def test_the_base_lies_where_its_own_scores_do_and_nowhere_without_them(study):
    some = study.select(forget_set="ind-a")
    own = [int(study.design.loc[run.model, "base"] > 0) for run in some]
    exposure, lost = trade_off.base_point(study, some)
    by_hand = [study.base.loc[o, r.examples].mean() - r.reference.mean() for o, r in zip(own, some, strict=True)]
    heldout = study.performance["base"]["heldout"]
    by_hand_lost = [runs.reference_performance(study, r) - heldout[o] for o, r in zip(own, some, strict=True)]
    assert exposure == pytest.approx(np.mean(by_hand)) and lost == pytest.approx(np.mean(by_hand_lost))
    assert np.isnan(trade_off.base_point(replace(study, base=pd.DataFrame()), some)).all()


def test_the_placebo_is_read_after_as_many_steps_as_the_in_models_needed_on_average(study):
    table = trade_off.placebo_lost(study, [0.5, 1.0])
    assert set(table["forget_set"]) == {"ind-a", "ood-canary-a"} and len(table) == 2 * 2 * 2
    mean = np.mean([run.k_star for run in study.select(forget_set="ind-a")])
    row = table[(table["forget_set"] == "ind-a") & (table["share"] == 1.0)].iloc[0]
    run = next(r for r in study.select(forget_set="ind-a", role="placebo") if r.model == row["model"])
    assert row["lost"] == pytest.approx(run.lost(mean)) and row["lost"] == pytest.approx(2e-4 * mean**2, rel=0.05)


def test_where_a_loss_is_missing_the_reason_is_counted(study):
    elsewhere = trade_off.retained_lost(study)
    table = words.intervals(elsewhere, "lost", by=["arm", "forget_set", "where"], confidence=0.95)
    alone = table[(table["forget_set"] == "ood-canary-a") & (table["where"] == "same kind")].iloc[0]
    assert alone["n"] == 0 and alone["reason"] == "8 of 8: the model holds no other set of the kind"
    assert (table.loc[table["where"] == "held-out", "reason"] == "").all()


def test_bleu_stands_at_the_states_where_translations_were_scored_and_nowhere_else(study):
    table = trade_off.bleu_table(study)
    assert set(table["state"]) == {"θ0"} and (table["bleu"] == 10).all() and len(table) == len(study.select())
    run = replace(study.select()[0], bleu=pd.Series({0: 8.0, int(study.select()[0].k_star): 6.0}))
    states = trade_off.bleu_table(replace(study, runs=[run])).set_index("state")["bleu"]
    assert states.to_dict() == {"θ0": 8.0, "k*": 6.0}


def test_the_main_figure_has_at_most_five_lines_to_follow_and_names_each_with_its_cost(study, looks):
    fig = trade_off.at_a_glance(study, arms=["adamw"], pair=("ind-a", "ood-canary-a"), looks=looks)
    _, lost = trade_off.paths(study, study.select(forget_set="ind-x16"))
    names = [text.get_text() for text in fig.axes[0].texts]
    assert f"ind-x16 {words.number(lost[:, trade_off.AT].mean(), '.2f')}" in names and len(names) <= 5
    left, right = fig.axes[0].get_xlim()
    assert left > right == 0


def test_the_main_figure_leaves_out_what_was_not_measured(study, looks):
    some = {"arms": ["adamw"], "pair": ("ind-a", "ood-canary-a"), "looks": looks}
    fig = trade_off.at_a_glance(replace(study, base=pd.DataFrame()), **some)
    assert len(fig.axes[0].texts) == 3 and not any("base" in text.get_text() for text in fig.axes[0].texts)
    assert trade_off.at_a_glance(replace(study, performance={}), **some) == "no run of these arms got to k*"


def test_sets_of_one_kind_are_told_by_the_most_repeated_one_and_the_pair(tmp_path):
    fake = FakeStudy(tmp_path, size=4, never=6, followed=3, arms={"adamw": ("adamw", "adamw", NINE_SETS)}).write()
    study = runs.load(fake.root, **fake.settings)
    few = trade_off.few_sets(study, "adamw", ("ind-a", "ood-canary-a"))
    assert few == ["ind-a", "ind-x16", "ood-canary-a", "ood-secret-x16"]


def test_the_figure_of_every_set_turns_its_exposure_axis_round_and_names_references_and_base(study, looks):
    fig = trade_off.every_set(study, arms=["adamw"], order=SETS, looks=looks, confidence=0.95)
    left, right = fig.axes[0].get_xlim()
    assert left > right
    assert {"references", "base model", *SETS} == {text.get_text() for text in fig.legends[0].get_texts()}


def test_a_figure_of_nothing_is_a_reason_in_words(study, looks):
    some = {"arms": ["sgd"], "looks": looks}
    assert trade_off.at_a_glance(study, pair=("ind-a",), **some) == "no run of these arms got to k*"
    assert trade_off.every_set(study, order=SETS, confidence=0.95, **some) == "no run of these arms"
    none = pd.DataFrame(columns=["arm", "forget_set", "estimate"])
    assert trade_off.cross(none, order=SETS, **some) == "no run got to k*"
    assert "not recorded" in trade_off.first_update(none, order=SETS, confidence=0.95, **some)


def test_sets_that_one_arm_alone_unlearned_are_left_out_of_the_crossed_factors(looks):
    rows = [("a", "ind-a"), ("b", "ind-a"), ("a", "ind-x16")]
    table = pd.DataFrame(rows, columns=["arm", "forget_set"]).assign(estimate=0.1, low=0.0, high=0.2)
    fig = trade_off.cross(table, arms=["a", "b"], order=SETS, looks=looks)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["ind-a"]
    assert len(fig.axes[0].containers) == 2


def test_the_first_update_is_drawn_for_the_arms_that_recorded_it(study, looks):
    table = runs.run_table(study)
    fig = trade_off.first_update(table, arms=["adamw", "sgd"], order=SETS, looks=looks, confidence=0.95)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["adamw", ""]


def test_the_smallest_study_has_a_trade_off(tmp_path):
    fake = smoke(tmp_path).write()
    study = runs.load(fake.root, **fake.settings)
    looks = look.looks(study.examples.reset_index(), study.forget_sets)
    assert len(trade_off.at_a_glance(study, arms=["adamw"], pair=("ind-a", "ood-canary-a"), looks=looks).axes) == 1
