"""From the tables to runs: what each model lost at each step, against what it would have been without the set.

`load` reads what the settings name and nothing else. What is missing is named in `Study.missing`, and the functions
below give NaN or no row for it. Log-likelihoods in nats, performance in nats per token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import effects, genex, performance

Array = np.ndarray

KEYS = ("name", "arm", "forget_set", "trained_with", "method", "model", "role", "status")
SHARES = (0.25, 0.5, 0.75, 1.0)  # of k*, at which losses are read
MEMORIZED_SHARE = 0.5  # of the exposure at θ0 that has to be the instance's own for a set to count as memorized
UNITS = {  # of the columns of `run_table`
    "k_star": "steps",
    "k95": "steps",
    "exposure_0": "nats",
    "instance_0": "nats",
    "instance_share": "share of exposure",
    **{f"lost_{100 * share:.0f}": "nats per token" for share in SHARES},
    "lost_k95": "nats per token",
    "lost_to_references": "nats per token",
    "lost_retain": "nats per token",
    "lost_bleu": "BLEU",
    "share_inside": "share of the set",
    "share_exposed": "share of the set",
    "rms": "nats",
}


@dataclass(frozen=True)
class Run:
    """One model unlearning one forget set: an in-model, or a placebo that never saw the set."""

    name: str
    arm: str
    forget_set: str
    trained_with: str
    method: str
    model: int
    role: str
    status: str
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
    def examples(self) -> list[str]:
        """Ids of the set's examples."""
        return list(self.scores)

    @property
    def steps(self) -> Array:
        """(steps,) at which the set was scored."""
        return self.scores.index.to_numpy()

    @cached_property
    def log_likelihoods(self) -> Array:
        """(steps, n), nats."""
        return self.scores.to_numpy()

    @cached_property
    def exposure(self) -> Array:
        """(steps, n) g = ℓ_k − reference, nats."""
        return genex.run_exposure(unlearned=self.log_likelihoods, reference=self.reference)

    @cached_property
    def k_star(self) -> float:
        """Steps until the set's mean exposure is zero; NaN where censored."""
        return genex.steps_to_forget(self.exposure.mean(axis=1), self.steps)

    @cached_property
    def k95(self) -> float:
        """First step with at most 5 % of the set above the noise floor; NaN where censored."""
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

    def scored(self, split: str) -> pd.Series:
        """By step: performance on a split, nats per token; empty where θ0 was not scored."""
        found = self.performance[split].dropna() if split in self.performance else pd.Series(dtype=float)
        return found if len(found) and found.index[0] == 0 else found[:0]

    def lost(self, steps: float | Sequence[float], split: str = "heldout_fixed") -> Array:
        """Performance of θ0 minus that at fractional steps, nats per token; NaN where it was not measured."""
        at, found = np.asarray(steps, dtype=float), self.scored(split)
        if not len(found):
            return np.full(at.shape, np.nan)
        value = np.interp(at, found.index, found)
        known = performance.followed_at(found.index, at)
        return np.where(known, performance.performance_lost(unlearned=value, reference=found.iloc[0]), np.nan)

    def bleu_at(self, step: float) -> float:
        """BLEU (0 to 100) at the nearest whole step within one; NaN where it was not scored."""
        near = self.bleu[np.abs(self.bleu.index - step) <= 1] if np.isfinite(step) else self.bleu[:0]
        return float(near.iloc[np.argmin(np.abs(near.index - step))]) if len(near) else float("nan")


@dataclass(frozen=True)
class Study:
    """Every table of a study as arrays and frames; made by `load`."""

    design: pd.DataFrame  # model × column ("base", then forget sets), ±1
    examples: pd.DataFrame  # by example_id
    base: pd.DataFrame  # base × example, nats; empty if missing
    references: dict[str, pd.DataFrame]  # trained_with -> model × example, nats
    performance: dict[str, pd.DataFrame]  # trained_with (or base) -> model × split, nats per token
    bleu: dict[str, pd.Series] = field(default_factory=dict)  # trained_with -> by model, of held-out translations
    rates: dict[str, float] = field(default_factory=dict)  # arm -> its learning rate, in multiples of the pilot's
    runs: list[Run] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def select(self, *, arm: str | None = None, forget_set: str | None = None, role: str = "in") -> list[Run]:
        """The runs of an arm, a set and a role. Arms at another learning rate only where they are named."""
        return [
            run
            for run in self.runs
            if run.role == role
            and forget_set in (None, run.forget_set)
            and (run.arm == arm if arm is not None else self.rates[run.arm] == 1)
        ]

    @property
    def arms(self) -> list[str]:
        """Arms that have a run, those at another learning rate left out."""
        return list(dict.fromkeys(run.arm for run in self.runs if self.rates[run.arm] == 1))

    @property
    def forget_sets(self) -> list[str]:
        """Columns of the design but the base."""
        return [c for c in self.design.columns if c != "base"]

    def models(self, forget_set: str, trained_with: str, *, inside: bool) -> list[int]:
        """Scored models that are trained on a set, or (`inside` false) those that are not: its references."""
        signs = self.design.loc[self.references[trained_with].index, forget_set]
        return list(signs.index[signs > 0 if inside else signs < 0])

    def members(self, group: str) -> list[str]:
        """Ids of the examples of a forget set, a population (`never-<kind>`) or a split."""
        return list(self.examples.index[self.examples["forget_set"] == group])

    def kind(self, forget_set: str) -> str:
        """Kind of a forget set."""
        return str(self.examples.loc[self.members(forget_set)[0], "kind"])


