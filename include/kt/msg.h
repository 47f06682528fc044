/* The messages between rooms: one table from which structs, ids and codec descriptors are made. */
#ifndef KT_MSG_H
#define KT_MSG_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/secret.h"

/*
 * A walk through a wire, before the table.
 *
 * The keeper is the hub. The warden starts a room with one SOCK_SEQPACKET end to itself (descriptor 3) and sends it
 * `setup`; both sides have said `hello` before. For keeper↔courier and keeper↔desk the warden makes a pair and sends
 * each end with `peer`. A message is one frame of at most KT_WIRE_FRAME_MAX bytes: a header (type, flags, id,
 * deadline) and the fields in table order. A request has an id that the reply repeats; a failed request is answered
 * by a struct kt_err in place of the reply's fields. Descriptors travel only with the messages marked "+fd".
 *
 * Fields: F(S, type, name, max): S is handed through (the struct, for offsets); max is the largest number of bytes
 * (view, secret) or items (list); 0 for numbers. u32, u64, i64, flag   numbers; flag is a bool view bytes; borrowed
 * from the frame while the handler runs secret                bytes; the receiver owns the struct kt_secret (it is
 * destroyed after the handler unless taken)
 */

enum kt_room { KT_ROOM_WARDEN = 0, KT_ROOM_KEEPER, KT_ROOM_COURIER, KT_ROOM_DESK, KT_ROOM_COUNT };
enum kt_run_mode { KT_MODE_DAEMON = 0, KT_MODE_ONESHOT, KT_MODE_READONLY };
enum kt_hook_phase { KT_HOOK_VALIDATE = 0, KT_HOOK_NOTIFY, KT_HOOK_PROVE };

#define KT_WIRE_FRAME_MAX (256u * 1024u)
#define KT_NAME_MAX       253u
#define KT_URL_MAX        2048u
#define KT_PATH_MAX       4096u
#define KT_TRACE_MAX      64u /* a W3C traceparent: 55 characters */
#define KT_DOC_MAX        (192u * 1024u)

/* --- everybody ------------------------------------------------------------------------------------------------ */
/* First frame in both directions. A different build id ends the connection. */
#define KT_MSG_HELLO(F, S) F(S, view, build, 64) F(S, u32, room, 0) F(S, u32, pid, 0) F(S, u32, credit, 0)
/* Empty success reply. */
#define KT_MSG_DONE(F, S) F(S, u32, unused, 0)

/* --- warden -> room ------------------------------------------------------------------------------------------- */
/* Settings of the room, before anything else. settings: canonical JSON of kind Agent. secrets_dir, state_dir,
 * socket_path: resolved. +fd for the desk: bound listeners, one per line of `listeners` ("name address\n").
 * +fd for the keeper: the manifest bundle (a sealed memfd), and the read end
 * of the master key command where the settings name one. For the courier: none. */
#define KT_MSG_SETUP(F, S)                                                                                             \
	F(S, u32, mode, 0)                                                                                             \
	F(S, u32, log_level, 0)                                                                                        \
	F(S, flag, log_json, 0) F(S, flag, sandbox, 0) F(S, u32, generation, 0) F(S, u32, uid, 0) F(S, u32, gid, 0)    \
		F(S, view, settings, KT_DOC_MAX) F(S, view, state_dir, KT_PATH_MAX)                                    \
			F(S, view, secrets_dir, KT_PATH_MAX) F(S, view, socket_path, KT_PATH_MAX)                      \
				F(S, view, listeners, 4096)
/* A fresh end of the wire to another room. +fd */
#define KT_MSG_PEER(F, S) F(S, u32, room, 0)
/* A new set of manifests for the keeper. +fd (sealed memfd). Reply: DONE, or the error with every complaint. */
#define KT_MSG_MANIFESTS(F, S) F(S, u32, generation, 0)
/* An accepted control connection for the keeper. +fd */
#define KT_MSG_ADMIN(F, S) F(S, u32, uid, 0) F(S, u32, gid, 0) F(S, u32, pid, 0)
/* Finish what can't be interrupted and exit 0. */
#define KT_MSG_SHUTDOWN(F, S) F(S, u32, unused, 0)

/* --- keeper -> warden ----------------------------------------------------------------------------------------- */
/*
 * Start (or confirm) a room that was left out so far. Reply DONE after its PEER was sent. broken: the wire to it ended and
 * no fresh end came, so it broke the rules or holds still: it is ended and started again.
 */
