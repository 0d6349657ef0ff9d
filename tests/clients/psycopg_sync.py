"""psycopg 3: the steps of tests/clients.rs; and server-side cursors, executemany, two-way COPY."""
import sys
import threading

import psycopg

url, stranger = sys.argv[1:]


def repeatedly_cancel(connection, run):
    """Runs `run`, which must be cancelled; returns its SQLSTATE."""
    ended = threading.Event()

    def cancel():
        # A cancel that comes before the statement does nothing, so it is sent until one has hit.
        while not ended.wait(0.1):
            connection.cancel_safe()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        run()
    except psycopg.errors.QueryCanceled as error:
        return error.sqlstate
    finally:
        ended.set()
        canceller.join()


try:
    psycopg.connect(url, sslrootcert=stranger)
except psycopg.OperationalError as error:
    assert "certificate verify failed" in str(error), error
    refused = True
connection = psycopg.connect(url, autocommit=True)
assert connection.pgconn.ssl_in_use and refused
print("connected: verify-full, another certificate refused")
notices = []
connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))

rows = total = 0
for statement in range(120):
    for n in range(1, 7):
        (value,) = connection.execute(f"select id + {statement} * 16 + %s from customers where id = %s", (n, n)).fetchone()
        rows, total = rows + 1, total + value
print(f"prepared: {rows} rows, sum {total}")

with connection.transaction():
    connection.execute("insert into kept values ('a committed')")
try:
    with connection.transaction():
        connection.execute("insert into kept values ('rolled back')")
        raise ValueError
except ValueError:
    pass
kept = lambda step: connection.execute("select count(*) from kept where step = %s", (step,)).fetchone()[0]
print(f"transactions: committed {kept('a committed')}, rolled back {kept('rolled back')}")

with connection.cursor() as cursor:
    with cursor.copy("COPY copied FROM STDIN") as copy:
        for n in range(1, 501):
            copy.write_row((n, f"name {n}"))
    print("copied in:", cursor.rowcount)
    with cursor.copy("COPY approved_rows TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int4"])
        values = [value for (value,) in copy.rows()]
print(f"copied out: {len(values)} rows, sum {sum(values)}")

print("cancelled:", repeatedly_cancel(connection, lambda: connection.execute("select pg_sleep(60)")))
print("withdrawn:", repeatedly_cancel(connection, lambda: connection.execute("drop table ignored_rows")))

values = [value for (value,) in connection.execute("update approved_rows set n = n + %s returning n", (1000,))]
print(f"approved: {len(values)} rows, sum {sum(values)}")
notice = notices[-1].split(": ")[0]

with connection.transaction():
    connection.execute("insert into kept values ('b before')")
    try:
        with connection.transaction():
            connection.execute("drop table denied_rows")
    except psycopg.errors.InsufficientPrivilege as error:
        assert "it is still needed" in error.diag.message_detail
        print("denied:", error.sqlstate, error.diag.message_primary)
    connection.execute("insert into kept values ('c after')")
print("notice:", notice)

with connection.transaction(), connection.cursor(name="server_side") as cursor:
    cursor.itersize = 7
    cursor.execute("select id from customers order by id")
    assert [id for (id,) in cursor] == list(range(1, 101))
with connection.cursor() as cursor:
    cursor.executemany("select %s::int", [(n,) for n in range(50)], returning=True)
    sets = [cursor.fetchone()[0]]
    while cursor.nextset():
        sets.append(cursor.fetchone()[0])
    assert sets == list(range(50))
    assert [n for (n,) in cursor.stream("select id from customers order by id")] == list(range(1, 101))
print("usable:", connection.execute("select count(*) from customers").fetchone()[0])
connection.close()
