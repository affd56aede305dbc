"""Metrics that need no retrained model, held against models that were: do they tell and order, and where do they stop?

A metric has one value an example (a set's is their mean) or, in OF_SETS, one a set. Tables of examples and states have
one column a metric; that of values has a row a metric, model and quantity. Arms, families, runs: see `paper.runs`.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paper import look, marks, words
from paper.exposure import EXCHANGEABLE, LEAST_POPULATION
from paper.look import Looks
from paper.runs import BY, Array, Run, Study, plain
from unlearning.core import genex, metrics, performance, stand_ins
from unlearning.data import kinds

QUANTITIES = {  # of a metric -> unit
    "told": "AUC",  # of examples in a model that holds the set, against those in models that never saw it, at θ0
    "told_set": "AUC",  # of set means
    "under": "rank correlation",  # of how bad a state looks with its |GenEx|, over the states up to k*
    "over": "rank correlation",  # from k* on
    "steps_off": "steps",  # where its users would have stopped, minus k*
    "left": "nats",  # GenEx there
    "paid": "nats per token",  # held-out lost there, minus that at k*
}


BOUNDS = {"AUC": (0.0, 1.0), "rank correlation": (-1.0, 1.0)}  # that no limit passes


class Metric(NamedTuple):
    """How a metric is read."""

    known: int = 1  # the sign of what a known set has more of
    ideal: float = np.nan  # where nobody trained on the set, by definition; NaN: the less known, the better
    stop: float = np.nan  # where its users stop; NaN: at its mean over never-trained texts of the kind under θ0
    needs: str = "scores by token"


KNOWN = "exact memorization"
SUM, NEVER, SAMPLE = "log-likelihoods", "never-trained texts of the kind", "a run that stage extras measured"
METRICS = {
    "mean probability": Metric(),
    "perplexity": Metric(-1, needs=SUM),
    KNOWN: Metric(needs="counts of right tokens"),
    "extraction strength": Metric(),
    "LOSS": Metric(-1, needs=SUM),
    "zlib": Metric(-1, needs="compressed sizes"),
    **dict.fromkeys(("Min-20 %", "Min-40 %", "Min-20 %++", "Min-40 %++"), Metric()),
    **dict.fromkeys(ONLY := ("ROUGE-L", "gradient norm", "truth ratio"), Metric(-1, needs=SAMPLE)),
    "ROUGE-L": Metric(needs=SAMPLE),
    "RelEx by population": Metric(1, 0.0, 0.0, NEVER),
    "RelEx by checkpoint": Metric(1, 0.0, 0.0, "scores of the base models"),
    "RelEx by original": Metric(1, 0.0, 0.0, SUM),
    "exposure by rank": Metric(1, 1 / np.log(2), 1 / np.log(2), f"exchangeable {NEVER}"),
    "PrivLeak": Metric(-1, 0.0, 0.0, f"{NEVER}, and retrained models"),
    "forget quality": Metric(-1, 0.0, np.log10(0.05), "retrained models"),  # log10 p
}
RATIOS = ("mean probability", KNOWN, "extraction strength", "ROUGE-L")  # with a zero of their own
OF_SETS = ("RelEx by population", "exposure by rank", "PrivLeak", "forget quality")


class Kept(NamedTuple):
    """examples: in every model at θ0, by trained_with. states: of sets, by BY and step, with `exposure`, GenEx in nats.
    unseen: means of never-trained texts at θ0, by BY. sampled: texts that stage extras measured, none if it did not."""

    examples: dict[str, pd.DataFrame]
    states: pd.DataFrame
    unseen: dict[tuple, dict[str, float]]
    sampled: pd.DataFrame


def read_metrics(study: Study, arms: Sequence[str], root: str | Path = ".") -> Kept:
    """All metrics of the in-models of some arms that have runs, and of all models of their trainings."""
    tables, group, keys = Path(root) / "results/tables", study.examples["forget_set"], ["forget_set", "model", "step"]
    sizes, sampled = _n_bytes(study, tables / "extras"), _sampled(study, tables / "extras")
    examples, states, unseen, never = {}, {}, {}, {}
    for arm in arms:
        some = study.select(arm=arm)
        name = some[0].trained_with
        extra = sampled[(sampled["trained_with"] == name) & (sampled["state"] == "along")]
        own = extra[extra["example_id"].map(group) == extra["forget_set"]]
        if name not in examples:
            rows = _scores(tables / "train" / name, ["model"])
            rows = example_metrics(study, name, rows.assign(forget_set=rows["example_id"].map(group)), sizes)
            never[name] = _means(rows[rows["forget_set"].isin(kinds.POPULATIONS)], ["forget_set", "model"])
            rows = rows[rows["forget_set"].isin(study.forget_sets)]
            by_token, key = token_metrics(tables / "train" / name, ["model"]), ["model", "example_id"]
            start = own[own["step"] == 0].drop_duplicates(key)[[*key, *ONLY]]
            examples[name] = rows.merge(by_token, on=key, how="left").merge(start, on=key, how="left")
        rows = _scores(tables / "unlearn" / arm, [*keys, "role"]).query("role == 'in'")
        rows = example_metrics(study, name, rows[rows["example_id"].map(group) == rows["forget_set"]], sizes)
        along = pd.concat({(run.forget_set, run.model): _along(study, run) for run in some}, names=keys)
        of_tokens = _means(own[(own["arm"] == arm) & (own["role"] == "in")], keys)
        of_tokens = of_tokens[of_tokens.columns.difference(_metrics(rows), sort=False)]
        if len(by_token := token_metrics(tables / "unlearn" / arm, keys)):
            before = examples[name].reindex(columns=[*keys[:2], *_metrics(by_token)]).assign(step=0)
            of_tokens = of_tokens.combine_first(_means(pd.concat([by_token, before]), keys))
        states[arm] = _means(rows, keys).join([along, of_tokens])
        extra = extra[(extra["arm"] == arm) & (extra["example_id"].map(group) != extra["forget_set"])]
        levels = [_means(extra, keys[:2]).to_dict("index"), never[name].to_dict("index")]
        for run in some:
            like = kinds.population(study.kind(run.forget_set)), run.model
            few, all_of_them = levels[0].get((run.forget_set, run.model), {}), levels[1].get(like, {})
            unseen[arm, run.forget_set, run.model] = few | all_of_them
    return Kept(examples, pd.concat(states).sort_index(), unseen, sampled)


def _n_bytes(study: Study, folder: Path) -> Array:
    # of each target's compressed text; NaN where stage extras did not run
    table = pd.read_parquet(path) if (path := folder / "sizes.parquet").exists() else {"example_id": [], "n_bytes": []}
    sizes = pd.Series(np.asarray(table["n_bytes"], dtype=float), np.asarray(table["example_id"], dtype=str))
    return sizes.reindex(study.examples.index).to_numpy()


def _sampled(study: Study, folder: Path) -> pd.DataFrame:
    # texts of stage extras by its keys: what is read by token, and ONLY
    keys = ["arm", "trained_with", "forget_set", "model", "role", "state", "step"]
    if not (folder / "texts.parquet").exists():
        return pd.DataFrame(columns=[*keys, "example_id", "log_likelihood", *ONLY])
    rows = plain(pd.read_parquet(folder / "texts.parquet")).merge(token_metrics(folder, keys), on=[*keys, "example_id"])
    right = rows["log_likelihood"] / rows["n_tokens"]
    wrong = metrics.truth_ratio(perturbed=rows["wrong"].to_numpy()[:, None], paraphrased=right.to_numpy())
    known = metrics.exact_memorization(rows["n_correct"], n_tokens=rows["n_tokens"])
    named = rows.rename(columns={"rouge_l": "ROUGE-L", "gradient_norm": "gradient norm"})
    return named.assign(**{"truth ratio": wrong, "LOSS": -right, KNOWN: known})


def _scores(folder: Path, keys: Sequence[str]) -> pd.DataFrame:
    columns = [*keys, "example_id", "log_likelihood", "n_correct"]
    return plain(pd.read_parquet(folder / "log_likelihoods.parquet", columns=columns))


def _metrics(table: pd.DataFrame) -> list[str]:
    return [name for name in METRICS if name in table]


def _means(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    return rows.groupby(list(keys))[_metrics(rows)].mean()


def example_metrics(study: Study, trained_with: str, rows: pd.DataFrame, n_bytes: Array) -> pd.DataFrame:
    """Rows of a log_likelihoods table (model, example_id, log_likelihood, n_correct) with what their sums give.
    n_bytes: of each example of the study, compressed."""
    place, table = study.examples.index.get_indexer(rows["example_id"]), study.references[trained_with]
    n_tokens, values = study.examples["n_tokens"].to_numpy()[place], rows["log_likelihood"].to_numpy(dtype=float)
    base = study.base.to_numpy()[(study.design["base"].loc[rows["model"]] > 0).to_numpy().astype(int), place]
    original = table.to_numpy()[table.index.get_indexer(rows["model"]), place]
    return rows.assign(**{
        "perplexity": metrics.perplexity(values, n_tokens=n_tokens),
        KNOWN: metrics.exact_memorization(rows["n_correct"], n_tokens=n_tokens),
        "LOSS": metrics.token_loss(values, n_tokens=n_tokens),
        "zlib": metrics.zlib_ratio(values, n_tokens=n_tokens, n_bytes=n_bytes[place]),
        "RelEx by checkpoint": stand_ins.relative_exposure_checkpoint(unlearned=values, base=base),
        "RelEx by original": stand_ins.relative_exposure_original(unlearned=values, original=original),
    })  # fmt: skip


def token_metrics(folder: Path, keys: Sequence[str]) -> pd.DataFrame:
    """One row for each of `keys` and example_id of a folder's tokens table; no row where there is none."""
    path = folder / "tokens.parquet"
    rows = plain(pd.read_parquet(path)) if path.exists() else pd.DataFrame(columns=[*keys, "example_id", "position"])
    if not len(rows):
        return rows[[*keys, "example_id"]]
    row = rows.groupby([*keys, "example_id"], sort=False).ngroup().to_numpy()
    grids = {}
    for name in ("log_likelihood", "correct", "mean", "sd"):  # (texts, T), NaN past the end
        grids[name] = np.full((row.max() + 1, rows["position"].max() + 1), np.nan)
        grids[name][row, rows["position"]] = rows[name]
    tokens, correct, moments = grids.pop("log_likelihood"), grids.pop("correct"), grids
    found = rows[[*keys, "example_id"]].iloc[np.unique(row, return_index=True)[1]].reset_index(drop=True)
    found["mean probability"] = metrics.mean_token_probability(tokens)
    found["extraction strength"] = metrics.extraction_strength(correct)
    for share in (0.2, 0.4):
        found[f"Min-{100 * share:.0f} %"] = metrics.min_k(tokens, share=share)
        found[f"Min-{100 * share:.0f} %++"] = metrics.min_k_plus_plus(tokens, share=share, **moments)
    return found


