"""From the tables to runs: what each model lost at each step, against what it would have been without the set.

`read_study` reads what the settings name and nothing else. What is missing is named in `Study.missing`, and the
functions below give NaN or no row for it. Log-likelihoods in nats, performance in nats per token. A *family* is an
entry of `forget_sets` in the settings, its *draws* are the sets of that kind: the columns of the design.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import effects, genex, performance
from unlearning.data import kinds

Array = np.ndarray

BY = ["arm", "forget_set", "model"]
KEYS = ["arm", "forget_set", "family", "trained_with", "method", "model", "role", "status"]
RUN = ["forget_set", "model", "role"]  # tell the runs of an arm apart
REFERENCES = ("regression", "out-average")
LOST = {"lost_25": 0.25, "lost_50": 0.5, "lost_75": 0.75, "lost_100": 1.0}  # column -> share of k* that it is read at
BY_SENTENCE = {"lost_50": 0.5, "lost_100": 1.0}  # those read from all held-out sentences, not from the followed ones
MEMORIZED_SHARE = 0.5  # of the exposure at θ0 that has to be the instance's own for a set to count as memorized
UNITS = {  # of the columns of `run_table`
    **{"k_star": "steps", "k95": "steps"},
    **{"exposure_0": "nats", "instance_0": "nats", "instance_share": "share of exposure"},
    **dict.fromkeys([*LOST, "lost_k95", "lost_to_references", "lost_retain"], "nats per token"),
    **dict.fromkeys([f"{name}_fixed" for name in BY_SENTENCE], "nats per token"),
    **{"lost_bleu": "BLEU", "share_inside": "share of the set", "share_exposed": "share of the set", "rms": "nats"},
}


@dataclass(frozen=True)
class Run:
    """One model unlearning one forget set: an in-model, or a placebo that never saw the set."""

    arm: str
    forget_set: str
    family: str
    trained_with: str
    model: int
    role: str
    record: dict  # its row of runs.csv
    scores: pd.DataFrame  # step × example of the set, nats
    never: pd.DataFrame  # step × never-trained example of its kind, nats; NaN where not scored
    sentences: pd.DataFrame  # step × held-out sentence, nats: step 0, around k*/2 and around k*
    n_tokens: Array  # (n,)
    reference: Array  # (n,) of this model, nats
    floor: Array  # (n,) half-width at run level, nats
    never_reference: Array  # (never,) of this model on the never-trained examples, nats
    sentence_tokens: Array  # (sentences,)
    performance: pd.DataFrame  # step × split, nats per token, and bleu (0 to 100); step 0: of the trained model
    gap: int  # steps from one followed state to the next: states further apart are not connected

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
    def _all_the_way(self) -> Array:  # (never,) of bool: scored at more than the few states around k*
        counts = self.never.notna().to_numpy().sum(axis=0)
        return counts == counts.max(initial=1)

    @property
    def followed(self) -> pd.DataFrame:
        """Step × never-trained examples that were scored all the way, nats; empty where none was."""
        return self.never.loc[:, self._all_the_way].dropna()

    @property
    def generator_part(self) -> pd.Series:
        """By step: mean exposure D of the followed never-trained examples, nats; empty where there are none."""
        values, like = self.followed, self.never_reference[self._all_the_way]
        means = (values.to_numpy() - like).mean(axis=1) if values.size else []
        return pd.Series(means, values.index[: len(means)], dtype=float)

    @cached_property
    def bleu(self) -> pd.Series:  # of held-out translations, by step; step 0: of the trained model
        return self.performance.get("bleu", pd.Series(dtype=float)).dropna()

    def lost(self, steps: float | Sequence[float], split: str = "heldout_fixed") -> Array:
        """Performance of θ0 minus that at fractional steps, nats per token; NaN where it was not measured."""
        at, found = np.asarray(steps, dtype=float), self.performance.get(split, pd.Series(dtype=float)).dropna()
        if 0 not in found.index:
            return np.full(at.shape, np.nan)
        lost = performance.performance_lost(unlearned=np.interp(at, found.index, found), reference=found[0])
        return np.where(performance.followed_at(found.index, at, gap=self.gap), lost, np.nan)

    def lost_sentences(self, share: float) -> Array:
        """(sentences,) nats that each held-out sentence has lost against θ0 at a share of k*: ½ or 1, else NaN."""
        at, steps, values = share * self.k_star, self.sentences.index.to_numpy(), self.sentences.to_numpy()
        if not len(steps) or not performance.followed_at(steps, at, gap=self.gap):
            return np.full(values.shape[1], np.nan)
        unlearned = performance.interpolate(values, steps, at)
        return performance.performance_lost(unlearned=unlearned, reference=values[0])

    def lost_heldout(self, share: float) -> float:
        """The same in one number: nats per token of all held-out sentences."""
        return float(self.lost_sentences(share).sum() / self.sentence_tokens.sum()) if self.sentences.size else np.nan

    def bleu_at(self, step: float) -> float:
        """BLEU (0 to 100) at the nearest whole step within one; NaN where it was not scored."""
        near = self.bleu[np.abs(self.bleu.index - step) <= 1] if np.isfinite(step) else self.bleu[:0]
        return float(near.iloc[np.argmin(np.abs(near.index - step))]) if len(near) else float("nan")


@dataclass(frozen=True, eq=False)
class Study:
    """Every table of a study as arrays and frames; made by `read_study`."""

    design: pd.DataFrame  # model × column ("base", then forget sets), ±1
    examples: pd.DataFrame  # by example_id
    families: dict[str, list[str]]  # family -> its draws
    base: pd.DataFrame  # base × example, nats
    references: dict[str, pd.DataFrame]  # trained_with -> model × example, nats
    performance: dict[str, pd.DataFrame]  # trained_with (or base) -> model × split, nats per token
    bleu: dict[str, pd.Series] = field(default_factory=dict)  # trained_with -> by model, of held-out translations
    rates: dict[str, float] = field(default_factory=dict)  # arm -> its learning rate, in multiples of the pilot's
    runs: list[Run] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    confidence: float = 0.95  # of every interval and noise floor
    reference: str = "regression"  # one of REFERENCES

    def select(
        self, *, arm: str | None = None, forget_set: str | None = None, family: str | None = None, role: str = "in"
    ) -> list[Run]:
        """The runs of an arm, a set or a family, and a role. Arms at another learning rate only where named."""
        there = [run for run in self.runs if (self.rates[run.arm] == 1 if arm is None else run.arm == arm)]
        there = [run for run in there if forget_set in (None, run.forget_set) and family in (None, run.family)]
        return [run for run in there if run.role == role]

    @property
    def arms(self) -> list[str]:  # that have a run, those at another learning rate left out
        return list(dict.fromkeys(run.arm for run in self.runs if self.rates[run.arm] == 1))

    @property
    def forget_sets(self) -> list[str]:
        return [c for c in self.design.columns if c != "base"]

    @cached_property
    def table(self) -> pd.DataFrame:  # one row a run, of every arm and role: see `run_table`
        columns = [*KEYS, *UNITS, "generator_0", "learning_rate", "last_step"]
        return pd.DataFrame([_run_row(self, run) for run in self.runs], columns=None if self.runs else columns)

    def models(self, forget_set: str, trained_with: str, *, inside: bool) -> list[int]:
        """Scored models that are trained on a set, or (`inside` false) those that are not: its references."""
        signs = self.design.loc[self.references[trained_with].index, forget_set]
        return list(signs.index[signs > 0 if inside else signs < 0])

    def held_by(self, forget_set: str, trained_with: str, *, inside: bool) -> pd.DataFrame:
        """Model × example of a set at θ0, nats: those models."""
        return _held_by(self, forget_set, trained_with, inside)

    def scores(self, trained_with: str, split: str = "heldout") -> pd.Series:
        """Performance on a split by model, nats per token; NaN where it was not measured."""
        found = self.performance.get(trained_with, pd.DataFrame()).get(split, pd.Series(dtype=float))
        return found.reindex(self.base.index if trained_with == "base" else self.design.index)

    def members(self, group: str) -> list[str]:
        """Ids of the examples of a forget set, a population or a split, in the order of their scores."""
        return self._members.get(group, [])

    @cached_property
    def _members(self) -> dict[str, list[str]]:
        return {name: list(ids) for name, ids in self.examples.groupby("forget_set", sort=False).groups.items()}

    def never_trained(self, forget_set: str) -> list[str]:
        """Ids of the never-trained examples of a set's kind; none where the kind has no population."""
        return self.members(kinds.population(self.kind(forget_set)) or "")

    def kind(self, name: str) -> str:
        """Of a forget set or a family."""
        return str(self.examples.loc[self.members(self.families.get(name, [name])[0])[0], "kind"])

    def family(self, forget_set: str) -> str:
        return next((family for family, names in self.families.items() if forget_set in names), forget_set)


