"""psycopg 3 through the pooler: server-side prepared statements, pipelines, COPY, cursors, cancel, notifications, threads."""

import asyncio
import contextlib
import datetime
import decimal
import hashlib
import threading
import time

import psycopg
from psycopg import errors
from psycopg.types.json import Jsonb

from checks import DIRECT_DSN, DSN, POOL_SIZE, check, expect, main

EVERY_MODE = "session", "transaction", "statement"
WITH_TRANSACTIONS = "session", "transaction"


def connect(**arguments):
    arguments.setdefault("autocommit", True)
    return psycopg.connect(DSN, **arguments)


def scalar(connection, query, *values, **arguments):
    return connection.execute(query, values or None, **arguments).fetchone()[0]


def direct(script):
    """Runs a script in PostgreSQL itself; the rows of its last query, if it has any."""
    with psycopg.connect(DIRECT_DSN, autocommit=True) as connection:
        cursor = connection.execute(script)
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def table(name, columns):
    """A table that exists for one check."""
    direct(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} ({columns}); GRANT ALL ON {name} TO weir")
    try:
        yield name
    finally:
        direct(f"DROP TABLE {name}")


def expect_error(kind, action, *arguments):
    try:
        action(*arguments)
    except kind:
        return
    raise AssertionError(f"{kind.__name__} did not come")


@check(*EVERY_MODE)
def values_come_back_as_sent():
    values = [
        (42, "int8"), ("naïve 漢字 \U0001f418", "text"), (b"\x00\x01\xff" * 1000, "bytea"), (None, "text"), (True, "bool"),
        (decimal.Decimal("12345678901234567890.123456789"), "numeric"), (1.1, "float8"), ([1, None, 3], "int4[]"),
        (["a", 'b"c', None], "text[]"), (datetime.date(2026, 2, 28), "date"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 678901), "timestamp"), (datetime.timedelta(days=3, seconds=7), "interval"),
    ]
    with connect() as connection:
        for binary in False, True:
            for value, type_name in values:
                got = scalar(connection, f"SELECT %s::{type_name}", value, binary=binary)
                expect(got, value, f"{type_name}, binary={binary}")
        expect(scalar(connection, "SELECT %s::jsonb", Jsonb({"a": [1, 2, {"b": None}]})), {"a": [1, 2, {"b": None}]})


def prepared_by_all_connections(threshold):
    """Many clients, each with the same names for different statements, on few servers."""
    connections = [connect(prepare_threshold=threshold) for _ in range(3 if threshold else 2)]
    try:
        for turn in range(30):
            for number, connection in enumerate(connections):
                got = scalar(connection, f"SELECT %s::int * 10 + {number}", turn)
                expect(got, turn * 10 + number, f"turn {turn}, connection {number}")
    finally:
        for connection in connections:
            connection.close()


@check(*EVERY_MODE)
def prepare_threshold_0():
    prepared_by_all_connections(0)


@check(*EVERY_MODE)
def prepare_threshold_5():
    prepared_by_all_connections(5)


@check(*EVERY_MODE)
def prepared_statements_are_evicted_and_prepared_again():
    # With libpq 17 and later psycopg closes a statement with a Close message; before, by SQL, which only suits session mode.
    if psycopg.pq.version() < 170000:
        raise AssertionError("this psycopg's libpq is too old to close statements by message")
    with connect(prepare_threshold=0) as connection:
        connection.prepared_max = 5
        for turn in range(4):
            for number in range(12):
                expect(scalar(connection, f"SELECT {number} + %s::int", turn), number + turn)


@check(*EVERY_MODE)
def deallocate_all_and_discard_all_forget_statements():
    with connect(prepare_threshold=0) as connection:
        for command in "DEALLOCATE ALL", "DISCARD ALL":
            expect(scalar(connection, "SELECT %s::text", "before"), "before")
            connection.execute(command)
            connection._prepared.clear()
            expect(scalar(connection, "SELECT %s::text", "after"), "after")


