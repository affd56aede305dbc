"""Inputs by the thousand: settings, files and checkpoints that are broken at random, and runs that are killed.

`python -m tests.harness [settings|files|checkpoints|kills] [N]` writes a row each into tests/harness.csv. No test runs
it. Wanted of every input: it is taken and what follows works, or it is refused in sentences (StudyError), in 5 seconds;
of every run that was killed and goes on: the same bytes. What is neither is printed, with the seed that makes it again.
"""

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from safetensors.numpy import load_file, save_file

from tests import copies
from unlearning.errors import MOST_CHARACTERS, MOST_TOLD, StudyError

RESULT = Path(__file__).with_suffix(".csv")
OUTCOMES = ["accepted", "refused", "traceback", "over 5 s", "badly said", "fails later"]
VALUES = [None, "", " ", "x" * 1000, "2024", "é", "a\nb", True, 0, 1, -1, 2, 3.7, 1e-12, 1e12, 2**31, 2**40, -1e308,
          float("inf"), float("nan"), [], [[]], {}, {"a": 1}, ["x", "x"], "${seed}", "../x", "/dev/null"]  # fmt: skip

Mutate = Callable[[random.Random], str]  # writes one broken input, says what was done
Check = Callable[[], Callable[[], None]]  # raises StudyError, or gives what has to work thereafter


class TooLong(BaseException):
    """More than 5 seconds."""


def stop(*_: object) -> None:
    """What the alarm does."""
    raise TooLong


def outcome(check: Check) -> tuple[str, str]:
    """One of OUTCOMES, and what was said."""
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(5)
    try:
        then = check()
    except StudyError as error:
        lines = str(error).splitlines()
        well = (
            lines and len(lines) <= MOST_TOLD + 1 and all(20 < len(x) <= 2 * MOST_CHARACTERS for x in lines[:MOST_TOLD])
        )
        return "refused" if well else "badly said", str(error)
    except TooLong:
        return "over 5 s", ""
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    try:
        then()
    except Exception as error:
        return "fails later", f"{type(error).__name__}: {error}"
    return "accepted", ""


def many(mutate: Mutate, check: Check, n: int) -> dict[str, int]:
    """How often each outcome came; each bad one is printed."""
    counts = dict.fromkeys(OUTCOMES, 0)
    for seed in range(n):
        done = mutate(random.Random(seed))
        found, said = outcome(check)
        counts[found] += 1
        if found not in ("accepted", "refused"):
            print(f"{seed}: {done[:200]} -> {found}: {said[:400]}", flush=True)
        elif "-v" in sys.argv:
            print(f"{seed}: {done[:100]} -> {found}: {said[:300]}", flush=True)
    return counts


def broken_text(text: bytes, rng: random.Random) -> bytes:
    """Bytes with one thing done to them that editors, disks and transfers do."""
    at, lines = rng.randrange(len(text) or 1), text.split(b"\n")
    line = rng.randrange(len(lines))
    if (what := rng.randrange(9)) == 0:
        return text[:at]
    if what == 1:
        return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
    if what == 2:
        return (
            text[:at]
            + rng.choice([b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"\\", b"\t", b"{", b"]", b",", b"\r"])
            + text[at:]
        )
    if what == 3:
        del lines[line]
    elif what == 4:
        lines.insert(line, lines[rng.randrange(len(lines))])
    elif what == 5:
        lines[line] = b"  " + lines[line]
    elif what == 6:
        lines[line] = lines[line].strip()[::-1]
    elif what == 7:
        return text.replace(b"\n", b"\r\n")
    else:
        lines[line] *= rng.choice([2, 100])
    return b"\n".join(lines)


# Settings


