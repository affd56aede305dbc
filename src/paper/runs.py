"""From the tables to runs: what each model lost at each step, against what it would have been without the set.

`read_study` reads what the settings name and nothing else. What is missing is named in `Study.missing`, and the
functions below give NaN or no row for it. Log-likelihoods in nats, performance in nats per token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import effects, genex, performance
from unlearning.data import kinds

Array = np.ndarray

BY = ["arm", "forget_set", "model"]
KEYS = ["name", "arm", "forget_set", "trained_with", "method", "model", "role", "status"]
LOST = {"lost_25": 0.25, "lost_50": 0.5, "lost_75": 0.75, "lost_100": 1.0}  # column -> share of k* that it is read at
MEMORIZED_SHARE = 0.5  # of the exposure at θ0 that has to be the instance's own for a set to count as memorized
UNITS = {  # of the columns of `run_table`
    **{"k_star": "steps", "k95": "steps"},
    **{"exposure_0": "nats", "instance_0": "nats", "instance_share": "share of exposure"},
    **dict.fromkeys([*LOST, "lost_k95", "lost_to_references", "lost_retain"], "nats per token"),
    **{"lost_bleu": "BLEU", "share_inside": "share of the set", "share_exposed": "share of the set", "rms": "nats"},
}


@dataclass(frozen=True)
class Run:
    """One model unlearning one forget set: an in-model, or a placebo that never saw the set."""

    name: str
    arm: str
    forget_set: str
    trained_with: str
    model: int
    role: str
    record: dict  # its row of runs.csv
    scores: pd.DataFrame  # step × example of the set, nats
    never: pd.DataFrame  # step × never-trained example of its kind, nats; NaN where not scored
    n_tokens: Array  # (n,)
    reference: Array  # (n,) of this model, nats
    floor: Array  # (n,) half-width at run level, nats
    never_reference: pd.Series  # by never-trained example, nats
    performance: pd.DataFrame  # step × split, nats per token
    bleu: pd.Series  # of held-out translations, at the few steps where they were scored, and of θ0 at step 0

    @property
    def examples(self) -> list[str]:  # ids
        return list(self.scores)

    @property
    def steps(self) -> Array:  # (steps,) at which the set was scored
        return self.scores.index.to_numpy()

    @cached_property
    def log_likelihoods(self) -> Array:  # (steps, n), nats
        return self.scores.to_numpy()

    @cached_property
    def exposure(self) -> Array:  # (steps, n) g = ℓ_k − reference, nats
        return genex.run_exposure(unlearned=self.log_likelihoods, reference=self.reference)

    @cached_property
    def set_exposure(self) -> pd.Series:  # by step: mean of the set, nats
        return pd.Series(self.exposure.mean(axis=1), self.steps)

    @cached_property
    def k_star(self) -> float:  # steps until the set's mean exposure is zero; NaN where censored
        return genex.steps_to_forget(self.set_exposure.to_numpy(), self.steps)

    @cached_property
    def k95(self) -> float:  # first step with at most 5 % of the set above the noise floor; NaN where censored
        return genex.steps_to_share_inside(self.exposure, self.steps, floor=self.floor)

    @cached_property
    def followed(self) -> pd.DataFrame:
        """Step × never-trained examples that were scored all the way, not at the few states around k* only, nats."""
        counts = self.never.notna().sum()
        return self.never[counts.index[counts == counts.max()]].dropna() if len(counts) else pd.DataFrame()

    @cached_property
    def generator_part(self) -> pd.Series:
        """By step: mean exposure D of the followed never-trained examples, nats; empty where there are none."""
        return (self.followed - self.never_reference[self.followed.columns]).mean(axis=1)

    def lost(self, steps: float | Sequence[float], split: str = "heldout_fixed") -> Array:
        """Performance of θ0 minus that at fractional steps, nats per token; NaN where it was not measured."""
        at, found = np.asarray(steps, dtype=float), self.performance.get(split, pd.Series(dtype=float)).dropna()
        if 0 not in found.index:
            return np.full(at.shape, np.nan)
        lost = performance.performance_lost(unlearned=np.interp(at, found.index, found), reference=found[0])
        return np.where(performance.followed_at(found.index, at), lost, np.nan)

    def bleu_at(self, step: float) -> float:
        """BLEU (0 to 100) at the nearest whole step within one; NaN where it was not scored."""
        near = self.bleu[np.abs(self.bleu.index - step) <= 1] if np.isfinite(step) else self.bleu[:0]
        return float(near.iloc[np.argmin(np.abs(near.index - step))]) if len(near) else float("nan")


@dataclass(frozen=True)
class Study:
    """Every table of a study as arrays and frames; made by `read_study`."""

    design: pd.DataFrame  # model × column ("base", then forget sets), ±1
    examples: pd.DataFrame  # by example_id
    base: pd.DataFrame  # base × example, nats
    references: dict[str, pd.DataFrame]  # trained_with -> model × example, nats
    performance: dict[str, pd.DataFrame]  # trained_with (or base) -> model × split, nats per token
    bleu: dict[str, pd.Series] = field(default_factory=dict)  # trained_with -> by model, of held-out translations
    rates: dict[str, float] = field(default_factory=dict)  # arm -> its learning rate, in multiples of the pilot's
    runs: list[Run] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    confidence: float = 0.95  # of every interval and noise floor

    def select(self, *, arm: str | None = None, forget_set: str | None = None, role: str = "in") -> list[Run]:
        """The runs of an arm, a set and a role. Arms at another learning rate only where they are named."""
        there = [run for run in self.runs if (self.rates[run.arm] == 1 if arm is None else run.arm == arm)]
        return [run for run in there if run.role == role and forget_set in (None, run.forget_set)]

    @property
    def arms(self) -> list[str]:  # that have a run, those at another learning rate left out
        return list(dict.fromkeys(run.arm for run in self.runs if self.rates[run.arm] == 1))

    @property
    def forget_sets(self) -> list[str]:
        return [c for c in self.design.columns if c != "base"]

    def models(self, forget_set: str, trained_with: str, *, inside: bool) -> list[int]:
        """Scored models that are trained on a set, or (`inside` false) those that are not: its references."""
        signs = self.design.loc[self.references[trained_with].index, forget_set]
        return list(signs.index[signs > 0 if inside else signs < 0])

    def held_by(self, forget_set: str, trained_with: str, *, inside: bool) -> pd.DataFrame:
        """Model × example of a set at θ0, nats: those models."""
        models = self.models(forget_set, trained_with, inside=inside)
        return self.references[trained_with].loc[models, self.members(forget_set)]

    def scores(self, trained_with: str, split: str = "heldout") -> pd.Series:
        """Performance on a split by model, nats per token; NaN where it was not measured."""
        found = self.performance.get(trained_with, pd.DataFrame()).get(split, pd.Series(dtype=float))
        return found.reindex(self.base.index if trained_with == "base" else self.design.index)

    def members(self, group: str) -> list[str]:
        """Ids of the examples of a forget set, a population or a split."""
        return list(self.examples.index[self.examples["forget_set"] == group])

    def never_trained(self, forget_set: str) -> list[str]:
        """Ids of the never-trained examples of a set's kind; none where the kind has no population."""
        return self.members(kinds.population(self.kind(forget_set)) or "")

    def kind(self, forget_set: str) -> str:
        return str(self.examples.loc[self.members(forget_set)[0], "kind"])


