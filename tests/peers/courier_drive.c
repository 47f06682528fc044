/* Plays warden and keeper to the courier, with keys in memory, so that its network side can be tried alone. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "courier/courier.h"
#include "courier_drive.h"
#include "kt/io.h"
#include "kt/jose.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/pki.h"

/*
 * courier_drive [options] acme SERVER NAME[,NAME…]      orders; the account key is made anew unless --key FILE has one
 * courier_drive [options] mint ISSUER-JSON REQUEST-JSON [SECRET]
 * courier_drive [options] revoke|introspect ISSUER-JSON TOKEN [SECRET]
 * courier_drive [options] tls ADDRESS SERVER-NAME
 * courier_drive [options] http METHOD URL [JSON-PATH] [TOKEN]
 * courier_drive [options] dns add|remove|check RECORD VALUE SOLVER-JSON SECRET-JSON SETTINGS-JSON [HANDLE]
 * courier_drive [options] idle MS                       does nothing for a while, to be looked at from outside
 *
 *   --ca FILE       PEM bundle to trust (acme, http)      --count N      that many jobs at once (acme: each with its
 * own name)
 *   --room PATH     start this keyturn-courier instead of running the courier in this process
 *   --order URL     resume this order                     --account URL  the account is known
 *   --webroot DIR   write http-01 answers here            --key FILE     account key (made when missing)
 *   --give WHAT=TEXT         a secret by its name, as CLIENT_SECRET asks for it (mint)
 *   --assertion-key FILE     signs client assertions (--alg NAME); without it the client secret does
 *   --dpop-key FILE          signs DPoP proofs             --clock S     our clock as far as those go, off by S seconds
 *   --show FILE --show-key FILE   the client certificate   --print token[,refresh]   shows them
 *   --turn FILE,KEY-FILE     another client certificate for each mint, in turn; an empty one: none
 *   --save no       refuses to keep a refresh token
 *   --repeat N      rounds, one after the other           --cancel MS    call every job off after that time
 *
 * Every event is a line on standard output; the last word on each job is "done …" or "error CODE …". Status 0: all
 * done.
 */
struct drive {
	struct kt_loop *loop;
	struct kt_courier *courier; /* in this process */
	pid_t room;
	struct kt_wire *warden, *keeper;
	struct kt_key *account, *leaf;
	struct kt_buf ca;
	char account_url[KT_URL_MAX + 1];
	const char *order_url, *webroot, *key_file;
	unsigned count, repeat, open, failed;
	int cancel_after;
	char **args;
	int arg_count;
};

static struct drive drive;

static void die(const struct kt_err *err, const char *what)
{
	(void)fprintf(stderr, "courier_drive: %s: %s\n", what, err->what);
	exit(2);
}

static void check(enum kt_code code, const struct kt_err *err, const char *what)
{
	if (code != KT_OK) {
		die(err, what);
	}
}

/* --- the keeper --------------------------------------------------------------------------------------------------- */

static void done(struct kt_wire_in *in)
{
	struct kt_msg_done msg = {0};

	kt_wire_reply(in->wire, in->id, KT_DONE, &msg, NULL, 0);
}

