/* The warden with rooms that do as they are told: starts, deaths, wires, requests, listeners, settings. */
#include "warden_stage.h"

/* --- rooms ------------------------------------------------------------------------------------------------------ */

static void oneshot_ends_with_the_keepers_status(void **state)
{
	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("peers"), "peers 0 0");
	assert_int_equal(pid_of(KT_ROOM_COURIER), 0);
	tell("finish 5");
	wait_for(finished >= 0);
	assert_int_equal(finished, 5);
	assert_int_equal(pid_of(KT_ROOM_KEEPER), 0);
	/* No socket, no listener: a command is no agent. */
	assert_true(gone(socket_path));
}

static void rooms_start_when_needed_and_again_when_dead(void **state)
{
	pid_t first;

	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("need courier"), "done");
	assert_string_equal(ask("peers"), "peers 1 0");
	assert_string_equal(ask("ping"), "pong");
	assert_string_equal(ask("need courier"), "done");
	assert_string_equal(ask("peers"), "peers 1 0");
	first = pid_of(KT_ROOM_COURIER);
	assert_int_equal(kill(first, SIGKILL), 0);
	wait_for(pid_of(KT_ROOM_COURIER) != 0 && pid_of(KT_ROOM_COURIER) != first);
	wait_for(warden->rooms[KT_ROOM_COURIER].setup_done);
	assert_non_null(strstr(logged, "keyturn-courier"));
	assert_non_null(strstr(logged, "signal 9"));
	assert_string_equal(ask("ping"), "pong");
	assert_string_equal(ask("peers"), "peers 2 0");
	assert_int_equal(admins, 1);
	assert_non_null(strstr(ask("need warden"), "error"));
	end(0);
}

static void keeper_comes_back_to_the_same_courier(void **state)
{
	pid_t keeper;
	pid_t courier;

	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("need courier"), "done");
	keeper = pid_of(KT_ROOM_KEEPER);
	courier = pid_of(KT_ROOM_COURIER);
	tell("die");
	wait_for(admins == 2);
	assert_int_not_equal(pid_of(KT_ROOM_KEEPER), keeper);
	assert_int_equal(pid_of(KT_ROOM_COURIER), courier);
	wait_for(strcmp(ask("peers"), "peers 1 0") == 0);
	assert_string_equal(ask("ping"), "pong");
	/* The third death of a command's keeper is the last. */
	tell("die");
	wait_for(admins == 3);
	tell("die");
	wait_for(finished >= 0);
	assert_int_equal(finished, 1);
	assert_non_null(strstr(logged, "3 times in a row"));
	assert_int_equal(pid_of(KT_ROOM_COURIER), 0);
}

static void broken_wire_is_a_death(void **state)
{
	pid_t keeper;

	(void)state;
	start(KT_MODE_DAEMON);
	keeper = pid_of(KT_ROOM_KEEPER);
	tell("garbage");
	wait_for(pid_of(KT_ROOM_KEEPER) != 0 && pid_of(KT_ROOM_KEEPER) != keeper);
	assert_non_null(strstr(logged, "keyturn-keeper"));
	end(0);
}

static void keeper_that_never_starts(void **state)
{
	struct kt_err err;

	(void)state;
	assert_int_equal(setenv("KEYTURN_TEST_DIE", "1", 1), 0);
	assert_int_equal(create(KT_MODE_ONESHOT, &err), KT_OK);
	wait_for(finished >= 0);
	assert_int_equal(unsetenv("KEYTURN_TEST_DIE"), 0);
	assert_int_equal(finished, 1);
	assert_int_equal(warden->rooms[KT_ROOM_KEEPER].deaths, 3);
	assert_non_null(strstr(logged, "exit status 9"));
}

static void keeper_that_refuses_to_start(void **state)
{
	struct kt_err err;

	(void)state;
	assert_int_equal(setenv("KEYTURN_TEST_BUSY", "1", 1), 0);
	assert_int_equal(create(KT_MODE_ONESHOT, &err), KT_OK);
	wait_for(finished >= 0);
	assert_int_equal(unsetenv("KEYTURN_TEST_BUSY"), 0);
	assert_int_equal(finished, 75);
	assert_int_equal(admins, 0);
	assert_non_null(strstr(logged, "somebody else has the state"));
}

static void second_sigterm_does_not_wait(void **state)
{
	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("deaf"), "deaf");
	assert_int_equal(raise(SIGTERM), 0);
	turn(200);
	assert_int_equal(finished, -1);
	assert_int_equal(raise(SIGTERM), 0);
	wait_for(finished >= 0);
	assert_int_equal(finished, 128 + SIGTERM);
}