def set_metrics(study: Study, trained_with: str, name: str, scores: pd.DataFrame, never: pd.DataFrame) -> pd.DataFrame:
    """OF_SETS by state. scores: states × the set's examples, never: some of the states × never-trained texts, nats."""
    tokens, out = study.examples["n_tokens"], study.held_by(name, trained_with, inside=False)
    own, like = tokens[scores.columns].to_numpy(), tokens[never.columns].to_numpy()
    p = metrics.forget_quality(scores.to_numpy() / own, reference=out.to_numpy() / own)
    found = pd.DataFrame({"forget quality": np.log10(np.maximum(p, 1e-300))}, index=scores.index)
    if not never.size:
        return found

    def areas(inside: pd.DataFrame, beside: pd.DataFrame) -> list[float]:  # LOSS of the set against those texts
        pairs = zip(inside.to_numpy() / own, beside.to_numpy() / like, strict=True)
        return [stand_ins.auc(positives=a, negatives=b) for a, b in pairs]

    some = scores.loc[never.index]
    both = {"n_tokens": own, "never_trained": never.to_numpy(), "never_trained_n_tokens": like}
    more = {"RelEx by population": stand_ins.relative_exposure_population(forget_set=some.to_numpy(), **both)}
    reference = areas(out, study.references[trained_with].loc[out.index, never.columns])
    more["PrivLeak"] = metrics.privleak(areas(some, never), reference=np.mean(reference or [np.nan]))
    if study.kind(name) in EXCHANGEABLE:
        pairs = zip(some.to_numpy(), never.to_numpy(), strict=True)
        more["exposure by rank"] = [_bits(x, own, y, like) for x, y in pairs]
    return found.join(pd.DataFrame(more, index=never.index))


