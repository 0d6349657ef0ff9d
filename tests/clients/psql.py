"""psql at a terminal: the steps of tests/clients.rs; and \\watch, \\gexec, Tab, and, where it has it, \\bind.

Its Ctrl-C is a byte that the terminal makes a signal of, as at a desk. PSQL names the program, PSQL_PRELOAD a
library for it.
"""
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import termios
import time

url, stranger = sys.argv[1:]
program = os.environ["PSQL"]
environment = dict(os.environ, TERM="dumb", PSQL_HISTORY="/dev/null", LD_PRELOAD=os.environ.get("PSQL_PRELOAD", ""))
files = tempfile.TemporaryDirectory()


class Psql:
    """A psql at a terminal of its own."""

    def __init__(self, *options):
        child, self.terminal = pty.fork()
        if child == 0:
            prompts = [option for name in ("PROMPT1", "PROMPT2", "PROMPT3") for option in ("-v", f"{name}=")]
            os.execve(program, [program, "-X", "-A", "-t", "-q", "-P", "pager=off", *prompts, *options, url], environment)
        self.child, self.ends, self.shown = child, 0, ""
        # What is typed is not shown again, lines end as they are written, and Ctrl-C drops nothing.
        mode = termios.tcgetattr(self.terminal)
        mode[1] &= ~termios.OPOST
        mode[3] = mode[3] & ~termios.ECHO | termios.NOFLSH
        termios.tcsetattr(self.terminal, termios.TCSANOW, mode)
        self.run("\\set VERBOSITY verbose")

    def type(self, text):
        os.write(self.terminal, text.encode())

    def until(self, pattern):
        """Reads until `pattern` is shown; returns what was shown before and with it."""
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self.terminal], [], [], deadline - time.monotonic())
            assert ready, f"waited for {pattern!r}, got {self.shown!r}"
            self.shown += os.read(self.terminal, 65536).decode()
        shown, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return shown

    def run(self, commands):
        """Types commands; returns what they show."""
        self.type(commands + "\n")
        return self.rest()

    def rest(self):
        """What is shown until psql reads again."""
        self.ends += 1
        end = f"-- end {self.ends} --\n"
        self.type(f"\\echo {end}")
        return self.until(re.escape(end)).removesuffix(end)

    def interrupt(self):
        self.type("\x03")

    def quit(self):
        self.type("\\q\n")
        assert os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1]) == 0


def script(name, lines):
    path = os.path.join(files.name, name)
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def once(command, url=url):
    return subprocess.run([program, "-X", "-A", "-t", url, "-c", command], env=environment, capture_output=True, text=True)


refused = once("select 1", url.replace(url.partition("sslrootcert=")[2], stranger))
assert "certificate verify failed" in refused.stderr, refused
psql = Psql("-n")
version = int(psql.run("\\echo :VERSION_NUM")) // 10000
assert "TLSv1.3" in psql.run("\\conninfo").replace("\n", "")
print("connected: verify-full, another certificate refused")

statements = []
for statement in range(120):
    query = f"select id + {statement} * 16 + $1 from customers where id = $2"
    if version >= 18:
        statements.append(f"{query} \\parse statement_{statement}")
        statements += [f"\\bind_named statement_{statement} {n} {n} \\g" for n in range(1, 7)]
    else:
        statements.append(f"prepare statement_{statement}(int, int) as {query};")
        statements += [f"execute statement_{statement}({n}, {n});" for n in range(1, 7)]
values = psql.run("\\i " + script("prepared.sql", statements)).split()
print(f"prepared: {len(values)} rows, sum {sum(map(int, values))}")

psql.run("begin; insert into kept values ('a committed'); commit;")
psql.run("begin; insert into kept values ('rolled back'); rollback;")
kept = lambda step: psql.run(f"select count(*) from kept where step = '{step}';").strip()
print(f"transactions: committed {kept('a committed')}, rolled back {kept('rolled back')}")

rows = script("rows.tsv", [f"{n}\tname {n}" for n in range(1, 501)])
psql.run(f"\\copy copied from {rows}")
print("copied in:", psql.run("\\echo :ROW_COUNT").strip())
notices = psql.run(f"\\copy approved_rows to {files.name}/out.tsv")
with open(f"{files.name}/out.tsv") as file:
    values = file.read().split()
