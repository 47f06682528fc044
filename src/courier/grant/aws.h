/* Sessions of AWS roles: how answers are read and judged; aws.c does the asking. */
#ifndef KT_COURIER_GRANT_AWS_H
#define KT_COURIER_GRANT_AWS_H

#include "courier/http.h"
#include "kt/secret.h"

#define AWS_TEXT_MAX 16384u

enum aws_text { AWS_KEY_ID, AWS_SECRET_KEY, AWS_SESSION_TOKEN, AWS_EXPIRATION, AWS_TEXT_COUNT };

/* What is looked for in an answer; each empty where it has none. init/finish; holds secrets: finish wipes. */
struct aws_texts {
	struct kt_buf at[AWS_TEXT_COUNT];
	struct kt_buf code, message; /* of a refusal */
};
void aws_texts_init(struct aws_texts *texts);
void aws_texts_finish(struct aws_texts *texts);

/* The answer of STS, of IAM Roles Anywhere; false: it is not in that language. */
bool aws_read_xml(struct kt_view body, struct aws_texts *texts);
bool aws_read_json(struct kt_view body, struct aws_texts *texts);

/* A session as JSON, and how long it lives from server_now on. */
enum kt_code aws_session(const struct aws_texts *texts, kt_ms server_now, struct kt_secret **ret, int64_t *ret_seconds,
			 struct kt_err *err);
/* Why there is none; problem_type is AWS's error code where it is a plain word. hidden is never shown. */
enum kt_code aws_refusal(const struct aws_texts *texts, long status, int64_t retry_after, struct kt_view hidden,
			 struct kt_err *err);

#endif
