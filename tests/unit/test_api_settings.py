"""Settings of the control plane that an operator can get wrong."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from api.settings import KNOWN_SCHEMES, Settings


def test_schemes_are_split_and_every_known_one_can_be_allowed() -> None:
    assert Settings(database_url="postgresql://x").schemes == {"file", "s3", "zip", "tar"}
    everything = Settings(database_url="postgresql://x", allowed_schemes=" , ".join(KNOWN_SCHEMES))
    assert everything.schemes == set(KNOWN_SCHEMES)


def test_a_scheme_that_nothing_can_read_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="did you mean https"):
        Settings(database_url="postgresql://x", allowed_schemes="file,htps")
