"""The scenarios of the matrix: what is there before, what is run, and what must be true in the end."""

import base64
import copy
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import threading
import time
from pathlib import Path

from anypoint_standin import Anypoint
from common import BUILD, Torn, certificates
from lib.anypoint import Platform
from lib.aws import RolesAnywhere
from lib.certs import Authority, key_pem, pem
from lib.manifests import ca_issuer, certificate, consumer, projected, token
from lib.servers import Pebble

ROOT = {"user": "root"} if os.geteuid() == 0 else {}
SELF = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "self"}, "spec": {"selfSigned": {}}}
CA = certificate("ca", "self", secret="ca-root", isCA=True, commonName="ca", usages=["cert sign", "digital signature"])
PKI = [SELF, CA, ca_issuer("ca")]


def local(folder, **spec):
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "local"}, "spec": {"local": {
        "issuerURL": "https://tokens.example", "publishAhead": "0s", "publishJWKS": {"volume": {"path": str(folder)}}, **spec}}}


class Scenario:
    """Subclasses say what differs from: one `renew` after which everything is delivered."""

    command = ("renew",)
    again = None          # what is run after a kill; the command itself when None
    ends = (0,)           # exit statuses of a complete run
    new = {}              # {name: (least, most) certificates or tokens that the renewal obtains}
    timeout = 30
    served = ()           # volumes that must serve something in the end
    programs = ("keyturn-keeper",)
    failing = ("keyturn-keeper",)  # whose calls fail
    partial = None        # the exit status of the first run where it can't be a complete one
    sweeps = True         # two minutes later only what is served is left

    def __init__(self, house):
        self.house = house

    def prepare(self):
        """What is there before."""

    def change(self):
        """What the run has to deal with; done before the moment that is kept."""

    def begin(self):
        """Before each run."""

    def between(self):
        """After the run that was killed or failed, before the one that completes it."""

    def live(self):
        """At any moment, also right after a kill: besides what holds for all."""

    def check(self):
        """In the end, besides what holds for all."""

    def close(self):
        pass


class FirstIssue(Scenario):
    """A CA that signs itself and a leaf of it, from nothing."""

    new = {"ca": (1, 1), "leaf": (1, 1)}
    served = ("ca-root", "leaf-tls")

    def prepare(self):
        self.house.manifest("set", *PKI, certificate("leaf", "ca"))


class Issued(Scenario):
    """Something is delivered already."""

    served = ("ca-root", "leaf-tls")

    def prepare(self):
        self.house.manifest("set", *PKI, certificate("leaf", "ca"))
        self.house.ok("renew")


class Renewal(Issued):
    command = ("renew", "--force")
    again = ("renew",)
    new = {"ca": (0, 1), "leaf": (0, 1)}


class Reload(Issued):
    """Another set of manifests: one changed, one new, one gone."""

    served = ("ca-root", "leaf-tls", "fresh-tls")
    new = {"ca": (0, 0), "leaf": (1, 1), "fresh": (1, 1), "gone": (0, 0)}

    def prepare(self):
        self.house.manifest("set", *PKI, certificate("leaf", "ca"), certificate("gone", "ca"))
        self.house.ok("renew")

    def change(self):
        self.house.manifest("set", *PKI, certificate("leaf", "ca", ["leaf.example", "more.example"]), certificate("fresh", "ca"))


class Mint(Scenario):
    """A token of the embedded issuer, with the keys that verify it, from nothing."""

    new = {"job": (1, 1)}
    served = ("job-token",)

    def prepare(self):
        jwks = self.house.root / "jwks"
        self.house.manifest("set", local(jwks), token("job", "local", audiences=["https://api.example"], outputs=["raw", "header"]))

    def check(self):
        kid = json.loads(base64.urlsafe_b64decode(self.house.read("job-token", "token").split(b".")[0] + b"=="))["kid"]
        path = self.house.root / "jwks" / "jwks.json"
        if not path.exists():
            raise Torn("the keys that verify the token were never published")
        keys = json.loads(path.read_bytes())["keys"]
        if kid not in [k["kid"] for k in keys]:
            raise Torn("the key of the token was never published")