def load(
    root: str | Path = ".", *, arms: Mapping[str, Mapping], ascents: Mapping[str, Mapping], confidence: float = 0.95
) -> Study:
    """Read the tables that the settings name.

    Args:
        root: folder that holds results/tables.
        arms: the block of that name: arm -> trained_with, method, and rate where it is not 1.
        ascents: the block of that name: ascent -> forget_set, arm.
        confidence: of the noise floor.

    Raises:
        FileNotFoundError: no design or no examples; everything else may be missing and is then named.
    """
    tables = Path(root) / "results" / "tables"
    examples = plain(pd.read_parquet(tables / "forget_sets" / "examples.parquet")).set_index("example_id")
    folders = {"base": tables / "base"}
    folders |= {name: tables / "train" / name for name in sorted({arm["trained_with"] for arm in arms.values()})}
    scores = {name: _wide(folder / "log_likelihoods.parquet") for name, folder in folders.items()}
    quality = {name: folder / "performance.csv" for name, folder in folders.items()}
    quality = {name: pd.read_csv(path) for name, path in quality.items() if path.exists()}
    base = scores.pop("base")
    study = Study(
        design=load_design(root),
        examples=examples,
        base=base,
        references={name: table for name, table in scores.items() if len(table)},
        performance={name: _splits(table, "model") for name, table in quality.items()},
        bleu={name: _bleu(table, "model") for name, table in quality.items()},
        rates={name: arm.get("rate", 1.0) for name, arm in arms.items()},
        missing=["no scores of the base models (results/tables/base)"] if base.empty else [],
    )
    for name in sorted(ascents):
        study.runs.extend(_ascent(study, tables / "unlearn" / name, ascents[name], arms, confidence))
    return study


def retrained(name: str, root: str | Path = ".") -> pd.DataFrame:
    """Scores of the exact `partners` or of the `repeats` of every training: trained_with, model, left_out, example_id,
    log_likelihood (nats); no row where none was trained."""
    folders = (Path(root) / "results" / "tables" / "train").glob(f"*/{name}.parquet")
    found = [table for table in map(pd.read_parquet, sorted(folders)) if len(table)]
    nothing = pd.DataFrame(columns=["trained_with", "model", "left_out", "example_id", "log_likelihood"])
    return pd.concat(map(plain, found), ignore_index=True) if found else nothing