@check(*WITH_TRANSACTIONS)
def schema_changes_between_uses():
    with table("psycopg_schema", "a int") as name, connect(prepare_threshold=0) as connection:
        connection.execute(f"INSERT INTO {name} VALUES (1)")
        expect(connection.execute(f"SELECT a FROM {name}").fetchall(), [(1,)])
        direct(f"ALTER TABLE {name} ALTER a TYPE bigint")
        # PostgreSQL itself refuses the cached plan; what counts is that the connection goes on.
        with contextlib.suppress(errors.FeatureNotSupported):
            connection.execute(f"SELECT a FROM {name}")
        expect(scalar(connection, f"SELECT a + %s::int FROM {name}", 1), 2)


@check(*EVERY_MODE)
def an_error_leaves_the_connection_usable():
    for threshold in None, 0:
        with connect(prepare_threshold=threshold) as connection:
            for turn in range(5):
                expect_error(errors.DivisionByZero, scalar, connection, "SELECT 1 / %s::int", 0)
                expect_error(errors.UndefinedTable, scalar, connection, "SELECT * FROM no_such_table")
                expect_error(errors.SyntaxError, scalar, connection, "SELEC %s", 1)
                expect(scalar(connection, "SELECT %s::int", turn), turn)


@check(*WITH_TRANSACTIONS)
def transactions_and_savepoints():
    with table("psycopg_tx", "a int") as name, connect() as connection:
        with connection.transaction():
            connection.execute(f"INSERT INTO {name} VALUES (1)")
            with contextlib.suppress(errors.DivisionByZero), connection.transaction():
                connection.execute(f"INSERT INTO {name} VALUES (2)")
                connection.execute("SELECT 1/0")
            connection.execute(f"INSERT INTO {name} VALUES (3)")
        with contextlib.suppress(RuntimeError), connection.transaction():
            connection.execute(f"INSERT INTO {name} VALUES (4)")
            raise RuntimeError("rolled back")
        expect(connection.execute(f"SELECT a FROM {name} ORDER BY a").fetchall(), [(1,), (3,)])


@check(*WITH_TRANSACTIONS)
def a_failed_transaction_refuses_until_rollback():
    with connect(autocommit=False) as connection:
        expect_error(errors.DivisionByZero, connection.execute, "SELECT 1/0")
        expect_error(errors.InFailedSqlTransaction, connection.execute, "SELECT 1")
        connection.rollback()
        expect(scalar(connection, "SELECT 5"), 5)


@check("statement")
def transaction_blocks_are_refused():
    connection = connect()
    expect_error(psycopg.Error, connection.execute, "BEGIN")
    connection.close()
    with connect() as connection:
        expect(scalar(connection, "SELECT 6"), 6)


@check(*EVERY_MODE)
def pipeline_keeps_the_order():
    with connect(prepare_threshold=0) as connection, connection.pipeline():
        cursors = [connection.execute("SELECT %s::int, repeat('x', %s::int)", (n, n % 50 * 100)) for n in range(500)]
        for n, cursor in enumerate(cursors):
            expect(cursor.fetchall(), [(n, "x" * (n % 50 * 100))], f"reply {n}")


@check(*EVERY_MODE)
def pipeline_with_syncs_and_errors():
    with connect(prepare_threshold=0) as connection, connection.pipeline() as pipeline:
        for turn in range(10):
            first = connection.execute("SELECT %s::int", (turn,))
            pipeline.sync()
            expect(first.fetchone(), (turn,))
            good = connection.execute("SELECT %s::int + 1", (turn,))
            after = []

            # psycopg raises the error when it happens to read it: while it sends the next query, or in the sync.
            def broken():
                connection.execute("SELECT 1 / %s::int", (0,))
                after.append(connection.execute("SELECT %s::int + 2", (turn,)))
                pipeline.sync()

            expect_error(errors.DivisionByZero, broken)
            with contextlib.suppress(errors.PipelineAborted):
                pipeline.sync()
            expect(good.fetchone(), (turn + 1,))
            for lost in after:
                expect_error(psycopg.Error, lost.fetchone)


@check(*WITH_TRANSACTIONS)
def pipeline_of_transactions():
    with table("psycopg_pipeline", "a int primary key") as name, connect() as connection:
        with connection.pipeline():
            for n in range(50):
                with connection.transaction():
                    connection.execute(f"INSERT INTO {name} VALUES (%s)", (n,))
        expect(connection.execute(f"SELECT count(*), sum(a) FROM {name}").fetchone(), (50, 1225))