#define KT_MSG_NEED(F, S) F(S, u32, room, 0) F(S, flag, broken, 0)
/* uid and gid of names; "" gives (uint32)-1. */
#define KT_MSG_OWNER(F, S) F(S, view, user, 256) F(S, view, group, 256)
#define KT_MSG_OWNED(F, S) F(S, u32, uid, 0) F(S, u32, gid, 0)
/*
 * Run hook `index` of phase `phase` of a Consumer as the warden's own copy of manifest generation `generation`
 * has it. env_*: KEYTURN_… values. binds: for validate before the switch: lines "staged-dir\tlive-dir\n" to be
 * bind-mounted in a private mount namespace, or empty. delivered_at: wall ms of the switch (a process that started
 * later needs no signal).
 */
#define KT_MSG_HOOK(F, S)                                                                                              \
	F(S, u32, generation, 0)                                                                                       \
	F(S, view, consumer_ns, KT_NAME_MAX)                                                                           \
	F(S, view, consumer, KT_NAME_MAX) F(S, u32, phase, 0) F(S, u32, index, 0) F(S, view, resource, 600)            \
		F(S, view, secret_dir, KT_PATH_MAX) F(S, view, step, 64) F(S, i64, not_after, 0)                       \
			F(S, view, fingerprint, 128) F(S, view, serial, 128) F(S, view, traceparent, KT_TRACE_MAX)     \
				F(S, view, binds, 32768) F(S, i64, delivered_at, 0)
/* outcome 0 ok, 1 failed (exit status != 0), 2 timed out, 3 could not be run; output: at most 4 KiB, escaped. */
#define KT_MSG_HOOKED(F, S)                                                                                            \
	F(S, u32, outcome, 0)                                                                                          \
	F(S, u32, status, 0)                                                                                           \
	F(S, flag, in_namespace, 0) F(S, flag, skipped, 0) F(S, view, what, 1024) F(S, view, output, 4096)
/*
 * Run the exec solver `solver` (index) of an issuer, as the warden's own copy of manifest generation `generation` has
 * it, to add or remove a TXT record (enum kt_dns01_action). issuer_kind: enum kt_kind. domain: the identifier without
 * "*."; record: "_acme-challenge.…" without the last dot; value: the text; token, key_authorization: of the challenge;
 * domains: all names of the order, with commas; auth_output: for REMOVE, what ADD has printed. Reply HOOKED.
 */
#define KT_MSG_SOLVE(F, S)                                                                                             \
	F(S, u32, generation, 0)                                                                                       \
	F(S, u32, issuer_kind, 0)                                                                                      \
	F(S, view, issuer_ns, KT_NAME_MAX) F(S, view, issuer, KT_NAME_MAX) F(S, u32, solver, 0) F(S, u32, action, 0)   \
		F(S, view, domain, KT_NAME_MAX) F(S, view, record, 512) F(S, view, value, 1024)                        \
			F(S, view, token, 256) F(S, view, key_authorization, 512) F(S, view, resource, 600)            \
				F(S, view, domains, 16384) F(S, view, auth_output, 4096)                       \
					F(S, view, traceparent, KT_TRACE_MAX)
/* One-shot mode: the work is done; the exit status of the command. */
#define KT_MSG_FINISHED(F, S) F(S, u32, status, 0)
/* The keeper is ready (daemon: tell systemd; desk and socket may open). */
#define KT_MSG_READY(F, S) F(S, u32, generation, 0)
/* The newest record of the audit chain, to be written down outside (spec.audit.anchor). hash: 64 hex digits. */
#define KT_MSG_ANCHOR(F, S) F(S, i64, seq, 0) F(S, view, hash, 64)
/*
 * An administrator asked for it: read the manifests again and hand them over with MANIFESTS. exec: replace the warden
 * by its program on disk, listeners kept. Reply: DONE when the keeper has taken them, or the error with the complaints.
 */
#define KT_MSG_RELOAD(F, S) F(S, flag, exec, 0)

