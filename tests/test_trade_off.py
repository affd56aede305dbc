"""What forgetting costs, on a made-up study whose losses are known."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from paper import look, runs, trade_off, words
from tests.fake_study import STEEP, FakeStudy, smoke

ARMS = ["adafactor-restored", "adamw"]
PAIR = ("ind", "ood-canary")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Twelve models, six families (two of three draws, two repeated), two arms with placebos and one with few draws."""
    return FakeStudy(tmp_path_factory.mktemp("study"), never=20, followed=6).write()


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def inside(study):
    return runs.run_table(study).query("role == 'in'")


@pytest.fixture(scope="module")
def looks(fake):
    return look.looks(fake.forget_sets)


def without_base(study: runs.Study) -> runs.Study:
    performance = {name: table for name, table in study.performance.items() if name != "base"}
    return replace(study, base=study.base * np.nan, performance=performance)


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        look.use_style()
        yield
    plt.close("all")


def test_a_path_starts_at_the_exposure_of_the_original_and_has_none_left_at_k_star(study):
    some = study.select(arm="adamw", forget_set="ind-a")
    exposure, lost = trade_off.paths(study, some)
    assert exposure.shape == lost.shape == (4, len(trade_off.SHARES))
    assert exposure[:, 0] == pytest.approx([run.exposure[0].mean() for run in some])
    assert trade_off.SHARES[trade_off.AT] == 1 and np.abs(exposure[:, trade_off.AT]).max() < 1e-9
    assert (lost[:, trade_off.AT + 2] > lost[:, trade_off.AT]).all()  # 1.125 k*


def test_a_path_counts_from_the_reference_and_says_at_k_star_what_all_sentences_say(study, inside):
    run = study.select(arm="adamw", forget_set="ind-a")[0]
    _, ((*_, lost),) = trade_off.paths(study, [run])[0], trade_off.paths(study, [run])[1][:, : trade_off.AT + 1]
    own = study.performance["adamw"].loc[run.model, "heldout"]
    gap = runs.reference_performance(study, run) - own
    assert lost == pytest.approx(gap + run.lost_heldout(1.0))
    row = inside[(inside["arm"] == run.arm) & (inside["forget_set"] == "ind-a") & (inside["model"] == run.model)]
    assert lost == pytest.approx(row["lost_to_references"].item(), abs=2e-3)
    assert abs(run.lost_heldout(1.0) - run.lost(run.k_star)) > 1e-5  # the first sentences alone say something else


def test_a_path_goes_on_with_the_followed_sentences_where_not_all_were_scored(study):
    run = study.select(arm="adamw", forget_set="ind-a")[0]
    alone = replace(run, sentences=run.sentences.iloc[:0])
    _, lost = trade_off.paths(study, [alone])
    assert lost[0, trade_off.AT] - lost[0, 0] == pytest.approx(run.lost(run.k_star))


def test_a_run_without_k_star_is_followed_to_its_last_step(study):
    run = study.select(arm="adamw", forget_set="ind-a")[0]
    cut = replace(run, scores=run.scores.iloc[:5])
    exposure, _ = trade_off.paths(study, [cut])
    assert np.isnan(cut.k_star) and exposure[0, -1] == pytest.approx(cut.set_exposure.iloc[-1])


def test_without_scores_of_held_out_text_a_path_has_exposure_and_no_loss(study):
    none = replace(study, performance={})
    exposure, lost = trade_off.paths(none, none.select(arm="adamw", forget_set="ind-a"))
    assert np.isfinite(exposure[:, : trade_off.AT]).all() and np.isnan(lost).all()
    assert trade_off.reference_points(none, "adamw", "ind-a")["lost"].isna().all()


def test_references_are_points_each_against_the_mean_of_the_others(study):
    points = trade_off.reference_points(study, "adamw", "ind-a")
    outside = study.models("ind-a", "adamw", inside=False)
    assert list(points["model"]) == outside
    means = study.held_by("ind-a", "adamw", inside=False).mean(axis=1)
    lost = study.performance["adamw"]["heldout"]
    first, others = outside[0], outside[1:]
    assert points["exposure"].iloc[0] == pytest.approx(means[first] - means[others].mean())
    assert points["lost"].iloc[0] == pytest.approx(lost[others].mean() - lost[first])


