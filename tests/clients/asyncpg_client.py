"""asyncpg with its pool: the steps of tests/clients.rs; and its introspection of types, cursors, executemany."""
import asyncio
import io
import ssl
import sys

import asyncpg

url, stranger = sys.argv[1:]


async def steps(connection, notices):
    rows = total = 0
    for statement in range(120):
        sql = f"select id + {statement} * 16 + $1 from customers where id = $2"
        for n in range(1, 7):
            rows, total = rows + 1, total + await connection.fetchval(sql, n, n)
    print(f"prepared: {rows} rows, sum {total}")

    async with connection.transaction():
        await connection.execute("insert into kept values ('a committed')")
    try:
        async with connection.transaction():
            await connection.execute("insert into kept values ('rolled back')")
            raise ValueError
    except ValueError:
        pass
    kept = await connection.prepare("select count(*) from kept where step = $1")
    print(f"transactions: committed {await kept.fetchval('a committed')}, rolled back {await kept.fetchval('rolled back')}")

    status = await connection.copy_records_to_table("copied", records=[(n, f"name {n}") for n in range(1, 501)])
    print("copied in:", status.removeprefix("COPY "))
    out = io.BytesIO()
    await connection.copy_from_table("approved_rows", output=out, format="text")
    values = [int(line) for line in out.getvalue().split()]
    print(f"copied out: {len(values)} rows, sum {sum(values)}")

    # A task that is cancelled, or that takes too long, is cancelled on the server. The driver keeps the error
    # that the server then sends to itself, so what is seen is that the session goes on at once.
    async def cancelled(sql, until):
        task = asyncio.create_task(connection.execute(sql))
        await until()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        return await asyncio.wait_for(connection.fetchval("select 'the session goes on'"), 20)

    async def runs():
        while not await watcher.fetchval("select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and wait_event = 'PgSleep'"):
            await asyncio.sleep(0.05)

    async def held():
        seen = len(notices)
        while not any("waiting for approval" in notice for notice in notices[seen:]):
            await asyncio.sleep(0.05)

    watcher = await asyncpg.connect(url)
    print("cancelled:", await cancelled("select pg_sleep(60)", runs))
    await watcher.close()
    print("withdrawn:", await cancelled("drop table ignored_rows", held))

    values = [row["n"] for row in await connection.fetch("update approved_rows set n = n + $1 returning n", 1000)]
    print(f"approved: {len(values)} rows, sum {sum(values)}")
    notice = notices[-1].split(": ")[0]

    async with connection.transaction():
        await connection.execute("insert into kept values ('b before')")
        try:
            async with connection.transaction():
                await connection.execute("drop table denied_rows")
        except asyncpg.InsufficientPrivilegeError as error:
            assert "it is still needed" in error.detail
            print("denied:", error.sqlstate, error.message)
        await connection.execute("insert into kept values ('c after')")
    print("notice:", notice)

    # Composite, array, enum and range types are looked up in the catalogue by the driver.
    await connection.execute("create temp table mood_of (who text, moods text[], spans int4multirange, c customers)")
    await connection.execute("insert into mood_of values ($1, $2, $3, row(1, 'a', 'b'))", "x", ["y"], [asyncpg.Range(1, 5)])
    row = await connection.fetchrow("select * from mood_of")
    assert (row["moods"], row["c"]["name"]) == (["y"], "a"), row
    await connection.executemany("insert into mood_of values ($1)", [(str(n),) for n in range(100)])
    async with connection.transaction():
        ids = [record["id"] async for record in connection.cursor("select id from customers order by id", prefetch=7)]
        assert ids == list(range(1, 101))
    print("usable:", await connection.fetchval("select count(*) from customers"))


async def main():
    try:
        await asyncpg.connect(url, ssl=ssl.create_default_context(cafile=stranger))
    except ssl.SSLCertVerificationError:
        refused = True
    notices = []

    def watch(_, message):
        notices.append(message.message)

    async with asyncpg.create_pool(url, min_size=1, max_size=3) as pool:
        async with pool.acquire() as connection:
            connection.add_log_listener(watch)
            assert connection._transport.get_extra_info("ssl_object") is not None and refused
            print("connected: verify-full, another certificate refused")
            await steps(connection, notices)
            connection.remove_log_listener(watch)
        # A connection that was given back is reset, and is the same one.
        assert await pool.fetchval("select 1") == 1


asyncio.run(main())
