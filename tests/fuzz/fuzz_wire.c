/* Frames between rooms: a frame that is taken can be encoded again and is taken again as the same. */
#include <string.h>

#include "fuzz.h"
#include "kt/wire.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_view view = {(const char *)data, size};
	struct kt_frame frame, again;
	union kt_msg_any msg, second;
	KT_AUTOBUF struct kt_buf out;
	struct kt_err err;

	kt_buf_init(&out, 4u << 20);
	if (kt_wire_decode(view, &frame, &msg, &err) != KT_OK) {
		FUZZ_MUST(err.what[0] != '\0');
		return 0;
	}
	FUZZ_MUST(kt_msg_name(frame.type) != NULL);
	if (kt_wire_encode(&frame, &msg, &out, &err) == KT_OK) {
		FUZZ_MUST(kt_wire_decode(kt_buf_view(&out), &again, &second, &err) == KT_OK);
		FUZZ_MUST(again.type == frame.type && again.id == frame.id && again.reply == frame.reply);
		kt_wire_release(&again, &second);
	}
	kt_wire_release(&frame, &msg);
	return 0;
}