def test_going_back_to_the_base_is_measured_against_the_same_references(study):
    some = study.select(arm="adamw", forget_set="ind-a")
    exposure, lost = trade_off.base_point(study, some)
    own = [int(study.design.loc[run.model, "base"] > 0) for run in some]
    by_hand = [study.base.loc[o, r.examples].mean() - r.reference.mean() for o, r in zip(own, some, strict=True)]
    heldout = study.performance["base"]["heldout"]
    by_hand_lost = [runs.reference_performance(study, r) - heldout[o] for o, r in zip(own, some, strict=True)]
    assert exposure == pytest.approx(np.mean(by_hand)) and lost == pytest.approx(np.mean(by_hand_lost))
    assert np.isnan(trade_off.base_point(without_base(study), some)).all()


def test_the_placebo_is_read_after_as_many_steps_as_the_in_models_needed_on_average(study, fake):
    table = trade_off.placebo_lost(study, [0.5, 1.0])
    assert set(table["family"]) == set(fake.families) and set(table["arm"]) == set(ARMS)
    mean = np.mean([run.k_star for run in study.select(arm="adamw", forget_set="ind-a")])
    row = table[(table["arm"] == "adamw") & (table["forget_set"] == "ind-a") & (table["share"] == 1.0)].iloc[0]
    run = next(r for r in study.select(arm="adamw", forget_set="ind-a", role="placebo") if r.model == row["model"])
    assert row["lost"] == pytest.approx(run.lost(mean)) and row["lost"] == pytest.approx(
        STEEP["natural"] * mean**2, rel=1
    )


def test_where_a_loss_is_missing_the_reason_is_counted(study, inside):
    elsewhere = trade_off.retained_lost(study)
    table = words.means(elsewhere, "lost", by=["arm", "family", "where"], confidence=0.95)
    alone = table[(table["family"] == "ood-shuffled") & (table["where"] == "same kind")].iloc[0]
    assert alone["n"] == 0 and alone["reason"] == "4 of 4: the model holds no other set of the kind"
    at_k_star = elsewhere[elsewhere["where"] == "held-out"].merge(inside, on=[*runs.BY, "family"])
    np.testing.assert_allclose(at_k_star["lost"], at_k_star["lost_100"], atol=5e-4)


def test_the_main_figure_names_each_family_with_its_cost_and_the_pairs_placebo_beside_it(study, looks):
    fig = trade_off.at_a_glance(study, arms=["adamw"], pair=PAIR, looks=looks)
    names = [text.get_text() for text in fig.axes[0].texts]
    draws = [trade_off.paths(study, study.select(arm="adamw", forget_set=f"ind-{c}"))[1] for c in "abc"]
    cost = np.mean([lost[:, trade_off.AT].mean() for lost in draws])
    assert f"ind {words.number(cost, '.2f')}" in names and len(names) <= 7
    placebo = trade_off.placebo_lost(study, [1.0]).query("arm == 'adamw' and family == 'ind'")
    unseen = placebo.groupby("forget_set")["lost"].mean().mean()
    assert f"○ ind {words.number(unseen, '.2f')}" in names
    left, right = fig.axes[0].get_xlim()
    assert left > right == 0


def test_the_main_figure_leaves_out_what_was_not_measured(study, looks):
    some = {"arms": ["adamw"], "pair": PAIR, "looks": looks}
    bare = replace(without_base(study), runs=study.select())
    fig = trade_off.at_a_glance(bare, **some)
    names = [text.get_text() for text in fig.axes[0].texts]
    assert len(names) == 4 and not any("base" in name or "○" in name for name in names)
    assert trade_off.at_a_glance(replace(study, performance={}), **some) == "no run of these arms got to k*"
    both = trade_off.at_a_glance(study, **some | {"arms": ["nobody", "adamw"]})
    assert [ax.get_title(loc="left") for ax in both.axes] == ["arm adamw"]


def test_kinds_are_told_by_their_most_repeated_family_and_the_pair(study):
    assert trade_off.few_families(study, "adamw", PAIR) == ["ind", "ood-canary", "ind-x4", "ood-secret-x16"]
    assert trade_off.few_families(study, "sgd", PAIR) == list(PAIR)


