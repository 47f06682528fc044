/* How programs that write TXT records are called: arguments and environment of every convention. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "warden/hands/hands.h"

static char *argv[] = {"/usr/bin/hook", "own", NULL};
static char *raw[] = {"A=b", "EXEC_MODE=RAW", NULL};

static struct kt_solve_ask ask_of(bool add)
{
	return (struct kt_solve_ask){.add = add,
	                             .domain = KT_VIEW_LIT("a.example"),
	                             .record = KT_VIEW_LIT("_acme-challenge.a.example"),
	                             .value = KT_VIEW_LIT("-Nrv2_x"),
	                             .token = KT_VIEW_LIT("-tok_en"),
	                             .key_authorization = KT_VIEW_LIT("-tok_en.thumb"),
	                             .domains = KT_VIEW_LIT("a.example,*.b.example"),
	                             .auth_output = KT_VIEW_LIT("  line 1\nline 2 \n")};
}

static void join(char *const *list, char *out, size_t size)
{
	size_t at = 0;

	out[0] = '\0';
	for (; list != NULL && *list != NULL; list++)
		at += (size_t)snprintf(out + at, size - at, "%s%s", at > 0 ? "|" : "", *list);
}

static void test_calls(void **state)
{
	static const struct {
		enum kt_solve_convention convention;
		bool add, raw;
		const char *args, *env;
	} cases[] = {
	        {KT_SOLVE_KEYTURN, true, false, "/usr/bin/hook|own|present|_acme-challenge.a.example|-Nrv2_x",
	         "KEYTURN_RECORD=_acme-challenge.a.example|KEYTURN_VALUE=-Nrv2_x|KEYTURN_DOMAIN=a.example|KEYTURN_TOKEN=-tok_en"},
	        {KT_SOLVE_KEYTURN, false, false, "/usr/bin/hook|own|cleanup|_acme-challenge.a.example|-Nrv2_x",
	         "KEYTURN_RECORD=_acme-challenge.a.example|KEYTURN_VALUE=-Nrv2_x|KEYTURN_DOMAIN=a.example|KEYTURN_TOKEN=-tok_en"},
	        {KT_SOLVE_CERTBOT, true, false, "/usr/bin/hook|own",
	         "CERTBOT_DOMAIN=a.example|CERTBOT_IDENTIFIER=a.example|CERTBOT_VALIDATION=-Nrv2_x|CERTBOT_TOKEN=-tok_en|"
	         "CERTBOT_REMAINING_CHALLENGES=0|CERTBOT_ALL_DOMAINS=a.example,*.b.example|CERTBOT_ALL_IDENTIFIERS=a.example,*.b.example"},
	        {KT_SOLVE_CERTBOT, false, false, "/usr/bin/clean",
	         "CERTBOT_DOMAIN=a.example|CERTBOT_IDENTIFIER=a.example|CERTBOT_VALIDATION=-Nrv2_x|CERTBOT_TOKEN=-tok_en|"
	         "CERTBOT_REMAINING_CHALLENGES=0|CERTBOT_ALL_DOMAINS=a.example,*.b.example|CERTBOT_ALL_IDENTIFIERS=a.example,*.b.example|"
	         "CERTBOT_AUTH_OUTPUT=line 1\nline 2"},
	        {KT_SOLVE_DEHYDRATED, true, false, "/usr/bin/hook|own|deploy_challenge|a.example|-tok_en|-Nrv2_x", ""},
	        {KT_SOLVE_DEHYDRATED, false, false, "/usr/bin/hook|own|clean_challenge|a.example|-tok_en|-Nrv2_x", ""},
	        {KT_SOLVE_LEGO, true, false, "/usr/bin/hook|own|present|_acme-challenge.a.example.|-Nrv2_x", ""},
	        {KT_SOLVE_LEGO, false, false, "/usr/bin/hook|own|cleanup|_acme-challenge.a.example.|-Nrv2_x", ""},
	        {KT_SOLVE_LEGO, true, true, "/usr/bin/hook|own|present|--|a.example|-tok_en|-tok_en.thumb", ""},
	        {KT_SOLVE_LEGO, false, true, "/usr/bin/hook|own|cleanup|--|a.example|-tok_en|-tok_en.thumb", ""},
	};
	char *cleanup[] = {"/usr/bin/clean", NULL};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_solve_program program = {.convention = cases[i].convention,
		                                   .hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = "web", .time_limit = 7},
		                                   .cleanup = cases[i].convention == KT_SOLVE_CERTBOT ? cleanup : NULL};
		struct kt_solve_ask ask = ask_of(cases[i].add);
		struct kt_solve_call call;
		char text[1024];
		struct kt_err err;

		program.hand.env = cases[i].raw ? raw : NULL;
		kt_err_clear(&err);
		assert_int_equal(kt_solve_call_init(&program, &ask, &call, &err), KT_OK);
		assert_int_equal(call.hand.kind, KT_HAND_EXEC);
		assert_string_equal(call.hand.user, "web");
		assert_int_equal(call.hand.time_limit, 7);
		join(call.hand.argv, text, sizeof(text));
		assert_string_equal(text, cases[i].args);
		join(call.env, text, sizeof(text));
		assert_string_equal(text, cases[i].env);
		kt_solve_call_finish(&call);
	}
}

static void test_no_clean_up_hook(void **state)
{
	struct kt_solve_program program = {.convention = KT_SOLVE_CERTBOT, .hand = {.kind = KT_HAND_EXEC, .argv = argv}};
	struct kt_solve_ask ask = ask_of(false);
	struct kt_solve_call call;

	(void)state;
	assert_int_equal(kt_solve_call_init(&program, &ask, &call, NULL), KT_OK);
	assert_int_equal(call.hand.kind, KT_HAND_NONE);
	kt_solve_call_finish(&call);
}

/* As a keeper that was taken over might ask. */
static void test_refused(void **state)
{
	static const struct kt_view bad[] = {KT_VIEW_LIT("a b"),   KT_VIEW_LIT("a;b"),  KT_VIEW_LIT("$(x)"), KT_VIEW_LIT("a\nb"),
	                                     KT_VIEW_LIT("a'b"),   KT_VIEW_LIT("\xc3\xa4"), {"a\0b", 3},       KT_VIEW_LIT("`x`")};
	struct kt_solve_program program = {.convention = KT_SOLVE_KEYTURN, .hand = {.kind = KT_HAND_EXEC, .argv = argv}};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (int field = 0; field < 6; field++) {
			struct kt_solve_ask ask = ask_of(true);
			struct kt_view *fields[] = {&ask.domain, &ask.record, &ask.value, &ask.token, &ask.key_authorization, &ask.domains};
			struct kt_solve_call call;
			struct kt_err err;

			kt_err_clear(&err);
			*fields[field] = bad[i];
			if (kt_solve_call_init(&program, &ask, &call, &err) != KT_E_INVALID)
				fail_msg("field %d takes text %zu", field, i);
		}
	}
	{ /* a name that would be an option */
		struct kt_solve_ask ask = ask_of(true);
		struct kt_solve_call call;

		ask.domain = KT_VIEW_LIT("-rf");
		assert_int_equal(kt_solve_call_init(&program, &ask, &call, NULL), KT_E_INVALID);
		ask.domain = KT_VIEW_LIT("");
		assert_int_equal(kt_solve_call_init(&program, &ask, &call, NULL), KT_E_INVALID);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_calls),
	        cmocka_unit_test(test_no_clean_up_hook),
	        cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