class Projected(Issued):
    """A Consumer's volume made of two secrets: both are renewed, each switch takes the other along."""

    served = ("ca-root", "leaf-tls", "side-tls", "app")
    new = {"leaf": (1, 1), "side": (1, 1)}

    def prepare(self):
        self.house.volumes.append(self.house.root / "volumes" / "app")
        self.write("leaf.example", "side.example")
        self.house.ok("renew")

    def write(self, *names):
        self.house.manifest("set", *PKI, certificate("leaf", "ca", [names[0]]), certificate("side", "ca", [names[1]]), consumer(
            "app", volumes=[projected(self.house.volumes[0], ("leaf-tls", {"tls.crt": "a.crt", "tls.key": "a.key", "ca.crt": "ca.crt"}),
                                      ("side-tls", {"tls.crt": "b.crt", "tls.key": "b.key"}))]))

    def change(self):
        self.write("leaf2.example", "side2.example")

    def check(self):
        served = self.house.served()
        if served["app"] != f"{served['leaf-tls']} {served['side-tls']}":
            raise Torn(f"the Consumer's volume serves {served['app']}, the secrets are {served}")


class Told(Issued):
    """A hook that takes its time, and a proof that looks at what the hook loaded."""

    new = {"leaf": (1, 1)}
    failing = ("keyturn-keeper", "keyturn")
    again = ("renew", "leaf")  # by name: at once, however long the delay after hooks that could not run
    prove = True

    def write(self, *names):
        h = self.house
        log, loaded = h.root / "hook.log", h.root / "loaded.crt"
        load = h.script("load", f'/usr/bin/sleep 0.03\n/usr/bin/cp "$KEYTURN_SECRET_DIR/tls.crt" {loaded} && echo "$KEYTURN_SERIAL" >>{log}\n')
        look = h.script("look", f'exec /usr/bin/cmp -s "$KEYTURN_SECRET_DIR/tls.crt" {loaded}\n')
        proofs = {"prove": [{"secret": "leaf-tls", "exec": {"argv": [look], **ROOT}}]} if self.prove else {}
        h.manifest("set", *PKI, certificate("leaf", "ca", list(names)), consumer(
            "app", secrets=["leaf-tls"], notify=[{"exec": {"argv": [load], **ROOT}}], within="5s", **proofs))

    def prepare(self):
        self.write("leaf.example")
        self.house.ok("renew")

    def change(self):
        self.write("leaf2.example")

    def check(self):
        serial = self.house.served()["leaf-tls"]
        told = [line.lstrip("0") for line in (self.house.root / "hook.log").read_text().split()]
        if serial not in told:
            raise Torn(f"the consumer was never told of {serial}: {told}")
        row = self.house.rows()["leaf"]
        if self.prove and not row["proved"]:
            raise Torn(f"not proved: {row}")


class Notified(Told):
    """The same without a proof; the warden's own calls are points too."""

    prove = False
    programs = ("keyturn-keeper", "keyturn")


class Refused(Issued):
    """A validation that says no: what is served never changes, nothing is obtained twice."""

    new = {"leaf": (0, 1)}
    ends = (5, 75)
    sweeps = False

    def change(self):
        no = self.house.script("no", "echo never; exit 1\n")
        self.old = self.house.served()["leaf-tls"]
        self.house.manifest("set", *PKI, certificate("leaf", "ca", ["other.example"]),
                            consumer("app", secrets=["leaf-tls"], validate=[{"exec": {"argv": [no], **ROOT}}]))

    def check(self):
        if self.house.served()["leaf-tls"] != self.old:
            raise Torn("a refused set is served")


