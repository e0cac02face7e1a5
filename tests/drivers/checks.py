"""The frame that the Python driver checks hang in: which checks are valid in the mode under test, a limit on how long each may
take, and one line `ok NAME` or `FAIL NAME: reason` per check. The checks themselves are in psycopg_checks.py and
asyncpg_checks.py; run.sh starts those with the environment read here."""

import asyncio
import faulthandler
import inspect
import os
import signal
import sys
import traceback

DSN = os.environ["PGWEIR_DSN"]
"""The pooler, as the ordinary user."""
DIRECT_DSN = os.environ["PGWEIR_DIRECT_DSN"]
"""PostgreSQL itself, as superuser, to see what really happened."""
MODE = os.environ["PGWEIR_MODE"]
"""Pool mode: session, transaction or statement."""
POOL_SIZE = int(os.environ["PGWEIR_POOL_SIZE"])
"""How many server connections the pooler may have for one database and user."""

CHECK_SECONDS_MAX = 30

_checks = []


def check(*modes):
    """Registers a check that is valid in these pool modes."""

    def register(function):
        _checks.append((function, modes))
        return function

    return register


def expect(got, wanted, what="value"):
    """Fails the check unless `got` is exactly what was wanted."""
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:200]!r}, wanted {str(wanted)[:200]!r}")


def _too_long(_signal, _frame):
    raise TimeoutError(f"not finished after {CHECK_SECONDS_MAX} s")


def _run(function):
    if inspect.iscoroutinefunction(function):
        asyncio.run(asyncio.wait_for(function(), CHECK_SECONDS_MAX))
        return
    signal.alarm(CHECK_SECONDS_MAX)
    try:
        function()
    finally:
        signal.alarm(0)


def main():
    """Runs every check of this mode, or those named on the command line."""
    signal.signal(signal.SIGALRM, _too_long)
    failed = 0
    for function, modes in _checks:
        name = function.__name__
        if MODE not in modes or (sys.argv[1:] and name not in sys.argv[1:]):
            continue
        # A check stuck where neither alarm nor cancellation reaches ends the whole run, with a traceback.
        faulthandler.dump_traceback_later(2 * CHECK_SECONDS_MAX, exit=True)
        try:
            _run(function)
            print(f"ok {name}", flush=True)
        except Exception as error:
            failed += 1
            reason = " ".join(str(error).split())[:300]
            print(f"FAIL {name}: {type(error).__name__}: {reason}", flush=True)
            traceback.print_exc()
    faulthandler.cancel_dump_traceback_later()
    sys.exit(1 if failed else 0)
