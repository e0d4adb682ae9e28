"""Secrets at rest: bound to their place, under keys that can be changed."""

from __future__ import annotations

import pytest

from training_core.contract.credentials import Credentials
from training_core.contract.sealing import CannotOpen, Sealer, new_key, parse_keys, sealer_of

OLD, NEW = (parse_keys(new_key())[0] for _ in range(2))


def test_what_is_sealed_opens_and_shows_nothing() -> None:
    sealed = Sealer([OLD]).seal("prj_1", "pets", b"canary")
    assert b"canary" not in sealed
    assert Sealer([OLD]).open("prj_1", "pets", sealed) == b"canary"
    assert Sealer([OLD]).seal("prj_1", "pets", b"canary") != sealed


@pytest.mark.parametrize(("project", "name"), [("prj_2", "pets"), ("prj_1", "cats"), ("prj_1pets", "")])
def test_a_row_that_was_swapped_does_not_open(project: str, name: str) -> None:
    sealer = Sealer([OLD])
    with pytest.raises(CannotOpen):
        sealer.open(project, name, sealer.seal("prj_1", "pets", b"canary"))


def test_every_changed_or_missing_byte_is_noticed() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal("prj_1", "pets", b"canary")
    for index in range(len(sealed)):
        for wrong in (sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :], sealed[:index]):
            with pytest.raises(CannotOpen):
                sealer.open("prj_1", "pets", wrong)


def test_the_first_key_seals_and_all_open() -> None:
    before = Sealer([OLD]).seal("prj_1", "pets", b"canary")
    both = Sealer([NEW, OLD])
    assert both.open("prj_1", "pets", before) == b"canary"
    assert not both.is_current(before)
    after = both.seal("prj_1", "pets", b"canary")
    assert both.is_current(after)
    assert Sealer([NEW]).open("prj_1", "pets", after) == b"canary"
    with pytest.raises(CannotOpen):
        Sealer([OLD]).open("prj_1", "pets", after)


def test_fingerprints_tell_values_apart_and_projects_nothing() -> None:
    sealer = Sealer([OLD])
    prints = {
        sealer.fingerprint(*of)
        for of in [("prj_1", "a", b"x"), ("prj_1", "a", b"y"), ("prj_2", "a", b"x"), ("prj_1", "b", b"x")]
    }
    assert len(prints) == 4
    assert sealer.fingerprint("prj_1", "a", b"x") != Sealer([NEW]).fingerprint("prj_1", "a", b"x")


WRONG = {
    "a word": "canary",
    "short": "Y2FuYXJ5",
    "no secret": "A" * 43 + "=",
    "second": f"{new_key()},canary",
    "é": "é" * 32,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="new-key") as refused:
        parse_keys(text)
    assert "canary" not in str(refused.value)


def test_no_key_is_no_sealer() -> None:
    assert sealer_of(" , ") is None


def test_credentials_show_nothing_in_their_words_and_hide_themselves_in_others() -> None:
    given = Credentials(key="AKIACANARY", secret="canary/secret", options={"token": "first-line\nsecond-line"})
    assert "anary" not in repr(given) + str(given)
    assert "line" not in repr(given)
    quoted = given.hide_in("GET failed: AKIACANARY:canary/secret at second-line, region us")
    assert quoted == "GET failed: ***:*** at ***, region us"
