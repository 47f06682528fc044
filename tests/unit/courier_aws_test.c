/* What AWS answers: sessions and refusals, in XML and JSON; nothing of a session, and nothing that was sent, in an error. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "courier/grant/aws.h"
#include "kt/clock.h"

#define NOW   (INT64_C(1790000000) * KT_SECOND)
#define LATER "2026-09-21T14:33:20Z" /* NOW and 1,200 s */

static const char sts[] =
	"<?xml version=\"1.0\"?>\n<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n"
	" <AssumeRoleWithWebIdentityResult>\n  <Audience>x</Audience><AssumedRoleUser><Arn>a</Arn></AssumedRoleUser>\n"
	"  <Credentials><SessionToken>to/ken==</SessionToken><SecretAccessKey>sec+ret&amp;</SecretAccessKey>\n"
	"   <Expiration>" LATER "</Expiration><AccessKeyId>ASIA1</AccessKeyId></Credentials>\n"
	" </AssumeRoleWithWebIdentityResult>\n <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\n"
	"</AssumeRoleWithWebIdentityResponse>";
static const char anywhere[] =
	"{\"credentialSet\":[{\"assumedRoleUser\":{\"arn\":\"a\"},\"credentials\":{\"accessKeyId\":\"ASIA1\","
	"\"secretAccessKey\":\"sec+ret&\",\"sessionToken\":\"to/ken==\",\"expiration\":\"" LATER "\"}}],\"subjectArn\":\"s\"}";

static void test_sessions(void **state)
{
	(void)state;
	for (int xml = 0; xml < 2; xml++) {
		struct kt_secret *session = NULL;
		struct aws_texts texts;
		int64_t seconds = 0;
		struct kt_err err;

		aws_texts_init(&texts);
		assert_true(xml ? aws_read_xml(kt_view_str(sts), &texts) : aws_read_json(kt_view_str(anywhere), &texts));
		assert_int_equal(aws_session(&texts, NOW, &session, &seconds, &err), KT_OK);
		assert_string_equal(kt_secret_view(session).ptr,
				    "{\"AccessKeyId\":\"ASIA1\",\"SecretAccessKey\":\"sec+ret&\",\"SessionToken\":\"to/ken==\"}");
		assert_int_equal(seconds, 1200);
		kt_secret_destroy(session);
		/* A server's clock that is ahead takes from it. */
		assert_int_equal(aws_session(&texts, NOW + 1199 * KT_SECOND, &session, &seconds, &err), KT_OK);
		assert_int_equal(seconds, 1);
		kt_secret_destroy(session);
		session = NULL;
		assert_int_equal(aws_session(&texts, NOW + 1200 * KT_SECOND, &session, &seconds, &err), KT_E_PROTO);
		assert_null(session);
		aws_texts_finish(&texts);
	}
}

/* Each with the word that its error has to have. */
static void test_no_sessions(void **state)
{
	static const struct {
		const char *json, *says;
	} cases[] = {
		{"{}", "no AccessKeyId"},
		{"{\"credentialSet\":{}}", "no AccessKeyId"},
		{"{\"credentialSet\":[1]}", "no AccessKeyId"},
		{"{\"credentialSet\":[{\"credentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":7}}]}", "no SecretAccessKey"},
		{"{\"credentialSet\":[{\"credentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"canary\",\"sessionToken\":\"\","
		 "\"expiration\":\"" LATER "\"}}]}",
		 "no SessionToken"},
		{"{\"credentialSet\":[{\"credentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"canary\\n\","
		 "\"sessionToken\":\"c\",\"expiration\":\"" LATER "\"}}]}",
		 "can't have"},
		{"{\"credentialSet\":[{\"credentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"canary\","
		 "\"sessionToken\":\"c\",\"expiration\":\"tomorrow\"}}]}",
		 "no time"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_secret *session = NULL;
		struct aws_texts texts;
		int64_t seconds;
		struct kt_err err;

		aws_texts_init(&texts);
		assert_true(aws_read_json(kt_view_str(cases[i].json), &texts));
		assert_int_equal(aws_session(&texts, NOW, &session, &seconds, &err), KT_E_PROTO);
		assert_null(session);
		assert_non_null(strstr(err.what, cases[i].says));
		assert_null(strstr(err.what, "canary"));
		aws_texts_finish(&texts);
	}
}

