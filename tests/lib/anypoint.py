"""A stand-in for the parts of Anypoint and Okta that make clients' secrets: not the real platforms.

Paths, methods, bodies and answers are those of MuleSoft's published API descriptions (access-management, exchange-experience) and of
Okta's reference of client secrets and keys; a request that differs from them is refused and written down in `wrong`.
"""

import base64
import json
import secrets
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from . import jose
from .servers import Server, free_port

ORG = "0eb65884-4f75-48f7-a8bc-4e30b46e721d"


class Client:
    """One registered client; `secrets` are those that are good now, by the server's id."""

    def __init__(self, name, secret):
        self.name, self.secrets, self.inactive, self.resets = name, {"s0": secret}, {}, 0
        self.keys, self.keys_made = {}, 0  # Okta: {id: JWK with status}

    def good(self, secret):
        return secret in self.secrets.values()

    @property
    def secret(self):
        return list(self.secrets.values())[-1]


class Platform(Server):
    """clients: {client_id: Client}. before_answer(client) runs when a secret was made and nobody was told yet; it may return "drop"."""

    def __init__(self, *names, admin="admin"):
        self.port, self.lock = free_port(), threading.Lock()
        self.admin = admin
        self.clients = {name: Client(name, f"first-secret-of-{name}") for name in (admin, *names)}
        self.tokens, self.seen, self.wrong, self.mints, self.jtis = {}, [], [], [], set()
        self.before_answer, self.answer_with = None, None
        self.asserted = []  # (client, kid, whether it was taken)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def say(self, status, body=None, headers=()):
                data = json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                if body is not None:
                    self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def refuse(self, status, why):
                outer.wrong.append((self.command, self.path, why))
                self.say(status, {"message": why})

            def handle_one(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urlsplit(self.path)
                outer.seen.append((time.time(), self.command, self.path))
                with outer.lock:
                    answer = outer.answer(self, self.command, url.path, url.query, body)
                if answer == "drop":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_one

            def log_message(self, *args):
                pass

        self.handler = Handler

    def start(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def resets(self, name):
        return self.clients[name].resets

    # --- what it answers

    def answer(self, handler, method, path, query, body):
        if path in ("/accounts/api/v2/oauth2/token", "/oauth2/aus1/v1/token"):
            return self.mint(handler, method, body)
        if path == "/api/orders":
            return self.enforce(handler)
        parts = path.strip("/").split("/")
        if not self.may(handler):
            return handler.refuse(401, "no token of the administrator's")
        if self.answer_with:
            status, said, headers = self.answer_with
            return handler.say(status, said, headers)
        if parts[:2] == ["accounts", "api"] or parts[:3] == ["exchange", "api", "v2"]:
            return self.anypoint(handler, method, parts, query, body)
        if parts[:3] == ["api", "v1", "apps"] and parts[4:6] == ["credentials", "secrets"]:
            return self.okta(handler, method, self.clients.get(parts[3]), parts[6:], body)
        if parts[:3] == ["api", "v1", "apps"] and parts[4:6] == ["credentials", "jwks"]:
            return self.okta_keys(handler, method, self.clients.get(parts[3]), parts[6:], body)
        return handler.refuse(404, "no such path")

    def mint(self, handler, method, body):
        form = {k: v[0] for k, v in parse_qs(body.decode()).items()}
        name = form.get("client_id")
        if method != "POST" or handler.headers.get("Content-Type", "").split(";")[0] != "application/x-www-form-urlencoded":
            return handler.refuse(400, "a form is wanted")
        if form.get("grant_type") != "client_credentials":
            return handler.say(400, {"error": "unsupported_grant_type"})
        if "client_assertion" in form:
            name, kid, good = self.asserts(handler, form)
            self.asserted.append((name, kid, good))
        else:
            good = name in self.clients and self.clients[name].good(form.get("client_secret"))
            self.mints.append((name, form.get("client_secret"), good))
        if not good:
            return handler.say(401, {"error": "invalid_client"})
        token = secrets.token_urlsafe(24)
        self.tokens[token] = name
        return handler.say(200, {"access_token": token, "token_type": "bearer", "expires_in": 3600})

    def asserts(self, handler, form):
        """private_key_jwt by an ACTIVE key, as Okta takes it: aud is the whole token URL, at most an hour, each jti once."""
        header, claims = jose.read(form["client_assertion"])
        client, now = self.clients.get(claims.get("iss")), time.time()
        key = next((k for k in client.keys.values() if k["kid"] == header.get("kid") and k["status"] == "ACTIVE"), None) if client else None
        good = (key is not None and form.get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
                and claims["sub"] == client.name and claims["aud"] == self.url + handler.path and now < claims["exp"] < now + 3600
                and header["alg"] == key["alg"] and claims["jti"] not in self.jtis)
        self.jtis.add(claims["jti"])
        try:
            good = good and bool(jose.verify(form["client_assertion"], {"keys": [key]}))
        except Exception:  # noqa: BLE001
            good = False
        return claims.get("iss"), header.get("kid"), good

    def enforce(self, handler):
        """Client ID Enforcement: the pair in two headers, or as Basic authentication."""
        name, secret = handler.headers.get("client_id"), handler.headers.get("client_secret")
        if handler.headers.get("Authorization", "").startswith("Basic "):
            name, _, secret = base64.b64decode(handler.headers["Authorization"][6:]).decode().partition(":")
        client = self.clients.get(name)
        if client is None or not client.good(secret):
            return handler.say(401, {"error": "Authentication Attempt Failed"}, [("WWW-Authenticate", "Client-ID-Enforcement")])
        return handler.say(200, {"client": client.name})

    def may(self, handler):
        kind, _, token = handler.headers.get("Authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.tokens.get(token) in (self.admin, *self.managers)

    managers = ()

    def anypoint(self, handler, method, parts, query, body):
        where = parts[2:] if parts[0] == "accounts" else parts[3:]
        if where[:1] == ["organizations"]:
            if where[1] != ORG:
                return handler.refuse(403, "another organization")
            where = where[2:]
        exchange = parts[0] == "exchange"
        client = self.clients.get(where[1]) if len(where) > 1 else None
        if client is None:
            return handler.refuse(404, "no such client")
        if exchange:
            if method != "POST" or where[0] != "applications" or where[2:] != ["secret", "reset"] or body:
                return handler.refuse(400, "POST applications/ID/secret/reset without a body is wanted")
        elif method != "PATCH" or where[0] not in ("connectedApplications", "clients") or where[2:] or query != "resetSecret=true" or (
                where[0] == "clients" and parts[2] != "organizations") or handler.headers.get("Content-Type") != "application/json":
            return handler.refuse(400, "PATCH connectedApplications/ID?resetSecret=true with JSON is wanted")
        elif json.loads(body) != {}:
            return handler.refuse(400, "a reset changes nothing else")
        client.resets += 1
        client.secrets = {f"s{client.resets}": secrets.token_hex(16)}
        if self.before_answer and self.before_answer(client) == "drop":
            return "drop"
        if exchange:
            return handler.say(201, {"clientSecret": client.secret})
        return handler.say(200, {"client_id": client.name, "client_secret": client.secret, "enabled": True})

    def okta(self, handler, method, client, rest, body):
        if client is None:
            return handler.refuse(404, "no such application")
        everything = {**client.inactive, **client.secrets}
        if method == "GET" and not rest:
            return handler.say(200, [{"id": k, "client_secret": v, "status": "ACTIVE" if k in client.secrets else "INACTIVE"}
                                     for k, v in sorted(everything.items())])
        if method == "POST" and not rest:
            if len(everything) >= 2:
                return handler.refuse(400, "You have reached the maximum number of client secrets per client.")
            client.resets += 1
            made = (f"s{client.resets}", secrets.token_hex(16))
            client.secrets[made[0]] = made[1]
            if self.before_answer and self.before_answer(client) == "drop":
                return "drop"
            return handler.say(201, {"id": made[0], "client_secret": made[1], "status": "ACTIVE"})
        if rest and rest[0] not in everything:
            return handler.refuse(404, "no such secret")
        if method == "POST" and rest[1:] == ["lifecycle", "deactivate"]:
            if rest[0] in client.secrets:
                client.inactive[rest[0]] = client.secrets.pop(rest[0])
            return handler.say(200, {"id": rest[0], "status": "INACTIVE"})
        if method == "DELETE" and len(rest) == 1:
            if rest[0] in client.secrets:
                return handler.refuse(403, "an active secret can't be deleted")
            del client.inactive[rest[0]]
            return handler.say(204)
        return handler.refuse(400, "no such call")

    def okta_keys(self, handler, method, client, rest, body):
        """Keys of an application: {id, kid, status, ...}; one must be inactive before it can be deleted."""
        if client is None:
            return handler.refuse(404, "no such application")
        if method == "GET" and not rest:
            return handler.say(200, list(client.keys.values()))
        if method == "POST" and not rest:
            own = json.loads(body)
            if handler.headers.get("Content-Type") != "application/json" or own.get("kty") not in ("RSA", "EC") or not own.get("kid") or (
                    own.get("use") != "sig" or own.get("status") != "ACTIVE" or set(own) & {"d", "p", "q", "dp", "dq", "qi"}):
                return handler.refuse(400, "a public JWK for signatures is wanted")
            if any(k["kid"] == own["kid"] for k in client.keys.values()):
                return handler.refuse(400, "kid is not unique")
            client.keys_made += 1
            name = f"pks{client.keys_made}"
            client.keys[name] = {**own, "id": name}
            if self.before_answer and self.before_answer(client) == "drop":
                return "drop"
            return handler.say(201, client.keys[name])
        if not rest or rest[0] not in client.keys:
            return handler.refuse(404, "no such key")
        key = client.keys[rest[0]]
        if method == "GET" and len(rest) == 1:
            return handler.say(200, key)
        if method == "POST" and rest[1:] in (["lifecycle", "deactivate"], ["lifecycle", "activate"]) and not body:
            key["status"] = "INACTIVE" if rest[2] == "deactivate" else "ACTIVE"
            return handler.say(200, key)
        if method == "DELETE" and len(rest) == 1:
            if key["status"] == "ACTIVE":
                return handler.refuse(403, "an active key can't be deleted")
            del client.keys[rest[0]]
            return handler.say(204)
        return handler.refuse(400, "no such call")
