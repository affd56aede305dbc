"""How fast each example is unlearnt, against how far it was memorized and how hard it is (claims C5 and C6)."""

import numpy as np
import pandas as pd

from paper.study import Array, Run, Study
from unlearning.core import genex, performance, properties
from unlearning.core.stats import mean_correlation, partial_rank_correlation

RHOS = {
    "rate_mem": "rate with memorization",
    "rate_difficulty": "rate with difficulty",
    "rate_mem_given_difficulty": "rate with memorization, difficulty held fixed",
    "rate_difficulty_given_mem": "rate with difficulty, memorization held fixed",
    "mem_difficulty": "memorization with difficulty",
    "k_star_mem": "the example's k* with memorization (partly by construction)",
}


def rate(run: Run) -> Array:
    """(n,) nats per token removed per step over the first half of the run's k*; NaN for a censored run."""
    half = run.k_star / 2
    removed = run.log_likelihoods[0] - performance.interpolate(run.log_likelihoods, run.steps, half)
    return removed / run.n_tokens / half if half > 0 else np.full(len(run.examples), np.nan)


def halves(study: Study, forget_set: str) -> tuple[list[int], list[int]]:
    """The models in two halves, each with in- and out-models and both base models, as evenly as the numbers allow."""

    def alternate(models: list[int]) -> tuple[list[int], list[int]]:
        ordered = sorted(models, key=lambda m: (study.design["base"].get(m, 0), m))
        return ordered[::2], ordered[1::2]

    inside, outside = alternate(study.inside(forget_set)), alternate(study.outside(forget_set))
    return inside[0] + outside[0], inside[1] + outside[1]


def memorization(study: Study, trained_with: str, forget_set: str, *, models: list[int], examples: list[str]) -> Array:
    """(n,) mem(x) in nats per token from some of the models; NaN without an in- and an out-model among them."""
    table = study.references[trained_with]
    sides = [
        [m for m in side(forget_set) if m in models and m in table.index] for side in (study.inside, study.outside)
    ]
    if not all(sides):
        return np.full(len(examples), np.nan)
    per_token = table[examples] / study.examples["n_tokens"].loc[examples].to_numpy()
    inside, outside = (per_token.loc[side].to_numpy() for side in sides)
    return properties.counterfactual_memorization(inside=inside, outside=outside)


def hardness(study: Study, examples: list[str]) -> Array:
    """(n,) difficulty in nats per token under the base models; NaN where they were not scored."""
    if study.base.empty or not set(examples) <= set(study.base.columns):
        return np.full(len(examples), np.nan)
    n_tokens = study.examples["n_tokens"].loc[examples].to_numpy()
    return properties.difficulty(base=study.base[examples].to_numpy(), n_tokens=n_tokens)