def _bits(values: Array, n_tokens: Array, never: Array, never_tokens: Array) -> float:
    # mean exposure by rank of a set in one state, among texts of the same length; NaN where these are too few
    bits = [stand_ins.exposure_by_rank(log_likelihoods=values[n_tokens == k], never_trained=never[never_tokens == k])
            for k in np.unique(n_tokens) if np.sum(never_tokens == k) >= LEAST_POPULATION]  # fmt: skip
    return float(np.mean(np.concatenate(bits))) if bits else np.nan


def _along(study: Study, run: Run) -> pd.DataFrame:
    # at the states at which never-trained texts were scored, where there are any
    never = run.followed[run.followed.index.isin(run.steps)]
    scores = run.scores.loc[never.index] if never.size else run.scores
    found = set_metrics(study, run.trained_with, run.forget_set, scores, never)
    return found.reindex(run.steps).assign(exposure=run.set_exposure)


def metric_values(study: Study, kept: Kept, arms: Sequence[str]) -> pd.DataFrame:
    """QUANTITIES of every metric: BY, family, metric, quantity, value, or the reason why there is none. `told` and
    `told_set` are of all models that hold the set in the arm's training, the others of those unlearned in the arm."""
    rows = []
    for arm in arms:
        for run in {run.forget_set: run for run in study.select(arm=arm)}.values():
            rows += [(arm, run.forget_set, *row) for row in _tells(study, kept, run.trained_with, run.forget_set)]
        for run in study.select(arm=arm):
            rows += [(arm, run.forget_set, run.model, *row) for row in _order_and_stop(study, kept, run)]
    table = pd.DataFrame(rows, columns=[*BY, "metric", "quantity", "value", "reason"])
    return table.assign(family=table["forget_set"].map(study.family))