static void test_not_in_that_language(void **state)
{
	static const char *const xml[] = {"", "x", "<a>", "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "{}", "<a></b>"};
	struct aws_texts texts;

	(void)state;
	aws_texts_init(&texts);
	for (size_t i = 1; i < sizeof(xml) / sizeof(xml[0]); i++) {
		assert_false(aws_read_xml(kt_view_str(xml[i]), &texts));
	}
	assert_false(aws_read_json(kt_view_str("<html>"), &texts));
	assert_false(aws_read_json(kt_view_str(""), &texts));
	aws_texts_finish(&texts);
}

static void test_refusals(void **state)
{
	static const struct {
		bool xml;
		const char *body;
		long status;
		enum kt_code code;
		const char *problem, *says;
	} cases[] = {
		{true, "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>No OpenIDConnect provider"
		       "</Message></Error></ErrorResponse>",
		 400, KT_E_AUTH, "InvalidIdentityToken", "InvalidIdentityToken: No OpenIDConnect provider (HTTP 400)"},
		{true, "<ErrorResponse><Error><Code>IDPCommunicationError</Code></Error></ErrorResponse>", 400, KT_E_LATER,
		 "IDPCommunicationError", "IDPCommunicationError (HTTP 400)"},
		{true, "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>", 400, KT_E_LATER, "Throttling", ""},
		{true, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform "
		       "sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>",
		 403, KT_E_DENIED, "AccessDenied", "Not authorized"},
		{true, "<html>nginx", 502, KT_E_LATER, "", "no error code (HTTP 502)"},
		{false, "{\"message\":\"Untrusted certificate\"}", 403, KT_E_DENIED, "", "no error code: Untrusted certificate"},
		{false, "{\"__type\":\"com.amazonaws#ValidationException:http://x\",\"Message\":\"bad\"}", 400, KT_E_DENIED,
		 "ValidationException", "ValidationException: bad"},
		{false, "{\"message\":\"Too Many Requests\"}", 429, KT_E_LATER, "", "429"},
		{false, "{\"__type\":\"a b\\u0000<x>\",\"message\":\"a\\nb\"}", 400, KT_E_DENIED, "", ""},
		{false, "{\"message\":\"you sent eyJ.canary.sig!\"}", 400, KT_E_DENIED, "", "must not be shown"},
		{false, "{\"__type\":\"eyJ.canary.sig\"}", 400, KT_E_DENIED, "", "no error code (HTTP 400)"},
		{false, "", 302, KT_E_PROTO, "", "302"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct aws_texts texts;
		struct kt_err err;

		aws_texts_init(&texts);
		(void)(cases[i].xml ? aws_read_xml(kt_view_str(cases[i].body), &texts) : aws_read_json(kt_view_str(cases[i].body), &texts));
		kt_err_clear(&err);
		assert_int_equal(aws_refusal(&texts, cases[i].status, 7, KT_VIEW_LIT("eyJ.canary.sig"), &err), cases[i].code);
		assert_string_equal(err.problem_type, cases[i].problem);
		assert_non_null(strstr(err.what, cases[i].says));
		assert_null(strstr(err.what, "canary"));
		assert_int_equal(err.retry_after_s, cases[i].code == KT_E_LATER ? 7 : 0);
		aws_texts_finish(&texts);
	}
}

static int setup(void **state)
{
	(void)state;
	return kt_secret_init(NULL) == KT_OK ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_no_sessions),
		cmocka_unit_test(test_not_in_that_language),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests_name("courier aws", tests, setup, NULL);
}
