"""SQLAlchemy 2 over psycopg: the steps of tests/clients.rs; and reflection, create_all, savepoints, streaming."""
import sys
import threading

from sqlalchemy import Integer, bindparam, create_engine, exc, func, inspect, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

url, stranger = sys.argv[1:]
url = url.replace("postgresql://", "postgresql+psycopg://")


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


class ApprovedRow(Base):
    __tablename__ = "approved_rows"
    n: Mapped[int] = mapped_column(primary_key=True)


class Kept(Base):
    __tablename__ = "kept"
    step: Mapped[str] = mapped_column(primary_key=True)


class Created(Base):
    __tablename__ = "approved_table"
    id: Mapped[int] = mapped_column(primary_key=True)
    of: Mapped[int] = mapped_column(index=True)


def repeatedly_cancel(connection, sql):
    """Runs `sql`, which must be cancelled; returns its SQLSTATE."""
    driver = connection.connection.driver_connection
    ended = threading.Event()

    def cancel():
        # A cancel that comes before the statement does nothing, so it is sent until one has hit.
        while not ended.wait(0.1):
            driver.cancel_safe()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        connection.execute(text(sql))
    except exc.OperationalError as error:
        return error.orig.sqlstate
    finally:
        ended.set()
        canceller.join()
        connection.rollback()


try:
    create_engine(url, connect_args={"sslrootcert": stranger}).connect()
except exc.OperationalError as error:
    assert "certificate verify failed" in str(error), error
    refused = True
engine = create_engine(url, pool_size=2)
notices = []
with engine.connect() as connection:
    driver = connection.connection.driver_connection
    assert driver.pgconn.ssl_in_use and refused
print("connected: verify-full, another certificate refused")

with engine.connect() as connection:
    connection.connection.driver_connection.add_notice_handler(lambda told: notices.append(told.message_primary))
    rows = total = 0
    for statement in range(120):
        query = select(Customer.id + text(f"{statement} * 16") + bindparam("n", type_=Integer)).where(Customer.id == bindparam("n"))
        for n in range(1, 7):
            rows, total = rows + 1, total + connection.execute(query, {"n": n}).scalar_one()
    connection.commit()
    print(f"prepared: {rows} rows, sum {total}")

    with Session(connection) as session:
        session.add(Kept(step="a committed"))
        session.commit()
        session.add(Kept(step="rolled back"))
        session.flush()
        session.rollback()
        kept = lambda step: session.scalar(select(func.count()).select_from(Kept).where(Kept.step == step))
        print(f"transactions: committed {kept('a committed')}, rolled back {kept('rolled back')}")

    with connection.connection.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for n in range(1, 501):
                copy.write_row((n, f"name {n}"))
        print("copied in:", cursor.rowcount)
        with cursor.copy("COPY approved_rows TO STDOUT") as copy:
            values = [int(value) for (value,) in copy.rows()]
    # It was not SQLAlchemy that began this transaction.
    connection.connection.commit()
    print(f"copied out: {len(values)} rows, sum {sum(values)}")

    print("cancelled:", repeatedly_cancel(connection, "select pg_sleep(60)"))
    print("withdrawn:", repeatedly_cancel(connection, "drop table ignored_rows"))

    values = connection.execute(update(ApprovedRow).values(n=ApprovedRow.n + 1000).returning(ApprovedRow.n)).scalars().all()
    connection.commit()
    print(f"approved: {len(values)} rows, sum {sum(values)}")
    notice = notices[-1].split(": ")[0]

    with Session(connection) as session, session.begin():
        session.add(Kept(step="b before"))
        session.flush()
        try:
            with session.begin_nested():
                session.execute(text("drop table denied_rows"))
        except exc.ProgrammingError as error:
            assert "it is still needed" in error.orig.diag.message_detail
            print("denied:", error.orig.sqlstate, error.orig.diag.message_primary)
        session.add(Kept(step="c after"))
    print("notice:", notice)

    inspector = inspect(connection)
    for table in inspector.get_table_names():
        inspector.get_columns(table), inspector.get_pk_constraint(table), inspector.get_indexes(table)
        inspector.get_foreign_keys(table), inspector.get_check_constraints(table), inspector.get_table_comment(table)
    inspector.get_view_names(), inspector.get_schema_names(), inspector.get_enums(), inspector.get_sequence_names()
    connection.commit()
    Base.metadata.reflect(connection, extend_existing=True)
    Base.metadata.create_all(connection)
    connection.commit()
    with Session(connection) as session:
        session.add_all(Created(id=n, of=n) for n in range(1, 201))
        session.commit()
        stream = session.scalars(select(Created.id).order_by(Created.id).execution_options(stream_results=True, yield_per=7))
        assert list(stream) == list(range(1, 201))
    print("usable:", connection.scalar(select(func.count()).select_from(Customer)))