class RolledBack(Issued):
    """A proof that takes the old set only: it is put back."""

    new = {"leaf": (0, 1)}
    ends = (5,)
    sweeps = False

    def write(self, *names):
        h = self.house
        look = h.script("look", f'read good <{h.root}/good\n[ "$KEYTURN_SERIAL" = "$good" ]\n')
        log = h.root / "hook.log"
        load = h.script("load", f'echo "$KEYTURN_SERIAL" >>{log}\n')
        h.manifest("set", *PKI, certificate("leaf", "ca", list(names)), consumer(
            "app", secrets=["leaf-tls"], notify=[{"exec": {"argv": [load], **ROOT}}],
            prove=[{"secret": "leaf-tls", "exec": {"argv": [look], **ROOT}}], within="1s"))

    def prepare(self):
        self.write("leaf.example")
        (self.house.root / "good").write_text("-\n")
        self.house.run("renew", "--timeout", "1s")
        self.house.root.joinpath("good").write_text(self.house.rows()["leaf"]["serial"] + "\n")
        for _ in range(60):  # a proof that was late is tried again ever more seldom
            if self.house.run("renew").status == 0:
                break
            time.sleep(0.5)
        self.house.ok("renew")
        self.old = self.house.served()["leaf-tls"]

    def change(self):
        self.write("leaf2.example")

    def check(self):
        if self.house.served()["leaf-tls"] != self.old:
            raise Torn("what the consumer refused is still served")
        told = (self.house.root / "hook.log").read_text().split()
        if not told or told[-1].lstrip("0") != self.old:
            raise Torn(f"the consumer was not told of the way back: {told}")


class SecretSet(Issued):
    """A value put into the store."""

    command = ("secret", "set", "outside", "token=VALUE")

    def prepare(self):
        super().prepare()
        value = self.house.root / "value"
        value.write_text("canary-5f1c8e0a")
        self.house.canaries.append(b"canary-5f1c8e0a")
        self.command = ("secret", "set", "outside", f"token={value}")

    def check(self):
        names = self.house.ok("secret", "list").out
        if "outside" not in names:
            raise Torn(f"the secret is not there: {names}")
        self.house.ok("renew")


class MasterKey(Issued):
    """Every sealed row under another key."""

    command = ("master-key", "rotate")

    def prepare(self):
        super().prepare()
        value = self.house.root / "value"
        value.write_text("canary-5f1c8e0a")
        self.house.canaries.append(b"canary-5f1c8e0a")
        self.house.ok("secret", "set", "outside", f"token={value}")

    def check(self):
        # Every key still opens: what is delivered anew comes out of the store.
        before = self.house.served()
        import shutil
        shutil.rmtree(self.house.volume("leaf-tls"))
        self.house.ok("renew")
        if self.house.served() != before:
            raise Torn("the store gave another set after the rotation")
        self.house.ok("renew", "leaf", "--force")


class SlowKey(Scenario):
    """An RSA key from another thread."""

    new = {"slow": (1, 1)}
    served = ("slow-tls",)

    def prepare(self):
        self.house.manifest("set", SELF, certificate("slow", "self", commonName="slow", privateKey={"algorithm": "RSA", "size": 2048}))


class Redelivery(Issued):
    """The volume was deleted: the same set is written again."""

    new = {"ca": (0, 0), "leaf": (0, 0)}

    def change(self):
        import shutil
        self.old = self.house.served()["leaf-tls"]
        shutil.rmtree(self.house.volume("leaf-tls"))

    def check(self):
        if self.house.served()["leaf-tls"] != self.old:
            raise Torn("another set came back")


class Expired(Scenario):
    """A token that has expired is taken off the disk, and a new one comes."""

    new = {"job": (1, 1)}
    served = ("job-token",)
    sweeps = False

    def prepare(self):
        self.house.manifest("set", local(self.house.root / "jwks", maxTokenLifetime="5s"),
                            token("job", "local", audiences=["https://api.example"], outputs=["raw", "header"], renewBefore="1s"))
        self.house.ok("renew")
        time.sleep(5.5)


