"""Metrics without retrained models held against those with them, on a made-up study whose truth is known."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper import exposure, look, metrics, runs
from tests.fake_study import ARMS, FAMILIES, FakeStudy
from unlearning.core import metrics as formulas
from unlearning.core import stand_ins

FEW = {name: FAMILIES[name] for name in ("ind", "ood-canary", "ind-x4")}
ARM = ["adamw"]
RELEARNED = 10  # texts of a set
BY_TOKEN = ("mean probability", "extraction strength", "Min-20 %", "Min-40 %", "Min-20 %++", "Min-40 %++")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Twelve models, three families (two of three draws), one arm."""
    few = {"forget_sets": FEW, "arms": {"adamw": ARMS["adamw"]}, "placebo": ("adamw",), "never": 40}
    study = FakeStudy(tmp_path_factory.mktemp("study"), placebo_models=1, followed=30, **few).write()
    write_extras(study)
    return study


def write_extras(fake):
    """What stage extras writes, of the first run of every draw: at k* an unlearned model has what one that never saw
    the set has; in bfloat16 it gets 1 nat of a text back; relearnt, 4, and the other 2."""
    runs = pd.read_csv(fake.tables / "unlearn/adamw/runs.csv").query("role == 'in'").drop_duplicates("forget_set")
    before = pd.read_parquet(fake.tables / "unlearn/adamw/log_likelihoods.parquet")
    texts, tokens = [], []
    for name, model, k_star in runs[["forget_set", "model", "k_star"]].itertuples(index=False):
        run = before[(before["forget_set"] == name) & (before["model"] == model) & (before["role"] == "in")]
        own, out = fake.group(name), int(np.argmax(fake.signs[name] < 0))
        start, other = fake.likelihood["adamw"][model], fake.likelihood["adamw"][out]
        never = fake.group(f"never-{fake.sets[name]['kind']}")[:8]
        rows = [(model, "in", "along", 0, 0.0, never, start[never]), (out, "out", "along", 0, 0.0, own, other[own]),
                (out, "out", "relearned", 0, 0.0, own, other[own] + 2)]  # fmt: skip
        for share in (0.0, 0.5, 1.0, 1.5):
            step = round(share * k_star)
            scored = run[run["step"] == step].drop_duplicates("example_id").set_index("example_id")["log_likelihood"]
            at = scored[fake.ids[own]].to_numpy() if step else start[own]
            rows.append((model, "in", "along", step, share, own, at))
            if share == 1:
                rows += [
                    (model, "in", s, step, share, own, at + more) for s, more in (("bfloat16", 1), ("relearned", 4))
                ]
        for model_, role, state, step, share, at, scores in rows:
            key = {"arm": "adamw", "trained_with": "adamw", "forget_set": name, "model": model_, "role": role}
            key, values = key | {"state": state, "step": step, "share": share}, np.zeros(len(fake.ids))
            values[at] = scores
            tokens.append(fake._by_token(values, at, key))
            of_text = fake._table(step, at, scores, key)
            each = scores / of_text["n_tokens"]
            texts.append(of_text.assign(wrong=each / 9 - 3, rouge_l=np.exp(each / 4), gradient_norm=-each))
    folder = fake.tables / "extras"
    folder.mkdir()
    pd.concat(texts).to_parquet(folder / "texts.parquet")
    pd.concat(tokens).to_parquet(folder / "tokens.parquet")
    pd.DataFrame({"example_id": fake.ids, "n_bytes": 8 + fake.tokens}).to_parquet(folder / "sizes.parquet")


@pytest.fixture(scope="module")
def study(fake):
    return runs.read_study(fake.root, **fake.settings)


@pytest.fixture(scope="module")
def kept(study, fake):
    return metrics.read_metrics(study, ARM, fake.root)


@pytest.fixture(scope="module")
def values(study, kept):
    return metrics.metric_values(study, kept, ARM)


@pytest.fixture(scope="module")
def table(values):
    return metrics.summary(values, confidence=0.95)


def of(values: pd.DataFrame, run: runs.Run, metric: str) -> pd.Series:
    """Quantity -> value of a run."""
    mine = (values["forget_set"] == run.forget_set) & (values["model"] == run.model) & (values["metric"] == metric)
    return values[mine].set_index("quantity")["value"]


