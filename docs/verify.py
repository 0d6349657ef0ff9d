#!/usr/bin/env python3
"""Checks a Countersign ledger as docs/ledger-format.md says, section by section. A second opinion: it shares no code
with `countersign ledger verify` and must give the same exit code for every file.

    verify.py LEDGER [--key PUB] [--anchor FILE]...          needs Python 3.10, SQLite 3.37 and `pip install cryptography`
"""
import argparse, base64, hashlib, json, os, pathlib, sqlite3, struct, sys, uuid
from datetime import datetime, timezone
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SCHEMA = [("entry", "CREATE TABLE entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, sig BLOB) STRICT"),
    ("checkpoint", "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT"),
    ("tile", "CREATE TABLE tile (level INTEGER NOT NULL, idx INTEGER NOT NULL, hashes BLOB NOT NULL, "
        "PRIMARY KEY (level, idx)) STRICT, WITHOUT ROWID"),
    ("payload", "CREATE TABLE payload (seq INTEGER NOT NULL, field INTEGER NOT NULL, salt BLOB NOT NULL, "
        "value BLOB NOT NULL, PRIMARY KEY (seq, field)) STRICT, WITHOUT ROWID"),
    ("anchor", "CREATE TABLE anchor (name TEXT PRIMARY KEY, size INTEGER NOT NULL, note TEXT NOT NULL) STRICT, WITHOUT ROWID")]
INDEX_SCHEMA = "0cce18b130769ce26b592fb1445e1afbd3e0079de52f2c86eae6204505633d49"
EARLIER_INDEX_SCHEMA = "830d4a17442e739484cd4af071d5fe7699854c172a1592f512c6e42ebf7bb33b"

# Section 3. Shapes: u uint, t time, b bool, s text, x bytes, i uuid, h hash, c commitment, g signature, S texts,
# U uints, m claims, R.. rows of these. A field's number is its place.
KEYS = [field.split(":") for field in """v:u kind:u seq:u time:t mono:u boot:i epoch:u record:u record_end:u ref:u request:i
session:i agent:s owners:S method:s address:s certificate:h verified:m claimed:m upstream:s database:s role:s via:s class:s
clearance:s fingerprint:h effects:Rssss reasons:S rules:S policy:h in_transaction:b asked:t ending:s tag:s sqlstate:s rows:u
bytes:u duration:u transaction_status:s result:h sql:c parameters:c digest:c nonce:i rendition:s covers:h refusal:s
approvals:Rsu assurance:s reason_required:b expires:t escalations:Ruuss defer:b seal:h settings:Rss reviewer:s also:S
groups:S verdict:s channel:s reason:c displayed:t counted:b why_not:s scheme:s public_key:x signed:c reviewer_signature:c
state:s approved_by:S reviews:U origin:s root_key:h epoch_key:h root_signature:g successor_signature:g signing:s tree_size:u
tree_root:h note:h open_from:u what:s by:s count:u from:u to:u expected:t redacted:Ruu anchor:s software:s configuration:h
difference:c group:s unknown:u withdrawn:u quick:b""".split()]
NUMBER = {name: number for number, (name, _) in enumerate(KEYS)}
WHO = "session agent owners method address upstream database role"
MAY = "certificate verified claimed fingerprint effects reasons rules parameters nonce rendition"
KINDS = [None] + [tuple(map(str.split, kind.split("/"))) for kind in f"""ledger_created origin root_key software /
key_epoch epoch_key root_signature signing tree_root /
key_root root_key root_signature successor_signature /
session_opened {WHO} / certificate verified claimed asked
session_closed session what /
session_claims session claimed /
statement {WHO} via class clearance policy in_transaction asked sql / {MAY} record_end ref request ending tag sqlstate rows bytes duration transaction_status result digest covers
outcome ref session ending rows bytes duration / request tag sqlstate transaction_status result
refused {WHO} via class policy in_transaction asked sql refusal sqlstate / {MAY} ref request digest covers
request_opened request {WHO} via class policy in_transaction sql digest approvals assurance reason_required expires defer seal / {MAY} escalations settings tree_size tree_root
review request reviewer also groups verdict channel assurance counted / ref covers reason displayed quick why_not scheme public_key signed reviewer_signature
request_closed request state / ref what reviewer reason
grant_used ref request session agent covers seal approved_by reviews expires /
policy_loaded policy what / by difference count
config_changed what / by configuration difference
checkpoint_ref tree_size tree_root note open_from /
anchored anchor tree_size tree_root /
recovered count unknown withdrawn software / what
clock_jump expected /
redaction by what redacted /
export by what / from to
degraded what /
resumed what count /
request_escalated request group / ref reviewer
discarded what / record_end from to""".split("\n")]
ROUTINE = "session_opened session_closed session_claims checkpoint_ref anchored".split()
HARMLESS = ("session", "read", "write")
JUMP = 10**9


class Bad(Exception):
    """The first failure: exit code, entry, words."""
    def __init__(self, code, seq, what):
        super().__init__(what)
        self.code, self.seq, self.what = code, seq, what


def need(holds, code, seq, what):
    if not holds:
        raise Bad(code, seq, what)


