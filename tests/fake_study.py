"""Writes a made-up study with the schema of the real tables, so that reading code is tested without training.

`python tests/fake_study.py FOLDER [--smoke|--whole]` writes one for looking at notebooks.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import genex
from unlearning.data import kinds

ONE = {"size": 24, "repetitions": 1}
FAMILIES = {  # ten sets: with the base all eleven columns of twelve models
    "ind": {"kind": "natural", **ONE, "draws": 3},
    "ood-canary": {"kind": "canary", **ONE, "draws": 3},
    "ood-shuffled": {"kind": "shuffled", **ONE},
    "ind-x4": {"kind": "natural", **ONE, "repetitions": 4},
    "ood-secret-x1": {"kind": "secret", **ONE},
    "ood-secret-x16": {"kind": "secret", **ONE, "repetitions": 16},
}
WHOLE = {  # the study's own 28
    "ind": {"kind": "natural", **ONE, "draws": 10},
    "ood-canary": {"kind": "canary", **ONE, "draws": 10},
    "ood-shuffled": {"kind": "shuffled", **ONE, "draws": 2},
    "ood-language": {"kind": "language", **ONE, "draws": 2},
    "ind-x4": {"kind": "natural", **ONE, "repetitions": 4},
    "ind-x16": {"kind": "natural", **ONE, "repetitions": 16},
    "ood-secret-x1": {"kind": "secret", **ONE},
    "ood-secret-x16": {"kind": "secret", **ONE, "repetitions": 16},
}
ARMS = {
    "adafactor-restored": {"trained_with": "adafactor", "method": "adafactor-restored"},
    "adamw": {"trained_with": "adamw", "method": "adamw"},
    "sgd": {"trained_with": "adamw", "method": "sgd"},
    "adamw-double": {"trained_with": "adamw", "method": "adamw", "rate": 2.0},
}
FEW = ["ind-a", "ind-b", "ood-canary-a", "ood-canary-b"]
LEVEL = {"natural": 4.0, "shuffled": 5.5, "language": 5.0}  # difficulty, nats per token; of generated text: 6
STEEP = {"natural": 2e-4, "shuffled": 1.6e-4, "language": 1.7e-4}  # held-out lost at a step, over its square
SPEED = {"adafactor-restored": 1.0, "adamw": 1.15, "sgd": 0.8}  # of methods
FOLLOW_EVERY = 3


def paley(models: int) -> np.ndarray:
    """(models, models − 1) balanced, orthogonal columns of ±1; models − 1 is a prime of the form 4 n + 3."""
    q = models - 1
    squares = {x * x % q for x in range(1, q)}
    core = [[-1 if i == j else 1 if (j - i) % q in squares else -1 for j in range(q)] for i in range(q)]
    return np.vstack([np.ones((1, q), dtype=int), core])


@dataclass
class FakeStudy:
    """What is made up; sizes, and the effects that tests recover."""

    root: Path
    models: int = 12
    forget_sets: dict = field(default_factory=lambda: dict(FAMILIES))
    arms: dict = field(default_factory=lambda: dict(ARMS))
    ascents: dict | None = None  # arm -> families or sets; not given: all in two arms, few elsewhere
    in_models: int = 4
    placebo: tuple = ("adafactor-restored", "adamw")  # arms
    placebo_models: int = 3  # of a kind
    never: int = 40
    followed: int = 12
    heldout: int = 40
    heldout_fixed: int = 15
    k_max: int = 60
    canary_gain: float = 1.6  # nats a canary gains for each that a natural example gains
    seed: int = 0

    def __post_init__(self) -> None:
        self.sets = kinds.draws(self.forget_sets)
        self.families = kinds.family_names(self.forget_sets)
        if self.ascents is None:
            few = [name for name in FEW if name in self.sets]
            self.ascents = {arm: list(self.families) if arm in self.placebo else few for arm in self.arms}

    @property
    def settings(self) -> dict[str, dict]:
        """The blocks `forget_sets`, `arms` and `ascents` that name what was written."""
        return {"forget_sets": self.forget_sets, "arms": self.arms, "ascents": self.ascents}

    def write(self) -> "FakeStudy":
        """Write every table; the same bytes for the same arguments."""
        self.rng = np.random.default_rng(self.seed)
        self.tables = Path(self.root) / "results" / "tables"
        self.trained = list(dict.fromkeys(arm["trained_with"] for arm in self.arms.values()))
        for folder in ("forget_sets", "base", *(f"train/{name}" for name in self.trained)):
            (self.tables / folder).mkdir(parents=True, exist_ok=True)
        self._design()
        self._examples()
        self._trainings()
        for arm, block in self.arms.items():
            entries = self.ascents.get(arm, [])
            names = [name for entry in entries for name in self.families.get(entry, [entry])]
            if names:
                self._ascents(arm, block, names)
        return self

    def _design(self) -> None:
        signs = paley(self.models)[:, : len(self.sets) + 1]
        self.signs = pd.DataFrame(signs, columns=["base", *self.sets])
        folder = self.tables / "forget_sets"
        ((self.signs + 1) // 2).rename_axis("model").reset_index().to_csv(folder / "design.csv", index=False)
        rows = [("base", "base", "base"), *((s, block["family"], block["kind"]) for s, block in self.sets.items())]
        columns = pd.DataFrame(rows, columns=["forget_set", "family", "kind"])
        columns.assign(column=range(1, len(columns) + 1)).to_csv(folder / "columns.csv", index=False)
        of_kind = pd.Series({s: block["kind"] for s, block in self.sets.items()}).value_counts()
        rows = []
        for i, (name, block) in enumerate(self.sets.items()):
            placebo = -(-self.placebo_models // of_kind[block["kind"]])
            for role, side, n in (("in", 1, self.in_models), ("placebo", -1, placebo)):
                there = self.signs.index[self.signs[name] == side]
                rows += [(name, role, int(m)) for m in sorted(np.roll(there, -i)[:n])]
        self.ascended = pd.DataFrame(rows, columns=["forget_set", "role", "model"])
        self.ascended.to_csv(folder / "ascended.csv", index=False)

    def _examples(self) -> None:
        used = dict.fromkeys(block["kind"] for block in self.sets.values())
        groups = [(s, b["family"], b["kind"], b["repetitions"], b["size"]) for s, b in self.sets.items()]
        groups += [(f"never-{kind}", f"never-{kind}", kind, 0, self.never) for kind in used if kind != "own"]
        groups += [("heldout", "heldout", "natural", 0, self.heldout), ("retain", "retain", "natural", 1, 20)]
        rows = []
        for name, family, kind, times, n in groups:
            tokens = self.rng.permutation(np.arange(n) % 9 + 7) if kind in LEVEL else np.full(n, 11)
            rows += [(f"{name}-{i:04d}", name, family, kind, "made-up", times, t, t) for i, t in enumerate(tokens)]
        names = ["example_id", "forget_set", "family", "kind", "origin", "repetitions", "n_source_tokens", "n_tokens"]
        self.examples = pd.DataFrame(rows, columns=names)
        _compact(self.examples).to_parquet(self.tables / "forget_sets/examples.parquet", index=False)
        self.ids, self.tokens = self.examples["example_id"].to_numpy(), self.examples["n_tokens"].to_numpy()
        natural = self.examples["kind"].isin(LEVEL).to_numpy()
        self.hardness = self.examples["kind"].map(LEVEL).fillna(6.0) + self.rng.normal(0, 0.5, len(natural))
        gain = np.where(natural, 1.0, self.canary_gain) * (
            1 + 0.6 * np.log(np.maximum(self.examples["repetitions"], 1))
        )
        self.gain = gain.to_numpy() * self.rng.gamma(9, 1 / 9, len(natural))

    def group(self, name: str) -> np.ndarray:
        """Positions of the examples of a set, a population or a split."""
        return np.flatnonzero(self.examples["forget_set"] == name)

    def _trainings(self) -> None:
        base = -self.hardness.to_numpy() * self.tokens + self.rng.normal(0, 1, (2, len(self.tokens)))
        self.likelihood = {}
        for opt in self.trained:
            company = self.rng.normal(0, 0.3, (self.signs.shape[1], len(self.tokens)))
            values = -self.hardness.to_numpy() * self.tokens + self.signs.to_numpy() @ company
            values += self.rng.normal(0, 1.5, values.shape) + 0.3 * self.tokens
            for name in self.sets:
                own, inside = self.group(name), self.signs[name].to_numpy() > 0
                values[np.ix_(inside, own)] += (self.gain * self.tokens)[own]
            self.likelihood[opt] = values.round(3)
        for name, values in {"base": base.round(3), **self.likelihood}.items():
            folder = self.tables / ("base" if name == "base" else f"train/{name}")
            key = {"track": "tiny", "trained_with": name, "forget_set": "", "method": "", "role": ""}
            long = pd.concat([self._long(row, range(len(row)), 0, key | {"model": m}) for m, row in enumerate(values)])
            _compact(long).to_parquet(folder / "log_likelihoods.parquet", index=False)
            rows = [self._row(key | {"model": m, "step": 0}, s, *self._per_token(row, s.partition("_")[0]), bleu)
                    for m, row in enumerate(values)
                    for s, bleu in (("heldout", np.nan), ("retain", np.nan), ("heldout_bleu", 10.0))]  # fmt: skip
            pd.DataFrame(rows).to_csv(folder / "performance.csv", index=False)
            epochs = [(m, e, -6 + e / 4) for m in range(len(values)) for e in range(3)]
            curve = pd.DataFrame(epochs, columns=["model", "epoch", "validation_log_likelihood_per_token"])
            curve = curve.assign(track="tiny", trained_with=name, loss=3.0, rows=400, steps=100, target_tokens=4000)
            curve.to_csv(folder / "training.csv", index=False)
        own = np.concatenate([self.group(name) for name in self.sets])
        for opt in self.trained:
            self._retrained(opt)
            rows = enumerate(self.likelihood[opt])
            tokens = [self._by_token(row, own, {"trained_with": opt, "model": m}) for m, row in rows]
            _compact(pd.concat(tokens)).to_parquet(self.tables / f"train/{opt}/tokens.parquet", index=False)

    def _retrained(self, opt: str) -> None:
        # exact partners of model 0, which holds every set: without a few of them; and its training in another order
        key = {"track": "tiny", "trained_with": opt, "forget_set": "", "method": "", "role": "", "model": 0}
        one, tables = self.likelihood[opt][0], []
        for name in [s for s in FEW if s in self.sets] or self.sets:
            without = one - np.where(self.examples["forget_set"] == name, self.gain * self.tokens, 0)
            without = without + self.rng.normal(0, 1, len(one))
            tables.append(self._long(without, self.group(name), 0, key).assign(left_out=name))
        _compact(pd.concat(tables)).to_parquet(self.tables / f"train/{opt}/partners.parquet", index=False)
        again = self._long(one + self.rng.normal(0, 2, len(one)), range(len(one)), 0, key).assign(left_out="")
        _compact(again).to_parquet(self.tables / f"train/{opt}/repeats.parquet", index=False)

    def _per_token(self, values: np.ndarray, group: str, first: int | None = None) -> tuple[float, int]:
        at = self.group(group)[:first]
        return values[at].sum() / self.tokens[at].sum(), self.tokens[at].sum()

    def _long(self, values: np.ndarray, at, step: int, key: dict) -> pd.DataFrame:
        return self._table(step, np.asarray(at), values[np.asarray(at)], key)

    def _table(self, step, at: np.ndarray, values: np.ndarray, key: dict) -> pd.DataFrame:
        n_tokens = self.tokens[at]
        correct = (n_tokens * np.minimum(1, np.exp(values / n_tokens / 4))).astype(int)
        scored = {"n_tokens": n_tokens, "log_likelihood": values, "n_correct": correct}
        return pd.DataFrame({**key, "step": step, "example_id": self.ids[at], **scored})

    def _row(self, key: dict, split: str, value: float, n_tokens: int, bleu: float = np.nan) -> dict:
        found = {"log_likelihood_per_token": value, "token_accuracy": 0.3, "bleu": bleu, "n_tokens": n_tokens}
        return key | {"split": split} | found

    def _ascents(self, arm: str, block: dict, names: list[str]) -> None:
        long, performance, runs, tokens = [], [], [], []
        for name in names:
            mine = self.ascended[self.ascended["forget_set"] == name]
            for role, model in mine[["role", "model"]].itertuples(index=False):
                if role == "placebo" and arm not in self.placebo:
                    continue
                key = {"track": "tiny", "trained_with": block["trained_with"], "model": model, "forget_set": name}
                key |= {"method": block["method"] if block.get("rate", 1) == 1 else arm, "role": role}
                one = self._run(name, model, arm, key)
                long.append(one["scores"])
                performance += one["performance"]
                runs.append(one["run"])
                tokens += one["tokens"]
        folder = self.tables / "unlearn" / arm
        folder.mkdir(parents=True, exist_ok=True)
        _compact(pd.concat(long)).to_parquet(folder / "log_likelihoods.parquet", index=False)
        _compact(pd.DataFrame(performance)).to_parquet(folder / "performance.parquet", index=False)
        _compact(pd.concat(tokens)).to_parquet(folder / "tokens.parquet", index=False)
        pd.DataFrame(runs).to_csv(folder / "runs.csv", index=False)

    def _run(self, name: str, model: int, arm: str, key: dict) -> dict:
        kind, own, tokens = self.sets[name]["kind"], self.group(name), self.tokens
        never = self.group(f"never-{kind}")
        start, inside = self.likelihood[key["trained_with"]][model], key["role"] == "in"
        rate = self.arms[arm].get("rate", 1) * SPEED[self.arms[arm]["method"]] * 0.045
        speed = rate * self.rng.normal(1, 0.08) * (1 + 0.5 * np.log(self.gain / self.gain.mean() + 1))
        steep = STEEP.get(kind, 1e-4) * self.arms[arm].get("rate", 1) ** 2 * self.rng.gamma(40, 1 / 40)
        spread_out = self.rng.gamma(4, 1 / 4, len(tokens))
        among = np.isin(np.arange(len(tokens)), [*own, *never])
        alike = np.where(np.isin(np.arange(len(tokens)), never), 0.4, 1.0)  # the generator falls too, but slower

        def at_step(step: int, at=slice(None)) -> np.ndarray:
            fallen, lost = speed[at] * alike[at] * step * (1 + step / 30), steep * step**2 * spread_out[at]
            return (start[at] - tokens[at] * np.where(among[at], fallen, lost)).round(3)

        table = self.likelihood[key["trained_with"]][:, own]
        reference = genex.predicted_reference(table, self.signs[["base", name]].to_numpy(), model=model, column=1)
        exposure = [np.mean(at_step(k, own) - reference) for k in range(self.k_max + 1)]
        k_star = genex.steps_to_forget(np.array(exposure), np.arange(self.k_max + 1)) if inside else np.nan
        reached = np.isfinite(k_star)
        last = max(int(np.ceil(k_star)) + 1, round(2 * k_star)) if reached else self.k_max if inside else 30
        around, half = ({int(np.ceil(k_star)), max(int(np.ceil(k_star)) - 1, 0)} if reached else set()), set()
        if reached:
            half = {int(k_star / 2) // FOLLOW_EVERY * FOLLOW_EVERY + more for more in (0, FOLLOW_EVERY)} - {0}
            half = {step for step in half if step < max(around)}
        near = round(k_star) if reached else -1
        kept = [i for s, b in self.sets.items()
                if s != name and b["kind"] == kind and self.signs.loc[model, s] > 0 for i in self.group(s)]  # fmt: skip
        found, scores = {"performance": [], "tokens": []}, []
        for step in range(last + 1):
            values, state = at_step(step), key | {"step": step}
            beside = step and step % FOLLOW_EVERY == 0 and not step > 1.5 * k_star
            scored = [own]
            if inside and step in around:
                scored += [never]
            elif inside and beside:
                scored += [never[: self.followed]]
            if step in around | half:
                scored += [self.group("heldout")]
                found["performance"].append(self._row(state, "heldout", *self._per_token(values, "heldout")))
            if beside or step in around | half | {last}:
                fixed = self._per_token(values, "heldout", self.heldout_fixed)
                found["performance"].append(self._row(state, "heldout_fixed", *fixed))
            if step in around:
                found["performance"].append(self._row(state, "retain", *self._per_token(values, "retain")))
                if kept:
                    n = tokens[kept].sum()
                    found["performance"].append(self._row(state, "retained", values[kept].sum() / n, n))
            if step == near:
                translated = self._row(state, "heldout_bleu", *self._per_token(values, "heldout"), 8.0)
                found["performance"].append(translated)
            if inside and reached and step in (near, last):
                found["tokens"].append(self._by_token(values, own, state))
            at = np.concatenate(scored)
            scores.append((np.full(len(at), step), at, values[at]))
        status = "placebo" if not inside else "reached" if reached else "censored"
        run = key | {"learning_rate": 1e-4, "status": status, "k_star": k_star, "last_step": last}
        run |= {f"{quantity}_{k}": 1.0 for k in ("1", "5", "k") for quantity in ("update_rms", "clipped")}
        found["scores"] = self._table(*map(np.concatenate, zip(*scores, strict=True)), key)
        found["run"] = run | {"predicted_change": 0.01, "observed_change": 0.012, "cosine": -0.1}
        return found

    def _by_token(self, values: np.ndarray, own: np.ndarray, key: dict) -> pd.DataFrame:
        counts = self.tokens[own]
        ids, position = np.repeat(self.ids[own], counts), np.concatenate([np.arange(n) for n in counts])
        n = np.repeat(counts, counts)
        each = np.repeat(values[own], counts) * 2 * (n - position) / (n * (n + 1))  # early tokens are harder
        each = {"log_likelihood": each.round(2), "correct": each > -1.5, "mean": -3.0, "sd": 2.0}
        return pd.DataFrame({**key, "example_id": ids, "position": position, **each})


def _compact(table: pd.DataFrame) -> pd.DataFrame:
    text = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.astype(dict.fromkeys(text, "category"))


def smoke(root: Path, **changes) -> FakeStudy:
    """Four models, two sets (of one draw each), one arm: the smallest study there is."""
    sets = {"ind": {"kind": "natural"}, "ood-canary": {"kind": "canary"}}
    sets = {name: {**block, "size": 8, "repetitions": 1} for name, block in sets.items()}
    few = {"models": 4, "forget_sets": sets, "arms": {"adamw": ARMS["adamw"]}, "placebo": ("adamw",), "in_models": 2}
    return FakeStudy(root, **few | {"placebo_models": 2, "never": 12, "followed": 6} | changes)


def whole(root: Path, **changes) -> FakeStudy:
    """32 models and the 28 sets of the study."""
    return FakeStudy(root, **{"models": 32, "forget_sets": dict(WHOLE), "placebo_models": 8} | changes)


if __name__ == "__main__":
    make = smoke if "--smoke" in sys.argv else whole if "--whole" in sys.argv else FakeStudy
    make(Path(sys.argv[1])).write()