static void environment_of_rooms_is_small(void **state)
{
	const char *env;

	(void)state;
	assert_int_equal(setenv("AWS_SECRET_ACCESS_KEY", "canary", 1), 0);
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	start(KT_MODE_ONESHOT);
	env = ask("env");
	assert_null(strstr(env, "canary"));
	assert_non_null(strstr(env, "TZ=UTC,"));
	assert_non_null(strstr(env, "LANG=C.UTF-8,"));
	assert_non_null(strstr(env, "KEYTURN_TEST_MARK=1,"));
	end(0);
	assert_int_equal(unsetenv("KEYTURN_TEST_ENV"), 0);
	start(KT_MODE_ONESHOT);
	env = ask("env");
	assert_null(strstr(env, "KEYTURN_TEST_MARK"));
	end(0);
	assert_int_equal(setenv("KEYTURN_TEST_ENV", "1", 1), 0);
}

static void rooms_get_users_of_their_own(void **state)
{
	struct stat st;

	(void)state;
	if (getuid() != 0) {
		skip();
	}
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	                     "  users: {keeper: www-data, courier: daemon}\n");
	start(KT_MODE_ONESHOT);
	/* CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID and no other. */
	assert_string_equal(ask("id"), "id 33 33 000000000000001b");
	assert_int_equal(stat(state_dir, &st), 0);
	assert_int_equal(st.st_uid, 33);
	end(0);
	assert_int_equal(chown(state_dir, 0, 0), 0);
	assert_int_equal(chown(secrets_dir, 0, 0), 0);
}

/* --- requests --------------------------------------------------------------------------------------------------- */

static void requests_of_the_keeper(void **state)
{
	char text[2048];
	char path[128];
	char line[256];
	uint32_t generation;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/touch.me", dir);
	write_text(path, "");
	(void)snprintf(text, sizeof(text),
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	               "  masterKey: {command: [/bin/echo, the-key]}\n---\n"
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: edge}\nspec:\n"
	               "  secrets: [web-tls]\n"
	               "  validate: [{exec: {argv: [/usr/bin/env], user: root}}]\n"
	               "  notify:\n  - touch: {path: %s}\n  - http: {url: \"https://a.example/\"}\n"
	               "  prove: [{secret: web-tls, exec: {argv: [/bin/false], user: root}}]\n",
	               path);
	write_text(manifest, text);
	start(KT_MODE_ONESHOT);
	generation = warden->current->number;
	assert_string_equal(ask("owner"), "owned 0 1");
	assert_non_null(strstr(ask("stranger"), "error not"));
	assert_string_equal(ask("key"), "key the-key");
	(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "hooked 0"));
	(void)snprintf(line, sizeof(line), "hook edge %d 1 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "hooked 3"));
	(void)snprintf(line, sizeof(line), "hook edge %d 2 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "no such hook"));
	(void)snprintf(line, sizeof(line), "hook edgy %d 0 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "no such hook"));
	(void)snprintf(line, sizeof(line), "hook edge 7 0 %u", generation);
	assert_non_null(strstr(ask(line), "no such hook"));
	(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_NOTIFY, generation + 1);
	assert_non_null(strstr(ask(line), "not known any more"));
	if (getuid() == 0) {
		(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_PROVE, generation);
		assert_non_null(strstr(ask(line), "hooked 1"));
		(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_VALIDATE, generation);
		assert_non_null(strstr(ask(line), "PATH="));
	}
	end(0);
}

static void orphaned_hook_does_no_harm(void **state)
{
	char line[64];

	(void)state;
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: slow}\nspec:\n"
	                     "  secrets: [web-tls]\n  notify: [{exec: {argv: [/bin/sleep, \"0.3\"]}}]\n");
	start(KT_MODE_ONESHOT);
	(void)snprintf(line, sizeof(line), "hook slow %d 0 %u", KT_HOOK_NOTIFY, warden->current->number);
	tell(line);
	wait_for(warden->hook_calls != NULL);
	tell("die");
	wait_for(admins == 2);
	wait_for(warden->hook_calls == NULL);
	assert_string_equal(ask("peers"), "peers 0 0");
	end(0);
}

/* --- the desk --------------------------------------------------------------------------------------------------- */