def test_every_metric_has_every_quantity_of_every_run_or_a_reason(values, study):
    n = values.groupby(["metric", "quantity"]).size().unstack()
    assert set(n.index) == set(metrics.METRICS) and list(values["family"].unique()) == list(FEW)
    assert (n[["told", "told_set"]] == 7 * 6).all(axis=None) and (n["over"] == len(study.select())).all()
    assert (values["value"].isna() == (values["reason"] != "")).all()


def test_loss_tells_by_how_often_an_example_is_likelier_than_in_models_without_it(values, study):
    run = study.select(forget_set="ind-b")[0]
    table, holds = study.references["adamw"][run.examples] / run.n_tokens, study.design["ind-b"] > 0
    expected = stand_ins.auc(positives=table.loc[run.model], negatives=table[~holds])
    assert of(values, run, "LOSS")["told"] == pytest.approx(expected)
    means = table.mean(axis=1)
    assert of(values, run, "LOSS")["told_set"] == np.mean(means[run.model] > means[~holds])


def test_metrics_by_token_are_those_of_the_single_texts(kept, fake):
    tokens = pd.read_parquet(fake.tables / "train/adamw/tokens.parquet")
    row = kept.examples["adamw"].iloc[100]
    mine = tokens[(tokens["model"] == row["model"]) & (tokens["example_id"] == row["example_id"])]
    of_text, moments = mine["log_likelihood"].to_numpy(), {name: mine[name].to_numpy() for name in ("mean", "sd")}
    assert row["mean probability"] == pytest.approx(np.exp(of_text).mean())
    assert row["extraction strength"] == pytest.approx(formulas.extraction_strength(mine["correct"].to_numpy(float)))
    assert row["Min-40 %"] == pytest.approx(formulas.min_k(of_text, share=0.4))
    assert row["Min-20 %++"] == pytest.approx(formulas.min_k_plus_plus(of_text, share=0.2, **moments))


def test_states_by_token_are_those_that_were_kept(kept, study):
    run = study.select(forget_set="ood-canary-a")[0]
    states = kept.states.loc[("adamw", run.forget_set, run.model)]
    few = {0, round(run.k_star), run.steps[-1]}
    assert set(states["Min-20 %"].dropna().index) == few | {
        round(x * run.k_star) for x in (0.5, 1.5)
    }  # of stage extras
    second = study.select(forget_set="ood-canary-a")[1]
    other = kept.states.loc[("adamw", second.forget_set, second.model)]
    assert set(other["Min-20 %"].dropna().index) == {0, round(second.k_star), second.steps[-1]}
    assert other["ROUGE-L"].isna().all() and states["ROUGE-L"].notna().sum() == 4
    assert states["LOSS"].notna().all() and states["PrivLeak"].notna().sum() > 3


def test_a_metric_without_an_ideal_takes_over_unlearning_for_progress_and_one_with_retrained_models_does_not(table):
    order = table.set_index(["metric", "family", "quantity"])["estimate"]
    for family in ("ind", "ood-canary"):
        for metric in ("LOSS", "perplexity", *BY_TOKEN):
            assert order[metric, family, "under"] > 0.9 and order[metric, family, "over"] < -0.9, metric
        assert order["forget quality", family, "over"] > 0.5 and order["PrivLeak", family, "under"] > 0.5


def test_relative_exposure_stops_where_the_notebook_of_exposure_says(values, study):
    for run in study.select()[::5]:
        stops = exposure.stops(study, run).set_index("reading")
        for reading in exposure.READINGS:
            got = of(values, run, f"RelEx by {reading}")
            assert got["steps_off"] == pytest.approx(stops["steps_off"][reading], nan_ok=True)
            assert got["left"] == pytest.approx(stops["exposure_left"][reading], nan_ok=True)


def test_loss_stops_where_the_set_is_as_likely_as_never_trained_texts_were_at_the_start(values, study):
    run = study.select(forget_set="ind-a")[0]
    never = study.never_trained("ind-a")
    level = -np.mean(study.references["adamw"].loc[run.model, never] / study.examples["n_tokens"][never])
    loss = -(run.log_likelihoods / run.n_tokens).mean(axis=1)
    after = int(np.argmax(loss >= level))
    stop = of(values, run, "LOSS")["steps_off"] + run.k_star
    assert run.steps[after - 1] <= stop <= run.steps[after]
    lost = run.lost([stop, run.k_star])
    assert of(values, run, "LOSS")["paid"] == pytest.approx(lost[0] - lost[1])