def example_properties(study: Study, trained_with: str, scores: pd.DataFrame) -> pd.DataFrame:
    """One row an example of a forget set: how far it is memorized, by all models, and how difficult it is.

    Args:
        scores: the long table of this optimizer's models: model, example_id, n_tokens, log_likelihood, n_correct.

    Returns:
        trained_with, forget_set, example_id, n_tokens, mem (nats per token), mem_accuracy (the same of token accuracy),
        difficulty (nats per token); NaN where it takes models or scores that are not there.
    """
    per_token = scores.assign(**{c: scores[c] / scores["n_tokens"] for c in ("log_likelihood", "n_correct")})
    tables = [per_token.pivot(index="model", columns="example_id", values=c) for c in ("log_likelihood", "n_correct")]
    rows = []
    for forget_set in study.forget_sets:
        examples = [x for x in study.members(forget_set) if x in tables[0]]
        inside, outside = ([m for m in side(forget_set) if m in tables[0].index]
                           for side in (study.inside, study.outside))  # fmt: skip
        mem, mem_accuracy = (
            properties.counterfactual_memorization(
                inside=t.loc[inside, examples].to_numpy(), outside=t.loc[outside, examples].to_numpy()
            )
            if inside and outside
            else np.full(len(examples), np.nan)
            for t in tables
        )
        rows.append(pd.DataFrame({
            "trained_with": trained_with, "forget_set": forget_set, "example_id": examples,
            "n_tokens": study.examples["n_tokens"].loc[examples].to_numpy(), "mem": mem,
            "mem_accuracy": mem_accuracy, "difficulty": hardness(study, examples),
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def example_rates(study: Study, run: Run) -> pd.DataFrame:
    """One row an example of a run: mem from the half of the models that this run is not in, difficulty, rate, k*(x)."""
    first, second = halves(study, run.forget_set)
    other = second if run.model in first else first
    mem = memorization(study, run.trained_with, run.forget_set, models=other, examples=run.examples)
    return pd.DataFrame({
        "arm": run.arm, "forget_set": run.forget_set, "model": run.model, "example_id": run.examples,
        "n_tokens": run.n_tokens, "mem": mem, "difficulty": hardness(study, run.examples), "rate": rate(run),
        "k_star": genex.steps_to_forget(run.exposure, run.steps),
    })  # fmt: skip


def all_example_rates(study: Study) -> pd.DataFrame:
    """`example_rates` of every in-run, one below the other."""
    tables = [example_rates(study, run) for run in study.select()]
    columns = ["arm", "forget_set", "model", "example_id", "n_tokens", "mem", "difficulty", "rate", "k_star"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def correlations_by_model(rates: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations inside each model and set, n_tokens always held fixed; one row a run, columns of RHOS."""
    rows = []
    for (arm, forget_set, model), x in rates.groupby(["arm", "forget_set", "model"]) if len(rates) else []:
        tokens, mem, hard = x["n_tokens"].to_numpy(), x["mem"].to_numpy(), x["difficulty"].to_numpy()
        speed, with_mem, with_hard = x["rate"].to_numpy(), np.c_[tokens, mem], np.c_[tokens, hard]
        rows.append({
            "arm": arm, "forget_set": forget_set, "model": model, "n_examples": len(x),
            "rate_mem": partial_rank_correlation(speed, mem, given=tokens),
            "rate_difficulty": partial_rank_correlation(speed, hard, given=tokens),
            "rate_mem_given_difficulty": partial_rank_correlation(speed, mem, given=with_hard),
            "rate_difficulty_given_mem": partial_rank_correlation(speed, hard, given=with_mem),
            "mem_difficulty": partial_rank_correlation(mem, hard, given=tokens),
            "k_star_mem": partial_rank_correlation(x["k_star"].to_numpy(), mem, given=tokens),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "forget_set", "model", "n_examples", *RHOS])


def correlation_table(by_model: pd.DataFrame, *, identifiable: float, confidence: float = 0.95) -> pd.DataFrame:
    """Mean correlation of every arm and set: arm, forget_set, quantity, estimate, low, high, n, reason.

    A correlation with the other variable held fixed is 'not identifiable' where |ρ(mem, difficulty)| > identifiable.
    """
    rows = []
    for (arm, forget_set), group in by_model.groupby(["arm", "forget_set"]):
        together = mean_correlation(group["mem_difficulty"]).estimate
        for quantity in RHOS:
            interval = mean_correlation(group[quantity], confidence=confidence)
            reason = "" if interval.n > 1 else "fewer than two models have it"
            if "given" in quantity and abs(together) > identifiable:
                reason = f"not identifiable: memorization and difficulty correlate at {together:+.2f}"
            rows.append({"arm": arm, "forget_set": forget_set, "quantity": quantity, "unit": "rank correlation",
                         "estimate": interval.estimate, "low": interval.low, "high": interval.high,
                         "n": interval.n, "reason": reason})  # fmt: skip
    columns = ["arm", "forget_set", "quantity", "unit", "estimate", "low", "high", "n", "reason"]
    return pd.DataFrame(rows, columns=columns)


def strata(study: Study, arm: str) -> dict[str, list[str]]:
    """Kind -> its sets with runs in the arm, one a number of repetitions, fewest first; kinds with one left out."""
    there = {run.forget_set for run in study.select(arm=arm)}
    sets = study.examples[study.examples["forget_set"].isin(there)].drop_duplicates("forget_set")
    found: dict[str, list[str]] = {}
    for kind, group in sets.sort_values("repetitions", kind="stable").groupby("kind"):
        distinct = group.drop_duplicates("repetitions")
        if len(distinct) > 1:
            found[str(kind)] = list(distinct["forget_set"])
    return found


def lost_at_removed(run: Run, nats: float) -> float:
    """Held-out lost (nats per token, against θ0) once the set's mean ℓ has fallen by so many nats; NaN if never."""
    removed = (run.log_likelihoods[0] - run.log_likelihoods).mean(axis=1)
    return run.lost_at(genex.steps_to_forget(nats - removed, run.steps))


def equal_removal(study: Study, arm: str, kind: str) -> pd.DataFrame:
    """Held-out lost at equal nats removed, by repetition stratum, inside models that hold the fewest and the most.

    Both are compared where as many nats are removed as the fewest-repeated set of the model has to lose (its exposure
    at θ0). Columns: model, few and many (nats per token lost), removed (nats).
    """
    names = strata(study, arm).get(kind, [])
    if len(names) < 2:
        return pd.DataFrame(columns=["model", "few", "many", "removed"])
    few, many = ({r.model: r for r in study.select(arm=arm, forget_set=s)} for s in (names[0], names[-1]))
    rows = []
    for model in sorted(few.keys() & many.keys()):
        nats = float(few[model].exposure[0].mean())
        rows.append({"model": model, "few": lost_at_removed(few[model], nats),
                     "many": lost_at_removed(many[model], nats), "removed": nats})  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "few", "many", "removed"])
