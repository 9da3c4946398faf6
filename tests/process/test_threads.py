"""`serving.process.threads`: work beside the event loop ends with an answer, whatever it does, and holds up no end."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from serving.process.threads import call_aside
from tests.support.environment import ROOT


def raises(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_the_result_comes_from_another_thread():
    async def main() -> int:
        return await call_aside(threading.get_ident)

    assert asyncio.run(main()) != threading.get_ident()


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), SystemExit(3), KeyboardInterrupt()])
def test_whatever_it_raises_is_an_exception_where_it_is_awaited(error: BaseException):
    async def main() -> None:
        await asyncio.wait_for(call_aside(raises(error)), 5)

    with pytest.raises(Exception, match=r"no|raised (StopIteration|SystemExit|KeyboardInterrupt)") as raised:
        asyncio.run(main())
    assert error in (raised.value, raised.value.__cause__)


def test_what_hangs_does_not_keep_the_process():
    code = (
        "import asyncio, time\n"
        "from serving.process.threads import call_aside\n"
        "async def main():\n"
        "    await asyncio.wait({call_aside(lambda: time.sleep(600))}, timeout=0.2)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=True)
