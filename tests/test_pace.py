import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.pace import Pace, paced

pytestmark = pytest.mark.anyio


async def body(*, ends: bool) -> AsyncIterator[bytes]:
    """Yield two pieces; if it does not end, nothing more comes."""
    yield b"first"
    yield b"second"
    if not ends:
        await asyncio.get_running_loop().create_future()


async def test_a_body_at_its_pace_comes_as_it_is() -> None:
    """And what has come counts for it."""
    pace = Pace(silence_seconds=10.0, bytes_per_second=1.0)
    assert [piece async for piece in paced(body(ends=True), pace)] == [b"first", b"second"]
    assert pace.bytes == 11


async def test_a_body_that_stops_is_not_waited_for() -> None:
    """What had come until then has been handed on."""
    coming = paced(body(ends=False), Pace(silence_seconds=0.05, bytes_per_second=1.0))
    assert [await anext(coming), await anext(coming)] == [b"first", b"second"]
    with pytest.raises(TimeoutError):
        await anext(coming)