@check(*EVERY_MODE)
def executemany_returns_every_row():
    with table("psycopg_many", "a int, b text") as name, connect() as connection:
        with connection.cursor() as cursor:
            rows = [(n, f"row {n}") for n in range(300)]
            cursor.executemany(f"INSERT INTO {name} VALUES (%s, %s) RETURNING a", rows, returning=True)
            got = []
            while True:
                got.append(cursor.fetchone()[0])
                if not cursor.nextset():
                    break
        expect(got, list(range(300)))
        expect(scalar(connection, f"SELECT count(*) FROM {name}"), 300)


@check(*WITH_TRANSACTIONS)
def copy_in_and_out():
    with table("psycopg_copy", "a int, b text") as name, connect(autocommit=False) as connection:
        cursor = connection.cursor()
        for binary in "", " (FORMAT binary)":
            with cursor.copy(f"COPY {name} FROM STDIN{binary}") as copy:
                copy.set_types(["int4", "text"])
                for n in range(20_000):
                    copy.write_row((n, f"line {n}\twith \\ tab"))
            expect(cursor.rowcount, 20_000)
            with cursor.copy(f"COPY (SELECT * FROM {name} ORDER BY a) TO STDOUT{binary}") as copy:
                copy.set_types(["int4", "text"])
                for n, row in enumerate(copy.rows()):
                    expect(row, (n, f"line {n}\twith \\ tab"))
            connection.rollback()
        expect(scalar(connection, f"SELECT count(*) FROM {name}"), 0)


@check(*EVERY_MODE)
def copy_that_fails():
    with table("psycopg_badcopy", "a int") as name, connect() as connection:
        for turn in range(3):

            def bad_copy():
                with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                    copy.write("1\n2\nnot a number\n")
                    for n in range(10_000):
                        copy.write(f"{n}\n")

            def abandoned_copy():
                with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                    copy.write("1\n")
                    raise RuntimeError("changed my mind")

            expect_error(errors.InvalidTextRepresentation, bad_copy)
            expect(scalar(connection, "SELECT %s::int", turn), turn, "after a bad line")
            expect_error(RuntimeError, abandoned_copy)
            expect(scalar(connection, f"SELECT count(*) FROM {name}"), 0, "after an abandoned copy")


@check(*EVERY_MODE)
def copy_out_cancelled_half_way():
    with connect() as connection:
        for turn in range(3):

            def give_up():
                with connection.cursor().copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 500000)) TO STDOUT") as copy:
                    expect(len(copy.read()), 1001)
                    connection.cancel_safe(timeout=10)
                    while copy.read():
                        pass

            expect_error(errors.QueryCanceled, give_up)
            expect(scalar(connection, "SELECT %s::int", turn), turn)


@check(*WITH_TRANSACTIONS)
def server_side_cursor():
    with connect(autocommit=False) as connection, connection.cursor("walker") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT n, repeat('y', 100) FROM generate_series(1, 5000) n")
        expect([row[0] for row in cursor], list(range(1, 5001)))


@check(*EVERY_MODE)
def rows_one_by_one():
    with connect() as connection:
        rows = connection.cursor().stream("SELECT n FROM generate_series(1, %s) n", (10_000,))
        expect([row[0] for row in rows], list(range(1, 10_001)))


@check(*EVERY_MODE)
def large_values_both_ways():
    value = hashlib.sha512(b"pgweir").digest() * 160_000  # 10 MB
    with connect() as connection:
        for threshold in None, 0:
            connection.prepare_threshold = threshold
            digest, back = connection.execute("SELECT sha256(%b::bytea), %b::bytea", (value, value), binary=True).fetchone()
            expect(bytes(digest), hashlib.sha256(value).digest(), "as the server sees it")
            expect(bytes(back) == value, True, "as it comes back")


@check(*EVERY_MODE)
def cancel_hits_its_own_query_only():
    with connect() as victim, connect() as neighbour:
        for turn in range(5):
            # The victim cancels once its query is seen running, so that there is something to cancel.
            mark = f"pg_sleep(20), 'cancel check {turn}'"
            canceller = threading.Thread(target=cancel_when_running, args=(victim, f"cancel check {turn}"))
            canceller.start()
            started = time.monotonic()
            expect_error(errors.QueryCanceled, victim.execute, f"SELECT {mark}")
            canceller.join()
            if time.monotonic() - started > 15:
                raise AssertionError("the cancel came too late")
            expect(scalar(victim, "SELECT %s::int", turn), turn)
            expect(scalar(neighbour, "SELECT %s::int FROM pg_sleep(0.2)", turn), turn)


