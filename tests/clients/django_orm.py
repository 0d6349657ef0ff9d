"""Django's ORM: migrations of its own applications, then the steps of tests/clients.rs."""
import sys
import threading
from urllib.parse import urlsplit

import django
from django.conf import settings

url, stranger = sys.argv[1:]
address, _, certificate = url.partition("?sslmode=verify-full&sslrootcert=")
address = urlsplit(address)


def database(certificate, **options):
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": address.hostname,
        "PORT": address.port,
        "NAME": address.path[1:],
        "USER": address.username,
        "PASSWORD": address.password,
        "OPTIONS": {"sslmode": "verify-full", "sslrootcert": certificate, **options},
    }


settings.configure(
    DATABASES={
        # Django lets psycopg prepare on the server only when it is asked to.
        "default": database(certificate, server_side_binding=True, prepare_threshold=5),
        "plain": database(certificate),
        "stranger": database(stranger),
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, ProgrammingError, connection, connections, models, transaction
from django.db.models import Count, F, Sum


class Customer(models.Model):
    name = models.TextField()
    email = models.TextField()

    class Meta:
        app_label, db_table, managed = "tests", "customers", False


class ApprovedRow(models.Model):
    n = models.IntegerField(primary_key=True)

    class Meta:
        app_label, db_table, managed = "tests", "approved_rows", False


class Kept(models.Model):
    step = models.TextField(primary_key=True)

    class Meta:
        app_label, db_table, managed = "tests", "kept", False


def repeatedly_cancel(sql):
    """Runs `sql`, which must be cancelled; returns its SQLSTATE."""
    ended = threading.Event()
    driver = connection.connection

    def cancel():
        # A cancel that comes before the statement does nothing, so it is sent until one has hit.
        while not ended.wait(0.1):
            driver.cancel_safe()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
    except OperationalError as error:
        return error.__cause__.sqlstate
    finally:
        ended.set()
        canceller.join()


try:
    connections["stranger"].ensure_connection()
except OperationalError as error:
    assert "certificate verify failed" in str(error), error
    refused = True
connection.ensure_connection()
assert connection.connection.pgconn.ssl_in_use and refused
print("connected: verify-full, another certificate refused")
notices = []
connection.connection.add_notice_handler(lambda told: notices.append(told.message_primary))

rows = total = 0
for statement in range(120):
    query = Customer.objects.annotate(**{f"value_{statement}": F("id") + 0})
    for n in range(1, 7):
        value = query.values_list(f"value_{statement}", flat=True).get(id=n)
        rows, total = rows + 1, total + value + statement * 16 + n
print(f"prepared: {rows} rows, sum {total}")

with transaction.atomic():
    Kept.objects.create(step="a committed")
try:
    with transaction.atomic():
        Kept.objects.create(step="rolled back")
        raise ValueError
except ValueError:
    pass
kept = lambda step: Kept.objects.filter(step=step).count()
print(f"transactions: committed {kept('a committed')}, rolled back {kept('rolled back')}")

# Django has no COPY; its cursor hands out the driver's.
with connection.cursor() as cursor:
    with cursor.copy("COPY copied FROM STDIN") as copy:
        for n in range(1, 501):
            copy.write_row((n, f"name {n}"))
    print("copied in:", cursor.rowcount)
    with cursor.copy("COPY approved_rows TO STDOUT") as copy:
        values = [int(value) for (value,) in copy.rows()]
print(f"copied out: {len(values)} rows, sum {sum(values)}")

print("cancelled:", repeatedly_cancel("select pg_sleep(60)"))
print("withdrawn:", repeatedly_cancel("drop table ignored_rows"))

updated = ApprovedRow.objects.update(n=F("n") + 1000)
print(f"approved: {updated} rows, sum {ApprovedRow.objects.aggregate(sum=Sum('n'))['sum']}")
notice = notices[-1].split(": ")[0]

with transaction.atomic():
    Kept.objects.create(step="b before")
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("drop table denied_rows")
    except DatabaseError as error:
        assert isinstance(error, ProgrammingError) and "it is still needed" in error.__cause__.diag.message_detail
        print("denied:", error.__cause__.sqlstate, error.__cause__.diag.message_primary)
    Kept.objects.create(step="c after")
print("notice:", notice)

call_command("migrate", verbosity=0)
call_command("migrate", verbosity=0)
with connection.cursor() as cursor:
    for table in connection.introspection.table_names(cursor):
        connection.introspection.get_table_description(cursor, table)
        connection.introspection.get_constraints(cursor, table)
        connection.introspection.get_sequences(cursor, table)
alice = User.objects.create_user("alice", password="secret")
group = Group.objects.create(name="readers")
group.permissions.set(Permission.objects.filter(codename__startswith="view"))
alice.groups.add(group)
assert User.objects.select_related().prefetch_related("groups__permissions").get().groups.get().permissions.count() == 4
User.objects.bulk_create([User(username=f"user {n}") for n in range(100)])
assert User.objects.filter(username__startswith="user").update(first_name="x") == 100
with transaction.atomic():
    locked = list(User.objects.select_for_update(skip_locked=True).filter(username="alice"))
    assert len(locked) == 1
User.objects.filter(username__startswith="user").delete()
assert User.objects.using("plain").aggregate(n=Count("id")) == {"n": 1}
# A server-side cursor; without a transaction of its own Django declares it WITH HOLD.
assert [c.id for c in Customer.objects.order_by("id").iterator(chunk_size=7)] == list(range(1, 101))
print("usable:", Customer.objects.count())
connections.close_all()
