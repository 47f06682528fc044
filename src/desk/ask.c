/* Requests that only the keeper can answer: their connections are suspended until it has, or this room ends. */
#include "desk/desk.h"

bool kt_desk_ask(struct kt_desk *desk, struct kt_desk_conn *conn, enum kt_msg_type type, const void *msg, kt_wire_reply_fn *fn)
{
	if (desk->ending || !kt_wire_attached(desk->keeper))
		return false;
	conn->desk = desk;
	if (kt_wire_call(desk->keeper, type, msg, NULL, 0, KT_DESK_PAGE_DEADLINE_MS, fn, conn, NULL) != KT_OK)
		return false;
	conn->waiting = desk->asking;
	desk->asking = conn;
	MHD_suspend_connection(conn->mhd);
	return true;
}

void kt_desk_resume(struct kt_desk_conn *conn)
{
	conn->resumed = true;
	MHD_resume_connection(conn->mhd);
	kt_desk_http_wake(conn->listener);
}

bool kt_desk_asked(struct kt_desk_conn *conn)
{
	struct kt_desk_conn **at = &conn->desk->asking;

	while (*at && *at != conn)
		at = &(*at)->waiting;
	if (!*at)
		return false;
	*at = conn->waiting;
	conn->waiting = NULL;
	return true;
}

void kt_desk_ask_finish(struct kt_desk *desk)
{
	struct kt_desk_conn *conn;

	desk->ending = true;
	while ((conn = desk->asking) != NULL) {
		desk->asking = conn->waiting;
		conn->waiting = NULL;
		kt_wire_forget(desk->keeper, conn);
		kt_desk_resume(conn);
	}
}