def _tells(study: Study, kept: Kept, trained_with: str, name: str) -> list[tuple]:
    # model, metric, quantity, AUC, reason: of each model that holds a set
    table, rows = study.references[trained_with], kept.examples[trained_with]
    rows, holds = rows[rows["forget_set"] == name], (study.design.loc[table.index, name] > 0).to_numpy()
    of_sets = set_metrics(study, trained_with, name, table[study.members(name)], table[study.never_trained(name)])
    wide = rows.pivot(index="model", columns="example_id", values=_metrics(rows)).reindex(table.index)
    found = []
    for metric, read in METRICS.items():
        one, none = metric in OF_SETS, np.full((len(table), 1), np.nan)
        if one:
            values = of_sets[[metric]].to_numpy() if metric in of_sets else none
        else:
            values = wide[metric].to_numpy(dtype=float) if metric in rows else none
        values = read.known * values
        of_set = values.mean(axis=1)
        known, never = np.isfinite(of_set), ~holds & np.isfinite(of_set)
        areas = {"told": _areas(values, values[never]), "told_set": _areas(of_set[:, None], of_set[never])}
        for at, quantity in product(np.flatnonzero(holds), areas):
            why = "" if known[at] and never.any() else f"needs {read.needs}"
            why = why or "one value a set" * (one and quantity == "told")
            found.append((table.index[at], metric, quantity, np.nan if why else areas[quantity][at], why))
    return found


