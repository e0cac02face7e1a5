"""asyncpg through the pooler, with its statement cache on as it comes: it names every statement, so this is the driver that shows
first when prepared statements do not follow the client. Also its transactions, cursors, COPY, time limits and many tasks."""

import asyncio
import contextlib
import datetime
import decimal
import io
import json
import uuid

import asyncpg

from checks import DIRECT_DSN, DSN, POOL_SIZE, check, expect, main

EVERY_MODE = "session", "transaction", "statement"
WITH_TRANSACTIONS = "session", "transaction"


@contextlib.asynccontextmanager
async def connect(**arguments):
    connection = await asyncpg.connect(DSN, timeout=20, command_timeout=20, **arguments)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def direct(script):
    """Runs a script in PostgreSQL itself; the rows of a single query."""
    connection = await asyncpg.connect(DIRECT_DSN)
    try:
        return await (connection.fetch(script) if script.startswith("SELECT") else connection.execute(script))
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def table(name, columns):
    """A table that exists for one check."""
    await direct(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} ({columns}); GRANT ALL ON {name} TO weir")
    try:
        yield name
    finally:
        await direct(f"DROP TABLE {name}")


async def expect_error(kind, awaitable):
    try:
        await awaitable
    except kind:
        return
    raise AssertionError(f"{kind} did not come")


@check(*EVERY_MODE)
async def values_come_back_as_sent():
    values = [
        (42, "int8"), ("naïve 漢字 \U0001f418", "text"), (b"\x00\x01\xff" * 1000, "bytea"), (None, "text"), (True, "bool"),
        (decimal.Decimal("12345678901234567890.123456789"), "numeric"), (1.1, "float8"), ([1, None, 3], "int4[]"),
        ([[1, 2], [3, 4]], "int4[]"), (["a", 'b"c', None], "text[]"), (datetime.date(2026, 2, 28), "date"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 678901), "timestamp"), (uuid.UUID(int=7), "uuid"),
        (asyncpg.Range(1, 5), "int4range"), (asyncpg.Point(1.5, -2), "point"),
    ]
    async with connect() as connection:
        for turn in range(2):
            for value, type_name in values:
                expect(await connection.fetchval(f"SELECT $1::{type_name}", value), value, f"{type_name}, turn {turn}")


@check(*EVERY_MODE)
async def statement_cache():
    async with connect() as first, connect() as second, connect() as third:
        for turn in range(20):
            for number, connection in enumerate((first, second, third)):
                for query in range(5):
                    got = await connection.fetchval(f"SELECT $1::int * 100 + {query * 10 + number}", turn)
                    expect(got, turn * 100 + query * 10 + number)


@check(*EVERY_MODE)
async def small_statement_cache_evicts():
    async with connect(statement_cache_size=5) as connection:
        for turn in range(4):
            for number in range(12):
                expect(await connection.fetchval(f"SELECT {number} + $1::int", turn), number + turn)


@check(*EVERY_MODE)
async def more_statements_than_the_pooler_keeps():
    async with connect(statement_cache_size=1000) as connection:
        for turn in range(2):
            for number in range(300):
                expect(await connection.fetchval(f"SELECT {number} + $1::int", turn), number + turn)


@check(*EVERY_MODE)
async def no_statement_cache():
    async with connect(statement_cache_size=0) as connection:
        for turn in range(20):
            expect(await connection.fetchval("SELECT $1::int", turn), turn)


@check(*WITH_TRANSACTIONS)
async def explicitly_prepared_statement():
    async with connect() as connection:
        async with connection.transaction():
            statement = await connection.prepare("SELECT n, $2::text FROM generate_series(1, $1::int) n")
        expect([attribute.name for attribute in statement.get_attributes()], ["n", "text"])
        expect([parameter.name for parameter in statement.get_parameters()], ["int4", "text"])
        for size in 1, 10, 1000:
            expect([tuple(row) for row in await statement.fetch(size, "z")], [(n, "z") for n in range(1, size + 1)])