def by_run(runs: Sequence[Run], table: Callable[[Run], pd.DataFrame], columns: Sequence[str] = ()) -> pd.DataFrame:
    """The rows that `table` gives for each run, under its arm, forget_set, model (BY); with no row its `columns`."""
    tables = [table(run).assign(arm=run.arm, forget_set=run.forget_set, model=run.model) for run in runs]
    rows = pd.concat([t for t in tables if len(t)] or [pd.DataFrame(columns=[*BY, *columns])], ignore_index=True)
    return rows[[*BY, *rows.columns.difference(BY, sort=False)]]


def read_study(root: str | Path = ".", *, arms: Mapping, ascents: Mapping, confidence: float = 0.95) -> Study:
    """Read the tables below `root` that the blocks name; FileNotFoundError without a design or examples alone."""
    tables = Path(root) / "results" / "tables"
    design = pd.read_csv(tables / "forget_sets" / "design.csv").set_index("model")  # +1: holds the set, or base model 1
    folders = {"base": tables / "base"}
    folders |= {name: tables / "train" / name for name in sorted({arm["trained_with"] for arm in arms.values()})}
    files = {name: folder / "log_likelihoods.parquet" for name, folder in folders.items()}
    scores = {name: _grid(pd.read_parquet(path), "model") for name, path in files.items() if path.exists()}
    quality = {name: folder / "performance.csv" for name, folder in folders.items()}
    quality = {name: pd.read_csv(path) for name, path in quality.items() if path.exists()}
    examples = plain(pd.read_parquet(tables / "forget_sets" / "examples.parquet")).set_index("example_id")
    study = Study(
        design=2 * design.astype(int) - 1,
        examples=examples,
        base=scores.get("base", pd.DataFrame(np.nan, index=[0, 1], columns=examples.index)),
        references={name: table for name, table in scores.items() if name != "base" and len(table)},
        performance={name: _splits(table, "model") for name, table in quality.items()},
        bleu={name: _bleu(table, "model") for name, table in quality.items()},
        rates={name: arm.get("rate", 1.0) for name, arm in arms.items()},
        missing=[] if "base" in scores else ["no scores of the base models (results/tables/base)"],
        confidence=confidence,
    )
    for name in sorted(ascents):
        study.runs.extend(_ascent(study, tables / "unlearn" / name, **ascents[name], arms=arms))
    return study