def _areas(positives: Array, negatives: Array) -> Array:
    # AUC (`stand_ins.auc`) of each row against all negatives, which are sorted once
    negatives = np.sort(np.ravel(negatives))
    ranks = [np.searchsorted(negatives, positives, side=side) for side in ("left", "right")]
    return np.mean(ranks, axis=(0, 2)) / max(len(negatives), 1)


def _tau(x: Array, y: Array) -> float:
    # Kendall's τ_b; NaN where a side is constant. scipy's also has a p, which takes far longer
    x, y = (np.sign(values[:, None] - values) for values in (x, y))
    pairs = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / pairs) if pairs else np.nan


def _order_and_stop(study: Study, kept: Kept, run: Run) -> list[tuple]:
    # metric, quantity, value, reason: of order and stopping in one run
    states, mean, rows, stops = kept.states.loc[(run.arm, run.forget_set, run.model)], run.exposure.mean(axis=1), [], {}
    unseen = kept.unseen[run.arm, run.forget_set, run.model]
    short = "" if np.isfinite(run.k_star) else "the run did not get to k*"
    at, far, table = states.index.to_numpy(), states["exposure"].abs().to_numpy(), states.reindex(columns=list(METRICS))
    for (metric, read), values in zip(METRICS.items(), table.to_numpy(dtype=float).T, strict=True):
        here = np.isfinite(values)
        values, steps, distance = values[here], at[here], far[here]
        bad, why = read.known * values if np.isnan(read.ideal) else np.abs(values - read.ideal), f"needs {read.needs}"
        for name, side in (("under", steps <= run.k_star + 0.5), ("over", steps >= run.k_star - 0.5)):
            tau = _tau(bad[side], distance[side])
            told = short or "one state, or the same value in all" if here.any() else why
            rows.append((metric, name, tau, "" if np.isfinite(tau) else told))
        level = unseen.get(metric, np.nan) if np.isnan(read.stop) else read.stop
        # where known · (value − level) first falls to zero
        stop = genex.steps_to_forget(read.known * (values - level), steps) if here.any() else np.nan
        told = short or "it would not have stopped while the run was followed"
        stops[metric] = stop, told if here.any() and np.isfinite(level) else why
    lost = run.lost([*(stop for stop, _ in stops.values()), run.k_star])
    for (metric, (stop, why)), there in zip(stops.items(), lost[:-1], strict=True):
        left = performance.interpolate(mean, run.steps, stop)
        found = {"steps_off": stop - run.k_star, "left": left, "paid": there - lost[-1]}
        rows += [(metric, name, float(x), "" if np.isfinite(x) else why) for name, x in found.items()]
    return rows