class Upgrade(Issued):
    """A database of the first version, by whose age today's keeper has to take all its own steps."""

    new = {"ca": (0, 0), "leaf": (0, 0)}
    grown = {2: [f"ALTER TABLE credential DROP COLUMN deliver_{what}" for what in ("failures", "at", "error", "text")],
             3: [*(f"DROP TABLE {table}" for table in ("renewal_info", "issuer_health", "challenge")),
                 "ALTER TABLE ledger DROP COLUMN subject"],
             4: ["DROP INDEX ledger_bucket", "ALTER TABLE ledger DROP COLUMN full_at",
                 "CREATE INDEX ledger_issuer ON ledger(issuer, what, at, outcome)"]}

    def change(self):
        with sqlite3.connect(self.house.state / "state.db") as db:
            self.version = db.execute("PRAGMA user_version").fetchone()[0]
            for step in range(self.version, 1, -1):
                for undo in self.grown[step]:  # say above what a new step adds
                    db.execute(undo)
            db.execute("PRAGMA user_version=1")
            self.old = self.rows(db)
        db.close()

    @staticmethod
    def rows(db):
        return {table: db.execute(f"SELECT {columns} FROM {table}").fetchall() for table, columns in (
            ("link", "*"), ("secret", "*"), ("account", "*"), ("issuer_key", "*"),
            ("credential", "id, kind, secret_name, active, revision"), ("material", "id, credential, revision, serial, sealed_key, chain"))}

    def check(self):
        with sqlite3.connect(self.house.state / "state.db") as db:
            self.look(db)
        db.close()

    def look(self, db):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != self.version:
            raise Torn(f"the database has version {version}, not {self.version}")
        if self.rows(db) != self.old:
            raise Torn("rows were lost or changed on the way")


class Migration(Upgrade):
    """A later version of the keeper finds the database of today's: three more steps, of other kinds."""

    def change(self):
        with sqlite3.connect(self.house.state / "state.db") as db:
            self.version = db.execute("PRAGMA user_version").fetchone()[0] + 3
            self.old = self.rows(db)
        db.close()
        rooms = self.house.root / "rooms"
        rooms.mkdir()
        for room in ("courier", "desk"):
            (rooms / f"keyturn-{room}").symlink_to(BUILD / f"keyturn-{room}")
        (rooms / "keyturn-keeper").symlink_to(BUILD / "tests" / "crash" / "newer" / "keyturn-keeper")
        self.house.env["KEYTURN_LIBEXECDIR"] = str(rooms)

    def look(self, db):
        super().look(db)
        shades = db.execute("SELECT count(*) FROM shade").fetchone()[0]
        if shades != len(self.old["material"]) or db.execute("SELECT 1 FROM credential WHERE colour IS NULL").fetchone():
            raise Torn("a step was done by half")


class Gate:
    """A port before another one, so that a server can be down without forgetting what it knows."""

    def __init__(self, port):
        self.target, self.open = port, True
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                here, _ = self.listener.accept()
                if not self.open:
                    here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self.pump, args=ends, daemon=True).start()

    @staticmethod
    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


class Acme(Scenario):
    """A certificate from Pebble by http-01, the account included. The CA tells how many it issued."""

    new = {"leaf": (1, 1)}
    served = ("leaf-tls",)
    programs = ("keyturn-keeper", "keyturn-courier", "keyturn-desk")
    again = ("renew", "leaf")  # by name: at once, however long the delay after a validation that failed

    def __init__(self, house):
        super().__init__(house)
        self.tmp = Path(f"{house.root}.peers")
        self.tmp.mkdir()
        for left in (2, 1, 0):
            self.pebble = Pebble(self.tmp, sleep=False, reject=0)
            try:
                self.pebble.start()
                break
            except AssertionError:  # another walk was given the same port
                self.pebble.stop()
                if not left:
                    raise
        self.house.roots = certificates(self.pebble.roots())

    def prepare(self):
        self.house.agent_settings(listeners={"http01": f"127.0.0.1:{self.pebble.http_port}"})
        self.house.manifest("set", self.pebble.issuer(), certificate("leaf", "pebble"))

    faulty = False

    def begin(self):
        self.had = len(self.pebble.issued()), self.pebble.orders(), self.pebble.accounts()

    def check(self):
        issued = self.pebble.issued()[self.had[0]:]
        if len(issued) != 1:
            raise Torn(f"the CA issued {len(issued)} certificates in one renewal")
        if self.house.served()["leaf-tls"] != issued[0].lstrip("0"):
            raise Torn(f"the CA issued {issued[0]}, served is {self.house.served()['leaf-tls']}")
        orders, accounts = self.pebble.orders() - self.had[1], self.pebble.accounts() - self.had[2]
        # One more after a kill. On a disk that stays full the command asks three times in vain, for it can't write the answer
        # down: known, and the orders are never finalized.
        if orders > (5 if self.faulty else 2) or accounts > 1:
            raise Torn(f"{orders} orders and {accounts} accounts in one renewal")

    def close(self):
        self.pebble.stop()
        shutil.rmtree(self.tmp, ignore_errors=True)


