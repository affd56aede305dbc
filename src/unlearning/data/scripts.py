"""What counts as a word: what stands between blanks, and single characters of scripts that write no blanks."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain, pairwise

# Unicode blocks without blanks between words. A Chinese character means something by itself; the letters of the others
# (kana, Thai, Lao, Tibetan, Burmese, Khmer, Tai, Balinese, Javanese, Yi) are few, and only neighbours tell texts apart.
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTERS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3031-\u3035\u3040-\u312f"
    "\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua4cf\ua980-\ua9ff\uaa60-\uaadf\uff66-\uff9d\U0001b000-\U0001b16f"
)
_MARKS = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c)[0] == "M")
_MARKED = f"(?=[^\\W\\d_])[{_LETTERS}][{_MARKS}]*"
_OTHER = f"[^\\W\\d_{_HAN}{_LETTERS}]"
_CHARACTER = re.compile(_MARKED)
_WORD = re.compile(f"{_OTHER}+(?:[{_MARKS}]+{_OTHER}*)*|[{_HAN}]|(?:{_MARKED})+")
_ALONE = re.compile(f"[{_HAN}{_LETTERS}]")
_NO_BLANKS = re.compile(f"[{_HAN}]|{_MARKED}")
UNIT = re.compile(f"[^\\w\\s]*(?:[{_HAN}]|(?=[^\\W\\d_])[{_LETTERS}])[^\\w\\s]*|[^\\s{_HAN}{_LETTERS}]+|\\S")


def units(text: str) -> list[str]:
    """What a text's length is counted in: what stands between blanks; of scripts without them, each character.

    A character has its marks and the punctuation beside it with it. The units are the text without its white space.
    """
    return UNIT.findall(text) if _ALONE.search(text) else text.split()


def words(text: str) -> list[str]:
    """What two texts are compared by: words in small letters with their combining marks, composed or decomposed alike.

    Digits and punctuation are left out. Of scripts without blanks: each Chinese character, each two neighbours of other
    letters (one that stands alone: itself).
    """
    found = _WORD.findall(unicodedata.normalize("NFC", text).lower())
    return list(chain.from_iterable(map(_parts, found))) if _ALONE.search(text) else found


def _parts(word: str) -> list[str]:
    letters = _CHARACTER.findall(word)
    return ["".join(two) for two in pairwise(letters)] if len(letters) > 1 else [word]


def without_blanks(texts: Iterable[str]) -> float:
    """The share, from 0 to 1, of all letters that are of scripts without blanks between words; 0 without letters."""
    joined = "".join(texts)
    return len(_NO_BLANKS.findall(joined)) / max(1, sum(map(str.isalpha, joined)))


def unit_name(texts: Iterable[str]) -> str:
    """What `units` counts in these texts, in words."""
    share = without_blanks(texts)
    mixed = f"words; characters in scripts without blanks ({share:.1%} of all letters)"
    return "words" if share < 0.0005 else "characters" if share > 0.99 else mixed