static void listeners_are_bound_for_the_desk(void **state)
{
	char text[512];
	uint16_t port = free_port();
	uint16_t other = free_port();
	pid_t desk;

	(void)state;
	(void)snprintf(text, sizeof(text),
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	               "  listeners: {metrics: \"127.0.0.1:%u\"}\n",
	               port);
	write_text(manifest, text);
	start(KT_MODE_DAEMON);
	wait_for(warden->rooms[KT_ROOM_DESK].setup_done);
	assert_true(answers(port));
	desk = pid_of(KT_ROOM_DESK);
	(void)snprintf(text, sizeof(text),
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	               "  listeners: {metrics: \"127.0.0.1:%u\", http01: \"127.0.0.1:%u\"}\n",
	               port, other);
	write_text(manifest, text);
	assert_string_equal(ask("reload"), "done");
	wait_for(pid_of(KT_ROOM_DESK) != desk && warden->rooms[KT_ROOM_DESK].setup_done);
	assert_true(answers(port));
	assert_true(answers(other));
	end(0);
	assert_false(answers(port));
}

static void listener_addresses(void **state)
{
	static const char *const wrong[] = {"", "8080", "host:", "127.0.0.1:http", "::1:80", "127.0.0.1:99999x"};
	struct kt_err err;
	char text[64];
	int fd = -1;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(kt_listen_on(wrong[i], (gid_t)-1, &err), -1);
	}
	for (unsigned tries = 0; fd < 0 && tries < 5; tries++) { /* somebody else may take it meanwhile */
		(void)snprintf(text, sizeof(text), ":%u", free_port());
		fd = kt_listen_on(text, (gid_t)-1, &err);
	}
	assert_true(fd >= 0);
	close(fd);
}

static bool connects(const char *address, uint16_t port)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	bool six = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
	int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc;

	(void)inet_pton(AF_INET, address, &in.sin_addr);
	rc = connect(fd, six ? (struct sockaddr *)&in6 : (struct sockaddr *)&in, six ? sizeof(in6) : sizeof(in));
	close(fd);
	return rc == 0;
}

static void a_port_alone_is_both_families(void **state)
{
	struct kt_err err;
	uint16_t port = 0;
	char text[64];
	int fd = -1;

	(void)state;
	for (int i = 0; i < 20 && fd < 0; i++) { /* others take ports, too: on one address, or for a connection */
		port = free_port();
		(void)snprintf(text, sizeof(text), ":%u", port);
		fd = kt_listen_on(text, (gid_t)-1, &err);
	}
	assert_true(fd >= 0);
	assert_true(connects("127.0.0.1", port));
	if (connects("::1", port)) { /* a machine may have no IPv6 */
		close(fd);
		(void)snprintf(text, sizeof(text), "[::]:%u", port);
		fd = kt_listen_on(text, (gid_t)-1, &err);
		assert_true(fd >= 0);
		assert_true(connects("::1", port));
		assert_false(connects("127.0.0.1", port));
	}
	close(fd);
}

static void listeners_share_an_address(void **state)
{
	char address[64];
	char other[64];
	struct kt_listeners want = {.http01 = address, .metrics = address, .jwks = other, .probes = address};
	struct kt_bound_list first = {0};
	struct kt_bound_list second = {0};
	struct kt_err err;
	struct stat st[2];

	(void)state;
	(void)snprintf(address, sizeof(address), "127.0.0.1:%u", free_port());
	(void)snprintf(other, sizeof(other), "127.0.0.1:%u", free_port());
	assert_int_equal(kt_bound_open(&want, NULL, &first, &err), KT_OK);
	assert_int_equal(first.count, 2);
	assert_string_equal(first.items[0].names, "acme+metrics+probes");
	assert_string_equal(first.items[1].names, "jwks");
	/* Others share it now, but the socket is the same. */
	want = (struct kt_listeners){.jwks = address, .metrics = address};
	assert_int_equal(kt_bound_open(&want, &first, &second, &err), KT_OK);
	assert_int_equal(second.count, 1);
	assert_string_equal(second.items[0].names, "jwks+metrics");
	assert_int_equal(fstat(first.items[0].fd, &st[0]), 0);
	assert_int_equal(fstat(second.items[0].fd, &st[1]), 0);
	assert_int_equal(st[0].st_ino, st[1].st_ino);
	kt_bound_close(&first, &second);
	want.tls_alpn01 = address;
	assert_int_equal(kt_bound_open(&want, &second, &first, &err), KT_E_INVALID);
	kt_bound_close(&second, NULL);
	assert_true(kt_bound_names_known("acme+tlsAlpn01+control"));
	assert_false(kt_bound_names_known("acme+"));
	assert_false(kt_bound_names_known(""));
	assert_false(kt_bound_names_known("acme+http"));
}