def test_exposure_by_rank_is_that_of_the_notebook_of_exposure(kept, study):
    run = study.select(forget_set="ood-canary-b")[0]
    never = run.followed.columns
    few = replace(study, examples=study.examples.drop(set(study.never_trained("ood-canary-b")) - set(never)))
    bits = exposure.ranks(few, "ood-canary-b", exposure.full_states(few, run))["bits"]
    assert kept.states.loc[("adamw", "ood-canary-b", run.model), "exposure by rank"][0] == pytest.approx(bits[0])


def test_what_a_metric_lacks_is_its_reason(values, study, fake, tmp_path):
    why = values[values["value"].isna()].groupby(["metric", "quantity"])["reason"].agg(set)
    assert why["PrivLeak", "told"] == {"one value a set"}
    assert any("exchangeable" in reason for reason in why["exposure by rank", "over"])  # of sentences
    assert why["Min-20 %", "steps_off"] == {"needs scores by token"}  # of never-trained texts
    assert why["ROUGE-L", "under"] == why["ROUGE-L", "told"] == {"needs a run that stage extras measured"}
    for name in ("train/adamw", "unlearn/adamw"):
        (tmp_path / "results/tables" / name).mkdir(parents=True)
        path = f"results/tables/{name}/log_likelihoods.parquet"
        (tmp_path / path).symlink_to(fake.root / path)
    lacking = replace(study, base=study.base * np.nan)
    without = metrics.metric_values(lacking, metrics.read_metrics(lacking, ARM, tmp_path), ARM)
    lost = without.groupby("metric")["value"].apply(lambda x: x.isna().all())
    assert set(lost.index[lost]) == {*BY_TOKEN, *metrics.ONLY, "zlib", "RelEx by checkpoint"}
    assert metrics.robustness(lacking, metrics.read_metrics(lacking, ARM, tmp_path), relearned=9).empty
    reasons = without.loc[without["metric"] == "RelEx by checkpoint", "reason"]
    assert set(reasons) == {"needs scores of the base models"}


def test_a_run_that_did_not_get_to_k_star_has_no_order_and_no_stop(study, kept):
    run = study.select()[0]
    short = replace(run, scores=run.scores.iloc[:3])
    found = [row for row in metrics._order_and_stop(study, kept, short) if row[0] == "LOSS"]
    assert {why for _, quantity, _, why in found if quantity != "left"} == {"the run did not get to k*"}


def test_the_ranking_is_a_mean_over_draws_of_what_its_score_says(values):
    ranked = metrics.ranking(values, ["ind", "ood-canary"], confidence=0.95)
    assert list(ranked["estimate"]) == sorted(ranked["estimate"], reverse=True) and ranked["n"].max() == 6
    mine = values[(values["metric"] == "LOSS") & (values["family"] != "ind-x4")]
    means = mine.groupby(["forget_set", "quantity"])["value"].mean().unstack()
    score = (2 * means["told_set"] - 1 + means["under"] + means["over"]) / 3
    row = ranked.set_index("metric").loc["LOSS"]
    assert row["estimate"] == pytest.approx(score.mean()) and row["told"] == pytest.approx(means["told"].mean())
    assert row["off"] >= abs(means["steps_off"].mean())


def test_a_failure_is_an_interval_clear_of_what_is_right_in_all_arms():
    rows = [("a", "m", "over", -0.9, -0.5), ("b", "m", "over", -0.9, -0.1), ("a", "m", "steps_off", 1.0, 3.0),
            ("b", "m", "steps_off", -1.0, 3.0), ("a", "m", "told", 0.4, 0.9), ("a", "n", "told", 0.6, 0.9),
            ("a", "n", "steps_off", np.nan, np.nan), ("a", "n", "under", -0.5, 0.1)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["arm", "metric", "quantity", "low", "high"]).assign(family="f")
    found = set(metrics.failures(table)[["metric", "failure"]].itertuples(index=False, name=None))
    assert found == {("m", "takes over-unlearning for progress"), ("m", "tells examples no better than chance")}