/* --- keeper -> courier ---------------------------------------------------------------------------------------- */
/*
 * One ACME order to its end. job: the keeper's id for call-backs. issuer: JSON {account, server, caBundle,
 * skipTLSVerify, email, termsOfServiceAgreed, externalAccountBinding (bool)}. account_url, order_url: "" when not known
 * yet. names: JSON [{"type":"dns"|"ip","value":…}]. options: JSON {profile, preferredChain, replaces (RFC 9773 certificate
 * id), checkPublic (bool: tell whether the chain is public)}, members absent when not asked for. The issuer's JSON may
 * have inFlight: orders at once at this server. not_before/not_after: ms, 0: not asked for. The courier calls back with
 * ACME_SIGN, ACME_INNER, ACME_SAVE, CHALLENGE.
 */
#define KT_MSG_ACME(F, S)                                                                                              \
	F(S, u64, job, 0)                                                                                              \
	F(S, view, issuer, 65536)                                                                                      \
	F(S, view, account_url, KT_URL_MAX) F(S, view, order_url, KT_URL_MAX) F(S, view, names, 65536)                 \
		F(S, view, csr, 32768) F(S, view, options, 4096) F(S, i64, not_before, 0) F(S, i64, not_after, 0)      \
			F(S, view, traceparent, KT_TRACE_MAX)
/* replaces_dropped: the CA refused `replaces` and the order was placed without. public: the chain verifies against the
 * system's roots. */
#define KT_MSG_ACME_DONE(F, S)                                                                                         \
	F(S, view, chain, KT_DOC_MAX)                                                                                  \
	F(S, view, cert_url, KT_URL_MAX) F(S, flag, replaces_dropped, 0) F(S, flag, public, 0)
/*
 * Work on an account: op "register", "show", "update" (contact), "deactivate", "rollover" (calls back with ACME_INNER
 * "rollover"), "directory" (needs no account). email: for update. Reply: body is the account, or the directory, as the
 * server has it (JSON).
 */
#define KT_MSG_ACME_ACCOUNT(F, S)                                                                                      \
	F(S, u64, job, 0)                                                                                              \
	F(S, view, op, 32)                                                                                             \
	F(S, view, issuer, 65536) F(S, view, account_url, KT_URL_MAX) F(S, view, email, 320)                           \
		F(S, view, traceparent, KT_TRACE_MAX)
#define KT_MSG_ACME_ACCOUNT_DONE(F, S) F(S, view, account_url, KT_URL_MAX) F(S, view, body, 65536)
/*
 * Revocation (RFC 8555 section 7.6). reason: RFC 5280 CRLReason. account_url "": the keeper signs with the
 * certificate's own key (by_jwk). Reply DONE; alreadyRevoked counts as done.
 */
#define KT_MSG_ACME_REVOKE(F, S)                                                                                       \
	F(S, u64, job, 0)                                                                                              \
	F(S, view, issuer, 65536)                                                                                      \
	F(S, view, account_url, KT_URL_MAX) F(S, view, certificate, 32768) F(S, u32, reason, 0)                        \
		F(S, view, traceparent, KT_TRACE_MAX)
/*
 * Renewal information (RFC 9773) for a certificate id. start, end: ms, 0 where the server has none of it.
 * explanation: a checked https URL or "". retry_after: seconds until it should be asked again, 0: not said.
 */
#define KT_MSG_ACME_INFO(F, S)                                                                                         \
	F(S, view, issuer, 65536) F(S, view, cert_id, 256) F(S, view, traceparent, KT_TRACE_MAX)
#define KT_MSG_ACME_INFO_DONE(F, S)                                                                                    \
	F(S, i64, start, 0) F(S, i64, end, 0) F(S, view, explanation, KT_URL_MAX) F(S, i64, retry_after, 0)
