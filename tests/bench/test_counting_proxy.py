"""The proxy that counts what passes a coordinator's port."""

import asyncio

import pytest

from bench.counting_proxy import counting_proxy
from examples.demo.processes import LOOPBACK, free_ports

pytestmark = pytest.mark.anyio


async def test_a_proxy_counts_both_ways() -> None:
    """Each direction for itself; and callers of a coordinator that is down see their connection closed."""
    target, proxy = free_ports(2)

    async def echo_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(2 * await reader.readexactly(5))
        writer.close()

    async with counting_proxy(proxy, target) as count:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy)
        assert await reader.read() == b""
        writer.close()
        async with await asyncio.start_server(echo_twice, LOOPBACK, target):
            reader, writer = await asyncio.open_connection(LOOPBACK, proxy)
            writer.write(b"hello")
            assert await reader.readexactly(10) == b"hellohello"
            writer.close()
        assert (count.up, count.down, count.both, count.connections) == (5, 10, 15, 2)