static void local_listeners(void **state)
{
	char path[sizeof(dir) + 32];
	char address[sizeof(path) + 8];
	char group[16];
	struct kt_listeners want = {.http01 = address};
	struct kt_bound_list first = {0};
	struct kt_bound_list second = {0};
	struct kt_err err;
	struct stat st;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/acme.sock", dir);
	(void)snprintf(address, sizeof(address), "unix:%s", path);
	(void)snprintf(group, sizeof(group), "%u", getgid());
	assert_int_equal(kt_bound_open(&want, NULL, &first, &err), KT_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Kept over a reload, removed when nobody listens there any more. */
	assert_int_equal(kt_bound_open(&want, &first, &second, &err), KT_OK);
	kt_bound_close(&first, &second);
	assert_int_equal(stat(path, &st), 0);
	kt_bound_close(&second, NULL);
	assert_int_equal(stat(path, &st), -1);
	want.socket_group = group;
	assert_int_equal(kt_bound_open(&want, NULL, &first, &err), KT_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_int_equal(st.st_gid, getgid());
	/* A mode that lets others in does not go on to another listener, or one that keeps them out to the tokens'. */
	want = (struct kt_listeners){.tokens = address};
	assert_int_equal(kt_bound_open(&want, &first, &second, &err), KT_E_INVALID);
	kt_bound_close(&first, NULL);
	assert_int_equal(kt_bound_open(&want, NULL, &first, &err), KT_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	want = (struct kt_listeners){.control = {.address = address}};
	assert_int_equal(kt_bound_open(&want, &first, &second, &err), KT_E_INVALID);
	kt_bound_close(&first, NULL);
	want = (struct kt_listeners){.http01 = address};
	want.socket_group = "no-such-group";
	assert_int_not_equal(kt_bound_open(&want, NULL, &first, &err), KT_OK);
}

static void systemd_is_told(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[256] = "";
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	(void)state;
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
	assert_int_equal(setenv("WATCHDOG_USEC", "100000", 1), 0);
	start(KT_MODE_DAEMON);
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	while (!kt_starts_with(text, "READY=1")) {
		memset(text, 0, sizeof(text));
		assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	}
	turn(120);
	memset(text, 0, sizeof(text));
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "WATCHDOG=1");
	end(0);
	for (memset(text, 0, sizeof(text)); !kt_starts_with(text, "STOPPING=1"); memset(text, 0, sizeof(text))) {
		assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
		if (kt_starts_with(text, "STOPPING=1")) {
			break;
		}
	}
	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
	assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
	close(fd);
}

/* --- settings --------------------------------------------------------------------------------------------------- */

static void wrong_manifests_are_refused(void **state)
{
	struct kt_err err;

	(void)state;
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: x}\nspec:\n"
	                     "  notify: [{signal: {name: HUP, pidfile: /run/x.pid}}]\n");
	assert_int_equal(create(KT_MODE_ONESHOT, &err), KT_E_INVALID);
	assert_non_null(strstr(err.what, "pidfile"));
	write_text(manifest, "");
	assert_int_equal(chmod(manifest, 0666), 0);
	assert_int_not_equal(create(KT_MODE_ONESHOT, &err), KT_OK);
	assert_int_equal(chmod(manifest, 0600), 0);
}

static void places_come_from_options_and_settings(void **state)
{
	struct kt_warden_options options = options_for(KT_MODE_READONLY);
	struct kt_warden_places places;
	struct kt_err err;

	(void)state;
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	                     "  stateDir: /srv/state\n  secretsDir: /srv/secrets\n");
	assert_int_equal(kt_warden_places(&options, &places, &err), KT_OK);
	assert_string_equal(places.state_dir, state_dir);
	kt_warden_places_finish(&places);
	options.state_dir = options.secrets_dir = options.socket_path = NULL;
	assert_int_equal(kt_warden_places(&options, &places, &err), KT_OK);
	assert_string_equal(places.state_dir, "/srv/state");
	assert_string_equal(places.secrets_dir, "/srv/secrets");
	assert_string_equal(places.socket_path, "/srv/state/control.sock");
	kt_warden_places_finish(&places);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(oneshot_ends_with_the_keepers_status),
	        CASE(rooms_start_when_needed_and_again_when_dead),
	        CASE(keeper_comes_back_to_the_same_courier),
	        CASE(broken_wire_is_a_death),
	        CASE(keeper_that_never_starts),
	        CASE(keeper_that_refuses_to_start),
	        CASE(second_sigterm_does_not_wait),
	        CASE(environment_of_rooms_is_small),
	        CASE(rooms_get_users_of_their_own),
	        CASE(requests_of_the_keeper),
	        CASE(orphaned_hook_does_no_harm),
	        CASE(listeners_are_bound_for_the_desk),
	        CASE(listener_addresses),
	        CASE(a_port_alone_is_both_families),
	        CASE(listeners_share_an_address),
	        CASE(local_listeners),
	        CASE(systemd_is_told),
	        CASE(wrong_manifests_are_refused),
	        CASE(places_come_from_options_and_settings),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
