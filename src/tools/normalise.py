"""What differs between two identical executions of a notebook is taken out, so equal runs give equal bytes."""

import re
from typing import Any

import nbformat

from unlearning.errors import StudyError

# Executed copies lie two folders deep, sources one: links of prose, as they have to read in the copy. A copy leads on
# to copies; a notebook of several stages has several, so there the link stays with the source, which names them.
LINKS = (
    (re.compile(r"\]\(\d\d_(?!train\b|unlearn\b)(\w+\.ipynb)\)"), r"](\1)"),
    (re.compile(r"\]\(\.\./results/notebooks/"), "]("),
    (re.compile(r"\]\(\.\./results/notebooks\)"), "](./)"),
    (re.compile(r"\]\(\.\./(?=\w)"), "](../../"),
    (re.compile(r"\]\((\d\d_\w+\.ipynb|README\.md)\)"), r"](../../notebooks/\1)"),
)
LEFT_OUT = {"parameters", "injected-parameters"}  # tags of cells: what they hold, the next one shows as a table
CELL_METADATA = ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled")


def normalise(notebook: Any) -> Any:
    """The executed notebook without times, random ids, stderr, widget states and version texts (in place).

    Links from the folder of the sources become links from the folder of executed copies, to copies. What is no valid
    notebook is refused: GitHub would show nothing.
    """
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.cells = [cell for cell in notebook.cells if not LEFT_OUT & set(cell.metadata.get("tags", []))]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for name in CELL_METADATA:
            cell.metadata.pop(name, None)
        if cell.cell_type == "markdown":
            for pattern, link in LINKS:
                cell.source = pattern.sub(link, cell.source)
        if cell.cell_type == "code":
            widget = "application/vnd.jupyter.widget-view+json"
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and widget not in o.get("data", {})]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise StudyError(f"the executed notebook is not valid: {error.message}") from None
    return notebook