def retrained(name: str, root: str | Path = ".") -> pd.DataFrame:
    """Scores (nats) of the exact `partners` or of the `repeats` of every training; no row where none was trained."""
    nothing = pd.DataFrame(columns=["trained_with", "model", "left_out", "example_id", "log_likelihood"])
    found = map(pd.read_parquet, sorted(Path(root).glob(f"results/tables/train/*/{name}.parquet")))
    return pd.concat([plain(table) for table in found if len(table)] or [nothing], ignore_index=True)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The table with text where it holds categories (text is stored so); objects, which pandas looks up fastest."""
    return table.astype(dict.fromkeys(table.select_dtypes(exclude=["number", "bool"]), object))


def _grid(rows: pd.DataFrame, index: str) -> pd.DataFrame:
    # step (or model) × example of log-likelihoods, the first where a state was scored twice; faster than a pivot
    (row, names), (example, examples) = (pd.factorize(rows[c], sort=True) for c in (index, "example_id"))
    values = np.full((len(names), len(examples)), np.nan)
    cells, first = np.unique(row * len(examples) + example, return_index=True)
    values.flat[cells] = rows["log_likelihood"].to_numpy()[first]
    return pd.DataFrame(values, index=np.asarray(names), columns=np.asarray(examples, dtype=object))


def _splits(table: pd.DataFrame, index: str) -> pd.DataFrame:
    return table.drop_duplicates([index, "split"]).pivot(index=index, columns="split")["log_likelihood_per_token"]


def _bleu(table: pd.DataFrame, index: str) -> pd.Series:
    return table.dropna(subset=["bleu"]).drop_duplicates(index, keep="last").set_index(index)["bleu"]


def _ascent(study: Study, folder: Path, arms: Mapping, arm: str, forget_set: str) -> list[Run]:
    # the runs of one ascent; none, with the reason in `study.missing`, if its tables cannot be used
    trained_with = arms[arm]["trained_with"]
    files = [folder / f for f in ("runs.csv", "log_likelihoods.parquet", "performance.parquet")]
    absent = [f.name for f in files if not f.exists()]
    if absent or trained_with not in study.references:
        why = f"{', '.join(absent)} missing" if absent else f"no references trained with {trained_with}"
        study.missing.append(f"{folder.name}: {why}")
        return []
    columns = ["model", "role", "step", "example_id", "log_likelihood"]
    likelihoods, states = pd.read_parquet(files[1], columns=columns), plain(pd.read_parquet(files[2]))
    scores = {key: _grid(rows, "step") for key, rows in likelihoods.groupby(["model", "role"], observed=True)}
    own, never = study.members(forget_set), study.never_trained(forget_set)
    outside, runs = study.held_by(forget_set, trained_with, inside=False), []
    floor = pd.Series(floor_among(study, outside.to_numpy()), own)
    for record in pd.read_csv(files[0]).to_dict("records"):
        model, role = int(record["model"]), record["role"]
        if (model, role) not in scores:
            study.missing.append(f"{folder.name}: model {model} ({role}) left no scores")
            continue
        found, mine = scores[model, role], states[(states["model"] == model) & (states["role"] == role)]
        there, others = ([x for x in ids if x in found] for ids in (own, never))
        reference, alike = (reference_of(study, trained_with, forget_set, model, ids) for ids in (there, others))
        bleu = _bleu(mine, "step")
        if model in study.bleu.get(trained_with, ()):
            bleu[0] = study.bleu[trained_with][model]
        runs.append(Run(
            folder.name, arm, forget_set, trained_with, model, role, record,
            scores=found[there].dropna(how="all"), never=found[others].dropna(how="all"),
            n_tokens=study.examples["n_tokens"].loc[there].to_numpy(), floor=floor[there].to_numpy(),
            reference=reference, never_reference=pd.Series(alike, others, dtype=float),
            performance=_splits(mine, "step"), bleu=bleu.sort_index(),
        ))  # fmt: skip
    return runs


def reference_of(study: Study, trained_with: str, forget_set: str, model: int, examples: Sequence[str]) -> Array:
    """(n,) what the model would give on the examples had it not been trained on the set (main effects), nats."""
    return _predicted(study, study.references[trained_with][list(examples)], forget_set, model)


def _predicted(study: Study, table: pd.DataFrame, forget_set: str, model: int) -> Array:
    design = study.design.loc[table.index]
    row, column = table.index.get_loc(model), design.columns.get_loc(forget_set)
    return genex.predicted_reference(table.to_numpy(), design.to_numpy(), model=row, column=column)


def reference_performance(study: Study, run: Run, split: str = "heldout") -> float:
    """What the run's model would score on a split, not trained on the set, nats per token; NaN if not measured."""
    table = study.scores(run.trained_with, split).to_frame()
    return float(_predicted(study, table, run.forget_set, run.model)[0]) if table.notna().all(axis=None) else np.nan