static void on_sign(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme_sign *ask = in->msg;
	struct kt_msg_acme_signed reply = {0};
	KT_AUTOFREE char *url = kt_strndup(ask->url.ptr, ask->url.len);
	KT_AUTOFREE char *nonce = kt_strndup(ask->nonce.ptr, ask->nonce.len);
	struct kt_jws_header header = {.nonce = nonce, .url = url, .kid = ask->by_jwk ? NULL : drive.account_url};
	KT_AUTOBUF struct kt_buf jws;
	struct kt_err err;

	(void)arg;
	kt_buf_init(&jws, 131072);
	if (kt_jose_jws_acme(drive.account, &header, ask->payload, &jws, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	reply.jws = kt_buf_view(&jws);
	kt_wire_reply(in->wire, in->id, KT_ACME_SIGNED, &reply, NULL, 0);
}

static void on_save(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme_save *save = in->msg;

	(void)arg;
	(void)printf("save %.*s %.*s\n", (int)save->what.len, save->what.ptr, (int)save->value.len, save->value.ptr);
	if (kt_view_eq_str(save->what, "account")) {
		memcpy(drive.account_url, save->value.ptr, save->value.len);
		drive.account_url[save->value.len] = '\0';
	}
	done(in);
}

static void on_challenge(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_challenge *challenge = in->msg;
	struct kt_msg_challenged reply = {.type = KT_VIEW_LIT("http-01")};
	KT_AUTOJSON json_t *offered = NULL;
	const char *token = NULL;
	KT_AUTOBUF struct kt_buf answer;
	struct kt_err err;
	int dir;

	(void)arg;
	(void)printf("challenge %s %.*s\n", challenge->present ? "present" : "remove", (int)challenge->name.len,
		     challenge->name.ptr);
	kt_buf_init(&answer, 1024);
	check(kt_json_parse(challenge->offered, 16384, &offered, &err), &err, "offered");
	for (size_t i = 0; i < json_array_size(offered); i++) {
		if (strcmp(kt_json_str(json_array_get(offered, i), "type"), "http-01") == 0) {
			token = kt_json_str(json_array_get(offered, i), "token");
		}
	}
	if (drive.webroot != NULL && token != NULL) {
		dir = open(drive.webroot, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (!challenge->present) {
			(void)unlinkat(dir, token, 0);
		} else if (kt_jose_key_authorization(drive.account, token, &answer, &err) != KT_OK ||
			   kt_io_replace_file(dir, token, answer.ptr, answer.len, 0644, (uid_t)-1, (gid_t)-1, false,
					      &err) != KT_OK) {
			die(&err, "webroot");
		}
		(void)close(dir);
	}
	kt_wire_reply(in->wire, in->id, KT_CHALLENGED, &reply, NULL, 0);
}

static const struct kt_wire_handler keeper_handlers[] = {
	{KT_ACME_SIGN, on_sign},       {KT_ACME_SAVE, on_save},  {KT_CHALLENGE, on_challenge},
	{KT_CLIENT_SECRET, drive_on_secret}, {KT_ASSERTION, drive_on_assertion}, {KT_DPOP_PROOF, drive_on_proof},
	{KT_CLIENT_KEY, drive_on_key}, {KT_SAVE_REFRESH, drive_on_refresh}, {KT_MSG_TYPE_NONE, NULL},
};

/* --- jobs ------------------------------------------------------------------------------------------------------------
 */

static void start_round(void);

static void on_reply(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	(void)fds, (void)fd_count, (void)arg;
	if (err->code != KT_OK) {
		drive.failed++;
		(void)printf("error %s type=%s retry_after=%lld %s\n", kt_code_name(err->code), err->problem_type,
			     (long long)err->retry_after_s, err->what);
	} else if (type == KT_ACME_DONE) {
		const struct kt_msg_acme_done *got = msg;
		KT_AUTOCHAIN struct kt_chain *chain = NULL;
		struct kt_err why;

		check(kt_pki_chain_parse(got->chain, &chain, &why), &why, "chain");
		(void)printf("done acme %zu certificates, key %s, %s\n", kt_pki_chain_count(chain),
			     kt_pki_cert_has_key(kt_pki_chain_at(chain, 0), drive.leaf) ? "ours" : "WRONG",
			     kt_pki_cert_name(kt_pki_chain_at(chain, 0), 0));
	} else if (type == KT_MINTED) {
		const struct kt_msg_minted *got = msg;

		drive_oauth_print(got->token);
		(void)printf("done mint token of %zu bytes, type %.*s, expires_in %lld, scope '%.*s', skew %lld, "
			     "issued '%.*s'\n",
			     kt_secret_len(got->token), (int)got->token_type.len, got->token_type.ptr,
			     (long long)got->expires_in, (int)got->scope.len, got->scope.ptr,
			     (long long)got->date_skew, (int)got->issued_type.len, got->issued_type.ptr);
	} else if (type == KT_TOKEN_OP_DONE) {
		const struct kt_msg_token_op_done *got = msg;

		(void)printf("done op %.*s\n", (int)got->body.len, got->body.ptr);
	} else if (type == KT_PROBED_TLS) {
		const struct kt_msg_probed_tls *got = msg;

		(void)printf("done tls serial=%.*s sha256=%.*s not_after=%lld %.*s %.*s\n", (int)got->serial.len,
			     got->serial.ptr, (int)got->sha256.len, got->sha256.ptr, (long long)got->not_after,
			     (int)got->protocol.len, got->protocol.ptr, (int)got->subject.len, got->subject.ptr);
	} else if (type == KT_HTTP_DONE) {
		const struct kt_msg_http_done *got = msg;

		(void)printf("done http %u %.*s\n", got->status, (int)got->value.len, got->value.ptr);
	} else if (type == KT_DNS01_DONE) {
		const struct kt_msg_dns01_done *got = msg;

		(void)printf("done dns effective=%.*s handle=%.*s seen=%.*s\n", (int)got->effective.len,
			     got->effective.ptr, (int)got->handle.len, got->handle.ptr, (int)got->seen.len,
			     got->seen.ptr);
	}
	(void)fflush(stdout);
	if (--drive.open == 0) {
		if (--drive.repeat > 0) {
			start_round();
		} else {
			kt_loop_stop(drive.loop);
		}
	}
}

static void call(enum kt_msg_type type, const void *msg)
{
	struct kt_err err;

	drive.open++;
	check(kt_wire_call(drive.keeper, type, msg, NULL, 0, 0, on_reply, NULL, &err), &err, "call");
}

/* "name[,name…]"; with several jobs each has its number before its names. */
static void order(unsigned number)
{
	KT_AUTOBUF struct kt_buf names, issuer, csr, list;
	const char *dns[64];
	struct kt_cert_request request = {.dns_names = {dns, 0}};
	struct kt_msg_acme msg = {.job = number + 1};
	struct kt_err err;
	char *rest, *name;

	kt_buf_init(&names, 65536);
	kt_buf_init(&issuer, 65536);
	kt_buf_init(&csr, 32768);
	kt_buf_init(&list, 65536);
	kt_buf_adds(&list, drive.args[2]);
	kt_buf_adds(&names, "[");
	rest = list.ptr;
	while ((name = strsep(&rest, ",")) != NULL && request.dns_names.count < 64) {
		char *full = drive.count > 1 ? kt_asprintf("n%u-%s", number, name) : kt_strdup(name);

		dns[request.dns_names.count++] = full;
		kt_buf_addf(&names, "%s{\"type\":\"dns\",\"value\":\"%s\"}", names.len > 1 ? "," : "", full);
	}
	kt_buf_adds(&names, "]");
	kt_buf_addf(&issuer,
		    "{\"server\":\"%s\",\"email\":\"ops@example.org\",\"termsOfServiceAgreed\":true,\"caBundle\":",
		    drive.args[1]);
	kt_buf_add_json(&issuer, kt_buf_view(&drive.ca));
	kt_buf_adds(&issuer, "}");
	check(kt_pki_csr_der(&request, drive.leaf, &csr, &err), &err, "csr");
	for (size_t i = 0; i < request.dns_names.count; i++) {
		kt_free((char *)(uintptr_t)dns[i]);
	}
	msg.issuer = kt_buf_view(&issuer);
	msg.account_url = kt_view_str(drive.account_url);
	msg.order_url = kt_view_str(drive.order_url);
	msg.names = kt_buf_view(&names);
	msg.csr = kt_buf_view(&csr);
	msg.traceparent = KT_VIEW_LIT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	call(KT_ACME, &msg);
}

/* With several jobs each has its number after the value. */
static void dns(unsigned number)
{
	static const char *const actions[] = {"add", "remove", "check"};
	KT_AUTOFREE char *value = drive.count > 1 ? kt_asprintf("%s-%u", drive.args[3], number) : kt_strdup(drive.args[3]);
	struct kt_msg_dns01 msg = {.job = number + 1,
				   .record = kt_view_str(drive.args[2]),
				   .value = kt_view_str(value),
				   .solver = kt_view_str(drive.args[4]),
				   .dns = kt_view_str(drive.args[6]),
				   .handle = kt_view_str(drive.arg_count > 7 ? drive.args[7] : ""),
				   .traceparent = KT_VIEW_LIT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")};
	struct kt_err err;

	while (msg.action < 3 && strcmp(actions[msg.action], drive.args[1]) != 0) {
		msg.action++;
	}
	if (drive.args[5][0] != '\0') {
		check(kt_secret_create(drive.args[5], strlen(drive.args[5]), &msg.secret, &err), &err, "secret");
	}
	call(KT_DNS01, &msg);
	kt_secret_destroy(msg.secret);
}

static void start_job(unsigned number)
{
	const char *what = drive.args[0];
	struct kt_err err;

	if (strcmp(what, "acme") == 0 && drive.arg_count == 3) {
		order(number);
	} else if (strcmp(what, "mint") == 0 && drive.arg_count >= 3) {
		struct kt_msg_mint msg = {
			.job = number + 1,
			.issuer = kt_view_str(drive.args[1]),
			.request = kt_view_str(drive_oauth_turn(number + 1, drive.args[2]))};

		drive_oauth_begin(msg.issuer, drive.arg_count > 3 ? drive.args[3] : "secret");
		call(KT_MINT, &msg);
	} else if ((strcmp(what, "revoke") == 0 || strcmp(what, "introspect") == 0) && drive.arg_count >= 3) {
		struct kt_msg_token_op msg = {
			.job = number + 1, .op = kt_view_str(what), .issuer = kt_view_str(drive.args[1])};

		drive_oauth_begin(msg.issuer, drive.arg_count > 3 ? drive.args[3] : "secret");
		check(kt_secret_create(drive.args[2], strlen(drive.args[2]), &msg.token, &err), &err, "token");
		call(KT_TOKEN_OP, &msg);
		kt_secret_destroy(msg.token);
	} else if (strcmp(what, "tls") == 0 && drive.arg_count == 3) {
		struct kt_msg_probe_tls msg = {.address = kt_view_str(drive.args[1]),
					       .server_name = kt_view_str(drive.args[2]),
					       .timeout_ms = 5000};

		call(KT_PROBE_TLS, &msg);
	} else if (strcmp(what, "http") == 0 && drive.arg_count >= 3) {
		struct kt_msg_http msg = {.method = kt_view_str(drive.args[1]),
					  .url = kt_view_str(drive.args[2]),
					  .ca_bundle = kt_buf_view(&drive.ca),
					  .header_prefix = KT_VIEW_LIT("Bearer "),
					  .json_path = kt_view_str(drive.arg_count > 3 ? drive.args[3] : "")};

		if (drive.arg_count > 4) {
			check(kt_secret_create(drive.args[4], strlen(drive.args[4]), &msg.token, &err), &err, "token");
		}
		call(KT_HTTP, &msg);
		kt_secret_destroy(msg.token);
	} else if (strcmp(what, "dns") == 0 && drive.arg_count >= 7) {
		dns(number);
	} else {
		(void)fprintf(stderr, "courier_drive: see the top of courier_drive.c for how to call it\n");
		exit(2);
	}
}

static void on_idle(void *arg)
{
	(void)arg;
	kt_loop_stop(drive.loop);
}

static void start_round(void)
{
	static struct kt_timer *idle;
	struct kt_err err;

	if (strcmp(drive.args[0], "idle") == 0 && drive.arg_count == 2) {
		check(kt_timer_create(drive.loop, on_idle, NULL, &idle, &err), &err, "timer");
		kt_timer_start(idle, strtol(drive.args[1], NULL, 10));
		return;
	}
	for (unsigned i = 0; i < drive.count; i++) {
		start_job(i);
	}
}

static void on_cancel(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < drive.count; i++) {
		struct kt_msg_cancel msg = {.job = i + 1};

		(void)kt_wire_notice(drive.keeper, KT_CANCEL, &msg, NULL, 0, NULL);
	}
}

/* --- the warden
 * ------------------------------------------------------------------------------------------------------- */

static void on_room_closed(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	(void)wire, (void)arg;
	(void)printf("error closed the room is gone: %s\n", why != NULL ? why->what : "");
	drive.failed++;
	kt_loop_stop(drive.loop);
}

static void on_warden_reply(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
			    void *arg)
{
	(void)type, (void)msg, (void)fds, (void)fd_count;
	check(err->code, err, arg);
}

static void start_room(const char *path, int peer_fd)
{
	static const struct kt_wire_handler none[] = {{KT_MSG_TYPE_NONE, NULL}};
	struct kt_wire_config config = {
		.self = KT_ROOM_WARDEN, .peer = KT_ROOM_COURIER, .handlers = none, .closed = on_room_closed};
	struct kt_msg_setup setup = {
		.mode = KT_MODE_DAEMON, .log_level = KT_LOG_DEBUG, .sandbox = true, .settings = KT_VIEW_LIT("{}")};
	struct kt_msg_peer peer = {.room = KT_ROOM_KEEPER};
	struct kt_err err;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
		perror("socketpair");
		exit(2);
	}
	drive.room = fork();
	if (drive.room == 0) {
		if (pair[1] == 3) {
			(void)fcntl(3, F_SETFD, 0);
		} else {
			(void)dup2(pair[1], 3);
		}
		(void)execl(path, path, (char *)NULL);
		_exit(127);
	}
	(void)close(pair[1]);
	check(kt_wire_create(drive.loop, &config, &drive.warden, &err), &err, "warden");
	check(kt_wire_attach(drive.warden, pair[0], &err), &err, "warden");
	check(kt_wire_call(drive.warden, KT_SETUP, &setup, NULL, 0, 10000, on_warden_reply, "setup", &err), &err,
	      "setup");
	check(kt_wire_call(drive.warden, KT_PEER, &peer, &peer_fd, 1, 10000, on_warden_reply, "peer", &err), &err,
	      "peer");
}

static void start_keeper(const char *room)
{
	struct kt_wire_config config = {.self = KT_ROOM_KEEPER, .peer = KT_ROOM_COURIER, .handlers = keeper_handlers};
	struct kt_err err;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
		perror("socketpair");
		exit(2);
	}
	check(kt_wire_create(drive.loop, &config, &drive.keeper, &err), &err, "keeper");
	check(kt_wire_attach(drive.keeper, pair[0], &err), &err, "keeper");
	if (room != NULL) {
		start_room(room, pair[1]);
		(void)close(pair[1]);
	} else {
		check(kt_courier_create(drive.loop, &drive.courier, &err), &err, "courier");
		check(kt_wire_attach(drive.courier->keeper, pair[1], &err), &err, "courier");
	}
}

static void load_keys(void)
{
	KT_AUTOSECRET struct kt_secret *pem = NULL;
	KT_AUTOBUF struct kt_buf text;
	struct kt_err err;

	kt_buf_init(&text, 16384);
	check(kt_pki_key_generate(KT_KEY_ECDSA, 256, &drive.leaf, &err), &err, "key");
	if (drive.key_file != NULL && kt_io_read_file(AT_FDCWD, drive.key_file, &text, &err) == KT_OK) {
		check(kt_pki_key_from_pem(kt_buf_view(&text), &drive.account, &err), &err, "key");
		return;
	}
	check(kt_pki_key_generate(KT_KEY_ECDSA, 256, &drive.account, &err), &err, "key");
	if (drive.key_file != NULL) {
		struct kt_view view;

		check(kt_pki_key_to_pem(drive.account, KT_KEY_PKCS8, &pem, &err), &err, "key");
		view = kt_secret_view(pem);
		check(kt_io_replace_file(AT_FDCWD, drive.key_file, view.ptr, view.len, 0600, (uid_t)-1, (gid_t)-1,
					 false, &err),
		      &err, "key");
	}
}

static const char *option(int *at, int argc, char **argv)
{
	if (*at + 1 >= argc) {
		(void)fprintf(stderr, "courier_drive: %s needs a value\n", argv[*at]);
		exit(2);
	}
	return argv[++*at];
}

static const char *options(int argc, char **argv)
{
	const char *room = NULL, *url;
	struct kt_err err;
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--ca") == 0) {
			check(kt_io_read_file(AT_FDCWD, option(&i, argc, argv), &drive.ca, &err), &err, "--ca");
		} else if (strcmp(argv[i], "--room") == 0) {
			room = option(&i, argc, argv);
		} else if (strcmp(argv[i], "--order") == 0) {
			drive.order_url = option(&i, argc, argv);
		} else if (strcmp(argv[i], "--account") == 0) {
			url = option(&i, argc, argv);
			memcpy(drive.account_url, url, strnlen(url, KT_URL_MAX));
		} else if (strcmp(argv[i], "--webroot") == 0) {
			drive.webroot = option(&i, argc, argv);
		} else if (strcmp(argv[i], "--key") == 0) {
			drive.key_file = option(&i, argc, argv);
		} else if (strcmp(argv[i], "--count") == 0) {
			drive.count = (unsigned)strtoul(option(&i, argc, argv), NULL, 10);
		} else if (strcmp(argv[i], "--repeat") == 0) {
			drive.repeat = (unsigned)strtoul(option(&i, argc, argv), NULL, 10);
		} else if (strcmp(argv[i], "--cancel") == 0) {
			drive.cancel_after = (int)strtol(option(&i, argc, argv), NULL, 10);
		} else if (i + 1 < argc && drive_oauth_option(argv[i], argv[i + 1])) {
			i++;
		} else {
			(void)fprintf(stderr, "courier_drive: unknown option %s\n", argv[i]);
			exit(2);
		}
	}
	drive.args = argv + i;
	drive.arg_count = argc - i;
	return room;
}