def summary(values: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Means over models and draws: arm, family, metric, quantity, estimate, low, high, draws, n, unit (what the limits
    count), without (models without a value) and the reason of most of them."""
    by, known = ["arm", "family", "metric", "quantity"], values["value"].notna()
    why = values[~known].groupby(by)["reason"].agg(without="size", reason=lambda x: x.mode().iloc[0])
    table = marks.family_means(values[known], "value", by=by, confidence=confidence)
    ends = [BOUNDS.get(QUANTITIES[name], (-np.inf, np.inf)) for name in table["quantity"]]
    table["low"], table["high"] = np.clip(table[["low", "high"]].to_numpy().T, *np.reshape(ends, (-1, 2)).T)
    return table.merge(why.reset_index(), on=by, how="outer").fillna({"draws": 0, "without": 0, "reason": ""})


def ranking(values: pd.DataFrame, families: Sequence[str], *, confidence: float) -> pd.DataFrame:
    """Metrics, best first: metric, estimate, low, high, n (draws of these families), means of told, told_set, under,
    over, and off (steps, without sign).

    A draw's score is the mean of 2 · AUC − 1, of set means, and both rank correlations, over arms: from −1 to 1.
    """
    some, by = values[values["family"].isin(families)], ["arm", "forget_set", "metric"]
    wide = some.groupby([*by, "quantity"])["value"].mean().unstack("quantity").reindex(columns=[*QUANTITIES])
    stops = some[some["quantity"] == "steps_off"]
    wide["off"] = stops["value"].abs().groupby([stops[name] for name in by]).mean()
    score = wide[["under", "over"]].assign(told=2 * wide["told_set"] - 1).mean(axis=1, skipna=False).round(9)
    score = score.groupby(["forget_set", "metric"]).mean().rename("score").reset_index()
    table = words.means(score, "score", by=["metric"], confidence=confidence).dropna(subset="estimate")
    table = table.merge(wide.groupby("metric")[["told", "told_set", "under", "over", "off"]].mean(), on="metric")
    return table.sort_values("estimate", ascending=False, ignore_index=True)


def robustness(study: Study, kept: Kept, *, relearned: int) -> pd.DataFrame:
    """Does a judgement at k* last? BY, family, metric, quantity, value, of the runs of stage extras and those of their
    texts that were not taught again (the first `relearned` were).

    relearning: what a model that never saw the set gains by the same, over what the unlearned one gains; precision: a
    metric of RATIOS over itself with weights in bfloat16. Both at most 1: nothing comes back. Of GenEx, nats: k_star,
    bfloat16, relearned; and what a model that never saw the set gains (never_relearned).
    """
    rows = []
    for (arm, name), texts in kept.sampled.groupby(["arm", "forget_set"], sort=False):
        taught = texts["example_id"].unique()[:relearned]  # the order is that of the set
        wanted = texts["example_id"].isin(set(study.members(name)) - set(taught))
        texts = texts[wanted & ((texts["role"] == "out") | (texts["share"] == 1))]
        models = set(texts.loc[texts["role"] == "in", "model"])  # none where k* is nearest to step 0
        run = next((run for run in study.select(arm=arm, forget_set=name) if run.model in models), None)
        if run is None:
            continue
        like = texts["example_id"].map(dict(zip(run.examples, run.reference, strict=True)))
        texts = texts.assign(GenEx=texts["log_likelihood"] - like)
        means = texts.groupby(["role", "state"])[[*_metrics(texts), "GenEx"]].mean()
        before, halved, after = (means.loc["in", state] for state in ("along", "bfloat16", "relearned"))
        known = np.array([METRICS[metric].known for metric in means.columns[:-1]] + [1])
        gain, of_never = known * (after - before), known * (means.loc["out", "relearned"] - means.loc["out", "along"])
        lasts = np.where(gain <= 0, 1.0, metrics.relearning_robustness(gained=gain, reference_gained=of_never))
        found = [(metric, "relearning", value) for metric, value in zip(means, lasts, strict=True)]
        share = metrics.precision_robustness(full=before[[*RATIOS]], reduced=halved[[*RATIOS]])
        found += [(metric, "precision", value) for metric, value in zip(RATIOS, share, strict=True)]
        nats = {"k_star": before, "bfloat16": halved, "relearned": after, "never_relearned": of_never}
        found += [("GenEx", quantity, of_state["GenEx"]) for quantity, of_state in nats.items()]
        rows += [(arm, name, run.model, run.family, *row) for row in found]
    return pd.DataFrame(rows, columns=[*BY, "family", "metric", "quantity", "value"])


FAILURES = {  # what an interval shows -> quantity, and the side of a level on which it lies
    "tells examples no better than chance": ("told", -1, 0.5),
    "tells sets no better than chance": ("told_set", -1, 0.5),
    "gets the order up to k* wrong": ("under", -1, 0.0),
    "takes over-unlearning for progress": ("over", -1, 0.0),
    "stops too early": ("steps_off", -1, -1.0),  # by more than the step between two states
    "stops too late": ("steps_off", 1, 1.0),
}


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """Where a metric fails, and in which direction, in all arms with an interval: metric, family, failure. Of the AUC
    it is enough not to lie clearly above chance."""
    rows, known = [], table.dropna(subset=["low", "high"])
    for failure, (quantity, side, level) in FAILURES.items():
        edge = "low" if "told" in quantity or side > 0 else "high"
        beyond = known[known["quantity"] == quantity]
        beyond = beyond.assign(beyond=side * (beyond[edge] - level) > 0).groupby(["metric", "family"])["beyond"].all()
        rows += [(*key, failure) for key, holds in beyond.items() if holds]
    return pd.DataFrame(rows, columns=["metric", "family", "failure"])


def cell(table: pd.DataFrame, metric: str, family: str, quantity: str) -> str:
    """The mean with its interval in each arm, or the reason why there is none; what is equal is said once."""
    rows = table[(table["metric"] == metric) & (table["family"] == family) & (table["quantity"] == quantity)]
    told = [words.interval(row, ".2f") if np.isfinite(row.estimate) else row.reason for row in rows.itertuples()]
    return " / ".join(dict.fromkeys(told)) or "no run"


def sentences(table: pd.DataFrame, metric: str, families: Sequence[str]) -> list[str]:
    """Four sentences on a metric: does it tell, does it order, where does it stop, where does it fail."""

    def said(**quantities: str) -> str:  # of each family all of them, or the one reason
        of_families = []
        for family in families:
            cells = [cell(table, metric, family, name) for name in quantities]
            one = len(set(cells)) == 1 and not any(letter.isdigit() for letter in cells[0])
            told = [form.format(text) for form, text in zip(quantities.values(), cells, strict=True)]
            of_families.append(f"{family}: {words.joined(cells[:1] if one else told)}")
        return "; ".join(of_families)

    failed = failures(table).query("metric == @metric and family in @families").groupby("failure")["family"].agg(list)
    failed = [f"{why} ({words.joined(names)})" for why, names in failed.items()]
    return [
        f"Tells held from never seen (AUC). {said(told='examples {}', told_set='sets {}')}.",
        f"Orders states (rank correlation). {said(under='up to k* {}', over='from k* on {}')}.",
        f"Stops. {said(steps_off='{} steps off k*', left='{} nats left', paid='{} nats per token paid')}.",
        f"Fails: {words.joined(failed, 'nowhere')}.",
    ]


def card(table: pd.DataFrame, metric: str, looks: Looks) -> Figure | str:
    """Of one arm's rows: does a metric tell, does it order (open marks: up to k*, full: from k* on), where does it
    stop; a panel each, a row a family."""
    rows = table[(table["metric"] == metric)].dropna(subset="estimate")
    looks = look.only(looks, set(rows["family"]))
    if not looks:
        return "no run has a value"
    told = "told" if (rows["quantity"] == "told").any() else "told_set"
    panels = {"AUC": ([told], 0.5, (0.45, 1.03)), "rank correlation": (["over", "under"], 0.0, (-1.1, 1.1))}
    panels |= {"steps off k*": (["steps_off"], 0.0, (None, None))}
    fig, axes = look.grid(1, len(panels), height_in=0.85 + 0.15 * len(looks), sharey=True)
    for ax, (label, (quantities, line, ends)) in zip(axes[0], panels.items(), strict=True):
        for (i, quantity), (at, (name, style)) in product(enumerate(quantities), enumerate(looks.items())):
            mine = rows[(rows["quantity"] == quantity) & (rows["family"] == name)]
            face = {"mfc": "white", "mec": style.colour, "mew": 1.0} if i else {}
            marks.intervals(ax, [at + 0.3 * i] * len(mine), mine, style, flat=True, ms=3, **face)
        ax.axvline(line, color=look.INK, lw=0.7, zorder=1)
        ax.set(xlabel=label, xlim=ends)
        marks.name_rows(ax, list(looks))
    return fig