@cache
def _held_by(study: Study, forget_set: str, trained_with: str, inside: bool) -> pd.DataFrame:
    models = study.models(forget_set, trained_with, inside=inside)
    return study.references[trained_with].loc[models, study.members(forget_set)]


def by_run(runs: Sequence[Run], table: Callable[[Run], pd.DataFrame], columns: Sequence[str] = ()) -> pd.DataFrame:
    """The rows that `table` gives for each run, under its arm, forget_set, model (BY); with no row its `columns`."""
    tables = [table(run).assign(arm=run.arm, forget_set=run.forget_set, model=run.model) for run in runs]
    rows = pd.concat([t for t in tables if len(t)] or [pd.DataFrame(columns=[*BY, *columns])], ignore_index=True)
    return rows[[*BY, *rows.columns.difference(BY, sort=False)]]


def read_study(
    root: str | Path = ".", *, forget_sets: Mapping, arms: Mapping, ascents: Mapping, confidence: float = 0.95,
    reference: str = "regression",
) -> Study:  # fmt: skip
    """Read the tables below `root` that the blocks name; FileNotFoundError without a design or examples alone.

    reference: what a model would be without a set, by REFERENCES: the regression on its base and the set's own column,
    or the plain mean of the models that never saw the set. ValueError for another.
    """
    if reference not in REFERENCES:
        raise ValueError(f"unknown reference {reference!r}; choose one of {', '.join(REFERENCES)}")
    tables = Path(root) / "results" / "tables"
    design = pd.read_csv(tables / "forget_sets" / "design.csv").set_index("model")  # +1: holds the set, or base model 1
    folders = {"base": tables / "base"}
    folders |= {name: tables / "train" / name for name in sorted({arm["trained_with"] for arm in arms.values()})}
    files = {name: folder / "log_likelihoods.parquet" for name, folder in folders.items()}
    quality = {name: folder / "performance.csv" for name, folder in folders.items()}
    quality = {name: pd.read_csv(path) for name, path in quality.items() if path.exists()}
    examples = plain(pd.read_parquet(tables / "forget_sets" / "examples.parquet")).set_index("example_id")
    scores = {name: _by_model(path, examples.index) for name, path in files.items() if path.exists()}
    families = kinds.family_names(forget_sets)
    study = Study(
        design=2 * design.astype(int) - 1,
        examples=examples,
        families={name: there for name, sets in families.items() if (there := [s for s in sets if s in design])},
        base=scores.get("base", pd.DataFrame(np.nan, index=[0, 1], columns=examples.index)),
        references={name: table for name, table in scores.items() if name != "base" and len(table)},
        performance={name: _splits(table, "model") for name, table in quality.items()},
        bleu={name: table.groupby("model")["bleu"].max().dropna() for name, table in quality.items()},
        rates={name: arm.get("rate", 1.0) for name, arm in arms.items()},
        missing=[] if "base" in scores else ["no scores of the base models (results/tables/base)"],
        confidence=confidence,
        reference=reference,
    )
    for arm, entries in ascents.items():
        names = [name for entry in entries for name in families.get(entry, [entry])]
        there = [name for name in names if name in study.forget_sets]
        study.missing.extend(f"{arm}: {name} is not in the design" for name in names if name not in there)
        study.runs.extend(_ascents(study, tables / "unlearn" / arm, arm, arms[arm]["trained_with"], there))
    return study


