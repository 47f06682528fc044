/* Frames to structs and back, from the field tables that the message table makes. */
#include <stddef.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "kt/wire.h"

#ifndef KT_BUILD_ID
#define KT_BUILD_ID "unknown"
#endif
const char kt_build_id[] = KT_BUILD_ID;

enum field_type { FIELD_u32, FIELD_u64, FIELD_i64, FIELD_flag, FIELD_view, FIELD_secret };

struct field {
	const char *name;
	enum field_type type;
	uint32_t offset;
	uint32_t max;
};

struct message {
	const char *name;
	const struct field *fields;
	uint32_t count;
};

/* One static array of fields a message. */
#define FIELD_ROW(S, type, name, max) {#name, FIELD_##type, (uint32_t)offsetof(S, name), max},
#define FIELDS(ID, name)              static const struct field fields_##name[] = {KT_MSG_##ID(FIELD_ROW, struct kt_msg_##name)};
KT_MESSAGES(FIELDS)
#undef FIELDS

static const struct message messages[KT_MSG_TYPE_COUNT] = {
#define MESSAGE_ROW(ID, name) [KT_##ID] = {#name, fields_##name, sizeof(fields_##name) / sizeof(fields_##name[0])},
	KT_MESSAGES(MESSAGE_ROW)
#undef MESSAGE_ROW
};

/* A failed reply travels as these fields of struct kt_err. */
#define HEADER_SIZE 16u
enum { FRAME_REPLY = 1, FRAME_FAILED = 2 };

const char *kt_msg_name(enum kt_msg_type type)
{
	if ((unsigned)type >= KT_MSG_TYPE_COUNT || messages[type].name == NULL) {
		return "unknown";
	}
	return messages[type].name;
}

static void put_u64(struct kt_buf *out, uint64_t value)
{
	kt_buf_add_u32(out, (uint32_t)value);
	kt_buf_add_u32(out, (uint32_t)(value >> 32));
}

static void put_view(struct kt_buf *out, struct kt_view view)
{
	kt_buf_add_u32(out, (uint32_t)view.len);
	kt_buf_addv(out, view);
}

/* Reads little-endian numbers and bounded views from a frame; `bad` is sticky. */
struct reader {
	const unsigned char *at;
	size_t left;
	bool bad;
};

static uint32_t take_u32(struct reader *in)
{
	uint32_t value;

	if (in->left < 4) {
		in->bad = true;
		return 0;
	}
	value = (uint32_t)in->at[0] | (uint32_t)in->at[1] << 8 | (uint32_t)in->at[2] << 16 | (uint32_t)in->at[3] << 24;
	in->at += 4;
	in->left -= 4;
	return value;
}

static uint64_t take_u64(struct reader *in)
{
	uint64_t low = take_u32(in);

	return low | (uint64_t)take_u32(in) << 32;
}

static struct kt_view take_view(struct reader *in, uint32_t max)
{
	uint32_t len = take_u32(in);
	struct kt_view view = {NULL, 0};

	if (in->bad || len > max || len > in->left) {
		in->bad = true;
		return view;
	}
	view.ptr = (const char *)in->at;
	view.len = len;
	in->at += len;
	in->left -= len;
	return view;
}

static enum kt_code encode_field(const struct field *field, const char *base, struct kt_buf *out, const char *message,
				 struct kt_err *err)
{
	const void *at = base + field->offset;
	struct kt_view view;

	switch (field->type) {
	case FIELD_u32:
		kt_buf_add_u32(out, *(const uint32_t *)at);
		return KT_OK;
	case FIELD_u64:
		put_u64(out, *(const uint64_t *)at);
		return KT_OK;
	case FIELD_i64:
		put_u64(out, (uint64_t) * (const int64_t *)at);
		return KT_OK;
	case FIELD_flag:
		kt_buf_add_u32(out, *(const bool *)at ? 1 : 0);
		return KT_OK;
	case FIELD_view:
		view = *(const struct kt_view *)at;
		break;
	case FIELD_secret:
	default: {
		const struct kt_secret *secret = *(struct kt_secret *const *)at;

		view = secret != NULL ? kt_secret_view(secret) : (struct kt_view){NULL, 0};
		break;
	}
	}
	if (view.len > field->max) {
		return kt_err_set(err, KT_E_LIMIT, "%s.%s is too long for a message: %zu bytes, at most %u", message,
				  field->name, view.len, field->max);
	}
	put_view(out, view);
	return KT_OK;
}

static void encode_err(const struct kt_err *why, struct kt_buf *out)
{
	kt_buf_add_u32(out, (uint32_t)why->code);
	kt_buf_add_u32(out, (uint32_t)why->sys_errno);
	put_u64(out, (uint64_t)why->retry_after_s);
	put_view(out, kt_view_str(why->problem_type));
	put_view(out, kt_view_str(why->what));
}

enum kt_code kt_wire_encode(const struct kt_frame *frame, const void *msg, struct kt_buf *out, struct kt_err *err)
{
	const struct message *message;
	uint32_t i;

