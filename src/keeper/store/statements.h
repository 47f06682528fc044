/* Every SQL statement of the store, in one table: prepared at first use, kept until kt_store_trim. */
#ifndef KEEPER_STORE_STATEMENTS_H
#define KEEPER_STORE_STATEMENTS_H

#define RES_COLS "r.id, r.kind, r.ns, r.name, r.generation, r.gone, r.request_key, r.file, r.line, r.spec"
#define CRED_COLS                                                                                                   \
	"c.id, c.kind, c.secret_name, c.step, c.step_at, c.due_at, c.expiry, c.active, c.candidate, c.revision, "    \
	"c.attempts, c.deaths, c.next_try, c.error, c.error_text, c.error_at, c.trace_id, c.flags, c.orphan, "       \
	"c.proof, c.delivered_at, c.proved_at, c.cookie, c.deliver_failures, c.deliver_at, c.deliver_error, "         \
	"c.deliver_text"
#define MAT_COLS                                                                                                    \
	"id, credential, revision, state, not_before, not_after, created, issued, sealed_key, sealed_token, "        \
	"request_key, serial, sha256, csr, chain, ca, order_url, finalize_url, cert_url, cookie, dir"
#define TASK_COLS                                                                                                   \
	"id, material, credential, consumer, consumer_name, state, step, attempts, next_try, created, updated, "     \
	"error, error_text, seen, expected, trace_id, cookie"
#define ACC_COLS "issuer, server_url, account_url, sealed_key, status, cookie, created"
#define IKEY_COLS "issuer, kid, alg, sealed_key, public_jwk, created, publish_from, sign_from, retire_at"

#define INFO_COLS "credential, material, window_start, window_end, check_at, asked_at, explanation"
#define HEALTH_COLS "issuer, failures, failed_at, ok_at, retry_at, error, error_text"
#define CHAL_COLS                                                                                                   \
	"id, credential, issuer, type, solver, name, record, value, token, config, handle, created"