#define KT_DNS01_UNWRITTEN "unwritten" /* problem of an ADD that failed before anything was asked to change */
enum kt_dns01_action { KT_DNS01_ADD = 0, KT_DNS01_REMOVE, KT_DNS01_CHECK };
/*
 * A TXT record of dns-01. record: "_acme-challenge.name." before any CNAME. value: the text. solver: JSON {provider:
 * "rfc2136"|"acmeDNS"|"cloudflare"|"digitalocean"|"route53"|"none", followCNAME, and the provider's fields as the
 * manifest has them, Secret references resolved into members of secret}. secret: JSON of those members, "" when there
 * are none; wiped after use. dns: JSON of the Agent's dns01 settings {recursiveNameservers, recursiveNameserversOnly,
 * propagationTimeoutMs (0: look once)}. handle: for REMOVE, what ADD gave, or "" where it never answered. CHECK (and ADD with provider none, after a program wrote
 * the record) only look: done when every authoritative server has the value, or, with a value ending in ";", one that
 * says all of it as an issue-value of RFC 8659 (dns-persist-01). Members of secret are named as in the manifest without "SecretRef": rfc2136 tsigSecret;
 * acmeDNS account (the text of the JSON); cloudflare apiKey or apiToken; digitalocean token; route53 secretAccessKey and,
 * unless solver has it, accessKeyID. Others of solver: rfc2136 nameserver, protocol, tsigAlgorithm, tsigKeyName; acmeDNS
 * host; cloudflare email, apiURL; digitalocean apiURL; route53 region, accessKeyID, hostedZoneID, apiURL; caBundle (PEM) for
 * any that speaks HTTP. An ADD that fails may have written the record: REMOVE with the handle "", unless
 * the problem is KT_DNS01_UNWRITTEN: then nobody was asked to. CANCEL works by job.
 */
#define KT_MSG_DNS01(F, S)                                                                                             \
	F(S, u64, job, 0)                                                                                              \
	F(S, u32, action, 0)                                                                                           \
	F(S, view, record, 512) F(S, view, value, 1024) F(S, view, solver, 16384) F(S, secret, secret, 65536)          \
		F(S, view, dns, 4096) F(S, view, handle, 2048) F(S, view, traceparent, KT_TRACE_MAX)
/* effective: where the record really is, after CNAMEs. seen: a line of what authoritative and recursive servers said. */
#define KT_MSG_DNS01_DONE(F, S) F(S, view, effective, 512) F(S, view, handle, 2048) F(S, view, seen, 2048)
/*
 * One token. issuer: JSON of spec.oauth2 plus caBundle; request: JSON {audiences, scopes, grantType: "client_credentials" |
 * "token_exchange" | "jwt_bearer" | "refresh_token", subjectTokenType?, actorTokenType?, requestedTokenType?, actor: bool,
 * dpop: bool, certificate: bool}. Secrets are asked for (CLIENT_SECRET, ASSERTION, DPOP_PROOF, CLIENT_KEY) when the request is
 * about to be sent. certificate: the TLS connection shows the Certificate of the binding or of the client authentication.
 */
#define KT_MSG_MINT(F, S)                                                                                              \
	F(S, u64, job, 0) F(S, view, issuer, 65536) F(S, view, request, 65536) F(S, view, traceparent, KT_TRACE_MAX)
/*
 * expires_in: seconds, -1 when the server did not say. date_skew: server's Date minus our clock, seconds. refresh_token: empty
 * when none came; it was saved with SAVE_REFRESH before this. issued_type: of a token exchange, else "".
 */
#define KT_MSG_MINTED(F, S)                                                                                            \
	F(S, secret, token, 65536)                                                                                     \
	F(S, view, token_type, 64) F(S, i64, expires_in, 0) F(S, view, scope, 8192) F(S, i64, date_skew, 0)            \
		F(S, view, issued_type, 256)
/*
 * At the token's server: op "revoke" (RFC 7009), "introspect" (RFC 7662; the answer's body comes back). The endpoint is the
 * metadata's; KT_E_UNSUPPORTED where there is none. Authenticates as MINT does.
 */
#define KT_MSG_TOKEN_OP(F, S)                                                                                          \
	F(S, u64, job, 0)                                                                                              \
	F(S, view, op, 16) F(S, view, issuer, 65536) F(S, secret, token, 65536) F(S, view, traceparent, KT_TRACE_MAX)
#define KT_MSG_TOKEN_OP_DONE(F, S) F(S, view, body, 65536)
/*
 * TLS handshake with address ("host:port"), SNI server_name. No verification: what is served is read, not trusted.
 * start_tls: "smtp", "imap", "ldap" or "postgres" is spoken first; "": TLS from the first byte.
 */
#define KT_MSG_PROBE_TLS(F, S)                                                                                         \
	F(S, view, address, 512)                                                                                       \
	F(S, view, server_name, KT_NAME_MAX) F(S, u32, timeout_ms, 0) F(S, view, traceparent, KT_TRACE_MAX)            \
		F(S, view, start_tls, 16)