@check(*WITH_TRANSACTIONS)
async def user_types_and_codecs():
    await direct("DROP TYPE IF EXISTS asyncpg_colour CASCADE; CREATE TYPE asyncpg_colour AS ENUM ('red', 'green');"
                 "DROP TYPE IF EXISTS asyncpg_pair CASCADE; CREATE TYPE asyncpg_pair AS (a int, b asyncpg_colour)")
    async with connect() as connection:
        expect(await connection.fetchval("SELECT $1::asyncpg_colour", "green"), "green")
        expect(tuple(await connection.fetchval("SELECT $1::asyncpg_pair", (3, "red"))), (3, "red"))
        await connection.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        expect(await connection.fetchval("SELECT $1::json", {"a": [1, None]}), {"a": [1, None]})
    await direct("DROP TYPE asyncpg_pair; DROP TYPE asyncpg_colour")


@check(*WITH_TRANSACTIONS)
async def transactions_and_savepoints():
    async with table("asyncpg_tx", "a int") as name, connect() as connection:
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {name} VALUES ($1)", 1)
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.execute(f"INSERT INTO {name} VALUES ($1)", 2)
                    await connection.fetchval("SELECT 1/0")
            await connection.execute(f"INSERT INTO {name} VALUES ($1)", 3)
        with contextlib.suppress(RuntimeError):
            async with connection.transaction(isolation="serializable"):
                await connection.execute(f"INSERT INTO {name} VALUES ($1)", 4)
                raise RuntimeError("rolled back")
        expect([row["a"] for row in await connection.fetch(f"SELECT a FROM {name} ORDER BY a")], [1, 3])


@check(*EVERY_MODE)
async def an_error_leaves_the_connection_usable():
    async with connect() as connection:
        for turn in range(10):
            await expect_error(asyncpg.DivisionByZeroError, connection.fetchval("SELECT 1 / $1::int", 0))
            await expect_error(asyncpg.PostgresSyntaxError, connection.fetchval("SELEC $1::int", 0))
            await expect_error(asyncpg.UndefinedTableError, connection.fetchval("SELECT * FROM no_such_table"))
            expect(await connection.fetchval("SELECT $1::int", turn), turn)


@check(*WITH_TRANSACTIONS)
async def cursors():
    async with connect() as connection, connection.transaction():
        seen = [row[0] async for row in connection.cursor("SELECT n FROM generate_series(1, $1::int) n", 2000, prefetch=50)]
        expect(seen, list(range(1, 2001)))
        cursor = await connection.cursor("SELECT n FROM generate_series(1, 100) n")
        await cursor.forward(10)
        expect([row[0] for row in await cursor.fetch(3)], [11, 12, 13])


@check(*EVERY_MODE)
async def copy_in_and_out():
    async with table("asyncpg_copy", "a int, b text") as name, connect() as connection:
        rows = [(n, f"line {n}\twith \\ tab") for n in range(20_000)]
        expect(await connection.copy_records_to_table(name, records=rows), "COPY 20000")
        text = io.BytesIO()
        expect(await connection.copy_from_query(f"SELECT a FROM {name} WHERE a < $1 ORDER BY a", 1000, output=text), "COPY 1000")
        expect(text.getvalue(), b"".join(b"%d\n" % n for n in range(1000)))
        await expect_error(asyncpg.BadCopyFileFormatError, connection.copy_to_table(name, source=io.BytesIO(b"1\t2\t3\n")))
        expect(await connection.fetchval(f"SELECT count(*) FROM {name}"), 20_000)


@check(*EVERY_MODE)
async def executemany():
    async with table("asyncpg_many", "a int primary key, b text") as name, connect() as connection:
        await connection.executemany(f"INSERT INTO {name} VALUES ($1, $2)", [(n, "b" * (n % 100)) for n in range(3000)])
        row = await connection.fetchrow(f"SELECT count(*), sum(a), sum(length(b)) FROM {name}")
        expect(tuple(row), (3000, 4498500, 148500))
        # One bad row, and none of them stays.
        bad = [(n, "") for n in range(3000, 3100)] + [(5, "")]
        await expect_error(asyncpg.UniqueViolationError, connection.executemany(f"INSERT INTO {name} VALUES ($1, $2)", bad))
        expect(await connection.fetchval(f"SELECT count(*) FROM {name}"), 3000)