class AcmeRecord(Acme):
    """The same by dns-01: a program writes the record, and wherever the agent dies, none is left."""

    programs = ("keyturn-keeper", "keyturn-courier")

    def prepare(self):
        names = self.pebble.names
        self.house.agent_settings(dns01={"recursiveNameservers": [f"127.0.0.1:{names.port}"], "recursiveNameserversOnly": True})
        script = self.tmp / "record.sh"
        script.write_text(f"""#!/bin/sh
case $1 in
present) what=set-txt more=',"value":"'$3'"' ;;
cleanup) what=clear-txt more= ;;
esac
exec curl -sSf -d '{{"host":"'$2'."'"$more"'}}' http://127.0.0.1:{names.management}/$what
""")
        script.chmod(0o755)
        run = {"argv": [str(script)], "timeout": "20s", **ROOT}
        self.house.manifest("set", self.pebble.issuer(solvers=[{"dns01": {"exec": {"convention": "Keyturn", "exec": run}}}]),
                            certificate("leaf", "pebble"))

    def check(self):
        super().check()
        left = self.pebble.names.txt("_acme-challenge.leaf.example")
        if left:
            raise Torn(f"records are left: {left}")


class Outage(Acme):
    """A renewal while the CA is down; then it is back."""

    programs = ("keyturn-keeper", "keyturn-courier")
    partial = 75

    def __init__(self, house):
        super().__init__(house)
        self.gate = Gate(self.pebble.port)
        self.pebble.server = f"https://localhost:{self.gate.port}/dir"

    def prepare(self):
        super().prepare()
        self.house.ok("renew")

    def change(self):
        self.house.manifest("set", self.pebble.issuer(), certificate("leaf", "pebble", ["leaf.example", "more.example"]))

    def begin(self):
        super().begin()
        self.gate.open = False

    def between(self):
        self.gate.open = True

    def close(self):
        self.gate.close()
        super().close()


class Served(Scenario):
    """What needs a server in this process: it is started on a port that nobody else took, and remembers as the house does."""

    programs = ("keyturn-keeper", "keyturn-courier")
    kept = None
    faulty = False

    def most(self):
        """How often the server may be asked: one more after a kill; on a disk that stays full nothing can be written down."""
        return 5 if self.faulty else 2

    def started(self, make):
        for left in (2, 1, 0):
            server = make()
            try:
                server.start()
                return server
            except OSError:  # another walk was given the same port
                if not left:
                    raise

    def begin(self):
        """The server forgets what the run before had it do."""
        if self.kept is None:
            self.kept = self.remember()
        self.restore(copy.deepcopy(self.kept))

    def close(self):
        self.server.stop()