#define KT_MSG_PROBED_TLS(F, S)                                                                                        \
	F(S, view, serial, 128)                                                                                        \
	F(S, view, sha256, 64) F(S, i64, not_after, 0) F(S, view, subject, 1024) F(S, view, protocol, 32)
/*
 * One HTTP exchange for notify, observed and accepted. authorization: sent as `header_name: header_prefix<token>` when
 * not empty. json_path: ".a.b[0]"; the value found comes back instead of the body. loopback http is allowed as the
 * manifest names it.
 */
#define KT_MSG_HTTP(F, S)                                                                                              \
	F(S, view, method, 16)                                                                                         \
	F(S, view, url, KT_URL_MAX)                                                                                    \
	F(S, view, content_type, 128) F(S, view, body, 65536) F(S, view, ca_bundle, 65536)                             \
		F(S, view, header_name, 128) F(S, view, header_prefix, 64) F(S, secret, token, 65536)                  \
			F(S, view, json_path, 512) F(S, u32, timeout_ms, 0) F(S, view, traceparent, KT_TRACE_MAX)
#define KT_MSG_HTTP_DONE(F, S) F(S, u32, status, 0) F(S, view, value, 65536)
/* Calls an ACME or MINT job off; its reply still comes (KT_E_CANCELLED). */
#define KT_MSG_CANCEL(F, S) F(S, u64, job, 0)

/* --- courier -> keeper ---------------------------------------------------------------------------------------- */
/*
 * Sign a JWS for the account of the job. The keeper builds the protected header itself: url must have the origin of the
 * issuer's directory. by_jwk: with the public key (newAccount) instead of the account URL. payload "" is POST-as-GET.
 */
#define KT_MSG_ACME_SIGN(F, S)                                                                                         \
	F(S, u64, job, 0)                                                                                              \
	F(S, view, url, KT_URL_MAX) F(S, view, nonce, 512) F(S, flag, by_jwk, 0) F(S, view, payload, 65536)
#define KT_MSG_ACME_SIGNED(F, S) F(S, view, jws, 131072)
/* Keep a fact before going on: what is "account" or "order", value its URL. Reply DONE: it is committed. */
#define KT_MSG_ACME_SAVE(F, S) F(S, u64, job, 0) F(S, view, what, 32) F(S, view, value, KT_URL_MAX)
/*
 * A JWS inside another: what "eab" (RFC 8555 section 7.3.4: over the account's key, by the key that the CA gave; url is
 * newAccount) or "rollover" (section 7.3.5: by the new key, over account URL and old key; url is keyChange). Reply
 * ACME_SIGNED.
 */
#define KT_MSG_ACME_INNER(F, S) F(S, u64, job, 0) F(S, view, what, 16) F(S, view, url, KT_URL_MAX)
/*
 * Answer (present) a challenge or take the answer back. name: the identifier, without "*."; offered: JSON
 * [{"type","token"?,"issuer-domain-names"?}] as the CA offers them; the keeper chooses by the issuer's solvers and
 * replies CHALLENGED when the answer can be seen. present false: offered has the one that was chosen; reply as well.
 */
#define KT_MSG_CHALLENGE(F, S)                                                                                         \
	F(S, u64, job, 0)                                                                                              \
	F(S, flag, present, 0) F(S, flag, wildcard, 0) F(S, view, name, KT_NAME_MAX) F(S, view, offered, 16384)
#define KT_MSG_CHALLENGED(F, S) F(S, view, type, 32)
/*
 * A secret for the request that is about to go out (wiped after it): what "client_secret", "subject_token", "actor_token",
 * "assertion" (jwt_bearer's) or "refresh_token".
 */
#define KT_MSG_CLIENT_SECRET(F, S)       F(S, u64, job, 0) F(S, view, what, 32)
#define KT_MSG_CLIENT_SECRET_GIVEN(F, S) F(S, secret, secret, 65536)
/*
 * The client's assertion, fresh for each try (RFC 7523 section 3, jti single-use): endpoint is the token endpoint in use,
 * issuer the metadata's issuer ("" when unknown), skew the seconds that the server's clock is ahead of ours. type: value of
 * client_assertion_type.
 */
#define KT_MSG_ASSERTION(F, S)                                                                                         \
	F(S, u64, job, 0) F(S, view, endpoint, KT_URL_MAX) F(S, view, issuer, KT_URL_MAX) F(S, i64, skew, 0)