@check(*EVERY_MODE)
async def a_time_limit_cancels_the_query():
    async with connect() as connection, connect() as neighbour:
        for turn in range(5):
            await expect_error(asyncio.TimeoutError, connection.fetchval("SELECT 'asyncpg limit', pg_sleep(20)", timeout=0.3))
            expect(await connection.fetchval("SELECT $1::int", turn), turn)
            expect(await neighbour.fetchval("SELECT $1::int FROM pg_sleep(0.1)", turn), turn)
    await asyncio.sleep(0.5)
    left = await direct("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%asyncpg' || ' limit%'")
    expect(left[0][0], 0, "queries still running after their cancel")


@check(*EVERY_MODE)
async def a_cancelled_task_cancels_the_query():
    async with connect() as connection:
        for turn in range(5):
            task = asyncio.create_task(connection.fetchval("SELECT pg_sleep(20)"))
            await asyncio.sleep(0.2)
            task.cancel()
            await expect_error(asyncio.CancelledError, task)
            expect(await connection.fetchval("SELECT $1::int", turn), turn)


@check("session")
async def notifications():
    async with connect() as listener, connect() as speaker:
        heard = asyncio.Queue()
        await listener.add_listener("asyncpg_news", lambda *arguments: heard.put_nowait(arguments[3]))
        for n in range(20):
            await speaker.execute(f"NOTIFY asyncpg_news, 'number {n}'")
        expect([await asyncio.wait_for(heard.get(), 10) for _ in range(20)], [f"number {n}" for n in range(20)])


@check(*EVERY_MODE)
async def startup_settings_that_are_tracked():
    settings = {"application_name": "asyncpg check", "TimeZone": "Asia/Tokyo"}
    async with connect(server_settings=settings) as tokyo, connect() as other:
        for _ in range(5):
            expect(await tokyo.fetchval("SHOW TimeZone"), "Asia/Tokyo")
            expect(await tokyo.fetchval("SHOW application_name"), "asyncpg check")
            expect(await other.fetchval("SHOW TimeZone") == "Asia/Tokyo", False)


@check(*EVERY_MODE)
async def large_values_both_ways():
    value = bytes(range(256)) * 40_000  # 10 MB
    async with connect() as connection:
        expect(await connection.fetchval("SELECT $1::bytea", value) == value, True)
        expect(await connection.fetchval("SELECT length($1::bytea)", value), len(value))


@check(*EVERY_MODE)
async def fifty_tasks_on_few_servers():
    async def one(number):
        async with connect() as connection:
            for turn in range(20):
                expect(await connection.fetchval("SELECT $1::int * 1000 + $2::int", number, turn), number * 1000 + turn)
                if turn % 5 == 0:
                    await expect_error(asyncpg.DivisionByZeroError, connection.fetchval("SELECT $1::int / 0", number))

    await asyncio.gather(*(one(number) for number in range(50)))
    rows = await direct("SELECT count(*) FROM pg_stat_activity WHERE usename = 'weir' AND datname = current_database()")
    if rows[0][0] > POOL_SIZE:
        raise AssertionError(f"{rows[0][0]} server connections, pool_size is {POOL_SIZE}")


@check(*WITH_TRANSACTIONS)
async def fifty_tasks_with_transactions():
    async with table("asyncpg_counter", "id int primary key, n int") as name:
        await direct(f"INSERT INTO {name} SELECT i, 0 FROM generate_series(0, 9) i")

        async def one(number):
            async with connect() as connection:
                for turn in range(10):
                    async with connection.transaction():
                        await connection.execute("SELECT set_config('pgweir.mark', $1, true)", str(number))
                        await connection.execute(f"UPDATE {name} SET n = n + 1 WHERE id = $1", (number + turn) % 10)
                        expect(await connection.fetchval("SELECT current_setting('pgweir.mark')"), str(number))

        await asyncio.gather(*(one(number) for number in range(50)))
        expect((await direct(f"SELECT sum(n) FROM {name}"))[0][0], 500)


@check(*EVERY_MODE)
async def asyncpg_own_pool():
    async with asyncpg.create_pool(DSN, min_size=POOL_SIZE, max_size=POOL_SIZE, timeout=20, command_timeout=20) as pool:

        async def one(number):
            for turn in range(10):
                expect(await pool.fetchval("SELECT $1::int * 100 + $2::int", number, turn), number * 100 + turn)

        await asyncio.gather(*(one(number) for number in range(50)))


if __name__ == "__main__":
    main()
