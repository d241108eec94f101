"""The programs in `examples/` do what they say."""

import asyncio
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
import streamll
from logs import new_name, run_of
from servers import server

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


async def test_faststream_reads_our_redis_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, target = server("redis"), new_name()
    monkeypatch.setitem(os.environ, "REDIS_URL", url)
    monkeypatch.setitem(os.environ, "STREAMLL_TARGET", target)
    broker = example("faststream_reader").broker

    async with broker:
        await broker.start()
        streamll.EventLog(url, target).append(run_of(3))
        async with asyncio.timeout(20):
            out = ""
            while "t3" not in out:
                await asyncio.sleep(0.05)
                out += capsys.readouterr().out

    assert [word for word in out.split() if word in ("t1", "t2", "t3")] == ["t1", "t2", "t3"]
