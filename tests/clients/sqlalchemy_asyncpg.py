"""SQLAlchemy 2 over asyncpg: the steps of tests/clients.rs; and reflection, savepoints, streaming."""
import asyncio
import io
import ssl
import sys

from sqlalchemy import Integer, bindparam, exc, func, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

url, stranger = sys.argv[1:]
address, _, certificate = url.replace("postgresql://", "postgresql+asyncpg://").partition("?sslmode=verify-full&sslrootcert=")


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)


class ApprovedRow(Base):
    __tablename__ = "approved_rows"
    n: Mapped[int] = mapped_column(primary_key=True)


class Kept(Base):
    __tablename__ = "kept"
    step: Mapped[str] = mapped_column(primary_key=True)


def engine_with(certificate):
    return create_async_engine(address, connect_args={"ssl": ssl.create_default_context(cafile=certificate)})


async def main():
    try:
        async with engine_with(stranger).connect():
            pass
    except ssl.SSLCertVerificationError:
        refused = True
    engine = engine_with(certificate)
    watcher = await engine.connect()
    notices = []
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver._transport.get_extra_info("ssl_object") is not None and refused
        print("connected: verify-full, another certificate refused")
        watch = lambda _, message: notices.append(message.message)
        driver.add_log_listener(watch)

        rows = total = 0
        for statement in range(120):
            query = select(Customer.id + text(f"{statement} * 16") + bindparam("n", type_=Integer)).where(Customer.id == bindparam("n"))
            for n in range(1, 7):
                rows, total = rows + 1, total + await connection.scalar(query, {"n": n})
        await connection.commit()
        print(f"prepared: {rows} rows, sum {total}")

        async with AsyncSession(connection) as session:
            session.add(Kept(step="a committed"))
            await session.commit()
            session.add(Kept(step="rolled back"))
            await session.flush()
            await session.rollback()
            kept = [
                await session.scalar(select(func.count()).select_from(Kept).where(Kept.step == step))
                for step in ("a committed", "rolled back")
            ]
        print(f"transactions: committed {kept[0]}, rolled back {kept[1]}")
        await connection.commit()

        status = await driver.copy_records_to_table("copied", records=[(n, f"name {n}") for n in range(1, 501)])
        print("copied in:", status.removeprefix("COPY "))
        out = io.BytesIO()
        await driver.copy_from_query("select n from approved_rows", output=out)
        values = [int(line) for line in out.getvalue().split()]
        print(f"copied out: {len(values)} rows, sum {sum(values)}")

        # As with asyncpg alone: the driver keeps the error to itself.
        async def cancelled(sql, until):
            task = asyncio.create_task(driver.execute(sql))
            await until()
            task.cancel()
            await asyncio.wait([task])
            return await asyncio.wait_for(driver.fetchval("select 'the session goes on'"), 20)

        async def runs():
            active = text("select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and wait_event = 'PgSleep'")
            while not await watcher.scalar(active):
                # The view is the same throughout a transaction.
                await watcher.rollback()
                await asyncio.sleep(0.05)
            await watcher.close()

        async def held():
            seen = len(notices)
            while not any("waiting for approval" in notice for notice in notices[seen:]):
                await asyncio.sleep(0.05)

        print("cancelled:", await cancelled("select pg_sleep(60)", runs))
        print("withdrawn:", await cancelled("drop table ignored_rows", held))

        result = await connection.execute(update(ApprovedRow).values(n=ApprovedRow.n + 1000).returning(ApprovedRow.n))
        values = result.scalars().all()
        await connection.commit()
        print(f"approved: {len(values)} rows, sum {sum(values)}")
        notice = notices[-1].split(": ")[0]

        async with AsyncSession(connection) as session, session.begin():
            session.add(Kept(step="b before"))
            await session.flush()
            try:
                async with session.begin_nested():
                    await session.execute(text("drop table denied_rows"))
            except exc.ProgrammingError as error:
                cause = error.orig.__cause__
                assert "it is still needed" in cause.detail
                print("denied:", error.orig.sqlstate, cause.message)
            session.add(Kept(step="c after"))
        print("notice:", notice)

        def introspect(connection):
            inspector = inspect(connection)
            for table in inspector.get_table_names():
                inspector.get_columns(table), inspector.get_pk_constraint(table), inspector.get_indexes(table)
                inspector.get_foreign_keys(table), inspector.get_check_constraints(table)
            inspector.get_view_names(), inspector.get_schema_names(), inspector.get_enums(), inspector.get_sequence_names()
            Base.metadata.reflect(connection, extend_existing=True)

        await connection.run_sync(introspect)
        await connection.commit()
        stream = await connection.stream_scalars(select(Customer.id).order_by(Customer.id).execution_options(yield_per=7))
        assert [id async for id in stream] == list(range(1, 101))
        print("usable:", await connection.scalar(select(func.count()).select_from(Customer)))
        await connection.commit()
        driver.remove_log_listener(watch)
    await engine.dispose()


asyncio.run(main())
