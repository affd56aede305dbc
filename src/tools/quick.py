"""The whole study, small, in a folder of its own: `python -m tools.quick`, or `python -m tools.quick FILE` on own text.

Works in scratch/quick, on a copy of code and settings under a dvc of its own, and goes on where it was stopped.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbformat.v4 import new_markdown_cell, new_notebook

from tools.live import YAML_SAFE, link, small
from tools.settings import PARAMS, load

HERE = Path("scratch/quick")
COPIED = ("src", "notebooks", "own", ".dvc/config", ".dvcignore", "dvc.yaml")
TITLE = "The study, small"
NEEDS = "sizes as in src/tools/small.yaml, for five hundred rows that do not resemble each other"
INTRO = f"""# {TITLE}

Everything that the study makes, from models too small and too few to answer its questions. A verdict speaks of these
models alone; where they leave a claim open, they are *too small to decide*.

"""


def lay_out(text: Path | None = None) -> None:
    """Lay out scratch/quick: code as it is here, small settings, perhaps a corpus; what was made there before stays."""
    load()
    params = YAML_SAFE.load(Path(PARAMS).read_text(encoding="utf-8"))
    for name in COPIED:
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        if Path(name).is_dir():
            shutil.copytree(name, HERE / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(name, HERE / name)
    (HERE / ".dvc/config.local").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    link(Path.cwd(), HERE, ["data/raw"])
    if text:
        params["corpus"] |= {"name": "jsonl", "path": f"own/corpus/{text.name}", "second_language": None}
        if text.is_file():  # else the check says so
            shutil.copy(text, HERE / "own/corpus")
    with (HERE / PARAMS).open("w", encoding="utf-8") as stream:
        YAML_SAFE.dump(small(params), stream)


def page() -> Path:
    """One HTML page of the verdicts and all executed notebooks, in reading order; links between them lead within it."""
    claims = pd.read_csv(HERE / "results/tables/claims/claims.csv").dropna(subset="claim_verdict")
    words = claims.drop_duplicates(["claim", "arm"]).pivot(index="claim", columns="arm", values="claim_verdict")
    open_ = dict.fromkeys(["inconclusive", "not computed"], "too small to decide")
    cells = [new_markdown_cell(INTRO + words.replace(open_).to_html())]
    for source in sorted((HERE / "notebooks").glob("*.ipynb")):
        copies = sorted((HERE / "results/notebooks").glob("*.ipynb"))
        for copy in (copy for copy in copies if copy.stem.partition("-")[0] == source.stem[3:]):
            read = nbformat.read(copy, as_version=4).cells
            cells += [new_markdown_cell(f'<a id="{copy.stem}"></a>'), *read]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    for cell in (cell for cell in cells if cell.cell_type == "markdown"):
        cell.source = re.sub(r"\]\(([\w-]+)\.ipynb\)", r"](#\1)", cell.source).replace("](../../", "](")
    whole = new_notebook(cells=cells, metadata={"title": TITLE})
    (HERE / "study.html").write_text(HTMLExporter(anchor_link_text="").from_notebook_node(whole)[0], encoding="utf-8")
    return HERE / "study.html"


def main(arguments: list[str]) -> int:
    """Lay out, run all stages, write the page; the exit status of what failed, or 0."""
    lay_out(*map(Path, arguments))
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches dvc and its stage, too: they stop in order
    environment = os.environ | {"PYTHONPATH": str((HERE / "src").resolve())}
    for module in (["tools.settings"], ["dvc", "repro"]):
        if failed := subprocess.run([sys.executable, "-m", *module], cwd=HERE, env=environment).returncode:
            print(f"\nThe settings of this run: {HERE / PARAMS}, {NEEDS}", file=sys.stderr)
            return failed
    print(f"\n{page()} shows it all; figures are in {HERE}/figures, tables in {HERE}/results")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