static void stop(void)
{
	int status;

	kt_wire_destroy(drive.warden);
	kt_wire_destroy(drive.keeper);
	kt_courier_destroy(drive.courier);
	kt_loop_destroy(drive.loop);
	kt_pki_key_destroy(drive.account);
	kt_pki_key_destroy(drive.leaf);
	kt_buf_finish(&drive.ca);
	drive_oauth_finish();
	if (drive.room > 0 && waitpid(drive.room, &status, 0) == drive.room && status != 0) {
		(void)printf("error room ended with status 0x%x\n", (unsigned)status);
		drive.failed++;
	}
}

int main(int argc, char **argv)
{
	struct kt_timer *timer = NULL;
	struct kt_err err;
	const char *room;

	check(kt_pki_init(&err), &err, "init");
	kt_json_init();
	kt_log_setup("drive", KT_LOG_DEBUG, false);
	kt_buf_init(&drive.ca, 65536);
	drive.count = drive.repeat = 1;
	room = options(argc, argv);
	if (drive.arg_count == 0 || drive.count == 0) {
		(void)fprintf(stderr, "courier_drive: see the top of courier_drive.c for how to call it\n");
		return 2;
	}
	load_keys();
	check(kt_loop_create(2, &drive.loop, &err), &err, "loop");
	start_keeper(room);
	start_round();
	if (drive.cancel_after > 0) {
		check(kt_timer_create(drive.loop, on_cancel, NULL, &timer, &err), &err, "timer");
		kt_timer_start(timer, drive.cancel_after);
	}
	kt_loop_run(drive.loop);
	kt_timer_destroy(timer);
	stop();
	return drive.failed == 0 ? 0 : 1;
}