def cancel_when_running(connection, mark):
    for _ in range(100):
        if direct(f"SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{mark}%' AND pid <> pg_backend_pid()"):
            break
        time.sleep(0.05)
    connection.cancel_safe(timeout=10)


@check(*EVERY_MODE)
def a_late_cancel_hits_nobody():
    with connect() as idler, connect() as worker:
        expect(scalar(idler, "SELECT 1"), 1)
        stop = threading.Event()

        def keep_cancelling():
            while not stop.is_set():
                idler.cancel_safe(timeout=10)

        canceller = threading.Thread(target=keep_cancelling)
        canceller.start()
        try:
            for turn in range(150):
                expect(scalar(worker, "SELECT %s::int FROM pg_sleep(0.005)", turn), turn)
        finally:
            stop.set()
            canceller.join()
        expect(scalar(idler, "SELECT 2"), 2)


@check("session")
def notifications():
    with connect() as listener, connect() as speaker:
        listener.execute("LISTEN psycopg_news")
        for n in range(20):
            speaker.execute("SELECT pg_notify('psycopg_news', %s)", (f"number {n}",))
        got = [notification.payload for notification in listener.notifies(timeout=10, stop_after=20)]
        expect(got, [f"number {n}" for n in range(20)])
        listener.execute("UNLISTEN *")


@check("session")
def session_state_stays_with_the_client():
    connections = [connect() for _ in range(4)]
    for n, connection in enumerate(connections):
        connection.execute(f"SET work_mem = '{n + 1}MB'")
        connection.execute(f"CREATE TEMP TABLE mine AS SELECT {n} AS n")
        connection.execute(f"PREPARE mine AS SELECT {n} + $1::int")
    for n, connection in enumerate(connections):
        expect(scalar(connection, "SHOW work_mem"), f"{n + 1}MB")
        expect(scalar(connection, "SELECT n FROM mine"), n)
        expect(scalar(connection, "EXECUTE mine(100)"), 100 + n)
        connection.close()
    with connect() as connection:
        expect(scalar(connection, "SELECT count(*) FROM pg_prepared_statements"), 0, "statements left by others")
        expect_error(errors.UndefinedTable, connection.execute, "SELECT * FROM mine")


@check(*EVERY_MODE)
def tracked_parameters_follow_the_client():
    zones = ["UTC", "Asia/Tokyo", "America/New_York", "Europe/Berlin", "Australia/Sydney", "Africa/Cairo"]
    styles = ["ISO, MDY", "ISO, DMY", "German, DMY", "SQL, MDY", "Postgres, DMY", "ISO, YMD"]
    connections = [connect(application_name=f"client {n}") for n in range(len(zones))]
    for connection, zone, style in zip(connections, zones, styles):
        connection.execute(f"SET TimeZone = '{zone}'")
        connection.execute(f"SET DateStyle = '{style}'")
    for _ in range(10):
        for n, connection in enumerate(connections):
            row = connection.execute(
                "SELECT current_setting('application_name'), current_setting('TimeZone'), current_setting('DateStyle')").fetchone()
            expect(row, (f"client {n}", zones[n], styles[n]), f"client {n}")
            expect(connection.info.parameter_status("TimeZone"), zones[n])
    for connection in connections:
        connection.close()


@check(*EVERY_MODE)
def startup_options_are_tracked():
    with connect(options="-c TimeZone=Asia/Tokyo -c DateStyle=German") as tokyo, connect() as other:
        for _ in range(5):
            expect(scalar(tokyo, "SHOW TimeZone"), "Asia/Tokyo")
            expect(scalar(tokyo, "SHOW DateStyle"), "German, DMY")
            expect(scalar(other, "SHOW TimeZone") == "Asia/Tokyo", False)


@check(*EVERY_MODE)
def client_encodings_follow_the_client():
    with connect(client_encoding="LATIN1") as latin, connect(client_encoding="UTF8") as utf8:
        for _ in range(10):
            for connection in latin, utf8:
                expect(connection.execute("SELECT %s::text, octet_length(%s::text)", ("é", "é")).fetchone(), ("é", 2))


