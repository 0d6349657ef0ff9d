"""A Postgres client that says exactly what it is told to, for tests of the first messages."""
import base64, hashlib, hmac, os, socket, ssl, struct

SSL, GSS, CANCEL = 80877103, 80877104, 80877102


class Wire:
    def __init__(self, port, host="127.0.0.1"):
        self.s = socket.create_connection((host, port), timeout=30)

    def send(self, data):
        self.s.sendall(data)

    def request(self, code, behind=b""):
        self.send(struct.pack("!ii", 8, code) + behind)

    def recv(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.s.recv(count - len(data))
            except (ConnectionError, ssl.SSLError):
                more = b""
            if not more:
                return None
            data += more
        return data

    def closed(self):
        """Whether the other end says nothing more."""
        return self.recv(1) is None

    def tls(self, alpn=None, cert=None, key=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        if cert:
            context.load_cert_chain(cert, key)
        self.s = context.wrap_socket(self.s)

    def ask_tls(self, **how):
        self.request(SSL)
        assert self.recv(1) == b"S"
        self.tls(**how)

    def startup(self, parameters, minor=0, major=3, raw=None):
        body = raw if raw is not None else b"".join(
            p.encode() + b"\0" for pair in parameters for p in pair) + b"\0"
        self.send(struct.pack("!ihh", len(body) + 8, major, minor) + body)

    def message(self):
        head = self.recv(5)
        if head is None:
            return None, b""
        return head[:1].decode(), self.recv(struct.unpack("!i", head[1:])[0] - 4)

    def error(self):
        """SQLSTATE and message of the error that has to come now."""
        kind, body = self.message()
        while kind in ("v", "R", "S", "N"):
            kind, body = self.message()
        if kind != "E":
            return kind
        fields = {f[:1]: f[1:].decode() for f in body.split(b"\0") if f}
        return fields[b"C"] + " " + fields[b"M"]

    def password(self, data):
        self.send(b"p" + struct.pack("!i", len(data) + 4) + data)

    def scram(self, password, flag="n", mechanism=None, binding=b""):
        """A whole exchange; returns None, or the error."""
        kind, body = self.message()
        while kind == "v":
            self.negotiated = body
            kind, body = self.message()
        if kind != "R" or struct.unpack("!i", body[:4])[0] != 10:
            return "asked for %r %r" % (kind, body[:4])
        self.offered = [m.decode() for m in body[4:].split(b"\0") if m]
        mechanism = mechanism or ("SCRAM-SHA-256-PLUS" if flag.startswith("p") else "SCRAM-SHA-256")
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = "n=,r=" + nonce
        first = (flag + ",," + bare).encode()
        self.password(mechanism.encode() + b"\0" + struct.pack("!i", len(first)) + first)
        kind, body = self.message()
        if kind != "R":
            return "E " + repr(body)
        server_first = body[4:].decode()
        said = dict(part.split("=", 1) for part in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(said["s"]), int(said["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        header = base64.b64encode((flag + ",,").encode() + binding).decode()
        without = "c=%s,r=%s" % (header, said["r"])
        signed = ",".join([bare, server_first, without]).encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
        self.password((without + ",p=" + proof).encode())
        kind, body = self.message()
        if kind != "R":
            return "E " + repr(body)
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        assert body[4:] == b"v=" + base64.b64encode(hmac.digest(server_key, signed, "sha256")), "server's proof"
        return None

    def ready(self):
        """Reads up to ReadyForQuery; returns the body of BackendKeyData."""
        key = None
        while True:
            kind, body = self.message()
            if kind == "K":
                key = body
            if kind == "Z":
                return key
            assert kind in ("R", "S", "K", "N", "v"), (kind, body)

    def query(self, sql):
        self.send(b"Q" + struct.pack("!i", len(sql) + 5) + sql.encode() + b"\0")

    def answer(self):
        """Everything up to ReadyForQuery, as types, and the error's code if there was one."""
        kinds, code = "", None
        while True:
            kind, body = self.message()
            kinds += kind or "-"
            if kind == "E":
                code = [f[1:].decode() for f in body.split(b"\0") if f[:1] == b"C"][0]
            if kind in ("Z", None):
                return kinds, code


def end_point(der):
    """tls-server-end-point of a certificate that is signed with SHA-256."""
    return hashlib.sha256(der).digest()