def places(values: Any, at: tuple = ()) -> Iterator[tuple]:
    """The place of every block, list and value in a tree."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def run_settings(n: int, folder: Path) -> dict[str, int]:
    """Params files: one to three values, keys or lines changed."""
    from tools import settings
    from unlearning.data.design import assign_columns
    from unlearning.data.kinds import draws

    text = (copies.ROOT / "params.yaml").read_bytes()
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False
    whole, file = yaml.load(text), folder / "params.yaml"
    everywhere = list(places(whole))

    def mutate(rng: random.Random) -> str:
        if rng.random() < 0.3:
            file.write_bytes(broken_text(text, rng))
            return "text"
        values, done = yaml.load(text), []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            place = rng.choice(everywhere)
            node = values
            try:
                for key in place[:-1]:
                    node = node[key]
                old = node[place[-1]]
            except (KeyError, IndexError, TypeError):
                continue
            how = rng.choice(["value", "value", "scale", "delete", "rename", "copy"])
            if how == "delete":
                del node[place[-1]]
            elif how == "rename" and isinstance(node, dict):
                node[str(place[-1])[:-1] + rng.choice("sx_ ")] = node.pop(place[-1])
            elif how == "scale" and isinstance(old, int | float):
                node[place[-1]] = type(old)(old * rng.choice([0.5, 2, 10, 1000, -1]))
            elif how == "copy":
                source = values
                for key in rng.choice(everywhere):
                    source = source[key] if isinstance(source, dict) and key in source else source
                node[place[-1]] = json.loads(json.dumps(source))
            else:
                node[place[-1]] = rng.choice(VALUES)
            done.append(f"{how} {place} {str(node)[:60]}")
        with file.open("w", encoding="utf-8") as stream:
            yaml.dump(values, stream)
        return "; ".join(done)

    def check() -> Callable[[], None]:
        found = settings.load(file)

        def later() -> None:
            blocks = {name: spec.model_dump(exclude_none=True) for name, spec in found.forget_sets.items()}
            kinds = {name: block["kind"] for name, block in draws(blocks).items()}
            room = {"min_free_columns": found.design.min_free_columns, "largest_alias": found.design.largest_alias}
            assign_columns(kinds, models=found.design.models, **room)
            settings.check_own_files(found, file)

        return later

    return many(mutate, check, n)


# Files of one's own


def run_files(n: int, folder: Path) -> dict[str, int]:
    """Forget sets and corpora in four formats: bytes, lines, fields and values changed."""
    from unlearning.data.corpus import train_tokenizer
    from unlearning.data.forget_sets import read_own
    from unlearning.data.own_files import read_examples, read_pairs_of

    rows = [{"id": f"{i}", "source": f"Frage {i}, „{w}“?", "target": f'answer "{w}" {i * 7}'}
            for i, w in enumerate(["alpha", "beta", "gamma", "delta", "eta", "theta", "iota", "kappa"])]  # fmt: skip
    tokenizer = train_tokenizer([row[side] for row in rows for side in ("source", "target")], vocabulary_size=300)
    limits = {"tokenizer": tokenizer, "max_tokens": 400, "near_duplicate": 0.99, "protected": {}}
    as_csv = io.StringIO(newline="")
    writer = csv.DictWriter(as_csv, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    whole = {
        "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + b"\n",
        "json": json.dumps(rows, ensure_ascii=False, indent=1).encode(),
        "csv": as_csv.getvalue().encode(),
    }
    pd.DataFrame(rows).to_parquet(folder / "whole.parquet")
    whole["parquet"] = (folder / "whole.parquet").read_bytes()
    now: list[Path] = [folder]

    def mutate(rng: random.Random) -> str:
        name = rng.choice(["jsonl", "json", "csv", "parquet"])
        now[0] = folder / f"mine.{name}"
        if name in ("jsonl", "parquet") and rng.random() < 0.5:  # a value or a field
            changed = [dict(row) for row in rows]
            row, field = rng.choice(changed), rng.choice(["id", "source", "target"])
            if rng.random() < 0.3:
                row[rng.choice(["", "Source", "source ", "origin", "repetitions"])] = row.pop(field)
            else:
                row[field] = rng.choice([v for v in VALUES if name == "jsonl" or isinstance(v, str | None)])
            if name == "jsonl":
                now[0].write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in changed), encoding="utf-8")
            else:
                pd.DataFrame(changed).to_parquet(now[0])
            return f"{name}: {row}"
        now[0].write_bytes(broken_text(whole[name], rng))
        return f"{name}: bytes"

    def check() -> Callable[[], None]:
        found = read_examples(now[0])

        def later() -> None:
            table = read_own("mine", now[0], **limits)
            assert [*table["target"]] == [row["target"] for _, row in found]
            read_pairs_of(now[0])

        def unless_told() -> None:  # what reads on may refuse in sentences
            with suppress(StudyError):
                later()

        return unless_told

    return many(mutate, check, n)


# Checkpoints


def run_checkpoints(n: int, folder: Path) -> dict[str, int]:
    """Folders of a small model: files cut, changed and gone; tensors renamed, dropped, reshaped, not finite."""
    from tests.test_checkpoint import save
    from tests.tiny import examples
    from unlearning.data import checkpoint
    from unlearning.measure.models import load_model
    from unlearning.measure.scoring import score

    originals = {family: save(folder / family, family) for family in ("gpt2", "llama", "t5")}
    now = folder / "mine"

    def mutate(rng: random.Random) -> str:
        shutil.rmtree(now, ignore_errors=True)
        family = rng.choice(list(originals))
        shutil.copytree(originals[family], now)
        file = rng.choice(sorted(now.iterdir()))
        if (what := rng.choice(["gone", "bytes", "bytes", "entry", "tensor"])) == "gone":
            file.unlink()
        elif what == "bytes":
            file.write_bytes(broken_text(file.read_bytes(), rng))
        elif what == "entry":
            file = rng.choice(sorted(now.glob("*.json")))
            values = json.loads(file.read_text())
            if everywhere := list(places(values)):
                node = values
                *way, last = rng.choice(everywhere[:200])
                for key in way:
                    node = node[key]
                node[last] = rng.choice(VALUES)
                what += f" {way} {last} {str(node[last])[:40]}"
            file.write_text(json.dumps(values), encoding="utf-8")
        else:
            file = now / "model.safetensors"
            tensors = dict(load_file(file))
            name = rng.choice(sorted(tensors))
            how = rng.choice(["rename", "drop", "shape", "nan", "half", "extra"])
            value = tensors.pop(name)
            if how != "drop":
                prefix = rng.choice(["_orig_mod.", "module.", "x"]) if how == "rename" else ""
                value = {
                    "shape": value.repeat(2, axis=0),
                    "nan": value * float("nan"),
                    "half": value.astype("float16"),
                }.get(how, value)
                tensors[prefix + name] = value
            if how == "extra":
                tensors["more.weight"] = value.copy()
            save_file(tensors, file, metadata={"format": "pt"})
            what += f" {how} {name}"
        return f"{family}, {file.name}: {what}"

    def check() -> Callable[[], None]:
        taken = checkpoint.folder_of({"path": str(now)}, max_tokens=8)

        def later() -> None:
            model = load_model(taken)
            rows = [([i % model.config.vocab_size for i in ids], [j % model.config.vocab_size for j in to])
                    for ids, to in examples(2, longest=6)]  # fmt: skip
            assert pd.Series(score(model, rows).log_likelihood).abs().lt(1e9).all()

        return later

    return many(mutate, check, n)


# Runs that are killed


def run_kills(n: int, folder: Path) -> dict[str, int]:
    """The study at toy size, stopped at random moments: by SIGKILL, SIGTERM or Ctrl-C, of all or of dvc alone."""
    from tests.conftest import digests

    root = copies.copy_repository(folder / "study")
    copies.use_small_settings(root)
    copies.clear_results(root)
    ran = copies.dvc(root, "repro")
    assert ran.returncode == 0, ran.stderr[-2000:]
    listed = copies.dvc(root, "stage", "list", "--name-only")
    stages, whole = listed.stdout.split(), digests(root, *FOLDERS)
    counts = dict.fromkeys(OUTCOMES, 0)
    for seed in range(n):
        rng = random.Random(seed)
        stage = rng.choice(stages)
        sent, alone = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]), rng.random() < 0.5
        if rng.random() < 0.5:  # else finished tasks are found
            shutil.rmtree(root / "scratch", ignore_errors=True)
        command = [sys.executable, "-m", "dvc", "repro", "-f", "-s", stage]
        process = subprocess.Popen(command, cwd=root, env=copies.environment(root), start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        time.sleep(rng.uniform(0, 20))
        if process.poll() is None:
            (os.kill if alone else os.killpg)(process.pid, sent)
        process.wait(timeout=60)
        again = copies.dvc(root, "repro", "-f", "-s", stage)
        told = "fails later" if again.returncode else "accepted" if digests(root, *FOLDERS) == whole else "badly said"
        counts[told] += 1
        print(f"{seed}: {stage}, {sent.name}, {'dvc' if alone else 'all'} -> {told}: {again.stderr[-400:]}", flush=True)
    return counts


FOLDERS = ("data", "models", "results/tables", "figures")  # what has to be the same
RUNS = {
    "settings": (run_settings, 2000),
    "files": (run_files, 1000),
    "checkpoints": (run_checkpoints, 300),
    "kills": (run_kills, 100),
}


def main() -> None:
    """Run one kind, or all, and write its rows."""
    words = [word for word in sys.argv[1:] if word != "-v"]
    for name in words[:1] or RUNS:
        run, most = RUNS[name]
        n = int(words[1]) if words[1:] else most
        with tempfile.TemporaryDirectory() as folder:
            counts = run(n, Path(folder))
        rows = pd.read_csv(RESULT) if RESULT.exists() else pd.DataFrame(columns=["inputs"])
        row = {"inputs": name, "tried": n, **counts}
        rows = pd.concat([rows[rows["inputs"] != name], pd.DataFrame([row])]).sort_values("inputs")
        rows.astype(dict.fromkeys(["tried", *OUTCOMES], int)).to_csv(RESULT, index=False)
        print(row)


if __name__ == "__main__":
    main()