@check(*WITH_TRANSACTIONS)
def threads_move_money():
    accounts, threads, turns = 20, 20, 30
    with table("psycopg_money", "id int primary key, balance int") as name:
        direct(f"INSERT INTO {name} SELECT n, 100 FROM generate_series(0, {accounts - 1}) n")
        failures = []

        def transfer(number):
            try:
                with connect(autocommit=False, prepare_threshold=number % 3) as connection:
                    for turn in range(turns):
                        first, second = sorted(((number + turn) % accounts, (number * 7 + turn * 3 + 1) % accounts))
                        with connection.transaction():
                            connection.execute(f"SET LOCAL work_mem = '{number + 1}MB'")
                            connection.execute(f"UPDATE {name} SET balance = balance - 1 WHERE id = %s", (first,))
                            connection.execute(f"UPDATE {name} SET balance = balance + 1 WHERE id = %s", (second,))
                            expect(scalar(connection, "SHOW work_mem"), f"{number + 1}MB")
            except Exception as error:
                failures.append(f"thread {number}: {error}")

        workers = [threading.Thread(target=transfer, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        expect(failures, [])
        expect(direct(f"SELECT sum(balance) FROM {name}"), [(accounts * 100,)])


@check("transaction", "statement")
def servers_stay_within_the_pool():
    counts = []

    async def one(number):
        async with await psycopg.AsyncConnection.connect(DSN, autocommit=True) as connection:
            for turn in range(10):
                cursor = await connection.execute("SELECT %s::int * 1000 + %s::int FROM pg_sleep(0.002)", (number, turn))
                expect(await cursor.fetchone(), (number * 1000 + turn,))

    async def count(stop):
        async with await psycopg.AsyncConnection.connect(DIRECT_DSN, autocommit=True) as connection:
            while not stop.is_set():
                cursor = await connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'weir' AND datname = current_database()")
                counts.append((await cursor.fetchone())[0])
                await asyncio.sleep(0.02)

    async def crowd():
        stop = asyncio.Event()
        counter = asyncio.create_task(count(stop))
        await asyncio.gather(*(one(number) for number in range(40)))
        stop.set()
        await counter

    asyncio.run(crowd())
    if not 0 < max(counts) <= POOL_SIZE:
        raise AssertionError(f"up to {max(counts)} server connections, pool_size is {POOL_SIZE}")


@check(*WITH_TRANSACTIONS)
def a_client_that_vanishes_in_a_transaction_is_rolled_back():
    with table("psycopg_vanish", "a int") as name:
        for n in range(2 * POOL_SIZE):
            connection = connect(autocommit=False)
            connection.execute(f"INSERT INTO {name} VALUES (%s)", (n,))
            connection.pgconn.finish()
        with connect() as connection:
            for _ in range(2 * POOL_SIZE):
                expect(scalar(connection, f"SELECT count(*) FROM {name}"), 0)


@check(*EVERY_MODE)
def notices_reach_their_client():
    with connect() as first, connect() as second:
        heard = {0: [], 1: []}
        first.add_notice_handler(lambda notice: heard[0].append(notice.message_primary))
        second.add_notice_handler(lambda notice: heard[1].append(notice.message_primary))
        for n in range(10):
            first.execute(f"DO $$ BEGIN RAISE NOTICE 'first {n}'; END $$")
            second.execute(f"DO $$ BEGIN RAISE NOTICE 'second {n}'; END $$")
        expect(heard, {0: [f"first {n}" for n in range(10)], 1: [f"second {n}" for n in range(10)]})


@check(*EVERY_MODE)
def tls_is_used_where_it_should_be():
    # What the server sees of its own side, and libpq of the other.
    with connect() as connection:
        expect(connection.pgconn.ssl_in_use, "sslmode" in DSN, "the client's side")
        expect(scalar(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "sslmode" in DSN, "the server's side")


@check(*EVERY_MODE)
def a_wrong_password_is_refused():
    for wrong in "wrong", "weirweir":
        expect_error(psycopg.OperationalError, lambda: psycopg.connect(DSN, password=wrong))
    expect_error(psycopg.OperationalError, lambda: psycopg.connect(DSN, user="nobody_known"))
    with connect() as connection:
        expect(scalar(connection, "SELECT current_user"), "weir")


if __name__ == "__main__":
    main()