def load_design(root: str | Path = ".") -> pd.DataFrame:
    """Model × column (base, then forget sets) of ±1: +1 trained on the set, or base model 1."""
    table = pd.read_csv(Path(root) / "results" / "tables" / "forget_sets" / "design.csv").set_index("model")
    return 2 * table.astype(int) - 1


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The table with text where it holds categories (text is stored so); objects, which pandas looks up fastest."""
    text = table.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes]]
    return table.astype(dict.fromkeys(text, object))


def _wide(path: Path) -> pd.DataFrame:
    return _grid(pd.read_parquet(path), "model") if path.exists() else pd.DataFrame()


def _grid(rows: pd.DataFrame, index: str = "step") -> pd.DataFrame:
    # step (or model) × example of log-likelihoods, the first where a state was scored twice; faster than a pivot
    (row, names), (example, examples) = (pd.factorize(rows[c], sort=True) for c in (index, "example_id"))
    values = np.full((len(names), len(examples)), np.nan)
    cells, first = np.unique(row * len(examples) + example, return_index=True)
    values.flat[cells] = rows["log_likelihood"].to_numpy()[first]
    return pd.DataFrame(values, index=np.asarray(names), columns=np.asarray(examples, dtype=object))


def _splits(table: pd.DataFrame, index: str) -> pd.DataFrame:
    states = table.drop_duplicates([index, "split"])
    return states.pivot(index=index, columns="split", values="log_likelihood_per_token")


def _bleu(table: pd.DataFrame, index: str) -> pd.Series:
    return table.dropna(subset=["bleu"]).drop_duplicates(index, keep="last").set_index(index)["bleu"]


def _ascent(study: Study, folder: Path, ascent: Mapping, arms: Mapping, confidence: float) -> list[Run]:
    # the runs of one ascent; none, with the reason in `study.missing`, if its tables cannot be used
    arm, forget_set = ascent["arm"], ascent["forget_set"]
    trained_with = arms[arm]["trained_with"]
    files = [folder / f for f in ("runs.csv", "log_likelihoods.parquet", "performance.parquet")]
    absent = [f.name for f in files if not f.exists()]
    if absent or trained_with not in study.references:
        why = f"{', '.join(absent)} missing" if absent else f"no references trained with {trained_with}"
        study.missing.append(f"{folder.name}: {why}")
        return []
    columns = ["model", "role", "step", "example_id", "log_likelihood"]
    likelihoods, states = pd.read_parquet(files[1], columns=columns), plain(pd.read_parquet(files[2]))
    scores = {key: _grid(rows) for key, rows in likelihoods.groupby(["model", "role"], observed=True)}
    own, never = study.members(forget_set), study.members(f"never-{study.kind(forget_set)}")
    floor = pd.Series(floor_of(study, trained_with, forget_set, examples=own, confidence=confidence), own)
    runs = []
    for record in pd.read_csv(files[0]).to_dict("records"):
        model, role = int(record["model"]), record["role"]
        if (model, role) not in scores:
            study.missing.append(f"{folder.name}: model {model} ({role}) left no scores")
            continue
        found, mine = scores[model, role], states[(states["model"] == model) & (states["role"] == role)]
        there, others = [x for x in own if x in found], [x for x in never if x in found]
        bleu = _bleu(mine, "step")
        if model in study.bleu.get(trained_with, ()):
            bleu[0] = study.bleu[trained_with][model]
        runs.append(Run(
            name=folder.name, arm=arm, forget_set=forget_set, trained_with=trained_with, method=record["method"],
            model=model, role=role, status=record["status"], record=record,
            scores=found[there].dropna(how="all"), never=found[others].dropna(how="all"),
            n_tokens=study.examples["n_tokens"].loc[there].to_numpy(),
            reference=reference_of(study, trained_with, forget_set, model=model, examples=there),
            floor=floor[there].to_numpy(),
            never_reference=pd.Series(
                reference_of(study, trained_with, forget_set, model=model, examples=others), others, dtype=float
            ),
            performance=_splits(mine, "step"), bleu=bleu.sort_index(),
        ))  # fmt: skip
    return runs


# What a model would be without the set


def reference_of(study: Study, trained_with: str, forget_set: str, *, model: int, examples: Sequence[str]) -> Array:
    """(n,) what the model would give on the examples had it not been trained on the set (main effects), nats."""
    table = study.references[trained_with]
    return _predicted(study, table[list(examples)], forget_set, model) if len(examples) else np.empty(0)


def _predicted(study: Study, table: pd.DataFrame, forget_set: str, model: int) -> Array:
    design = study.design.loc[table.index]
    row, column = table.index.get_loc(model), design.columns.get_loc(forget_set)
    return genex.predicted_reference(table.to_numpy(), design.to_numpy(), model=row, column=column)


def reference_performance(study: Study, run: Run, split: str = "heldout") -> float:
    """What the run's model would score on a split, not trained on the set, nats per token; NaN if not measured."""
    table = study.performance.get(run.trained_with)
    if table is None or split not in table or table[split].isna().any() or run.model not in table.index:
        return float("nan")
    return float(_predicted(study, table[[split]], run.forget_set, run.model)[0])


def outside_scores(study: Study, run: Run) -> Array:
    """(n_out, n) log-likelihoods of the out-models on the run's examples, nats."""
    outside = study.models(run.forget_set, run.trained_with, inside=False)
    return study.references[run.trained_with].loc[outside, run.examples].to_numpy()


def floor_of(
    study: Study, trained_with: str, forget_set: str, *, examples: Sequence[str], confidence: float, runs: int = 1
) -> Array:
    """(n,) half-width of the noise floor for a mean over `runs` unlearned models, nats."""
    outside = study.models(forget_set, trained_with, inside=False)
    values = study.references[trained_with].loc[outside, list(examples)].to_numpy()
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(examples))
    return genex.noise_floor(reference_sd=sd, n_unlearned=runs, n_reference=len(values), confidence=confidence)


