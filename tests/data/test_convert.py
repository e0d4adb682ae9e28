"""What is packed of an image depends on its own content: not on its neighbours, the threads, or when it is done."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.pictures import image_file, photo
from training_core.data.samples import Content, Unreadable
from training_core.vision.convert import Bad, Converter, NotGrey, Packed, convert
from training_core.vision.inspection.measures import FIELDS
from training_core.vision.packing import Packing


def packing(channels: int = 3, encoding: str = "raw", image_size: int = 28) -> Packing:
    return Packing.model_validate(
        {
            "image_size": image_size,
            "image_size_reason": "",
            "channels": channels,
            "encoding": encoding,
            "expected_bytes": 0,
        }
    )


def comparable(one: Packed | Bad) -> tuple[object, ...]:
    if isinstance(one, Bad):
        return (one.row, one.finding, one.problem)
    sizes = (one.width, one.height, one.packed_width, one.packed_height, one.channels, one.stored)
    return (one.row, bytes(memoryview(one.payload).cast("B")), *sizes, *np.float32(one.measures).tolist())


def mixed() -> list[tuple[int, Content]]:
    """Sizes, kinds and troubles, in no order."""
    contents: list[tuple[int, Content]] = []
    for row in range(60):
        side = (20, 20, 20, 33, 90)[row % 5]
        kind = ("PNG", "PNG", "JPEG", "WEBP")[row % 4]
        contents.append((row, image_file(photo(side, side + row % 3, seed=row), kind)))
    contents[7] = (7, b"<html>")
    contents[30] = (30, Unreadable("it vanished"))
    contents[41] = (41, photo(20, 20, seed=41))
    return contents


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "original"])
def test_neighbours_and_threads_do_not_matter(encoding: str) -> None:
    contents = mixed()
    alone = [comparable(Converter(packing(encoding=encoding)).several([one])[0]) for one in contents]
    for threads in (1, 2, 8):
        together = [comparable(one) for one in convert(contents, packing(encoding=encoding), threads)]
        assert together == alone


def test_results_come_in_order_and_each_has_all_measures() -> None:
    done = list(convert(mixed(), packing(), 4))
    assert [one.row for one in done] == list(range(60))
    assert {one.row: one.finding for one in done if isinstance(one, Bad)} == {7: "wrong_type", 30: "unreadable"}
    assert all(len(one.measures) == len(FIELDS) for one in done if isinstance(one, Packed))


def test_a_grey_pack_takes_no_colours() -> None:
    grey = (0, image_file(photo(channels=1)))
    assert len(list(convert([grey], packing(1), 1))) == 1
    for colours in (image_file(photo()), image_file(photo(), "GIF"), photo()):
        with pytest.raises(NotGrey):
            list(convert([grey, (1, colours)], packing(1), 1))


def test_a_caller_that_ends_early_leaves_no_thread(recwarn: pytest.WarningsRecorder) -> None:
    import threading

    before = threading.active_count()
    results = convert(iter(mixed() * 10), packing(), 4)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert not recwarn.list