def outside_scores(study: Study, run: Run) -> Array:  # (n_out, n) of the out-models on the run's examples, nats
    return study.held_by(run.forget_set, run.trained_with, inside=False)[run.examples].to_numpy()


def floor_among(study: Study, outside: Array, *, shrink: bool = True) -> Array:
    """(n,) half-width of the noise floor of one model against `outside`, (models, n); zero spread if that is one."""
    sd = outside.std(axis=0, ddof=1) if len(outside) > 1 else np.zeros(outside.shape[1])
    settings = {"confidence": study.confidence, "shrink": shrink}
    return genex.noise_floor(reference_sd=sd, n_unlearned=1, n_reference=len(outside), **settings)


def start(study: Study, trained_with: str, forget_set: str) -> pd.DataFrame:
    """Exposure of the original models, and its instance part: twice the main effect of the set's column, nats.

    Runs of a set share that regression: the spread of their exposures at θ0 says nothing about its error. Without
    never-trained examples of the kind there is the row exposure_0 alone. n counts models.
    """
    table = study.references[trained_with]
    never = [x for x in study.never_trained(forget_set) if x in table]
    means = pd.DataFrame({"exposure_0": table[study.members(forget_set)].mean(axis=1)})
    if never:
        means["generator_0"] = table[never].mean(axis=1)
        means["instance_0"] = means["exposure_0"] - means["generator_0"]
    design = study.design.loc[table.index]
    found = effects.influence_matrix(means.to_numpy(), design.to_numpy(), confidence=study.confidence)
    column = design.columns.get_loc(forget_set)
    limits = {"estimate": found.effect[column], "low": found.low[column], "high": found.high[column]}
    reason = "" if found.df else "no column of the design is free: no interval"
    rows = pd.DataFrame(limits | {"n": len(table), "reason": reason}, index=list(means))
    if never:
        share = rows.loc["instance_0", "estimate"] / rows.loc["exposure_0", "estimate"]
        rows.loc["instance_share"] = [share, np.nan, np.nan, len(table), "a ratio of two estimates: no interval"]
    return rows


def memorized(share: float) -> str:
    """Whether a set counts as memorized by the instance's share of its exposure at θ0: yes, no or unknown (NaN)."""
    return "unknown" if np.isnan(share) else "yes" if share >= MEMORIZED_SHARE else "no"


def run_table(study: Study, *, other_rates: bool = False) -> pd.DataFrame:
    """One row a run: KEYS, UNITS, generator_0, and the rest of runs.csv; NaN where censored.

    lost_25 … lost_100: held-out lost against θ0 at that percentage of k*; lost_to_references: full held-out at k*
    against the model's reference; share_inside, share_exposed: of the set inside and above the noise floor at k*.
    """
    rows = [_run_row(study, run) for run in study.runs if (study.rates[run.arm] != 1) == other_rates]
    return pd.DataFrame(rows, columns=None if rows else [*KEYS, *UNITS, "generator_0", "last_step"])


def _run_row(study: Study, run: Run) -> dict:
    generator = float(run.generator_part.iloc[0]) if len(run.generator_part) else float("nan")
    exposure, at_k_star = float(run.exposure[0].mean()), performance.interpolate(run.exposure, run.steps, run.k_star)
    instance = exposure - generator
    scored = run.performance.get("heldout", pd.Series(dtype=float)).dropna()
    heldout = performance.interpolate(scored.to_numpy(), scored.index.to_numpy(), run.k_star)
    to_references = performance.performance_lost(unlearned=heldout, reference=reference_performance(study, run))
    given = run.record | vars(run)
    row = {key: given[key] for key in KEYS}
    row |= {"k_star": run.k_star, "k95": run.k95, "exposure_0": exposure, "generator_0": generator}
    row |= {"instance_0": instance, "instance_share": instance / exposure if exposure else np.nan}
    row |= {name: float(run.lost(share * run.k_star)) for name, share in LOST.items()}
    row |= {"lost_k95": float(run.lost(run.k95)), "lost_retain": float(run.lost(run.k_star, "retain"))}
    row |= {"lost_bleu": run.bleu_at(0) - run.bleu_at(run.k_star), "lost_to_references": float(to_references)}
    shares = [np.mean(np.abs(at_k_star) <= run.floor), np.mean(at_k_star > run.floor)]
    inside, exposed = shares if np.isfinite(at_k_star).all() else (np.nan, np.nan)
    row |= {"share_inside": inside, "share_exposed": exposed, "rms": np.sqrt(np.mean(at_k_star**2))}
    return row | {k: v for k, v in run.record.items() if k not in row and k != "track"}