class Client(Served):
    """
    The secret of a client at a stand-in for Anypoint's API. Its reset has no overlap: from the server's answer to the store the
    only secret in force is on its way, and what is lost there costs one more reset.
    """

    names = ("a",)
    command = ("renew", "orders", "--force")
    again = ("renew", "orders")
    new = {"orders": (0, 1), "admin": (0, 0)}
    served = ("orders-client", "admin-token")

    def __init__(self, house):
        super().__init__(house)
        self.server = self.started(lambda: Platform(*self.names))
        self.server.before_answer = lambda client: house.canaries.append(client.secret.encode())

    def prepare(self):
        url, clients = self.server.url, self.server.clients
        self.house.canaries += [c.secret.encode() for c in clients.values()]
        self.house.secret("admin", client_secret=clients["admin"].secret)
        kind = {"apiVersion": "keyturn.dev/v1alpha1"}
        self.house.manifest("set", {**kind, "kind": "TokenIssuer", "metadata": {"name": "anypoint"}, "spec": {"oauth2": {
            "tokenURL": f"{url}/accounts/api/v2/oauth2/token", "profile": "Anypoint", "audienceParam": "none",
            "auth": {"method": "client_secret_post", "clientID": "admin", "clientSecretRef": {"name": "admin"}}}}},
            token("admin", "anypoint"), {**kind, "kind": "ClientCredential", "metadata": {"name": "orders"}, "spec": {
                "secretName": "orders-client", "clients": [{"clientID": name} for name in self.names], "drain": "0s",
                **({"strategy": "AlternateClients"} if len(self.names) > 1 else {}),
                "issuer": {"anypoint": {"url": url, "kind": "ConnectedApp", "tokenRef": "admin-token"}}}})
        self.house.ok("renew")

    def remember(self):
        with self.server.lock:
            return copy.deepcopy(self.server.clients)

    def restore(self, kept):
        with self.server.lock:
            self.server.clients = kept
        self.had = {name: client.resets for name, client in kept.items()}

    def refused(self):
        """What is served, as the API that it is for sees it."""
        pair = json.loads(self.house.read("orders-client", "credentials.json"))
        return None if self.server.clients[pair["client_id"]].good(pair["client_secret"]) else pair["client_id"]

    def losses(self, resets):
        """How often a reset may be said to be lost."""
        return (max(0, resets - 1),)

    def check(self):
        if self.server.wrong:
            raise Torn(f"asked in a wrong way: {self.server.wrong}")
        if self.refused():
            raise Torn(f"the secret of {self.refused()} that is served is not in force")
        row = self.house.rows()["orders"]
        if row["sha256"] != hashlib.sha256(self.house.read("orders-client", "client-secret")).hexdigest():
            raise Torn(f"another secret is served than the store says: {row}")
        resets = {name: client.resets - self.had[name] for name, client in self.server.clients.items()}
        lost = len([r for r in self.house.json("audit")["records"] if r["step"] == "reset.lost"])
        if sum(resets.values()) > self.most():
            raise Torn(f"resets: {resets}")
        if not self.faulty and lost not in self.losses(sum(resets.values())):
            raise Torn(f"resets: {resets}, and {lost} are said to be lost")


class ClientTurns(Client):
    """With two clients that take turns what is served is never refused: not after a kill, not while the answer is lost."""

    names = ("a", "b")

    def losses(self, resets):
        return range(0, max(1, resets))  # the idle one may never have had a secret that could be refused

    def live(self):
        if self.refused():
            raise Torn(f"callers are refused: the secret of {self.refused()} is not in force")


class Session(Served):
    """An AWS session of IAM Roles Anywhere at a stand-in that looks at each signature, from nothing."""

    command = again = ("renew", "s3")
    new = {"s3": (1, 1), "orders": (0, 0)}
    served = ("ca-root", "orders-tls", "s3-token")

    def prepare(self):
        self.house.canaries.append(b"stand/in+")  # so its secrets and its tokens begin
        self.house.manifest("set", *PKI, certificate("orders", "ca", usages=["digital signature", "client auth"]))
        self.house.ok("renew")
        self.server = self.started(lambda: RolesAnywhere(self.house.read("ca-root", "tls.crt")))

    def change(self):
        self.house.manifest("session", self.server.issuer("orders-tls"), token("s3", "aws", outputs=["awsProcess", "awsCredentials"]))

    def remember(self):
        return len(self.server.given)

    def restore(self, kept):
        self.had = len(self.server.given)

    def check(self):
        given = [one["accessKeyId"] for one in self.server.given[self.had:]]
        if self.house.served()["s3-token"] not in given or len(given) > self.most():
            raise Torn(f"{len(given)} sessions were given, served is {self.house.served()['s3-token']}")
        state = b"".join(path.read_bytes() for path in self.house.state.glob("state.db*"))
        if b"stand/in+" in state:
            raise Torn("a session is in the store in the clear")