def start(study: Study, trained_with: str, forget_set: str, *, confidence: float = 0.95) -> pd.DataFrame:
    """Exposure of the original models, and its instance part, from the regression that makes the references.

    Twice the main effect of the set's column, over all models. Runs of a set share that regression, so that the
    spread of their exposures at θ0 says nothing about its error.

    Returns:
        rows exposure_0, and where the kind has never-trained examples generator_0 and instance_0 (nats) and
        instance_share (a ratio: no interval); columns estimate, low, high, n (models), reason.
    """
    table = study.references[trained_with]
    never = [x for x in study.members(f"never-{study.kind(forget_set)}") if x in table]
    outcomes = {"exposure_0": table[study.members(forget_set)].mean(axis=1)}
    if never:
        outcomes["generator_0"] = table[never].mean(axis=1)
        outcomes["instance_0"] = outcomes["exposure_0"] - outcomes["generator_0"]
    design = study.design.loc[table.index]
    found = effects.influence_matrix(pd.DataFrame(outcomes).to_numpy(), design.to_numpy(), confidence=confidence)
    column = design.columns.get_loc(forget_set)
    limits = {"estimate": found.effect[column], "low": found.low[column], "high": found.high[column]}
    rows = pd.DataFrame({**limits, "n": len(table), "reason": ""}, index=list(outcomes))
    if not found.df:
        rows["reason"] = "no column of the design is free: no interval"
    if never:
        share = rows.loc["instance_0", "estimate"] / rows.loc["exposure_0", "estimate"]
        rows.loc["instance_share"] = [share, np.nan, np.nan, len(table), "a ratio of two estimates: no interval"]
    return rows


def memorized(share: float) -> str:
    """Whether a set counts as memorized by the instance's share of its exposure at θ0: yes, no or unknown (NaN)."""
    return "unknown" if np.isnan(share) else "yes" if share >= MEMORIZED_SHARE else "no"


# One row a run


def run_table(study: Study) -> pd.DataFrame:
    """One row a run: the keys, the columns of UNITS and generator_0, and the rest of runs.csv; NaN where censored."""
    rows = [run_row(study, run) for run in study.runs if study.rates[run.arm] == 1]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*KEYS, *UNITS, "generator_0", "last_step"])


def run_row(study: Study, run: Run) -> dict:
    """One row of `run_table`.

    lost_25 … lost_100: held-out lost against θ0 at that percentage of k*; lost_to_references: full held-out at k*
    against the model's reference; lost_bleu: of translations, at the whole step nearest to k*.
    """
    exposure = float(run.exposure[0].mean())
    generator = float(run.generator_part.iloc[0]) if len(run.generator_part) else float("nan")
    instance = exposure - generator
    row = {key: getattr(run, key) for key in KEYS}
    row |= {"k_star": run.k_star, "k95": run.k95, "exposure_0": exposure, "generator_0": generator}
    row |= {"instance_0": instance, "instance_share": instance / exposure if exposure else np.nan}
    row |= {f"lost_{100 * share:.0f}": float(run.lost(share * run.k_star)) for share in SHARES}
    row |= {"lost_k95": float(run.lost(run.k95)), "lost_retain": float(run.lost(run.k_star, "retain"))}
    row |= {"lost_bleu": run.bleu_at(0) - run.bleu_at(run.k_star)}
    row |= {"lost_to_references": lost_to_references(study, run)} | spread_at(run, run.k_star)
    return row | {k: v for k, v in run.record.items() if k not in row and k != "track"}


def lost_to_references(study: Study, run: Run) -> float:
    """Performance of the model's reference minus its own at k*, on all of held-out, nats per token."""
    scored = run.performance["heldout"].dropna() if "heldout" in run.performance else pd.Series(dtype=float)
    at = performance.interpolate(scored.to_numpy(), scored.index.to_numpy(), run.k_star)
    return float(performance.performance_lost(unlearned=at, reference=reference_performance(study, run)))


def spread_at(run: Run, step: float) -> dict[str, float]:
    """Share of the set inside and above the noise floor, and root mean square exposure (nats), at a step."""
    exposure = performance.interpolate(run.exposure, run.steps, step)
    if not np.isfinite(exposure).all():
        return dict.fromkeys(("share_inside", "share_exposed", "rms"), float("nan"))
    return {
        "share_inside": float(np.mean(np.abs(exposure) <= run.floor)),
        "share_exposed": float(np.mean(exposure > run.floor)),
        "rms": float(np.sqrt(np.mean(exposure**2))),
    }