def test_the_figure_of_every_draw_turns_its_exposure_axis_round_and_names_references_and_base(study, inside, looks):
    panels = {name: [("adamw", name)] for name in study.families}
    fig = trade_off.every_draw(study, inside, panels, looks)
    shown = [ax for ax in fig.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == list(study.families)
    left, right = shown[0].get_xlim()
    assert left > right
    assert {"references", "base model", *study.families} == {text.get_text() for text in fig.legends[0].get_texts()}
    thin = [line for line in shown[0].lines if line.get_linewidth() == 0.5]
    assert len(thin) == 3  # draws, not runs


def test_a_figure_of_nothing_is_a_reason_in_words(study, looks):
    assert trade_off.at_a_glance(study, arms=["nobody"], pair=PAIR, looks=looks) == "no run of these arms got to k*"
    none = runs.run_table(replace(study, runs=[]))
    assert trade_off.every_draw(study, none, {"a": [("nobody", "ind")]}, looks) == "no run of these arms"
    assert trade_off.cross(none, arms=ARMS, families=PAIR, confidence=0.95) == "there is no run to show"
    assert "not recorded" in trade_off.first_update(none, arms=ARMS, looks=looks, confidence=0.95)
    assert "differ in repetitions" in trade_off.repetition(study, none, looks)


def test_factors_are_crossed_on_the_draws_that_every_arm_unlearned(study, inside):
    fig = trade_off.cross(inside, arms=[*ARMS, "sgd"], families=list(study.families), confidence=0.95)
    assert [ax.get_title() for ax in fig.axes] == ["ind", "ood-canary"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == [*ARMS, "sgd"]
    sizes = [len(bars.lines[0].get_xdata()) for bars in fig.axes[0].containers]
    assert sorted(sizes) == [1, 1, 1, 2, 2, 2]  # of the three draws, the two of the third arm
    alone = trade_off.cross(inside[inside["arm"] == "sgd"], arms=["sgd"], families=PAIR, confidence=0.95)
    assert alone == "there is no run to show"


def test_repetition_strata_are_compared_at_equal_nats_removed(study):
    equal = trade_off.at_equal_removal(study)
    assert set(equal["kind"]) == {"natural", "secret"} and set(equal["arm"]) == set(ARMS)
    mine = equal[(equal["arm"] == "adamw") & (equal["kind"] == "natural")]
    nats = np.mean([run.exposure[0].mean() for run in study.select(arm="adamw", family="ind")])
    assert mine["nats"].to_numpy() == pytest.approx(nats) and set(mine["family"]) == {"ind", "ind-x4"}
    run = study.select(arm="adamw", family="ind-x4")[0]
    removed = run.log_likelihoods[0].mean() - run.log_likelihoods.mean(axis=1)
    expected = run.lost(np.interp(nats, removed, run.steps))
    row = mine[(mine["family"] == "ind-x4") & (mine["model"] == run.model)]
    assert row["lost"].item() == pytest.approx(float(expected))


def test_all_that_a_run_has_to_lose_costs_what_k_star_costs(study):
    run = study.select(arm="adamw", forget_set="ind-a")[0]
    assert trade_off.lost_at_removed(run, run.exposure[0].mean()) == pytest.approx(float(run.lost(run.k_star)))


def test_repetition_is_drawn_for_kinds_with_several_numbers_of_it(study, inside, looks):
    fig = trade_off.repetition(study, inside, looks)
    assert len(fig.axes) == 4
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["sentences", "secrets"]
    assert [label.get_text() for label in fig.axes[-1].get_xticklabels()] == ["1", "4", "16"]


def test_the_first_update_is_drawn_for_the_arms_that_recorded_it(study, inside, looks):
    families = look.only(looks, study.families)
    fig = trade_off.first_update(inside, arms=["adamw", "nobody"], looks=families, confidence=0.95)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["adamw", ""]


def test_the_smallest_study_has_a_trade_off(tmp_path):
    small = smoke(tmp_path).write()
    study = runs.read_study(small.root, **small.settings)
    looks = look.looks(small.forget_sets)
    assert len(trade_off.at_a_glance(study, arms=["adamw"], pair=PAIR, looks=looks).axes) == 1


def test_without_any_run_tables_have_their_columns(study):
    none = replace(study, runs=[])
    assert list(trade_off.placebo_lost(none, [1.0])) == [*runs.BY, "family", "share", "lost"]
    assert list(trade_off.retained_lost(none)) == [*runs.BY, "family", "where", "lost", "reason"]
    assert list(trade_off.at_equal_removal(none)) == [*runs.BY, "family", "kind", "nats", "lost"]
