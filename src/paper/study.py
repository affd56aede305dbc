"""From the tidy tables to runs: what each model lost at each step, against what it would have been.

`load` reads every table that is there; what is not there is named in `Study.missing`, and the functions below give
NaN or no row for it. Log-likelihoods in nats, performance in nats per token.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import genex, performance

# Endings of ascents that repeat an arm at another learning rate: kept out of figures, asked by C2 beside the claim.
OTHER_RATES = {"½": "-half", "2": "-double"}

Array = np.ndarray


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
    examples: list[str]
    n_tokens: Array  # (n,)
    steps: Array  # (steps,)
    log_likelihoods: Array  # (steps, n)
    reference: Array  # (n,) of this model, nats
    floor: Array  # (n,) half-width at run level, nats
    generator_steps: Array  # steps at which never-trained examples of the kind were scored
    generator_part: Array  # their mean exposure D, nats
    performance: pd.DataFrame  # step × split, nats per token
    bleu: pd.Series  # of held-out translations, at the few steps where they were scored, and of θ0 at step 0

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

    def lost_at(self, step: float, split: str = "heldout_fixed") -> float:
        """Performance of θ0 minus that at a fractional step, nats per token; NaN where it was not measured."""
        if split not in self.performance:
            return float("nan")
        scored = self.performance[split].dropna()
        if not len(scored) or scored.index[0] != 0 or not performance.followed_at(scored.index, step):
            return float("nan")
        return float(scored.iloc[0] - performance.interpolate(scored.to_numpy(), scored.index.to_numpy(), step))

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
    performance: dict[str, pd.DataFrame]  # trained_with -> model × split, nats per token
    bleu: dict[str, pd.Series] = field(default_factory=dict)  # trained_with -> by model, of held-out translations
    runs: list[Run] = field(default_factory=list)
    other_rates: list[Run] = field(default_factory=list)  # a headline arm at another learning rate: for C2 alone
    missing: list[str] = field(default_factory=list)

    def select(self, *, arm: str | None = None, forget_set: str | None = None, role: str = "in") -> list[Run]:
        """The runs of an arm, a set and a role, in the order of models."""
        pool = self.runs if arm is None else (*self.runs, *self.other_rates)
        return [
            r for r in pool
            if r.role == role and arm in (None, r.arm) and forget_set in (None, r.forget_set)
        ]  # fmt: skip

    @property
    def arms(self) -> list[str]:
        """Arms that have a run, in the order in which they were found."""
        return list(dict.fromkeys(r.arm for r in self.runs))

    @property
    def forget_sets(self) -> list[str]:
        """Columns of the design but the base."""
        return [c for c in self.design.columns if c != "base"]

    def inside(self, forget_set: str) -> list[int]:
        """Models trained on the set."""
        return list(self.design.index[self.design[forget_set] > 0])

    def outside(self, forget_set: str) -> list[int]:
        """Models not trained on the set: its references."""
        return list(self.design.index[self.design[forget_set] < 0])

    def members(self, forget_set: str) -> list[str]:
        """Ids of the set's examples."""
        return list(self.examples.index[self.examples["forget_set"] == forget_set])


def load(root: str | Path = ".", *, confidence: float = 0.95) -> Study:
    """Read a study's committed tables.

    Args:
        root: folder that holds results/tables.
        confidence: of the noise floor.

    Raises:
        FileNotFoundError: no design or no examples; everything else may be missing and is then named.
    """
    tables = Path(root) / "results" / "tables"
    missing: list[str] = []
    design = load_design(root)
    examples = plain(pd.read_parquet(tables / "examples.parquet")).set_index("example_id")
    base = _wide(tables / "base.parquet")
    if base.empty:
        missing.append("no scores of the base models (results/tables/base.parquet)")
    references = {p.stem.removeprefix("references-"): _wide(p) for p in tables.glob("references-*.parquet")}
    scored = {p.stem.removeprefix("performance-"): pd.read_csv(p) for p in tables.glob("performance-*.csv")}
    performance = {name: _performance(table) for name, table in scored.items()}
    bleu = {name: _bleu(table, "model") for name, table in scored.items()}
    study = Study(design, examples, base, dict(sorted(references.items())), performance, bleu, missing=missing)
    for folder in sorted((tables / "unlearn").glob("*")) if (tables / "unlearn").is_dir() else []:
        found = load_ascent(study, folder, confidence=confidence)
        (study.other_rates if folder.name.endswith(tuple(OTHER_RATES.values())) else study.runs).extend(found)
    return study


