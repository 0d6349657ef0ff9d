"""Keys and tokens of an identity provider, good ones and all kinds of bad ones, as JSON."""
import base64, json, sys, time
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

issuer, audience, subject = sys.argv[1:4]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Key:
    def __init__(self, kid, kind):
        self.kid, self.kind = kid, kind
        self.key = {
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
            "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "ed": ed25519.Ed25519PrivateKey.generate,
        }[kind]()

    def jwk(self):
        public = self.key.public_key()
        if self.kind == "rsa":
            n = public.public_numbers()
            return {"kty": "RSA", "kid": self.kid, "use": "sig", "n": number(n.n), "e": number(n.e)}
        if self.kind == "ed":
            raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            return {"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": b64(raw)}
        n, size = public.public_numbers(), self.key.key_size // 8
        return {"kty": "EC", "crv": "P-%d" % self.key.key_size, "kid": self.kid,
                "x": b64(n.x.to_bytes(size, "big")), "y": b64(n.y.to_bytes(size, "big"))}

    def sign(self, alg, message):
        sha = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}.get(alg[2:], hashes.SHA256)()
        if alg.startswith("RS"):
            return self.key.sign(message, padding.PKCS1v15(), sha)
        if alg.startswith("PS"):
            return self.key.sign(message, padding.PSS(padding.MGF1(sha), sha.digest_size), sha)
        if alg.startswith("ES"):
            size = self.key.key_size // 8
            return b"".join(part.to_bytes(size, "big")
                            for part in decode_dss_signature(self.key.sign(message, ec.ECDSA(sha))))
        return self.key.sign(message)


def token(key, alg, header={}, **claims):
    now = int(time.time())
    body = {"iss": issuer, "aud": audience, "sub": subject, "iat": now, "nbf": now, "exp": now + 600,
            "countersign": {"model": "model-7", "run": "run-42", "purpose": "the monthly report"}}
    body.update(claims)
    body = {name: value for name, value in body.items() if value is not None}
    head = {"alg": alg, "typ": "JWT", "kid": key.kid, **header}
    message = b64(json.dumps(head).encode()) + "." + b64(json.dumps(body).encode())
    if alg == "none":
        return message + "."
    if alg.startswith("HS"):
        public = key.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        mac = hmac.HMAC(public, hashes.SHA256())
        mac.update(message.encode())
        return message + "." + b64(mac.finalize())
    return message + "." + b64(key.sign(alg, message.encode()))


main, p256, p384, ed = Key("main", "rsa"), Key("p256", "p256"), Key("p384", "p384"), Key("ed", "ed")
impostor, later = Key("main", "rsa"), Key("later", "rsa")
now = int(time.time())
good = token(main, "RS256")
head, body, signature = good.split(".")
print(json.dumps({
    "jwks": json.dumps({"keys": [k.jwk() for k in (main, p256, p384, ed)]}),
    "rotated": json.dumps({"keys": [later.jwk()]}),
    "good": {
        "RS256": good, "RS384": token(main, "RS384"), "RS512": token(main, "RS512"),
        "PS256": token(main, "PS256"), "ES256": token(p256, "ES256"), "ES384": token(p384, "ES384"),
        "EdDSA": token(ed, "EdDSA"),
        "of many audiences": token(main, "RS256", aud=["x", audience]),
        "expired within the skew": token(main, "RS256", exp=now - 20),
        "early within the skew": token(main, "RS256", nbf=now + 30, iat=now + 30),
    },
    "later": token(later, "RS256"),
    "soon": token(main, "RS256", exp=now + int(sys.argv[4])),
    "bad": {
        "by an impostor": token(impostor, "RS256"),
        "cut": good[:-10],
        "other claims": head + "." + token(impostor, "RS256", sub="admin").split(".")[1] + "." + signature,
        "expired": token(main, "RS256", exp=now - 120),
        "too early": token(main, "RS256", nbf=now + 120),
        "made tomorrow": token(main, "RS256", iat=now + 86400),
        "without expiry": token(main, "RS256", exp=None),
        "other issuer": token(main, "RS256", iss="https://evil.example"),
        "other audience": token(main, "RS256", aud="other"),
        "no audience": token(main, "RS256", aud=None),
        "other subject": token(main, "RS256", sub="other"),
        "alg none": token(main, "none"),
        "HMAC with the public key": token(main, "HS256"),
        "other kind of key": token(p256, "ES256", header={"kid": "main"}),
        "unknown key": token(later, "RS256"),
        "its own key": token(impostor, "RS256", header={"jwk": impostor.jwk(), "kid": "mine"}),
        "critical extension": token(main, "RS256", header={"crit": ["exp"]}),
        "logout token": token(main, "RS256", header={"typ": "logout+jwt"}),
        "encrypted": "a.b.c.d.e",
        "a password": "csa_something",
        "very long": good + "A" * 60000,
    },
}))