	if (!frame->failed && ((unsigned)frame->type >= KT_MSG_TYPE_COUNT || messages[frame->type].name == NULL)) {
		return kt_err_set(err, KT_E_INVALID, "message type %d does not exist", (int)frame->type);
	}
	kt_buf_add_u32(out, (uint32_t)frame->type);
	kt_buf_add_u32(out, (frame->reply ? FRAME_REPLY : 0u) | (frame->failed ? FRAME_FAILED : 0u));
	kt_buf_add_u32(out, frame->id);
	kt_buf_add_u32(out, frame->deadline_ms);
	if (frame->failed) {
		encode_err(msg, out);
		return kt_buf_check(out, "frame", err);
	}
	message = &messages[frame->type];
	for (i = 0; i < message->count; i++) {
		enum kt_code code = encode_field(&message->fields[i], msg, out, message->name, err);

		if (code != KT_OK) {
			return code;
		}
	}
	return kt_buf_check(out, "frame", err);
}

/* Escaped like any text of an error, for it is shown: the other room may have been taken over. */
static void set_what(struct kt_err *why, struct kt_view what)
{
	struct kt_err shown;

	kt_err_clear(&shown);
	(void)kt_err_set(&shown, why->code, "%.*s", (int)what.len, what.len > 0 ? what.ptr : "");
	memcpy(why->what, shown.what, sizeof(why->what));
}

static void decode_err(struct reader *in, struct kt_err *why)
{
	struct kt_view view;

	memset(why, 0, sizeof(*why));
	why->code = (enum kt_code)take_u32(in);
	why->sys_errno = (int)take_u32(in);
	why->retry_after_s = (int64_t)take_u64(in);
	if ((unsigned)why->code >= KT_CODE_COUNT || why->code == KT_OK) {
		in->bad = true;
	}
	view = take_view(in, sizeof(why->problem_type) - 1);
	for (size_t i = 0; i < view.len; i++) {
		why->problem_type[i] = view.ptr[i] > ' ' && view.ptr[i] < 0x7f ? view.ptr[i] : '?';
	}
	view = take_view(in, sizeof(why->what) - 1);
	if (!in->bad) {
		set_what(why, view);
	}
}

static enum kt_code decode_field(const struct field *field, char *base, struct reader *in, struct kt_err *err)
{
	void *at = base + field->offset;
	uint32_t number;
	struct kt_view view;

	switch (field->type) {
	case FIELD_u32:
		*(uint32_t *)at = take_u32(in);
		return KT_OK;
	case FIELD_u64:
		*(uint64_t *)at = take_u64(in);
		return KT_OK;
	case FIELD_i64:
		*(int64_t *)at = (int64_t)take_u64(in);
		return KT_OK;
	case FIELD_flag:
		number = take_u32(in);
		in->bad = in->bad || number > 1;
		*(bool *)at = number == 1;
		return KT_OK;
	case FIELD_view:
		*(struct kt_view *)at = take_view(in, field->max);
		return KT_OK;
	case FIELD_secret:
	default:
		view = take_view(in, field->max);
		if (in->bad || view.len == 0) {
			return KT_OK;
		}
		return kt_secret_create(view.ptr, view.len, (struct kt_secret **)at, err);
	}
}

enum kt_code kt_wire_decode(struct kt_view data, struct kt_frame *frame, union kt_msg_any *msg, struct kt_err *err)
{
	struct reader in = {(const unsigned char *)data.ptr, data.len, false};
	const struct message *message = NULL;
	uint32_t flags;
	uint32_t i;

	memset(frame, 0, sizeof(*frame));
	memset(msg, 0, sizeof(*msg));
	if (data.len < HEADER_SIZE || data.len > KT_WIRE_FRAME_MAX) {
		return kt_err_set(err, KT_E_PROTO, "a frame of %zu bytes is out of bounds", data.len);
	}
	frame->type = (enum kt_msg_type)take_u32(&in);
	flags = take_u32(&in);
	frame->id = take_u32(&in);
	frame->deadline_ms = take_u32(&in);
	frame->reply = (flags & FRAME_REPLY) != 0;
	frame->failed = (flags & FRAME_FAILED) != 0;
	if (flags > (FRAME_REPLY | FRAME_FAILED) || (frame->failed && !frame->reply)) {
		return kt_err_set(err, KT_E_PROTO, "a frame has unknown flags %u", flags);
	}
	if (frame->failed) {
		decode_err(&in, &msg->err);
	} else {
		if ((unsigned)frame->type >= KT_MSG_TYPE_COUNT || messages[frame->type].name == NULL) {
			return kt_err_set(err, KT_E_PROTO, "a frame has the unknown type %d", (int)frame->type);
		}
		message = &messages[frame->type];
		for (i = 0; i < message->count && !in.bad; i++) {
			if (decode_field(&message->fields[i], (char *)msg, &in, err) != KT_OK) {
				kt_wire_release(frame, msg);
				return err != NULL ? err->code : KT_E_NOMEM;
			}
		}
	}
	if (in.bad || in.left != 0) {
		kt_wire_release(frame, msg);
		return kt_err_set(err, KT_E_PROTO, "a frame of type %s is malformed",
				  message != NULL ? message->name : "error");
	}
	return KT_OK;
}

void kt_wire_release(const struct kt_frame *frame, union kt_msg_any *msg)
{
	const struct message *message;
	uint32_t i;

	if (frame->failed || (unsigned)frame->type >= KT_MSG_TYPE_COUNT) {
		return;
	}
	message = &messages[frame->type];
	for (i = 0; i < message->count; i++) {
		if (message->fields[i].type == FIELD_secret) {
			struct kt_secret **slot = (struct kt_secret **)((char *)msg + message->fields[i].offset);

			kt_secret_destroy(*slot);
			*slot = NULL;
		}
	}
}
