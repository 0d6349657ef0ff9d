"""psycopg 3, asynchronously and in pipeline mode: the steps of tests/clients.rs."""
import asyncio
import sys

import psycopg

url, stranger = sys.argv[1:]


async def repeatedly_cancel(connection, run):
    """Awaits `run`, which must be cancelled; returns its SQLSTATE."""

    async def cancel():
        # A cancel that comes before the statement does nothing, so it is sent until one has hit.
        while True:
            await asyncio.sleep(0.1)
            await connection.cancel_safe()

    canceller = asyncio.create_task(cancel())
    try:
        await run
    except psycopg.errors.QueryCanceled as error:
        return error.sqlstate
    finally:
        canceller.cancel()
        await asyncio.wait([canceller])


async def main():
    try:
        await psycopg.AsyncConnection.connect(url, sslrootcert=stranger)
    except psycopg.OperationalError as error:
        assert "certificate verify failed" in str(error), error
        refused = True
    # Without the round trip of SSLRequest: libpq 17 and later.
    connection = await psycopg.AsyncConnection.connect(url, sslnegotiation="direct", autocommit=True)
    assert connection.pgconn.ssl_in_use and refused
    print("connected: verify-full, another certificate refused")
    notices = []
    connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))

    async def scalar(sql, *values):
        return (await (await connection.execute(sql, values)).fetchone())[0]

    rows = total = 0
    async with connection.pipeline():
        for statement in range(120):
            cursors = []
            for n in range(1, 7):
                sql = f"select id + {statement} * 16 + %s from customers where id = %s"
                cursors.append(await connection.execute(sql, (n, n)))
            for cursor in cursors:
                rows, total = rows + 1, total + (await cursor.fetchone())[0]
    print(f"prepared: {rows} rows, sum {total}")

    async with connection.pipeline(), connection.transaction():
        await connection.execute("insert into kept values ('a committed')")
    try:
        async with connection.pipeline(), connection.transaction():
            await connection.execute("insert into kept values ('rolled back')")
            raise ValueError
    except ValueError:
        pass
    kept = [await scalar("select count(*) from kept where step = %s", step) for step in ("a committed", "rolled back")]
    print(f"transactions: committed {kept[0]}, rolled back {kept[1]}")

    async with connection.cursor() as cursor:
        async with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            for n in range(1, 501):
                await copy.write_row((n, f"name {n}"))
        print("copied in:", cursor.rowcount)
        async with cursor.copy("COPY approved_rows TO STDOUT") as copy:
            values = [int(value) async for (value,) in copy.rows()]
    print(f"copied out: {len(values)} rows, sum {sum(values)}")

    print("cancelled:", await repeatedly_cancel(connection, connection.execute("select pg_sleep(60)")))
    print("withdrawn:", await repeatedly_cancel(connection, connection.execute("drop table ignored_rows")))

    # The statements around it in the pipeline wait with it, and have their results in order.
    async with connection.pipeline():
        before = await connection.execute("select %s::int", (1,))
        held = await connection.execute("update approved_rows set n = n + %s returning n", (1000,))
        after = await connection.execute("select %s::int", (2,))
        assert await before.fetchone() == (1,)
        values = [value for (value,) in await held.fetchall()]
        assert await after.fetchone() == (2,)
    print(f"approved: {len(values)} rows, sum {sum(values)}")
    notice = notices[-1].split(": ")[0]

    async with connection.transaction():
        await connection.execute("insert into kept values ('b before')")
        try:
            async with connection.transaction(), connection.pipeline():
                await connection.execute("insert into kept values ('with the denied one')")
                await connection.execute("drop table denied_rows")
                await connection.execute("insert into kept values ('behind the denied one')")
        except psycopg.errors.InsufficientPrivilege as error:
            assert "it is still needed" in error.diag.message_detail
            print("denied:", error.sqlstate, error.diag.message_primary)
        await connection.execute("insert into kept values ('c after')")
    print("notice:", notice)

    async with connection.transaction(), connection.cursor(name="server_side") as cursor:
        cursor.itersize = 7
        await cursor.execute("select id from customers order by id")
        assert [id async for (id,) in cursor] == list(range(1, 101))
    print("usable:", await scalar("select count(*) from customers"))
    await connection.close()


asyncio.run(main())