#define KT_MSG_ASSERTION_GIVEN(F, S) F(S, secret, assertion, 65536) F(S, view, type, 128)
/* A DPoP proof (RFC 9449 section 4.2) by the job's key. nonce "": none. */
#define KT_MSG_DPOP_PROOF(F, S)                                                                                        \
	F(S, u64, job, 0) F(S, view, method, 16) F(S, view, url, KT_URL_MAX) F(S, view, nonce, 512) F(S, i64, skew, 0)
#define KT_MSG_DPOP_PROOF_GIVEN(F, S) F(S, view, proof, 16384)
/* Certificate (PEM, leaf first) and key (PKCS#8 DER, wiped after the handshake) that the TLS connection shows. */
#define KT_MSG_CLIENT_KEY(F, S)       F(S, u64, job, 0)
#define KT_MSG_CLIENT_KEY_GIVEN(F, S) F(S, view, chain, 65536) F(S, secret, key, 16384)
/* Keep a refresh token that came with an answer, committed before that is used. Reply DONE. */
#define KT_MSG_SAVE_REFRESH(F, S) F(S, u64, job, 0) F(S, secret, token, 65536)

/* --- keeper -> desk ------------------------------------------------------------------------------------------- */
/* Serve body at path on the listeners called `listener` ("acme", "jwks"), until SERVE with an empty content_type. */
#define KT_MSG_SERVE(F, S)                                                                                             \
	F(S, view, listener, 32)                                                                                       \
	F(S, view, path, 512) F(S, view, content_type, 128) F(S, view, body, 65536) F(S, u32, max_age, 0)

/*
 * Answer tls-alpn-01 (RFC 8737) for the server name: with this certificate and key (PKCS#8 DER, thrown away after the
 * validation) on the listeners called "tlsAlpn01"; present false: no longer. Reply DONE.
 */
#define KT_MSG_SERVE_ALPN(F, S)                                                                                        \
	F(S, flag, present, 0)                                                                                         \
	F(S, view, name, KT_NAME_MAX) F(S, view, certificate, 8192) F(S, secret, key, 1024)

/* --- desk -> keeper ------------------------------------------------------------------------------------------- */
/* The content behind /metrics, /livez, /readyz, /status.json; status is the HTTP status to answer with. */
#define KT_MSG_PAGE(F, S)       F(S, view, path, 128)
#define KT_MSG_PAGE_GIVEN(F, S) F(S, u32, status, 0) F(S, view, content_type, 128) F(S, view, body, KT_DOC_MAX)

/* A POST with a token, to a path of the listener "control". Reply: PAGE_GIVEN with the status to answer with. */
#define KT_MSG_COMMAND(F, S) F(S, view, path, 128) F(S, secret, token, 4096)

/*
 * What a process asks at the listener "tokens": op "get" or "invalidate" of the token in a secret volume. uid, gid, pid: of
 * the peer as it connected; groups: its supplementary ones, 32-bit numbers. json: token.json, else the token alone. sha256: for
 * invalidate, the token that was refused, hex, or "": the newest.
 */
#define KT_MSG_TOKEN_ASK(F, S)                                                                                         \
	F(S, view, op, 16)                                                                                             \
	F(S, u32, uid, 0) F(S, u32, gid, 0) F(S, u32, pid, 0) F(S, view, groups, 4096) F(S, view, ns, KT_NAME_MAX)     \
		F(S, view, name, KT_NAME_MAX) F(S, flag, json, 0) F(S, view, sha256, 64)
/*
 * The keeper's decision: status is HTTP's. token: the body where it is a token (get, 200), else body. sha256: of the token in
 * force, "" when none. retry_after: seconds, 0: not said.
 */
#define KT_MSG_TOKEN_GIVEN(F, S)                                                                                       \
	F(S, u32, status, 0)                                                                                           \
	F(S, view, content_type, 128)                                                                                  \
	F(S, view, body, 4096) F(S, secret, token, 196608) F(S, view, sha256, 64) F(S, u32, retry_after, 0)

