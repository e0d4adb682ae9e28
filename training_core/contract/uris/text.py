"""The characters of a URI, and what its percent escapes stand for."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

LONGEST_CHARACTERS = 2048
ESCAPE = re.compile(r"%[0-9a-fA-F]{2}")
# Controls, lone surrogates, private use, unassigned, separators of lines. Joiners (Cf) are spelling in Persian.
REFUSED_CATEGORIES = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


class Refused(ValueError):
    """A URI that is not one. The words go to the client, behind the name of the field, as does the nearest scheme."""

    def __init__(self, words: str, did_you_mean: str | None = None) -> None:
        super().__init__(words)
        self.did_you_mean = did_you_mean


def check_characters(uri: str) -> None:
    """Raises `Refused` for what no URI holds, and for what two readers may take for two things."""
    if not uri or len(uri) > LONGEST_CHARACTERS:
        raise Refused(f"a URI has 1 to {LONGEST_CHARACTERS:,} characters")
    if "\\" in uri:
        raise Refused("a URI has no backslash; folders are parted by /")
    if "#" in uri:
        raise Refused("a URI here has no fragment; write a # in a name as %23")
    if uri != uri.strip() or any(_is_refused(character) for character in uri):
        raise Refused(
            "a URI has no control characters, and no white space but plain spaces within names; write others as %20"
        )


def _is_refused(character: str) -> bool:
    if character.isascii():
        return not character.isprintable()
    return character.isspace() or character in TURNING or unicodedata.category(character) in REFUSED_CATEGORIES


def decoded(path: str) -> str:
    """What the escapes in `path` stand for. A path with a `%` that begins none is taken to the letter.

    Raises `Refused` for escapes that stand for a slash, a control character, or no text.
    """
    if path.count("%") != len(ESCAPE.findall(path)):
        return path
    check_escapes(path)
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise Refused("the percent escapes of a URI stand for UTF-8") from None


def check_escapes(path: str) -> None:
    """Raises `Refused` for an escaped slash, backslash or control character, escaped twice or not."""
    for text in (path, unquote(path)):
        for escape in ESCAPE.findall(text):
            byte = int(escape[1:], 16)
            if chr(byte) in "/\\":
                raise Refused("a URI has no encoded slash or backslash; name the folders one by one")
            if byte < 32 or byte == 127:
                raise Refused("a URI has no encoded control characters")


def check_segments(path: str, *, here: bool = False) -> None:
    """Raises `Refused` for `..`, and for `.` unless `here`, escaped or not: some readers would take another place."""
    for text in (path, unquote(path), unquote(unquote(path))):
        for segment in text.replace("\\", "/").split("/"):
            name = segment.partition(";")[0]
            if name == ".." or (name == "." and not here):
                raise Refused("a URI has no . or .. among its folders; write the place itself")