def test_a_card_is_three_panels_and_four_sentences(table, study, fake):
    looks = look.only(look.looks(fake.forget_sets), study.families)
    fig = metrics.card(table, "LOSS", looks)
    assert [len(ax.containers) for ax in fig.axes] == [3, 6, 3]
    said = metrics.sentences(table, "LOSS", ["ind", "ood-canary"])
    assert len(said) == 4 and "takes over-unlearning for progress (ind, ood-canary)" in said[3]
    assert "examples one value a set, sets 1.00" in metrics.sentences(table, "PrivLeak", ["ind"])[0]
    assert metrics.card(table[table["metric"] == "none"], "LOSS", looks) == "no run has a value"


def test_metrics_of_stage_extras_tell_order_and_stop_in_its_runs(values, study):
    run = study.select(forget_set="ind-a")[0]
    for metric in metrics.ONLY:
        found = of(values, run, metric)
        assert found["told"] > 0.5 and np.isfinite(found[["under", "over"]]).all(), metric
    assert np.isfinite(of(values, run, "Min-20 %")["steps_off"])  # never-trained texts were scored by token
    assert of(values, run, "ROUGE-L")["under"] == of(values, run, "gradient norm")["under"] == 1


def test_zlib_is_the_loss_over_the_compressed_size(kept):
    row = kept.examples["adamw"].iloc[7]
    n = round(-row["log_likelihood"] / row["LOSS"])
    assert row["zlib"] == pytest.approx(row["LOSS"] / (8 + n))


def test_robustness_is_what_was_made_up(study, kept):
    found = metrics.robustness(study, kept, relearned=RELEARNED)
    assert len(found.groupby(["forget_set", "model"])) == 7
    by = found[found["forget_set"] == "ind-a"].set_index(["metric", "quantity"])["value"]
    assert by["GenEx", "relearning"] == pytest.approx(0.5) == by["GenEx", "never_relearned"] / 4
    assert by["GenEx", "bfloat16"] - by["GenEx", "k_star"] == pytest.approx(1)
    assert by["ROUGE-L", "precision"] < 1 and by["LOSS", "relearning"] == pytest.approx(0.5, abs=0.1)


def test_no_limit_of_an_interval_leaves_the_range_of_its_quantity(table):
    for quantity, (low, high) in {"told": (0, 1), "under": (-1, 1), "over": (-1, 1)}.items():
        rows = table[table["quantity"] == quantity].dropna(subset="low")
        assert rows["low"].min() >= low and rows["high"].max() <= high, quantity


def test_both_short_ways_are_the_long_ones():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (3, 20)), rng.integers(2, 11, (4, 20))
    expected = [stand_ins.auc(positives=row, negatives=b) for row in a]
    np.testing.assert_allclose(metrics._areas(a, b), expected)
    assert metrics._tau(a[0], b[0]) == pytest.approx(stats.kendalltau(a[0], b[0]).statistic)
    assert np.isnan(metrics._tau(np.ones(4), np.arange(4))) and np.isnan(metrics._tau(np.ones(1), np.ones(1)))


def test_one_example_no_never_trained_text_ties_and_nan_have_values_or_reasons(study, kept):
    run = study.select(forget_set="ind-a")[0]
    alone = metrics.set_metrics(study, "adamw", "ind-a", run.scores.iloc[:, :1], run.followed.iloc[:, :0])
    assert list(alone) == ["forget quality"] and np.isfinite(alone["forget quality"]).all()
    key = ("adamw", "ind-a", run.model)
    states = kept.states.copy()
    states.loc[key, "LOSS"] = 2.0
    states.loc[key, "zlib"] = np.nan
    rows = metrics._order_and_stop(study, kept._replace(states=states), run)
    why = {(metric, quantity): reason for metric, quantity, _, reason in rows}
    assert why["LOSS", "under"] == "one state, or the same value in all"
    assert why["zlib", "over"] == why["zlib", "steps_off"] == "needs compressed sizes"
    lacking = kept.examples["adamw"].copy()
    first = (lacking["forget_set"] == "ind-a") & (lacking["model"] == run.model)
    lacking.loc[first.idxmax(), "LOSS"] = np.nan
    told = [row for row in metrics._tells(study, kept._replace(examples={"adamw": lacking}), "adamw", "ind-a")
            if row[:2] == (run.model, "LOSS")]  # fmt: skip
    assert [(np.isnan(row[3]), row[4]) for row in told] == [(True, "needs log-likelihoods")] * 2