print(f"copied out: {len(values)} rows, sum {sum(map(int, values))}")

# Ctrl-C, when there is something to cancel: psql throws away what it has read and not run.
psql.type("select pg_sleep(60);\n")
while once("select count(*) from pg_stat_activity where query = 'select pg_sleep(60);' and wait_event = 'PgSleep'").stdout != "1\n":
    time.sleep(0.05)
psql.interrupt()
print("cancelled:", re.search(r"ERROR:  (\w+): canceling statement due to user request", psql.rest())[1])
psql.type("drop table ignored_rows;\n")
psql.until("NOTICE:  .*waiting for approval.*\n")
psql.interrupt()
print("withdrawn:", re.search(r"ERROR:  (\w+): canceling statement due to user request", psql.rest())[1])

update = "update approved_rows set n = n + $1 returning n \\bind 1000 \\g" if version >= 16 else "update approved_rows set n = n + 1000 returning n;"
shown = psql.run(update)
values = re.findall(r"^\d+$", shown, re.M)
print(f"approved: {len(values)} rows, sum {sum(map(int, values))}")
notice = re.search(r"NOTICE:  \w+: ([^:]*): request", shown)[1]

psql.run("begin;\ninsert into kept values ('b before');\nsavepoint s;")
denied = psql.run("drop table denied_rows;")
assert "it is still needed" in denied, denied
print("denied:", " ".join(re.search(r"ERROR:  (\w+): (.*)", denied).groups()))
psql.run("rollback to s;\ninsert into kept values ('c after');\ncommit;")
print("notice:", notice)

# ON_ERROR_ROLLBACK makes psql set savepoints of its own.
psql.run("\\set ON_ERROR_ROLLBACK on\ncreate temp table gexec (n int);\nbegin;")
assert "ERROR:  42501" in psql.run("drop table denied_rows;")
psql.run("select format('insert into gexec values (%s)', n) from generate_series(1, 5) n \\gexec\ncommit;")
assert psql.run("select sum(n) from gexec;") == "15\n"
assert psql.run("select 1 as a, 'x' as b \\gdesc") == "a|integer\nb|text\n"
psql.run("\\set FETCH_COUNT 7")
assert len(psql.run("select id from customers;").split()) == 100
psql.run("\\unset FETCH_COUNT")
psql.type("select 'wat' || 'ched' \\watch 0.1\n")
for _ in range(3):
    psql.until("watched\n")
psql.interrupt()
psql.rest()
if version >= 18:
    assert psql.run("select 'wat' || 'ched' \\watch i=0.01 c=3").count("watched") == 3
    piped = psql.run(
        "\\startpipeline\nselect $1::int \\bind 1 \\sendpipeline\nselect $1::int \\bind 2 \\sendpipeline\n"
        "\\syncpipeline\nselect 1 / $1::int \\bind 0 \\sendpipeline\nselect $1::int \\bind 3 \\sendpipeline\n"
        "\\syncpipeline\nselect $1::int \\bind 4 \\sendpipeline\n\\endpipeline"
    )
    assert re.findall(r"^\d+$", piped, re.M) == ["1", "2", "4"] and "22012" in piped, piped
# But for \deu and \dRs, which read catalogues that hold credentials and are held for it.
for command in (
    "\\d+ \\d+ customers \\da \\dA+ \\dAc \\dAf \\db \\dc \\dC \\dconfig \\dd \\dD \\ddp \\dE \\des \\det \\dew \\df+ now \\dF+ \\dFd "
    "\\dFp \\dFt \\dg+ \\di+ \\dl \\dL \\dm \\dn+ \\do + \\dO \\dp \\dP \\drds \\dRp \\ds \\dt+ \\dT+ \\du+ \\dv+ \\dx+ \\dX \\dy \\l+ \\z \\sf now"
).split(" \\"):
    shown = psql.run("\\" + command.removeprefix("\\"))
    assert "ERROR" not in shown and "NOTICE" not in shown, (command, shown)
psql.quit()

if version < 18:
    # With readline, Tab asks the catalogue.
    psql = Psql()
    psql.type("select 'tab ' || count(*) from custo\t;\n")
    assert "NOTICE" not in psql.until("tab 100\n")
    psql.quit()
print("usable:", once("select count(*) from customers").stdout.strip())