def retrained(name: str, root: str | Path = ".") -> pd.DataFrame:
    """Scores (nats) of the exact `partners` or of the `repeats` of every training; no row where none was trained."""
    nothing = pd.DataFrame(columns=["trained_with", "model", "left_out", "example_id", "log_likelihood"])
    found = map(pd.read_parquet, sorted(Path(root).glob(f"results/tables/train/*/{name}.parquet")))
    return pd.concat([plain(table) for table in found if len(table)] or [nothing], ignore_index=True)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The table with text where it holds categories (text is stored so); objects, which pandas looks up fastest."""
    return table.astype(dict.fromkeys(table.select_dtypes(exclude=["number", "bool"]), object))


def _by_model(path: Path, examples: pd.Index) -> pd.DataFrame:
    # model × example of log-likelihoods, NaN where an example was not scored
    rows = pd.read_parquet(path, columns=["model", "example_id", "log_likelihood"])
    models, example = rows["model"].to_numpy(), _places(rows["example_id"], examples)
    found = _grid(models, example, rows["log_likelihood"].to_numpy(), np.arange(len(examples)))
    return found.set_axis(examples, axis=1)


def _places(names: pd.Series, examples: pd.Index) -> Array:
    # number of each example; -1 for one that the study does not know
    codes, found = pd.factorize(names)
    return examples.get_indexer(found)[codes]


def _grid(rows: Array, columns: Array, values: Array, wanted: Array, first: Array | None = None) -> pd.DataFrame:
    # row (step or model) × wanted columns; the first value where a state was scored twice. first: the row of step 0,
    # which the table does not hold; it is there if any other is
    place = np.full(max(columns.max(initial=-1), wanted.max(initial=-1)) + 2, -1)
    place[wanted] = np.arange(len(wanted))
    mine = np.flatnonzero(place[columns] >= 0)[::-1]
    names, row = np.unique(rows[mine], return_inverse=True)
    grid = np.full((len(names), len(wanted)), np.nan)
    grid[row, place[columns[mine]]] = values[mine]
    if first is not None and len(names):
        names, grid = [0, *names[names > 0]], np.vstack([first, grid[names > 0]])
    return pd.DataFrame(grid, index=names)


def _splits(table: pd.DataFrame, index: str | Sequence[str]) -> pd.DataFrame:
    # state × split of performance, nats per token
    table = table.drop_duplicates([*np.atleast_1d(index), "split"])
    return table.pivot(index=index, columns="split", values="log_likelihood_per_token")


def _ascents(study: Study, folder: Path, arm: str, trained_with: str, names: Sequence[str]) -> list[Run]:
    # the runs of one arm; none, with the reason in `study.missing`, if its tables cannot be used
    files = [folder / f for f in ("runs.csv", "log_likelihoods.parquet", "performance.parquet")]
    absent = [f.name for f in files if not f.exists()]
    if absent or trained_with not in study.references:
        why = f"{', '.join(absent)} missing" if absent else f"no references trained with {trained_with}"
        study.missing.append(f"{arm}: {why}")
        return []
    rows = pd.read_parquet(files[1], columns=[*RUN, "step", "example_id", "log_likelihood"])
    ids, runs, scored = study.examples.index, [], rows.groupby(RUN, observed=True).indices
    cells = {"rows": rows["step"], "columns": _places(rows["example_id"], ids), "values": rows["log_likelihood"]}
    cells = {name: np.asarray(column) for name, column in cells.items()}
    performance_of, gap = _performance(study, arm, trained_with, pd.read_parquet(files[2]))
    original, n_tokens = study.references[trained_with], study.examples["n_tokens"].to_numpy()
    places = {group: ids.get_indexer(study.members(group)) for group in ("heldout", *names)}
    never = {name: ids.get_indexer(study.never_trained(name)) for name in names}
    floors = {s: floor_among(study, study.held_by(s, trained_with, inside=False).to_numpy()) for s in names}
    for record in pd.read_csv(files[0], dtype={"forget_set": str}).to_dict("records"):  # also 2024
        name, model, role = key = record["forget_set"], int(record["model"]), record["role"]
        if name in names and key not in scored:
            study.missing.append(f"{arm}: {name} in model {model} ({role}) left no scores")
        if name not in names or key not in scored:
            continue
        reference = _reference(study, trained_with, name, study.design["base"][model]).to_numpy()
        mine, start, n = {c: values[scored[key]] for c, values in cells.items()}, original.loc[model].to_numpy(), []
        for group, first in ((places[name], False), (never[name], True), (places["heldout"], True)):
            n.append(_grid(**mine, wanted=group, first=start[group] if first else None).set_axis(ids[group], axis=1))
        own = len(places[name])
        runs.append(Run(
            arm, name, study.family(name), trained_with, model, role, record, n[0].dropna(how="all"), n[1], n[2],
            n_tokens=n_tokens[places[name]], reference=reference[:own], floor=floors[name],
            never_reference=reference[own:], sentence_tokens=n_tokens[places["heldout"]],
            performance=performance_of(key), gap=gap,
        ))  # fmt: skip
    reached = [run for run in runs if run.role == "in" and np.isfinite(run.k_star)]
    if n := sum(np.isnan([run.lost_heldout(share) for share in BY_SENTENCE.values()]).any() for run in reached):
        study.missing.append(f"{arm}: {n} of {len(reached)} runs without all held-out sentences around k* and k*/2")
    return runs


def _performance(study: Study, arm: str, trained_with: str, states: pd.DataFrame) -> tuple[Callable, int]:
    # (forget set, model, role) -> step × split of a run, nats per token, and bleu; step 0 from the scores of training.
    # And every how many steps runs were followed: the longest time that one took to its first state
    states, group, n_tokens = plain(states), study.examples["forget_set"], study.examples["n_tokens"]
    splits = _splits(states, [*RUN, "step"])
    splits["bleu"] = states.groupby([*RUN, "step"])["bleu"].max()
    fixed = states[(states["split"] == "heldout_fixed") & (states["step"] > 0)]
    table = study.references[trained_with]
    sums, tokens = table.T.groupby(group).sum(min_count=1).T, n_tokens.groupby(group).sum()
    start = (sums / tokens).reindex(columns=["heldout", "retain"])
    length, n_fixed = n_tokens[study.members("heldout")].cumsum(), fixed["n_tokens"].max()
    if (length == n_fixed).any():
        start["heldout_fixed"] = table[length.index[length <= n_fixed]].sum(axis=1) / n_fixed
    elif len(fixed):
        study.missing.append(f"{arm}: the followed held-out sentences are not the first of the split")
    start = start.assign(bleu=study.bleu.get(trained_with, np.nan)).to_dict("index")
    kind = pd.Series({name: study.kind(name) for name in study.forget_sets})
    rows, values, steps = splits.groupby(level=RUN).indices, splits.to_numpy(), splits.index.get_level_values("step")

    def of_run(run: tuple[str, int, str]) -> pd.DataFrame:
        (name, model, _), at = run, rows.get(run, np.empty(0, dtype=int))
        if not len(at := at[steps[at] > 0]):
            return pd.DataFrame()
        alike = kind.index[(kind == kind[name]) & (kind.index != name) & (study.design.loc[model, kind.index] > 0)]
        first = start[model] | {"retained": sums.loc[model, alike].sum(min_count=1) / tokens[alike].sum()}
        grid = np.vstack([[first.get(split, np.nan) for split in splits], values[at]])
        return pd.DataFrame(grid, index=[0, *steps[at]], columns=splits.columns)

    return of_run, int(fixed.groupby(RUN)["step"].min().max()) if len(fixed) else 1


@cache
def _reference(study: Study, trained_with: str, forget_set: str, base: int) -> pd.Series:
    # by example of the set, then never-trained ones of its kind: what a model of that base (±1) would give, nats
    ids = [*study.members(forget_set), *study.never_trained(forget_set)]
    return pd.Series(_predicted(study, study.references[trained_with][ids], forget_set, base), ids)


@cache
def _performance_reference(study: Study, trained_with: str, forget_set: str, base: int) -> pd.Series:
    table = study.performance.get(trained_with, pd.DataFrame()).reindex(study.design.index)
    return pd.Series(_predicted(study, table, forget_set, base), table.columns)


def _predicted(study: Study, table: pd.DataFrame, forget_set: str, base: int) -> Array:
    design = study.design.loc[table.index, ["base", forget_set]]
    if study.reference == "out-average":
        return table[design[forget_set] < 0].mean().to_numpy()
    row = int(np.argmax(design["base"] == base))  # models of one base have one reference
    return genex.predicted_reference(table.to_numpy(), design.to_numpy(), model=row, column=1)


def reference_of(study: Study, trained_with: str, forget_set: str, model: int, examples: Sequence[str]) -> Array:
    """(n,) what a model would give had it not been trained on the set, nats: see `read_study`. KeyError for examples
    that are neither of the set nor never-trained ones of its kind."""
    return _reference(study, trained_with, forget_set, study.design["base"][model])[list(examples)].to_numpy()


def reference_performance(study: Study, run: Run, split: str = "heldout") -> float:
    """What the run's model would score on a split, not trained on the set, nats per token; NaN if not measured."""
    base = study.design["base"][run.model]
    return float(_performance_reference(study, run.trained_with, run.forget_set, base).get(split, np.nan))


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
    table, never = study.references[trained_with], study.never_trained(forget_set)
    means = pd.DataFrame({"exposure_0": table[study.members(forget_set)].mean(axis=1)})
    if never:
        means["generator_0"] = table[never].mean(axis=1)
        means["instance_0"] = means["exposure_0"] - means["generator_0"]
    design = study.design.loc[table.index, ["base", forget_set]]
    found = effects.influence_matrix(means.to_numpy(), design.to_numpy(), confidence=study.confidence)
    limits = {"estimate": found.effect[1], "low": found.low[1], "high": found.high[1]}
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

    lost_25 … lost_100: held-out lost against θ0 at that percentage of k*, lost_50 and lost_100 on all sentences, their
    `_fixed` and the others on those that are followed; lost_to_references: held-out at k* against the model's
    reference; share_inside, share_exposed: of the set inside and above the noise floor at k*.
    """
    table = study.table
    return table[(table["arm"].map(study.rates) != 1) == other_rates].reset_index(drop=True)


def draw_table(study: Study, arm: str, column: str) -> pd.DataFrame:
    """One row an in-run of an arm: family, forget_set (a draw), model, value (that column of `run_table`)."""
    table = study.table[(study.table["arm"] == arm) & (study.table["role"] == "in")]
    return table[["family", "forget_set", "model"]].assign(value=table[column]).reset_index(drop=True)


def _run_row(study: Study, run: Run) -> dict:
    k_star, exposure, generator = run.k_star, float(run.exposure[0].mean()), run.generator_part
    generator = float(generator.iloc[0]) if len(generator) else np.nan
    at_k_star, heldout = performance.interpolate(run.exposure, run.steps, k_star), run.performance.get("heldout")
    scored = pd.Series(dtype=float) if heldout is None else heldout.dropna()
    heldout = performance.interpolate(scored.to_numpy(), scored.index.to_numpy(), k_star)
    to_references = performance.performance_lost(unlearned=heldout, reference=reference_performance(study, run))
    given = run.record | vars(run)
    row = {key: given[key] for key in KEYS} | {"k_star": k_star, "k95": run.k95}
    row |= {"exposure_0": exposure, "generator_0": generator, "instance_0": exposure - generator}
    row["instance_share"] = row["instance_0"] / exposure if exposure else np.nan
    *lost, at_k95 = run.lost([*(share * k_star for share in LOST.values()), run.k95])
    row |= dict(zip(LOST, lost, strict=True))
    row |= {f"{name}_fixed": row[name] for name in BY_SENTENCE} | {"lost_k95": at_k95}
    row |= {name: run.lost_heldout(share) for name, share in BY_SENTENCE.items()}
    row |= {"lost_retain": float(run.lost(k_star, "retain")), "lost_to_references": float(to_references)}
    row |= {"lost_bleu": run.bleu_at(0) - run.bleu_at(k_star)}
    shares = [np.mean(np.abs(at_k_star) <= run.floor), np.mean(at_k_star > run.floor)]
    inside, exposed = shares if np.isfinite(at_k_star).all() else (np.nan, np.nan)
    row |= {"share_inside": inside, "share_exposed": exposed, "rms": np.sqrt(np.mean(at_k_star**2))}
    return row | {k: v for k, v in run.record.items() if k not in row and k != "track"}