def load_design(root: str | Path = ".") -> pd.DataFrame:
    """Model × column (base, then forget sets) of ±1: +1 trained on the set, or base model 1."""
    table = pd.read_csv(Path(root) / "results" / "tables" / "design.csv").set_index("model")
    return 2 * table.astype(int) - 1


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The table with text where it holds categories (text is stored so); objects, which pandas looks up fastest."""
    text = table.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes]]
    return table.astype(dict.fromkeys(text, object))


def _wide(path: Path) -> pd.DataFrame:
    return _grid(pd.read_parquet(path), "model") if path.exists() else pd.DataFrame()


def _performance(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot_table(index="model", columns="split", values="log_likelihood_per_token", aggfunc="first")


def _bleu(table: pd.DataFrame, index: str) -> pd.Series:
    return table.dropna(subset=["bleu"]).drop_duplicates(index, keep="last").set_index(index)["bleu"]


def load_ascent(study: Study, folder: Path, *, confidence: float = 0.95) -> list[Run]:
    """The runs of one folder of results/tables/unlearn; empty, with the reason in `study.missing`, if unusable."""
    files = [folder / f for f in ("runs.csv", "log_likelihoods.parquet", "performance.parquet")]
    absent = [f.name for f in files if not f.exists()]
    if absent:
        study.missing.append(f"{folder.name}: {', '.join(absent)} missing")
        return []
    records, performance = pd.read_csv(files[0]), plain(pd.read_parquet(files[2]))
    likelihoods = pd.read_parquet(files[1], columns=["model", "role", "step", "example_id", "log_likelihood"])
    scores = {key: _grid(rows) for key, rows in likelihoods.groupby(["model", "role"], observed=True)}
    performances = dict(iter(performance.groupby(["model", "role"])))
    runs, floors = [], {}
    for record in records.to_dict("records"):
        key = record["model"], record["role"]
        if record["trained_with"] not in study.references:
            study.missing.append(f"{folder.name}: no references trained with {record['trained_with']}")
            break
        if key not in scores:
            study.missing.append(f"{folder.name}: model {key[0]} ({key[1]}) left no scores")
            continue
        rows = performances.get(key, performance.iloc[:0])
        run = _run(study, folder.name, record, scores[key], rows)
        at = tuple(run.examples)
        if at not in floors:  # the same for every run of a set
            floors[at] = floor_of(study, run.trained_with, run.forget_set, examples=run.examples, confidence=confidence)
        runs.append(replace(run, floor=floors[at]))
    return runs


def _grid(rows: pd.DataFrame, index: str = "step") -> pd.DataFrame:
    # step (or model) × example of log-likelihoods, the first where a state was scored twice; faster than a pivot
    (row, names), (example, examples) = (pd.factorize(rows[c], sort=True) for c in (index, "example_id"))
    values = np.full((len(names), len(examples)), np.nan)
    cells, first = np.unique(row * len(examples) + example, return_index=True)
    values.flat[cells] = rows["log_likelihood"].to_numpy()[first]
    return pd.DataFrame(values, index=np.asarray(names), columns=np.asarray(examples, dtype=object))


def _run(study: Study, name: str, record: dict, scores: pd.DataFrame, performance: pd.DataFrame) -> Run:
    forget_set, trained_with, model = record["forget_set"], record["trained_with"], int(record["model"])
    own = [x for x in study.members(forget_set) if x in scores]
    trajectory = scores[own].dropna(how="all")
    states = performance.drop_duplicates(["step", "split"])
    others = _followed(study, forget_set, scores)
    there = reference_of(study, trained_with, forget_set, model=model, examples=list(others))
    bleu = _bleu(performance, "step")
    if model in (before := study.bleu.get(trained_with, bleu[:0])):
        bleu[0] = before[model]
    return Run(
        name=name, arm=name.removeprefix(f"{forget_set}-"), forget_set=forget_set,
        trained_with=trained_with, method=record["method"], model=model, role=record["role"],
        status=record["status"], record=record, examples=own,
        n_tokens=study.examples["n_tokens"].loc[own].to_numpy(), steps=trajectory.index.to_numpy(),
        log_likelihoods=trajectory.to_numpy(),
        reference=reference_of(study, trained_with, forget_set, model=model, examples=own),
        floor=np.full(len(own), np.nan),
        generator_steps=others.index.to_numpy(),
        generator_part=(others.to_numpy() - there).mean(axis=1) if others.size else np.empty(0),
        performance=states.pivot(index="step", columns="split", values="log_likelihood_per_token"),
        bleu=bleu.sort_index(),
    )  # fmt: skip


def _followed(study: Study, forget_set: str, scores: pd.DataFrame) -> pd.DataFrame:
    # the never-trained examples of the set's kind that were scored along the way, not at the few states around k* only
    kinds = study.examples["kind"][study.examples["forget_set"] == forget_set]
    never = [x for x in study.members(f"never-{kinds.iloc[0]}") if x in scores] if len(kinds) else []
    counts = scores[never].notna().sum()
    return scores[list(counts.index[counts == counts.max()])].dropna() if never else pd.DataFrame()


def reference_of(study: Study, trained_with: str, forget_set: str, *, model: int, examples: list[str]) -> Array:
    """(n,) what the model would give on the examples had it not been trained on the set (main effects), nats."""
    table = study.references[trained_with]
    if not len(examples):
        return np.empty(0)
    design = study.design.loc[table.index]
    return genex.predicted_reference(
        table[examples].to_numpy(),
        design.to_numpy(),
        model=list(table.index).index(model),
        column=list(design.columns).index(forget_set),
    )


def floor_of(
    study: Study, trained_with: str, forget_set: str, *, examples: list[str], confidence: float, runs: int = 1
) -> Array:
    """(n,) half-width of the noise floor for a mean over `runs` unlearned models, nats."""
    table = study.references[trained_with]
    outside = table.loc[[m for m in study.outside(forget_set) if m in table.index], examples].to_numpy()
    sd = outside.std(axis=0, ddof=1) if len(outside) > 1 else np.zeros(len(examples))
    return genex.noise_floor(reference_sd=sd, n_unlearned=runs, n_reference=len(outside), confidence=confidence)