# --- section 3: the one way to write a body ---

def cbor(data, at, depth=0):
    """The value at `at` and where it ends; ValueError for anything but the deterministic encoding."""
    if depth > 4 or at >= len(data):
        raise ValueError("too deep or too short")
    major, low, at = data[at] >> 5, data[at] & 31, at + 1
    if major == 7:
        return {20: False, 21: True}[low], at
    if low >= 24:
        width = {24: 1, 25: 2, 26: 4, 27: 8}[low]
        number, least, at = int.from_bytes(data[at:at + width], "big"), {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[width], at + width
        if number < least or at > len(data):
            raise ValueError("not the shortest form")
    else:
        number = low
    if major == 0:
        return number, at
    if major in (2, 3):
        if at + number > len(data):
            raise ValueError("too short")
        part = bytes(data[at:at + number])
        return (part if major == 2 else part.decode("utf-8")), at + number
    if number > len(data) - at:
        raise ValueError("too short")
    if major == 4:
        values = []
        for _ in range(number):
            value, at = cbor(data, at, depth + 1)
            values.append(value)
        return values, at
    if major != 5:
        raise ValueError("unused type")
    pairs = {}
    for _ in range(number):
        if at >= len(data) or data[at] >> 5 != 0:
            raise ValueError("a key is no number")
        key, at = cbor(data, at, depth + 1)
        if pairs and key <= last:
            raise ValueError("keys out of order")
        last = key
        pairs[key], at = cbor(data, at, depth + 1)
    return pairs, at


def fits(shape, value):
    kind = type(value)
    simple = {"u": int, "t": int, "b": bool, "s": str, "x": bytes}
    if shape in simple:
        return kind is simple[shape]
    if shape in "ihcg":
        return kind is bytes and len(value) == {"i": 16, "h": 32, "c": 32, "g": 64}[shape]
    if shape in "SU":
        return kind is list and all(type(one) is {"S": str, "U": int}[shape] for one in value)
    if shape == "m":
        return kind is dict and all(claim < 5 and type(text) is str for claim, text in value.items())
    return kind is list and all(type(row) is list and len(row) == len(shape) - 1 and all(map(fits, shape[1:], row)) for row in value)


def parse(body, seq):
    """A body as a dictionary by field names."""
    try:
        pairs, end = cbor(body, 0)
    except (ValueError, KeyError) as error:
        raise Bad(13, seq, f"not canonical: {error}")
    need(end == len(body) and type(pairs) is dict, 13, seq, "not one map")
    kind = pairs.get(1)
    need(pairs.get(0) == 1 and type(pairs[0]) is int and type(kind) is int and 0 < kind < len(KINDS), 13, seq, "unknown version or kind")
    (name, *must), may = KINDS[kind]
    head = "v kind seq time mono boot epoch".split()
    entry = {}
    for number, value in pairs.items():
        if number >= 1000:
            continue
        need(number < len(KEYS), 13, seq, f"field {number} is not known")
        field, shape = KEYS[number]
        need(field in head or field == "record" or field in must or field in may, 13, seq, f"{field} does not belong there")
        need(fits(shape, value), 13, seq, f"{field} has another shape")
        entry[field] = value
    need(all(field in entry for field in head + must), 13, seq, "a field is missing")
    entry["kind"] = name
    return entry


# --- section 4: hashes and signatures ---

def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def u64(number):
    return struct.pack(">Q", number)


def text(origin):
    return struct.pack(">H", len(origin.encode())) + origin.encode()


def signed(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


class Tree:
    """RFC 6962, growing: the complete subtrees, and tiles as they fill."""
    def __init__(self):
        self.size, self.nodes, self.tiles = 0, [], {}

    def push(self, leaf):
        self.tile(0, leaf)
        self.nodes.append((0, leaf))
        while len(self.nodes) > 1 and self.nodes[-1][0] == self.nodes[-2][0]:
            (height, right), (_, left) = self.nodes.pop(), self.nodes.pop()
            self.nodes.append((height + 1, sha(b"\1", left, right)))
        self.size += 1

    def tile(self, level, leaf):
        index = self.size >> 8 * (level + 1)
        tile = self.tiles.setdefault((level, index), bytearray())
        tile += leaf
        if len(tile) == 8192:
            hashes = [bytes(tile[at:at + 32]) for at in range(0, 8192, 32)]
            while len(hashes) > 1:
                hashes = [sha(b"\1", hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
            self.tile(level + 1, hashes[0])

    def root(self):
        if not self.nodes:
            return sha()
        root = self.nodes[-1][1]
        for _, left in reversed(self.nodes[:-1]):
            root = sha(b"\1", left, root)
        return root


# --- section 5: notes ---

CERTIFICATE = b"\xffcountersign/epoch/v1"


def is_name(name):
    return 1 <= len(name.encode()) <= 255 and not any(one.isspace() or ord(one) < 32 or 127 <= ord(one) < 160 or one == "+" for one in name)


def decode(words):
    part = base64.b64decode(words, validate=True)
    if base64.b64encode(part).decode() != words:
        raise ValueError("not canonical base64")
    return part


def parse_note(note):
    """Origin, size, root, signed text and signature lines [(name, key id, signature)]; ValueError otherwise."""
    head, lines = note.split("\n\n", 1)
    origin, size, root = head.split("\n")
    root, number = decode(root), int(size)
    if not lines.endswith("\n") or str(number) != size or not 0 <= number < 2**64 or len(root) != 32 or not is_name(origin) or len(note.encode()) > 16384:
        raise ValueError("malformed")
    signatures = []
    for line in lines[:-1].split("\n"):
        dash, name, signature = line.split(" ")
        signature = decode(signature)
        if dash != "\u2014" or len(signature) < 4:
            raise ValueError("malformed")
        signatures.append((name, signature[:4], signature[4:]))
    return origin, number, root, (head + "\n").encode(), signatures


def note_by(note, key):
    """True when `key` signed it, None when it did not, False when its signature does not hold."""
    origin, _, _, message, signatures = note
    mine = [signature for name, key_id, signature in signatures if name == origin and key_id == sha(origin.encode(), b"\n\1", key)[:4]]
    return None if not mine else all(len(one) == 64 and signed(key, one, message) for one in mine)


def note_by_root(note, root):
    origin, _, _, _, signatures = note
    key_id = sha(origin.encode(), b"\n", CERTIFICATE, root)[:4]
    for name, found, line in signatures:
        if name == origin and found == key_id:
            message = b"countersign/epoch/v1\0" + text(origin) + line[:88]
            return len(line) == 152 and signed(root, line[88:], message) and note_by(note, line[8:40]) is True
    return None


def public_key(path):
    origin, key_id, key = open(path, encoding="utf-8").read().rstrip().split("+", 2)
    key = decode(key)
    if len(key) != 33 or key[0] != 1 or not is_name(origin) or sha(origin.encode(), b"\n", key)[:4].hex() != key_id:
        raise ValueError(f"{path} holds no public key")
    Ed25519PublicKey.from_public_bytes(key[1:])
    return origin, key[1:]


# --- section 9: meaning ---

def folded(name):
    return name.strip().lower()


def seated(seats, people):
    """Whether every seat (a set of groups) finds a person (a set of groups) of its own."""
    taken = {}

    def seat(place, asked):
        for one, groups in enumerate(people):
            if one not in asked and seats[place] & groups:
                asked.add(one)
                if one not in taken or seat(taken[one], asked):
                    taken[one] = place
                    return True
        return False
    return bool(seats) and all(seat(place, set()) for place in range(len(seats)))


def sshsig(key, record, signature):
    def string(data):
        length = struct.unpack(">I", data[:4])[0]
        if len(data) < 4 + length:
            raise ValueError("short")
        return data[4:4 + length], data[4 + length:]
    try:
        if signature[:10] != b"SSHSIG\0\0\0\1":
            return False
        parts, rest = [], signature[10:]
        for _ in range(5):
            part, rest = string(rest)
            parts.append(part)
        by, namespace, reserved, hashed, blob = parts
        if rest or by != key or namespace != b"countersign" or reserved or hashed not in (b"sha256", b"sha512"):
            return False
        digest = hashlib.new(hashed.decode(), record).digest()
        message = b"SSHSIG" + b"".join(struct.pack(">I", len(part)) + part for part in (namespace, reserved, hashed, digest))
        (kind, raw), (sig_kind, raw_sig) = string(key), string(blob)
        (raw, rest), (raw_sig, sig_rest) = string(raw), string(raw_sig)
        return kind == sig_kind == b"ssh-ed25519" and not rest and not sig_rest and signed(raw, raw_sig, message)
    except (ValueError, struct.error):
        return False


def statement_digest(entry, texts):
    via = {"query": b"\0", "bind": b"\1", "function_call": b"\2"}.get(entry["via"])
    if via is None or "rendition" in entry or "sql" not in texts or ("parameters" in entry and "parameters" not in texts):
        return None
    sql = texts["sql"]
    return sha(b"countersign/statement/v1\0", via, u64(len(sql)), sql, texts.get("parameters", bytes(4)))


class Meaning:
    def __init__(self):
        self.sessions, self.intents, self.requests, self.ended, self.grants, self.roots = {}, {}, {}, set(), {}, {}

    def must_sign(self, entry):
        kind = entry["kind"]
        if kind == "outcome":
            intent = self.intents.get(entry["ref"])
            return intent is None or intent["signed"]
        if kind == "statement":
            return entry["class"] not in HARMLESS or "request" in entry
        return kind not in ROUTINE

    def entry(self, entry, texts):
        seq = entry["seq"]
        check = getattr(self, entry["kind"], None)
        if check:
            check(entry, texts, lambda holds, what: need(holds, 22, seq, what))

    def session(self, entry, need, agent=True):
        session = self.sessions.get(entry["session"])
        need(session and session[0] == entry["boot"], "its session was never opened")
        need(not agent or session[1] == entry["agent"], "its session belongs to another agent")

    def session_opened(self, entry, texts, need):
        self.sessions[entry["session"]] = (entry["boot"], entry["agent"])

    def session_closed(self, entry, texts, need):
        self.session(entry, need, agent=False)
    session_claims = session_closed

    def refused(self, entry, texts, need):
        self.session(entry, need)

    def statement(self, entry, texts, need):
        self.session(entry, need)
        ground = entry["clearance"]
        need(ground in ("allowed", "granted", "doomed", "read_only", "parse_only"), "forwarded on no known ground")
        if ground == "allowed":
            need(entry["class"] in HARMLESS or entry.get("rules"), "privileged, without a grant or a rule")
        if ground == "granted":
            grant = self.grants.pop(entry.get("ref"), None)
            need(grant, "without a grant, or with a used one")
            need((entry.get("request"), entry["session"], entry["agent"]) == grant[:3], "its grant is for another")
            need(entry.get("covers") == grant[3], "its grant covers another statement")
            need("nonce" not in entry or entry.get("digest") == grant[3], "what ran is not what was approved")
            ran = statement_digest(entry, texts)
            need(None in (ran, grant[4]) or ran == grant[4], "what ran is not what was approved")
        intent = {"boot": entry["boot"], "session": entry["session"], "ground": ground, "signed": self.must_sign(entry)}
        if "ending" in entry:
            self.end(intent, entry, need)
        else:
            self.intents[entry["seq"]] = intent

    def end(self, intent, entry, need):
        need(entry["ending"] in ("completed", "failed", "failed_after_commit", "not_executed", "unknown"), "an unknown ending")
        completed = entry["ending"] in ("completed", "failed_after_commit")
        need(intent["ground"] != "doomed" or not completed, "had to fail and completed")
        need(intent["ground"] != "read_only" or not completed or not entry.get("rows", 0), "read-only, and wrote rows")
        need(intent["ground"] != "parse_only" or not entry.get("rows", 0), "only parsed, and returned rows")

    def outcome(self, entry, texts, need):
        intent = self.intents.pop(entry["ref"], None)
        need(intent, "an outcome without an open statement")
        need(intent["session"] == entry["session"], "an outcome of another session's statement")
        self.end(intent, entry, need)

    def request_opened(self, entry, texts, need):
        self.session(entry, need)
        request = entry["request"]
        need(request not in self.requests and request not in self.ended, "opened before")
        need(entry["expires"] + JUMP >= entry["time"], "opened after it expired")
        opened = texts.get("digest") if len(texts.get("digest", b"")) == 32 else None
        asked = statement_digest(entry, texts)
        need(None in (asked, opened) or asked == opened, "the text that was shown is another")
        need(entry["assurance"] in ("click", "login", "signature"), "an unknown assurance")
        self.requests[request] = dict(entry, opened=opened, reviews={}, steps=0, granted=False)

    def due(self, request, time):
        return max([step for step, after, _, _ in request.get("escalations", []) if min(request["time"] + after, 2**64 - 1) <= time + JUMP], default=0)

    def review(self, entry, texts, need):
        need(entry["counted"] != ("why_not" in entry), "it counted and did not")
        if entry.get("scheme") == "sshsig" and "public_key" in entry and "signed" in texts and "reviewer_signature" in texts:
            need(sshsig(entry["public_key"], texts["signed"], texts["reviewer_signature"]), "the reviewer's own signature does not hold")
        if not entry["counted"]:
            return
        request = self.requests.get(entry["request"])
        need(request, "it counted for no open request")
        need(entry.get("ref") == request["seq"], "it names another entry as its request")
        need(entry.get("covers") == request["digest"], "the reviewer saw another statement")
        need(entry["time"] <= request["expires"] + JUMP, "after the request had expired")
        names, verdict = {folded(name) for name in [entry["reviewer"]] + entry["also"]}, entry["verdict"]
        need(folded(request["agent"]) not in names, "an agent answered its own request")
        need(verdict == "deny" or not names & set(map(folded, request["owners"])), "approved for an agent they own")
        levels = ("click", "login", "signature")
        need(entry["assurance"] in levels, "an unknown assurance")
        need(verdict != "approve" or levels.index(entry["assurance"]) >= levels.index(request["assurance"]), "assurance too low")
        need(not request["reason_required"] or verdict == "escalate" or "reason" in entry, "no reason")
        due = self.due(request, entry["time"])
        need(verdict in ("approve", "deny", "escalate"), "an unknown verdict")
        if verdict == "escalate":
            request["steps"] = max(request["steps"], due) + 1
        request["reviews"][entry["seq"]] = dict(entry, names=names, steps=max(request["steps"], due))

    def grant_used(self, entry, texts, need):
        request = self.requests.get(entry["request"])
        need(request, "of no open request")
        need(entry["ref"] == request["seq"], "it names another entry as its request")
        need(not request["granted"], "granted before")
        need(entry["covers"] == request["digest"], "it covers another statement")
        need(entry["seal"] == request["seal"], "sealed to something else")
        need(entry["agent"] == request["agent"], "used by another agent")
        need(request["defer"] or entry["session"] == request["session"], "used in another session")
        need(entry["expires"] + JUMP >= entry["time"], "used after it had expired")
        need(len(entry["approved_by"]) == len(entry["reviews"]), "an approval has no review")
        names, people, steps, last = set(), [], 0, 0
        for name, seq in zip(entry["approved_by"], entry["reviews"]):
            review = request["reviews"].get(seq)
            need(review, "a review is not there")
            need(review["verdict"] == "approve" and review["reviewer"] == name, "a review says something else")
            need(not names & review["names"], "one person is counted twice")
            names |= review["names"]
            people.append(set(review["groups"]))
            steps, last = max(steps, review["steps"]), max(last, review["time"])
        steps = max(steps, self.due(request, last))
        seats = []
        for group, count in request["approvals"]:
            stand_ins = {to for step, _, to, stands_in in request.get("escalations", []) if step <= steps and stands_in == group}
            seats += [{group} | stand_ins] * min(count, 1000)
        need(seated(seats, people), "too few people approved, or of the wrong groups")
        request["granted"] = True
        self.grants[entry["seq"]] = (entry["request"], entry["session"], entry["agent"], request["digest"], request["opened"])

    def request_closed(self, entry, texts, need):
        need(entry["state"] in ("granted", "denied", "expired", "withdrawn", "executed"), "an unknown state")
        if "ref" not in entry:
            return
        request = self.requests.get(entry["request"])
        need(request, "the end of no open request")
        need(request["seq"] == entry["ref"], "it names another entry as its request")
        need(entry["state"] != "executed" or request["granted"], "executed, and no grant was used")
        if entry["state"] != "granted":
            del self.requests[entry["request"]]
            self.ended.add(entry["request"])

    def anchored(self, entry, texts, need):
        need(self.roots.get(entry["tree_size"]) == entry["tree_root"], "a checkpoint that never was")

    def recovered(self, entry, texts, need):
        boot = entry["boot"]
        need(all(intent["boot"] == boot for intent in self.intents.values()), "a statement of an earlier run was never closed")
        need(all(request["boot"] == boot for request in self.requests.values()), "a request of an earlier run was never closed")
        self.sessions = {key: session for key, session in self.sessions.items() if session[0] == boot}
        self.grants = {}


# --- section 10: the index ---

INDEX = [line.split(" | ") for line in """statement | statement refused | kind session agent owners upstream database role via class clearance refusal rules request in_transaction fingerprint effects reasons sql ending tag sqlstate rows bytes duration
outcome | outcome | ref ending tag sqlstate rows bytes duration transaction_status
request | request_opened | request session agent owners upstream database class rules effects reasons sql approvals assurance expires
review | review | request reviewer groups verdict channel assurance counted why_not reason
ending | request_closed | request state what reviewer
session | session_opened | session agent owners method address upstream database role verified claimed
session_end | session_closed | session what
event | * | kind request what by count""".split("\n")]


def moment(nanoseconds):
    seconds = nanoseconds // 10**9
    if seconds > 253402207200:
        return str(nanoseconds)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}.{nanoseconds // 10**6 % 1000:03}"


def shown(field, value, texts):
    shape = KEYS[NUMBER[field]][1]
    if shape == "c":
        return texts[field].decode("utf-8", "replace") if field in texts else None
    if shape in "ub":
        return value if field == "kind" else min(int(value), 2**63 - 1)
    if shape == "t":
        return moment(value)
    if shape == "i":
        return str(uuid.UUID(bytes=value))
    if shape in "hxg":
        return value.hex()
    if field == "effects":
        return ", ".join(f"{verb} {schema}.{name}" if schema else f"{verb} {name}" for verb, _, schema, name in value)
    if shape == "m":
        claims = {("model", "version", "run", "task", "purpose")[claim]: words for claim, words in value.items()}
        return json.dumps(claims, ensure_ascii=False, separators=(",", ":"))
    if shape in "SU":
        return ", ".join(map(str, value))
    return ", ".join(" ".join(map(str, row)) for row in value) if shape[0] == "R" else value


def open_for_reading(path):
    """By a URI in which nothing of the path means anything else."""
    return sqlite3.connect(pathlib.Path(path).absolute().as_uri() + "?mode=ro", uri=True)


class Index:
    """Opened before the ledger, so that the ledger holds whatever it holds."""
    def __init__(self, path):
        self.bad, self.tables, self.later, self.is_earlier = None, {}, {}, False
        try:
            self.db = open_for_reading(path)
            self.db.execute("BEGIN")
            words = [row[0] for row in self.db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")]
            found = sha("\n".join(words).encode()).hex()
            self.is_earlier = found == EARLIER_INDEX_SCHEMA     # nobody reads that any more
            if self.is_earlier:
                return
            need(found == INDEX_SCHEMA, 16, None, "the index has another schema")
            ok = self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            need(ok == "ok", 16, None, f"the index: {ok}")
            [(self.origin, self.size)] = self.db.execute("SELECT origin, size FROM meta").fetchall()
            for table, kinds, fields in INDEX:
                self.tables[table] = self.db.execute(f"SELECT * FROM {table} ORDER BY seq")
        except (sqlite3.Error, ValueError, TypeError) as error:
            self.bad = Bad(16, None, f"the index cannot be read: {error}")
        except Bad as bad:
            self.bad = bad

    def entry(self, entry, texts):
        if self.bad or self.is_earlier or entry["seq"] >= self.size:
            return
        kind = entry["kind"]
        table, _, fields = next((row for row in INDEX if kind in row[1].split()), INDEX[-1])
        if kind in ("checkpoint_ref", "anchored"):
            return
        row = [entry["seq"], moment(entry["time"])] + [shown(field, entry[field], texts) if field in entry else None for field in fields.split()]
        try:
            found = self.tables[table].fetchone()
        except sqlite3.Error:
            found = None
        if found is None or list(found) != row or any(type(a) is not type(b) for a, b in zip(found, row)):
            # A text that a later entry redacts may still be there: kept until that is known.
            differs = [field for field, a, b in zip(["seq", "time"] + fields.split(), found or [], row) if a != b or type(a) is not type(b)]
            if found and differs and all(field in NUMBER and KEYS[NUMBER[field]][1] == "c" for field in differs):
                self.later.update({(entry["seq"], NUMBER[field]): None for field in differs})
            else:
                self.bad = Bad(16, entry["seq"], "the index says something else")

    def redacted(self, entry):
        if not self.bad and not self.is_earlier and entry["seq"] >= self.size:
            for seq, field in entry.get("redacted", []):
                self.later.pop((seq, field), None)

    def finish(self, origin, size):
        if self.bad:
            raise self.bad
        if self.is_earlier:
            return
        need(self.origin == origin, 16, None, "the index is of another ledger")
        need(self.size <= size, 16, None, "the index has seen more entries than there are")
        for seq, _ in self.later:
            raise Bad(16, seq, "the index says something else")
        for table in self.tables.values():
            need(table.fetchone() is None, 16, None, "the index has rows that belong to no entry")


# --- section 8: the pass ---

def read_anchor(name, words):
    try:
        note = parse_note(words)
        return name, note[0], note[1], note[2], note
    except ValueError:
        pass
    try:
        origin, size, root = words.removesuffix("\n").split("\n")
        root, number = decode(root), int(size)
        if len(root) == 32 and is_name(origin) and str(number) == size and 0 <= number < 2**64:
            return name, origin, number, root, None
    except ValueError:
        pass
    return Bad(14, None, f"anchor {name} is no checkpoint")


def is_beside(ledger, file):
    """Whether a file lies where the proxy keeps this ledger, its keys and its head files (section 8)."""
    if not os.path.exists(file):
        return True
    ledger, file = pathlib.Path(ledger).resolve(), pathlib.Path(file).resolve()
    home, own = ledger.parent, pathlib.Path(f"{ledger}.pub")
    kept = [folder / name for folder in (home, home.parent) for name in ("keys", "anchors")]
    if file == own or any(folder in file.parents for folder in kept):
        return True
    if os.path.exists(f"{ledger}.lock"):
        folders = [home] + [home.parent] * os.path.exists(home.parent / "countersign.toml")
        if any(folder in file.parents for folder in folders):
            return True
    same = [own] + [one for folder in kept if folder.is_dir() for one in folder.iterdir()]
    return any(os.path.samefile(file, one) for one in same if one.exists())


def check_anchor(anchor, origin, size, seen, roots):
    if isinstance(anchor, Bad):
        raise anchor
    name, of, at, root, note = anchor
    need(of == origin, 14, None, f"anchor {name} is of another ledger")
    vouched = True
    if note:
        vouched = next((holds for holds in (note_by_root(note, one) for one in roots) if holds is not None), None)
        if vouched is None and at in seen:
            vouched = note_by(note, seen[at][1])
        need(vouched is not False, 14, None, f"anchor {name} has a signature that does not hold")
    need(at <= size, 18, None, f"anchor {name} has seen {at} entries, the ledger holds {size}: rolled back")
    need(at in seen and seen[at][0] == root, 18, None, f"anchor {name} has seen other entries: forked")
    need(vouched, 14, None, f"anchor {name} is not signed by a key of this ledger")


def verify(path, key_path, anchor_paths):
    """Returns (entries, how many of them anchors cover, and anchors from elsewhere, entries that record damage)."""
    with open(path, "rb") as file:
        need(file.read(16) == b"SQLite format 3\0", 11, None, "not an SQLite file")
    index = Index(path + ".index.db") if os.path.exists(path + ".index.db") else None
    try:
        db = open_for_reading(path)
        db.execute("BEGIN")
        found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid").fetchall()
        application = db.execute("PRAGMA application_id").fetchone()[0]
        need(application == 0x43534C47 and found == [("table", name, name, sql) for name, sql in SCHEMA], 10, None, "another schema")
    except sqlite3.DatabaseError as error:
        raise Bad(11 if "malformed" in str(error) or "not a database" in str(error) else 10, None, str(error))
    anchors = [read_anchor(name, open(name, encoding="utf-8", newline="").read()) for name in anchor_paths]
    try:
        ok = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        need(ok == "ok", 11, None, ok)
        origin, trusted = public_key(key_path)
        size, damage = run(db, origin, trusted, anchors, index)
        from_elsewhere = [anchor[2] for name, anchor in zip(anchor_paths, anchors) if not is_beside(path, name)]
        return size, max((anchor[2] for anchor in anchors), default=None), max(from_elsewhere, default=None), damage
    except sqlite3.Error as error:
        raise Bad(11, None, str(error))


def run(db, origin, trusted, anchors, index):
    kept = []
    for name, size, words in db.execute("SELECT name, size, note FROM anchor ORDER BY name"):
        anchor = read_anchor(name, words)
        good = isinstance(anchor, Bad) or (anchor[4] and anchor[2] == size)
        kept.append(anchor if good else Bad(14, None, f"anchor {name} is kept with another size"))
    checkpoints = iter(db.execute("SELECT size, note FROM checkpoint ORDER BY size"))
    payloads = iter(db.execute("SELECT seq, field, salt, value FROM payload ORDER BY seq, field"))
    checkpoint, payload = next(checkpoints, None), next(payloads, None)
    tree, meaning, roots, epochs, epoch, untold, covered = Tree(), Meaning(), [], 0, None, None, 0
    runs, over, last_wall, upto, ahead, missing, seen, told, damage = {}, set(), 0, 0, set(), {}, {}, {}, []
    for found, body, signature in db.execute("SELECT seq, body, sig FROM entry ORDER BY seq"):
        seq = tree.size
        need(found == seq, 12, seq, f"missing; entry {found} follows")                              # 5.1
        entry = parse(body, seq)
        kind = entry["kind"]
        need(signature is None or len(signature) == 64, 13, seq, "its signature is no signature")
        need(entry["seq"] == seq, 12, seq, f"says that it is entry {entry['seq']}")
        need((kind == "ledger_created") == (seq == 0), 12, seq, "a ledger begins with its creation")
        leaf, root = sha(b"\0", body), tree.root()
        if kind == "ledger_created":                                                                # 5.2
            need(entry["origin"] == origin and entry["epoch"] == 0, 19, seq, "of another ledger")
            roots.append(entry["root_key"])
        elif kind == "key_root":
            hand_over = b"countersign/root/v1\0" + text(origin) + roots[-1] + entry["root_key"]
            need(entry["epoch"] == 0 and signed(roots[-1], entry["root_signature"], hand_over)
                and signed(entry["root_key"], entry["successor_signature"], hand_over), 19, seq, "not handed over by both roots")
            roots.append(entry["root_key"])
            epoch = None
        elif kind == "key_epoch":
            need(entry["epoch"] == epochs + 1 and entry["tree_root"] == root, 19, seq, "not the next epoch")
            certificate = u64(entry["epoch"]) + entry["epoch_key"] + u64(seq) + root + u64(entry["time"])
            need(signed(roots[-1], entry["root_signature"], b"countersign/epoch/v1\0" + text(origin) + certificate), 19, seq, "not certified by the root")
            need(entry["signing"] in ("every-entry", "checkpoint"), 13, seq, "signs in no known way")
            epochs, epoch = entry["epoch"], (entry["epoch_key"], entry["signing"])
        else:
            need(epoch and entry["epoch"] == epochs, 19, seq, "not of the running epoch")
        by_root = kind in ("ledger_created", "key_root")                                            # 5.3
        key = roots[-1] if by_root else epoch[0]
        needed = by_root or epoch[1] == "every-entry" or meaning.must_sign(entry)
        need(signature or not needed, 13, seq, "its signature is missing")
        message = b"countersign/entry/v1\0" + text(origin) + u64(seq) + leaf
        need(not signature or signed(key, signature, message), 13, seq, "its signature does not hold")
        if kind == "checkpoint_ref":                                                                # 5.4
            need(untold == (entry["tree_size"], entry["tree_root"], entry["note"]), 14, seq, "no such checkpoint before it")
            untold = None
        need(not untold or kind in ("key_epoch", "key_root"), 14, seq, "the checkpoint before it was never told of")
        if kind not in ("checkpoint_ref", "anchored", "key_epoch", "key_root"):                     # 5.5
            boot, wall, mono = entry["boot"], entry["time"], entry["mono"]
            need(boot not in over, 21, seq, "of a run that was over")
            if boot in runs:
                need(mono >= runs[boot][1], 21, seq, "the machine's clock goes back")
                drift = abs((wall - runs[boot][0]) - (mono - runs[boot][1]))
                need(drift <= JUMP or kind == "clock_jump", 21, seq, "the wall clock was set in silence")
            else:
                need(wall + JUMP >= last_wall or kind == "clock_jump", 21, seq, "a run begins before the last one ended")
            runs[boot], last_wall = (wall, mono), wall
            if kind == "recovered":
                over |= {other for other in runs if other != boot}
                runs = {boot: runs[boot]}
        texts = {}                                                                                  # 5.6
        need(not payload or payload[0] >= seq, 20, seq, "a text before it belongs to no entry")
        while payload and payload[0] == seq:
            _, number, salt, value = payload
            field = KEYS[number][0] if 0 <= number < len(KEYS) and KEYS[number][1] == "c" else None
            need(field in entry and not (field == "digest" and "nonce" in entry), 20, seq, "a text that belongs to nothing")
            need(len(salt) == 16 and sha(b"countersign/payload/v1\0", u64(number), salt, value) == entry[field], 20, seq, f"another {field} than was recorded")
            texts[field] = value
            payload = next(payloads, None)
        for field in entry:
            if KEYS[NUMBER[field]][1] == "c" and field not in texts and not (field == "digest" and "nonce" in entry):
                missing[seq, NUMBER[field]] = True
        for of, number in entry.get("redacted", []):
            if not missing.pop((of, number), None):
                need(of < seq, 20, seq, "it redacts what comes later")
                there = number < 2**63 and db.execute("SELECT count(*) FROM payload WHERE seq = ? AND field = ?", (of, number)).fetchone()[0]
                need(not there, 20, seq, f"the text of entry {of} that it redacts is still there")
        meaning.entry(entry, texts)                                                                 # 5.7
        if index:
            index.entry(entry, texts)
            index.redacted(entry)
        tree.push(leaf)
        for number in (entry.get("record"), entry.get("record_end")):
            if number is not None:
                need(number > upto and number not in ahead, 12, seq, f"record {number} became an entry twice")
                ahead.add(number)
        if kind == "discarded" and entry.get("from") == upto + 1 and entry.get("to", 0) >= upto + 1:
            upto = entry["to"]
        while upto + 1 in ahead:
            upto += 1
            ahead.remove(upto)
        if kind in ("discarded", "degraded") or (kind == "recovered" and "what" in entry):
            damage.append((seq, kind, entry["what"]))
        if kind == "anchored":
            told[entry["anchor"]] = entry["tree_size"]
        if epoch:
            seen[tree.size] = (tree.root(), epoch[0])
        if checkpoint and checkpoint[0] <= tree.size:                                               # 5.8
            size, words = checkpoint
            need(size == tree.size, 14, seq, "a checkpoint of no size that ever was")
            try:
                note = parse_note(words)
            except ValueError:
                raise Bad(14, seq, "no signed checkpoint")
            good = epoch and note[0] == origin and note[1] == size and len(note[4]) == 1 and note_by(note, epoch[0])
            need(good, 14, seq, "a checkpoint that is not signed by the running epoch")
            need(note[2] == tree.root(), 15, seq, "the entries lead to another root")
            need(not ahead, 12, seq, f"record {upto + 1} never became an entry")
            need(not untold, 14, seq, "the checkpoint before was never told of")
            meaning.roots[size] = note[2]
            untold, covered = (size, note[2], sha(words.encode())), size
            checkpoint = next(checkpoints, None)
    size = tree.size
    need(size, 12, None, "no entries")
    need(trusted in roots, 19, 0, "its root key is not the trusted one")
    need(not checkpoint, 18, None, "a checkpoint beyond the last entry")                            # 6
    need(covered == size, 17, covered, "no checkpoint covers it")
    need(not payload, 20, None, "a text behind the last entry")
    need(not missing, 20, min(missing, default=(None,))[0], "a text is gone, and no redaction says so")
    stored = {(level, at): hashes for level, at, hashes in db.execute("SELECT level, idx, hashes FROM tile")}
    need(stored == {place: bytes(tile) for place, tile in tree.tiles.items()}, 16, None, "a tile is not as derived")  # 7
    for anchor in kept:
        check_anchor(anchor, origin, size, seen, roots)
        need(told.pop(anchor[0], None) == anchor[2], 16, None, f"anchor {anchor[0]} is kept otherwise than its entry tells")
    need(not told, 16, None, "an anchor is not kept")
    for anchor in anchors:                                                                          # 8
        check_anchor(anchor, origin, size, seen, roots)
    if index:                                                                                       # 9
        index.finish(origin, size)
    return size, damage


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("ledger")
    arguments.add_argument("--key", help="the root's public key; LEDGER.pub when not given")
    arguments.add_argument("--anchor", action="append", default=[], help="a checkpoint that was kept elsewhere")
    given = arguments.parse_args()
    beside = os.path.dirname(given.ledger) or "."
    places = [given.ledger + ".pub", beside + "/keys/ledger.pub", beside + "/../keys/ledger.pub"]
    key = given.key or next(filter(os.path.exists, places), places[0])
    try:
        size, anchored, elsewhere, damage = verify(given.ledger, key, given.anchor)
    except Bad as bad:
        print(f"NOT VERIFIED ({bad.code}): {f'entry {bad.seq}: ' if bad.seq is not None else ''}{bad.what}")
        return bad.code
    except (OSError, ValueError) as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 2
    reservations = [f"entry {seq} ({kind}) records damage: {what!r}" for seq, kind, what in damage]
    if is_beside(given.ledger, key):
        reservations.append("the key lies beside the ledger; give --key with a copy that was kept elsewhere")
    if anchored != size:
        reservations.append(f"nothing outside this file vouches for entry {anchored or 0} and later")
    elif elsewhere != size:
        reservations.append(f"the anchor lies beside the ledger; nothing from elsewhere vouches for entry {elsewhere or 0} and later")
    if reservations:
        print(f"VERIFIED WITH A RESERVATION: {size} entries")
        print("\n".join(f"- {reservation}" for reservation in reservations))
        return 1
    print(f"VERIFIED: {size} entries, the last of them anchored")
    return 0


if __name__ == "__main__":
    sys.exit(main())
