"""Writes a made-up study with the schema of the real tables, so that reading code is tested without training.

`python tests/fake_study.py FOLDER [--smoke]` writes one for looking at notebooks.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.linalg import hadamard

NINE_SETS = {
    "ind-a": ("natural", 1),
    "ind-b": ("natural", 1),
    "ind-x4": ("natural", 4),
    "ind-x16": ("natural", 16),
    "ood-canary-a": ("canary", 1),
    "ood-canary-b": ("canary", 1),
    "ood-secret-x1": ("secret", 1),
    "ood-secret-x4": ("secret", 4),
    "ood-secret-x16": ("secret", 16),
}
ARMS = {
    "adamw": ("adamw", "adamw", NINE_SETS),
    "adafactor-restored": ("adafactor", "adafactor-restored", [s for s in NINE_SETS if "ind-x" not in s]),
    "adamw-on-adafactor": ("adafactor", "adamw", [s for s in NINE_SETS if "ind-x" not in s]),
    "sgd": ("adamw", "sgd", ["ind-a", "ood-canary-a", "ood-secret-x1"]),
}
COLUMNS = [1, 2, 4, 7, 8, 11, 13, 14, 3, 5, 6, 9, 10, 12, 15]


@dataclass
class FakeStudy:
    """What is made up; sizes, and the effects that tests recover."""

    root: Path
    models: int = 16
    sets: dict = field(default_factory=lambda: dict(NINE_SETS))
    arms: dict = field(default_factory=lambda: dict(ARMS))
    size: int = 24
    never: int = 40
    followed: int = 12
    heldout: int = 30
    k_max: int = 60
    placebo: tuple = ("ind-a-adamw", "ood-canary-a-adamw")
    canary_gain: float = 2.0  # nats a canary gains for each that a natural example gains
    seed: int = 0

    def write(self) -> "FakeStudy":
        """Write every table; the same bytes for the same arguments."""
        self.rng = np.random.default_rng(self.seed)
        self.tables = Path(self.root) / "results" / "tables"
        trained = [f"train/{name}" for name in dict.fromkeys(b for b, _, _ in self.arms.values())]
        for folder in ("forget_sets", "base", *trained):
            (self.tables / folder).mkdir(parents=True, exist_ok=True)
        self._design()
        self._examples()
        self._references()
        self._trainings()
        for arm, (trained_with, method, sets) in self.arms.items():
            for name in sets:
                if name in self.sets:
                    self._ascent(name, arm, trained_with, method)
        return self

    @property
    def settings(self) -> dict[str, dict]:
        """The blocks `arms` and `ascents` that name what was written."""
        arms = {name: {"trained_with": trained, "method": method} for name, (trained, method, _) in self.arms.items()}
        pairs = [(s, name) for name, (_, _, sets) in self.arms.items() for s in sets if s in self.sets]
        return {"arms": arms, "ascents": {f"{s}-{name}": {"forget_set": s, "arm": name} for s, name in pairs}}

    def _design(self) -> None:
        self.columns = [c for c in COLUMNS if c < self.models][: len(self.sets) + 1]
        signs = hadamard(self.models)[:, self.columns]
        self.signs = pd.DataFrame(signs, columns=["base", *self.sets])
        table = ((self.signs + 1) // 2).rename_axis("model").reset_index()
        table.to_csv(self.tables / "forget_sets/design.csv", index=False)
        kinds = ["base", *(kind for kind, _ in self.sets.values())]
        columns = {"forget_set": ["base", *self.sets], "kind": kinds, "column": self.columns}
        pd.DataFrame(columns).to_csv(self.tables / "forget_sets/columns.csv", index=False)

    def _examples(self) -> None:
        kinds = dict.fromkeys(kind for kind, _ in self.sets.values())
        groups = [(name, kind, reps, self.size) for name, (kind, reps) in self.sets.items()]
        groups += [(f"never-{kind}", kind, 0, self.never) for kind in kinds if kind != "own"]
        groups += [("heldout", "natural", 0, self.heldout), ("retain", "natural", 1, 20)]
        rows = []
        for name, kind, reps, n in groups:
            tokens = self.rng.integers(5, 15, n) if kind == "natural" else np.full(n, 11)
            for i in range(n):
                rows.append((f"{name}-{i:04d}", name, kind, "made-up", reps, int(tokens[i]), int(tokens[i])))
        names = ["example_id", "forget_set", "kind", "origin", "repetitions", "n_source_tokens", "n_tokens"]
        self.examples = pd.DataFrame(rows, columns=names)
        _compact(self.examples).to_parquet(self.tables / "forget_sets/examples.parquet", index=False)
        hardness = np.where(self.examples["kind"] == "natural", 4.0, 6.0)
        self.hardness = hardness + self.rng.normal(0, 0.5, len(self.examples))
        gain = np.where(self.examples["kind"] == "natural", 1.0, self.canary_gain) * (
            1 + 0.6 * np.log(np.maximum(self.examples["repetitions"], 1))
        )
        self.gain = gain.to_numpy() * self.rng.gamma(9, 1 / 9, len(self.examples))

    def _references(self) -> None:
        tokens = self.examples["n_tokens"].to_numpy()
        base = -self.hardness * tokens + self.rng.normal(0, 1, (2, len(tokens)))
        _compact(self._long(base, "base")).to_parquet(self.tables / "base/log_likelihoods.parquet", index=False)
        self.likelihood, self.trained = {}, [b for b, _, _ in self.arms.values()]
        for opt in dict.fromkeys(self.trained):
            company = self.rng.normal(0, 0.5, (self.signs.shape[1], len(tokens)))
            values = -self.hardness * tokens + self.signs.to_numpy() @ company
            values += self.rng.normal(0, 1.5, values.shape)
            for name in self.sets:
                own = (self.examples["forget_set"] == name).to_numpy()
                inside = self.signs[name].to_numpy() > 0
                values[np.ix_(inside, own)] += (self.gain * tokens)[own]
            self.likelihood[opt] = values
            _compact(self._long(values, opt)).to_parquet(
                self.tables / f"train/{opt}/log_likelihoods.parquet", index=False
            )

    def _long(self, values: np.ndarray, trained_with: str) -> pd.DataFrame:
        models, n = values.shape
        tokens = np.tile(self.examples["n_tokens"], models)
        return pd.DataFrame(
            {
                "track": "tiny",
                "trained_with": trained_with,
                "model": np.repeat(np.arange(models), n),
                "forget_set": "",
                "method": "",
                "step": 0,
                "example_id": np.tile(self.examples["example_id"], models),
                "n_tokens": tokens,
                "log_likelihood": values.ravel(),
                "n_correct": np.minimum(tokens, (tokens * np.exp(values.ravel() / tokens / 4)).astype(int)),
            }
        )

    def _trainings(self) -> None:
        for opt, models in [("base", 2), *((opt, self.models) for opt in dict.fromkeys(self.trained))]:
            level = -4.8 if opt == "base" else -4.5
            rows = [self._performance(opt, m, "", "", "", 0, split, level + self.rng.normal(0, 0.05))
                    for m in range(models) for split in ("heldout", "retain", "validation")]  # fmt: skip
            table = pd.DataFrame(rows)
            table["bleu"] = 10.0
            folder = "base" if opt == "base" else f"train/{opt}"
            table.to_csv(self.tables / folder / "performance.csv", index=False)

    def _performance(self, trained_with, model, forget_set, method, role, step, split, value) -> dict:
        return {
            "track": "tiny",
            "trained_with": trained_with,
            "model": model,
            "forget_set": forget_set,
            "method": method,
            "role": role,
            "step": step,
            "split": split,
            "log_likelihood_per_token": value,
            "token_accuracy": 0.3,
            "bleu": np.nan,
            "n_tokens": 2000,
        }

    def _ascent(self, name: str, arm: str, trained_with: str, method: str) -> None:
        long, performance, runs = [], [], []
        roles = ["in", "placebo"] if f"{name}-{arm}" in self.placebo else ["in"]
        for role in roles:
            held = self.signs[name] > 0 if role == "in" else self.signs[name] < 0
            for model in self.signs.index[held][: None if role == "in" else 2]:
                one = self._run(name, model, trained_with, role)
                key = {"track": "tiny", "trained_with": trained_with, "model": model, "forget_set": name}
                key |= {"method": method, "role": role}
                long.append(one["likelihood"].assign(**key))
                performance += [self._performance(trained_with, model, name, method, role, *row)
                                for row in one["performance"]]  # fmt: skip
                runs.append(key | one["run"])
        folder = self.tables / "unlearn" / f"{name}-{arm}"
        folder.mkdir(parents=True, exist_ok=True)
        _compact(pd.concat(long)).to_parquet(folder / "log_likelihoods.parquet", index=False)
        _compact(pd.DataFrame(performance)).to_parquet(folder / "performance.parquet", index=False)
        pd.DataFrame(runs).to_csv(folder / "runs.csv", index=False)

    def _run(self, name: str, model: int, trained_with: str, role: str) -> dict:
        kind = self.sets[name][0]
        own = np.flatnonzero(self.examples["forget_set"] == name)
        others = np.flatnonzero(self.examples["forget_set"] == f"never-{kind}")[: self.followed]
        tokens, gain = self.examples["n_tokens"].to_numpy(), self.gain
        start = self.likelihood[trained_with][model]
        speed = 0.05 * self.rng.normal(1, 0.08) * (1 + 0.5 * np.log(gain / gain.mean() + 1))
        goal = float(np.mean((gain * tokens)[own])) if role == "in" else 12.0

        def fallen(at: np.ndarray, step: int) -> np.ndarray:
            return start[at] - speed[at] * tokens[at] * step * (1 + step / 30)

        k_star = next((k for k in range(self.k_max) if np.mean(start[own] - fallen(own, k)) > goal), np.nan)
        last = int(min(self.k_max, np.ceil(1.5 * k_star))) if k_star == k_star else self.k_max
        steps = sorted({*range(last + 1), *([int(2 * k_star)] if k_star == k_star else [])})
        frames, performance = [], []
        for step in steps:
            followed = step % 3 == 0 or step == steps[-1] or abs(step - k_star) <= 1
            at = np.concatenate([own, others]) if followed else own
            value = fallen(at, step)
            frames.append(
                pd.DataFrame(
                    {
                        "step": step,
                        "example_id": self.examples["example_id"].to_numpy()[at],
                        "n_tokens": tokens[at],
                        "log_likelihood": value,
                        "n_correct": 1,
                    }
                )
            )
            lost = (2e-4 if kind == "natural" else 1e-4) * step**2
            performance += [(step, "heldout_fixed", -4.5 - lost)]
            if followed:
                performance += [(step, "heldout", -4.51 - lost), (step, "retain", -3.0 - lost)]
        run = {
            "learning_rate": 1e-4,
            "status": role if role == "placebo" else ("reached" if k_star == k_star else "censored"),
            "k_star": k_star if role == "in" else np.nan,
            "last_step": last,
            "predicted_change": 0.01,
            "observed_change": 0.012,
            "cosine": -0.1,
        }
        for quantity in ("update_rms", "clipped"):
            run |= {f"{quantity}_{k}": 1.0 for k in ("1", "5", "k")}
        return {"likelihood": pd.concat(frames), "performance": performance, "run": run}


def _compact(table: pd.DataFrame) -> pd.DataFrame:
    text = table.select_dtypes(exclude="number").columns
    return table.astype(dict.fromkeys(text, "category"))


def smoke(root: Path, **changes) -> FakeStudy:
    """Four models, two sets, one arm: the smallest study there is."""
    sets = {"ind-a": ("natural", 1), "ood-canary-a": ("canary", 1)}
    return FakeStudy(root, models=4, sets=sets, arms={"adamw": ARMS["adamw"]}, size=8, never=12, followed=6,
                     **changes)  # fmt: skip


if __name__ == "__main__":
    make = smoke if "--smoke" in sys.argv else FakeStudy
    make(Path(sys.argv[1])).write()