/* M(ID, name): the order is the number on the wire. */
#define KT_MESSAGES(M)                                                                                                 \
	M(HELLO, hello)                                                                                                \
	M(DONE, done)                                                                                                  \
	M(SETUP, setup)                                                                                                \
	M(PEER, peer)                                                                                                  \
	M(MANIFESTS, manifests)                                                                                        \
	M(ADMIN, admin)                                                                                                \
	M(SHUTDOWN, shutdown)                                                                                          \
	M(NEED, need)                                                                                                  \
	M(OWNER, owner)                                                                                                \
	M(OWNED, owned)                                                                                                \
	M(HOOK, hook)                                                                                                  \
	M(HOOKED, hooked)                                                                                              \
	M(FINISHED, finished)                                                                                          \
	M(READY, ready)                                                                                                \
	M(ANCHOR, anchor)												\
	M(ACME, acme)                                                                                                  \
	M(ACME_DONE, acme_done)                                                                                        \
	M(MINT, mint)                                                                                                  \
	M(MINTED, minted)                                                                                              \
	M(PROBE_TLS, probe_tls)                                                                                        \
	M(PROBED_TLS, probed_tls)                                                                                      \
	M(HTTP, http)                                                                                                  \
	M(HTTP_DONE, http_done)                                                                                        \
	M(CANCEL, cancel)                                                                                              \
	M(ACME_SIGN, acme_sign)                                                                                        \
	M(ACME_SIGNED, acme_signed)                                                                                    \
	M(ACME_SAVE, acme_save)                                                                                        \
	M(CHALLENGE, challenge)                                                                                        \
	M(CLIENT_SECRET, client_secret)                                                                                \
	M(CLIENT_SECRET_GIVEN, client_secret_given)                                                                    \
	M(ASSERTION, assertion)                                                                                        \
	M(ASSERTION_GIVEN, assertion_given)                                                                            \
	M(DPOP_PROOF, dpop_proof)                                                                                      \
	M(DPOP_PROOF_GIVEN, dpop_proof_given)                                                                          \
	M(CLIENT_KEY, client_key)                                                                                      \
	M(CLIENT_KEY_GIVEN, client_key_given)                                                                          \
	M(SAVE_REFRESH, save_refresh)                                                                                  \
	M(TOKEN_OP, token_op)                                                                                          \
	M(TOKEN_OP_DONE, token_op_done)                                                                                \
	M(SERVE, serve)                                                                                                \
	M(PAGE, page)                                                                                                  \
	M(PAGE_GIVEN, page_given)                                                                                      \
	M(RELOAD, reload)                                                                                              \
	M(COMMAND, command)                                                                                            \
	M(ACME_ACCOUNT, acme_account)                                                                                  \
	M(ACME_ACCOUNT_DONE, acme_account_done)                                                                        \
	M(ACME_REVOKE, acme_revoke)                                                                                    \
	M(ACME_INFO, acme_info)                                                                                        \
	M(ACME_INFO_DONE, acme_info_done)                                                                              \
	M(ACME_INNER, acme_inner)                                                                                      \
	M(CHALLENGED, challenged)                                                                                      \
	M(DNS01, dns01)                                                                                                \
	M(DNS01_DONE, dns01_done)                                                                                      \
	M(SERVE_ALPN, serve_alpn)                                                                                      \
	M(SOLVE, solve)                                                                                                \
	M(TOKEN_ASK, token_ask)                                                                                        \
	M(TOKEN_GIVEN, token_given)

#define KT_FIELD_u32(name)                     uint32_t name;
#define KT_FIELD_u64(name)                     uint64_t name;
#define KT_FIELD_i64(name)                     int64_t name;
#define KT_FIELD_flag(name)                    bool name;
#define KT_FIELD_view(name)                    struct kt_view name;
#define KT_FIELD_secret(name)                  struct kt_secret *name;
#define KT_FIELD_IN_STRUCT(S, type, name, max) KT_FIELD_##type(name)

enum kt_msg_type {
	KT_MSG_TYPE_NONE = 0,
#define KT_MSG_ENUM(ID, name) KT_##ID,
	KT_MESSAGES(KT_MSG_ENUM)
#undef KT_MSG_ENUM
		KT_MSG_TYPE_COUNT
};

/* struct kt_msg_hello, struct kt_msg_done, … */
#define KT_MSG_STRUCT(ID, name)                                                                                        \
	struct kt_msg_##name {                                                                                         \
		KT_MSG_##ID(KT_FIELD_IN_STRUCT, )                                                                      \
	};
KT_MESSAGES(KT_MSG_STRUCT)
#undef KT_MSG_STRUCT

#endif