/* X(slot, text). Parameters are bound in the order in which they stand. */
#define KT_STATEMENTS(X)                                                                                            \
	X(BEGIN, "BEGIN IMMEDIATE")                                                                                  \
	X(COMMIT, "COMMIT")                                                                                          \
	X(ROLLBACK, "ROLLBACK")                                                                                      \
	X(META_GET, "SELECT value FROM meta WHERE name=?")                                                           \
	X(META_SET, "INSERT OR REPLACE INTO meta(name, value) VALUES(?,?)")                                          \
	X(RES_GET, "SELECT " RES_COLS " FROM resource r WHERE r.id=?")                                               \
	X(RES_FIND, "SELECT " RES_COLS " FROM resource r WHERE r.ns=? AND r.name=? AND r.kind=?")                    \
	X(RES_EACH, "SELECT " RES_COLS " FROM resource r WHERE r.gone=0 AND r.id>? ORDER BY r.id LIMIT ?")           \
	X(RES_EACH_KIND,                                                                                             \
	  "SELECT " RES_COLS " FROM resource r INDEXED BY resource_kind"                                             \
	  " WHERE r.gone=0 AND r.kind=? AND r.id>? ORDER BY r.id LIMIT ?")                                           \
	X(RES_MAX, "SELECT max(id) FROM resource")                                                                   \
	X(RES_INSERT,                                                                                                \
	  "INSERT INTO resource(kind, ns, name, generation, gone, request_key, file, line, spec)"                    \
	  " VALUES(?,?,?,?,0,?,?,?,?)")                                                                              \
	X(RES_MOVED, "UPDATE resource SET file=?, line=? WHERE id=?")                                                \
	X(RES_CHANGE,                                                                                                \
	  "UPDATE resource SET generation=?, gone=0, request_key=?, file=?, line=?, spec=? WHERE id=?")              \
	X(RES_GONE, "UPDATE resource SET gone=1 WHERE id=?")                                                         \
	X(RES_DELETE, "DELETE FROM resource WHERE id=?")                                                             \
	X(RES_DELETE_GONE, "DELETE FROM resource WHERE id=? AND gone=1")                                             \
	X(LINK_CLEAR, "DELETE FROM link WHERE owner=?")                                                              \
	X(LINK_ADD, "INSERT OR IGNORE INTO link(owner, rel, ns, name) VALUES(?,?,?,?)")                              \
	X(LINKED, "SELECT owner FROM link WHERE rel=? AND ns=? AND name=? AND owner>? ORDER BY owner LIMIT ?")       \
	X(CRED_GET, "SELECT " CRED_COLS " FROM credential c WHERE c.id=?")                                           \
	X(CRED_FIND_SECRET,                                                                                          \
	  "SELECT " CRED_COLS " FROM credential c INDEXED BY credential_secret CROSS JOIN resource r ON r.id=c.id"     \
	  " WHERE c.secret_name=? AND r.ns=? ORDER BY c.orphan, c.id LIMIT 1")                                       \
	X(CRED_INSERT,                                                                                               \
	  "INSERT INTO credential(kind, secret_name, due_at, expiry, orphan, step, step_at, active, candidate,"      \
	  " revision, attempts, deaths, next_try, error, error_text, error_at, trace_id, flags, proof, delivered_at," \
	  " proved_at, cookie, deliver_failures, deliver_at, deliver_error, deliver_text, id)"                       \
	  " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")                                         \
	X(CRED_FULL,                                                                                                 \
	  "UPDATE credential SET kind=?, secret_name=?, due_at=?, expiry=?, orphan=?, step=?, step_at=?, active=?,"  \
	  " candidate=?, revision=?, attempts=?, deaths=?, next_try=?, error=?, error_text=?, error_at=?,"           \
	  " trace_id=?, flags=?, proof=?, delivered_at=?, proved_at=?, cookie=?, deliver_failures=?, deliver_at=?,"   \
	  " deliver_error=?, deliver_text=? WHERE id=?")                                                             \
	X(CRED_STEP,                                                                                                 \
	  "UPDATE credential SET step=?, step_at=?, active=?, candidate=?, revision=?, attempts=?, deaths=?,"        \
	  " next_try=?, error=?, error_text=?, error_at=?, trace_id=?, flags=?, proof=?, delivered_at=?,"            \
	  " proved_at=?, cookie=?, deliver_failures=?, deliver_at=?, deliver_error=?, deliver_text=? WHERE id=?")    \
	X(CRED_DELETE, "DELETE FROM credential WHERE id=?")                                                          \
	X(CRED_WAKE, "UPDATE credential SET due_at=?, flags=flags|? WHERE id=?")                                     \
	X(CRED_DUE,                                                                                                  \
	  "SELECT id FROM credential INDEXED BY credential_due WHERE due_at<=?"                                      \
	  " ORDER BY coalesce(expiry, due_at+600000), id LIMIT ?")                                                   \
	X(CRED_DUE_BUT,                                                                                              \
	  "SELECT c.id FROM credential c INDEXED BY credential_due WHERE c.due_at<=? AND NOT (EXISTS(SELECT 1 FROM"  \
	  " link l INDEXED BY link_owner WHERE l.owner=c.id AND l.rel='issuer' AND l.ns||char(10)||l.name IN"        \
	  " (?,?,?,?,?,?,?,?)) AND c.flags&768=0 AND c.step NOT IN (7,8,9))"                                         \
	  " ORDER BY coalesce(c.expiry, c.due_at+600000), c.id LIMIT ?")                                             \
	X(CRED_DUE_OF,                                                                                               \
	  "SELECT c.id FROM credential c INDEXED BY credential_due WHERE c.due_at<=? AND EXISTS(SELECT 1 FROM link l" \
	  " WHERE l.rel='issuer' AND l.ns=? AND l.name=? AND l.owner=c.id)"                                          \
	  " ORDER BY coalesce(c.expiry, c.due_at+600000), c.id LIMIT ?")                                             \
	X(CRED_NEXT_DUE,                                                                                             \
	  "SELECT due_at FROM credential INDEXED BY credential_due WHERE due_at>? ORDER BY due_at LIMIT 1")          \
	X(CRED_EXPIRING,                                                                                             \
	  "SELECT count(*) FROM credential INDEXED BY credential_expiry WHERE expiry<=? AND expiry IS NOT NULL"      \
	  " AND orphan=0")                                                                                           \
	X(CRED_COUNT,                                                                                                \
	  "SELECT kind, step, orphan, (attempts>0 OR deliver_failures>0 OR (flags&8)<>0), active=0, count(*) FROM credential"              \
	  " GROUP BY 1,2,3,4,5")                                                                                     \
	X(CRED_PAGE,                                                                                                 \
	  "SELECT " RES_COLS ", " CRED_COLS " FROM resource r INDEXED BY resource_name CROSS JOIN credential c"      \
	  " ON c.id=r.id WHERE (r.ns, r.name, r.kind)>(?,?,?) ORDER BY r.ns, r.name, r.kind LIMIT ?")                \
	X(CRED_PAGE_NS,                                                                                              \
	  "SELECT " RES_COLS ", " CRED_COLS " FROM resource r INDEXED BY resource_name CROSS JOIN credential c"      \
	  " ON c.id=r.id WHERE r.ns=? AND (r.name, r.kind)>(?,?) ORDER BY r.name, r.kind LIMIT ?")                   \
	X(MAT_INSERT,                                                                                                \
	  "INSERT INTO material(credential, revision, state, not_before, not_after, created, issued, sealed_key,"    \
	  " sealed_token, request_key, serial, sha256, csr, chain, ca, order_url, finalize_url, cert_url, cookie,"   \
	  " dir) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")                                                   \
	X(MAT_PUT,                                                                                                   \
	  "UPDATE material SET state=?, not_before=?, not_after=?, created=?, issued=?, sealed_key=?,"               \
	  " sealed_token=?, request_key=?, serial=?, sha256=?, csr=?, chain=?, ca=?, order_url=?, finalize_url=?,"   \
	  " cert_url=?, cookie=?, dir=? WHERE id=?")                                                                 \
	X(MAT_MARK, "UPDATE material SET state=CASE state WHEN 5 THEN 5 ELSE ? END, dir=coalesce(?, dir) WHERE id=?")                                  \
	X(MAT_URLS,                                                                                                  \
	  "UPDATE material SET order_url=coalesce(?, order_url), finalize_url=coalesce(?, finalize_url),"            \
	  " cert_url=coalesce(?, cert_url), cookie=coalesce(?, cookie) WHERE id=?")                                  \
	X(MAT_GET, "SELECT " MAT_COLS " FROM material WHERE id=?")                                                   \
	X(MAT_EACH, "SELECT " MAT_COLS " FROM material WHERE credential=? ORDER BY revision DESC LIMIT ?")           \
	X(MAT_OLD,                                                                                                   \
	  "SELECT m.id FROM material m JOIN credential c ON c.id=m.credential WHERE m.credential=?"                  \
	  " AND m.state>=3 AND m.id<>c.active AND m.id<>c.candidate ORDER BY m.revision DESC LIMIT -1 OFFSET ?")     \
	X(MAT_DELETE, "DELETE FROM material WHERE id=?")                                                             \
	X(MAT_DELETE_OF, "DELETE FROM material WHERE credential=?")                                                  \
	X(TASK_INSERT,                                                                                               \
	  "INSERT INTO task(material, credential, consumer, consumer_name, state, step, attempts, next_try, created," \
	  " updated, error, error_text, seen, expected, trace_id, cookie) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")  \
	X(TASK_PUT,                                                                                                  \
	  "UPDATE task SET consumer_name=?, state=?, step=?, attempts=?, next_try=?, created=?, updated=?, error=?," \
	  " error_text=?, seen=?, expected=?, trace_id=?, cookie=? WHERE id=?")                                      \
	X(TASK_GET, "SELECT " TASK_COLS " FROM task WHERE id=?")                                                     \
	X(TASK_EACH, "SELECT " TASK_COLS " FROM task WHERE material=? ORDER BY id LIMIT ?")                          \
	X(TASK_DUE,                                                                                                  \
	  "SELECT id FROM task INDEXED BY task_due WHERE next_try<=? ORDER BY next_try, id LIMIT ?")                 \
	X(TASK_NEXT_DUE,                                                                                             \
	  "SELECT next_try FROM task INDEXED BY task_due WHERE next_try>? ORDER BY next_try LIMIT 1")                \
	X(TASK_SUPERSEDE,                                                                                            \
	  "UPDATE task INDEXED BY task_open SET state=4, next_try=NULL, updated=? WHERE credential=? AND state<2"    \
	  " AND material<>?")                                                                                        \
	X(TASK_RENEW,                                                                                                \
	  "UPDATE task INDEXED BY task_open SET next_try=?1, updated=?1, attempts=0, cookie=?4 WHERE credential=?2" \
	  " AND state<2 AND cookie=?3")                                                                              \
	X(TASK_WAKE,                                                                                                 \
	  "UPDATE task INDEXED BY task_open SET next_try=?1 WHERE credential=?2 AND state<2 AND cookie=?3 AND next_try>?1") \
	X(TASK_WAKE_CONSUMER,                                                                                        \
	  "UPDATE task INDEXED BY task_consumer SET next_try=?1 WHERE consumer=?2 AND state<2 AND next_try>?1")      \
	X(TASK_DELETE_OF_MAT, "DELETE FROM task WHERE material=?")                                                   \
	X(TASK_DELETE_OF_CRED, "DELETE FROM task WHERE material IN (SELECT id FROM material WHERE credential=?)")    \
	X(ACC_GET, "SELECT " ACC_COLS " FROM account WHERE issuer=? AND server_url=?")                               \
	X(ACC_PUT, "INSERT OR REPLACE INTO account(" ACC_COLS ") VALUES(?,?,?,?,?,?,?)")                             \
	X(ACC_DELETE, "DELETE FROM account WHERE issuer=? AND server_url=?")                                         \
	X(ACC_EACH, "SELECT " ACC_COLS " FROM account ORDER BY issuer, server_url")                                  \
	X(SEC_GET, "SELECT ns, name, key, sealed, source, updated FROM secret WHERE ns=? AND name=? AND key=?")      \
	X(SEC_PUT, "INSERT OR REPLACE INTO secret(ns, name, key, sealed, source, updated) VALUES(?,?,?,?,?,?)")      \
	X(SEC_DELETE, "DELETE FROM secret WHERE ns=? AND name=? AND key=?")                                          \
	X(SEC_DELETE_ALL, "DELETE FROM secret WHERE ns=? AND name=?")                                                \
	X(SEC_EACH,                                                                                                  \
	  "SELECT ns, name, key, NULL, source, updated FROM secret WHERE (?1 IS NULL OR ns=?1)"                      \
	  " AND (?2 IS NULL OR name=?2) ORDER BY ns, name, key")                                                     \
	X(SEC_STALE, "DELETE FROM secret WHERE source=1 AND updated<?")                                              \
	X(LEDGER_SPEND, "INSERT INTO ledger(issuer, what, subject, at, outcome, full_at) VALUES(?,?,?,?,?,?)")       \
	X(LEDGER_NEWEST,                                                                                             \
	  "SELECT at, full_at FROM ledger INDEXED BY ledger_bucket WHERE issuer=? AND what=? AND subject=?"          \
	  " ORDER BY id DESC LIMIT 1")                                                                               \
	X(LEDGER_TIGHT,                                                                                              \
	  "SELECT subject, at, full_at FROM ledger WHERE id IN (SELECT max(id) FROM ledger INDEXED BY ledger_bucket" \
	  " WHERE issuer=? AND what=? GROUP BY subject) AND full_at>? ORDER BY full_at DESC, subject LIMIT ?")       \
	X(INFO_PUT, "INSERT OR REPLACE INTO renewal_info(" INFO_COLS ") VALUES(?,?,?,?,?,?,?)")                      \
	X(INFO_GET, "SELECT " INFO_COLS " FROM renewal_info WHERE credential=?")                                     \
	X(INFO_DUE,                                                                                                  \
	  "SELECT credential FROM renewal_info INDEXED BY renewal_info_check WHERE check_at<=?"                      \
	  " ORDER BY check_at, credential LIMIT ?")                                                                  \
	X(INFO_NEXT_DUE,                                                                                             \
	  "SELECT check_at FROM renewal_info INDEXED BY renewal_info_check WHERE check_at>? ORDER BY check_at"       \
	  " LIMIT 1")                                                                                                \
	X(INFO_DELETE, "DELETE FROM renewal_info WHERE credential=?")                                                \
	X(HEALTH_PUT, "INSERT OR REPLACE INTO issuer_health(" HEALTH_COLS ") VALUES(?,?,?,?,?,?,?)")                 \
	X(HEALTH_GET, "SELECT " HEALTH_COLS " FROM issuer_health WHERE issuer=?")                                    \
	X(CHAL_INSERT,                                                                                               \
	  "INSERT INTO challenge(credential, issuer, type, solver, name, record, value, token, config, handle,"      \
	  " created) VALUES(?,?,?,?,?,?,?,?,?,?,?)")                                                                 \
	X(CHAL_HANDLE, "UPDATE challenge SET record=coalesce(?, record), handle=coalesce(?, handle) WHERE id=?")     \
	X(CHAL_DELETE, "DELETE FROM challenge WHERE id=?")                                                           \
	X(CHAL_EACH, "SELECT " CHAL_COLS " FROM challenge WHERE (?1=0 OR credential=?1) ORDER BY id LIMIT ?2")       \
	X(LEDGER_PRUNE, "DELETE FROM ledger WHERE max(at, full_at)<?")                                                        \
	X(IKEY_PUT, "INSERT OR REPLACE INTO issuer_key(" IKEY_COLS ") VALUES(?,?,?,?,?,?,?,?,?)")                    \
	X(IKEY_EACH, "SELECT " IKEY_COLS " FROM issuer_key WHERE issuer=? ORDER BY sign_from, kid")                  \
	X(IKEY_DELETE, "DELETE FROM issuer_key WHERE issuer=? AND kid=?")                                            \
	X(SEAL_MAT,                                                                                                  \
	  "SELECT m.id, r.kind, r.ns, r.name, m.revision, m.sealed_key, m.sealed_token FROM material m"              \
	  " LEFT JOIN resource r ON r.id=m.credential ORDER BY m.id")                                                \
	X(SEAL_MAT_PUT, "UPDATE material SET sealed_key=?, sealed_token=? WHERE id=?")                               \
	X(SEAL_ACC, "SELECT rowid, issuer, server_url, sealed_key FROM account ORDER BY rowid")                                  \
	X(SEAL_ACC_PUT, "UPDATE account SET sealed_key=? WHERE rowid=?")                                             \
	X(SEAL_SEC, "SELECT rowid, ns, name, key, sealed FROM secret ORDER BY rowid")                                \
	X(SEAL_SEC_PUT, "UPDATE secret SET sealed=? WHERE rowid=?")                                                  \
	X(SEAL_IKEY, "SELECT rowid, issuer, kid, sealed_key FROM issuer_key ORDER BY rowid")                         \
	X(SEAL_IKEY_PUT, "UPDATE issuer_key SET sealed_key=? WHERE rowid=?")                                         \
	X(AUDIT_ADD, "INSERT INTO audit(seq, at, trace, hash, body) VALUES(?,?,?,?,?)")                              \
	X(AUDIT_HASH, "SELECT hash FROM audit WHERE seq=?")                                                          \
	X(AUDIT_LAST, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")                                       \
	X(AUDIT_EACH,                                                                                                \
	  "SELECT a.seq, a.at, a.hash, a.body, p.hash FROM audit a LEFT JOIN audit p ON p.seq=a.seq-1"               \
	  " WHERE a.seq>? AND a.at>=? ORDER BY a.seq LIMIT ?")                                                       \
	X(AUDIT_EACH_BACK,                                                                                           \
	  "SELECT a.seq, a.at, a.hash, a.body, p.hash FROM audit a LEFT JOIN audit p ON p.seq=a.seq-1"               \
	  " WHERE a.seq<? AND a.at>=? ORDER BY a.seq DESC LIMIT ?")                                                  \
	X(AUDIT_TRACE,                                                                                               \
	  "SELECT a.seq, a.at, a.hash, a.body, p.hash FROM audit a LEFT JOIN audit p ON p.seq=a.seq-1"               \
	  " WHERE a.trace=? AND a.seq>? AND a.at>=? ORDER BY a.seq")                                                 \
	X(AUDIT_TRACE_BACK,                                                                                          \
	  "SELECT a.seq, a.at, a.hash, a.body, p.hash FROM audit a LEFT JOIN audit p ON p.seq=a.seq-1"               \
	  " WHERE a.trace=? AND a.seq<? AND a.at>=? ORDER BY a.seq DESC")                                            \
	X(AUDIT_WALK, "SELECT seq, at, trace, hash, body FROM audit WHERE seq>? ORDER BY seq LIMIT 1000")            \
	X(AUDIT_OLD, "SELECT seq, at, hash FROM audit WHERE seq<=? ORDER BY seq LIMIT ?")                            \
	X(AUDIT_DELETE, "DELETE FROM audit WHERE seq<=?")

enum kt_stmt {
#define X(slot, text) KT_STMT_##slot,
	KT_STATEMENTS(X)
#undef X
	KT_STMT_COUNT
};

#endif