class Target(Served):
    """A certificate goes into an Anypoint secret group, and what is there in the end is what is served."""

    command = ("renew", "flex", "--force")
    again = ("renew",)
    new = {"flex": (0, 1), "anypoint": (0, 0)}
    served = ("flex-tls", "anypoint-token")

    def __init__(self, house):
        super().__init__(house)
        self.tmp = Path(f"{house.root}.peers")
        self.tmp.mkdir()
        self.server = self.started(lambda: Anypoint(self.tmp))

    def prepare(self):
        root = Authority("corp")
        self.house.canaries.append(self.server.secret.encode())
        self.house.secret("ca-root", tls__crt=pem(root.cert), tls__key=key_pem(root.key))
        self.house.secret("anypoint-client", client_secret=self.server.secret)
        self.house.manifest("set", ca_issuer(), certificate("flex", "ca"), self.server.token_issuer(), token("anypoint", "anypoint"),
                            consumer("group", targets=[self.server.target("flex-tls", "flex-ingress")]))
        self.house.ok("renew")

    def remember(self):
        with self.server.lock:
            return copy.deepcopy(self.server.keystores)

    def restore(self, kept):
        with self.server.lock:
            self.server.keystores = kept
            self.had = len(self.server.uploads())

    def check(self):
        serials = [store["details"]["certificate"]["serialNumber"] for store in self.server.keystores.values()]
        if [serial.lower().lstrip("0") for serial in serials] != [self.house.served()["flex-tls"]]:
            raise Torn(f"the group has {serials}, served is {self.house.served()['flex-tls']}")
        row = self.house.rows()["flex"]
        if row["proof"] != "uploaded":
            raise Torn(f"not uploaded: {row}")
        if len(self.server.uploads()) - self.had > self.most():
            raise Torn(f"{len(self.server.uploads()) - self.had} uploads of one certificate")

    def close(self):
        super().close()
        shutil.rmtree(self.tmp, ignore_errors=True)


class Watch(Scenario):
    """A command renews what somebody else issues: it is run, and run again only where it may not have come to its end."""

    command = again = ("renew", "flex")
    programs = ("keyturn-keeper", "keyturn")
    failing = ("keyturn-keeper", "keyturn")

    def prepare(self):
        root, folder = Authority("flex"), self.house.root / "foreign"
        folder.mkdir()
        for name, days in (("now.pem", 0.02), ("next.pem", 30)):
            (folder / name).write_bytes(pem(root.issue("flex.example", days=days)[0]))
        run = self.house.script("run", f"cd {folder}\necho start >>runs\ncp next.pem new.pem\nmv new.pem now.pem\necho end >>runs\n")
        self.house.manifest("set", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Watch", "metadata": {"name": "flex"}, "spec": {
            "source": {"file": {"path": str(folder / "now.pem")}}, "renewBefore": "2h", "prove": {"within": "5s"},
            "renew": {"exec": {"argv": [run], **ROOT}}}})

    def check(self):
        runs = (self.house.root / "foreign" / "runs").read_text().split()
        if not runs or runs[0] != "start" or "end" not in runs and len(runs) > 2:
            raise Torn(f"the command was run as {runs}")
        if "start" in runs[runs.index("end"):] if "end" in runs else False:
            raise Torn(f"run again although it had come to its end: {runs}")
        row = self.house.json("status", "flex")
        if row["state"] != "proved":
            raise Torn(f"not proved: {row}")
        steps = [r for r in self.house.json("audit")["records"] if r["step"] == "watch.renewing"]
        if len(steps) < runs.count("start") or any(not r.get("reason") for r in steps[1:]):
            raise Torn(f"run {runs.count('start')} times, for {steps}")


ALL = (FirstIssue, Renewal, Reload, Mint, Projected, Told, Notified, Refused, RolledBack, SecretSet, MasterKey, SlowKey, Redelivery,
       Expired, Upgrade, Migration, Acme, AcmeRecord, Outage, Client, ClientTurns, Session, Target, Watch)
