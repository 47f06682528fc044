/* What the keeper says about itself: fetched when somebody asks, once for all who ask within a second. */
#include <stdio.h>
#include <string.h>

#include "desk/desk.h"
#include "kt/mem.h"

struct page {
	struct kt_desk_pages *pages;
	const char *path;
	struct MHD_Response *response; /* the last answer, or NULL */
	unsigned status;
	kt_ms fresh_until;
	bool asking;
	struct kt_desk_conn *waiting;
};

static const char *const paths[] = {"/metrics", "/livez", "/readyz", "/startupz", "/status.json"};
enum { PAGES = sizeof(paths) / sizeof(paths[0]) };

struct kt_desk_pages {
	struct kt_desk *desk;
	bool finished;
	struct page all[PAGES];
};

static kt_ms now(const struct kt_desk_pages *pages)
{
	return kt_clock_mono(kt_loop_clock(pages->desk->loop));
}

bool kt_desk_pages_has(const char *path)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (strcmp(paths[i], path) == 0)
			return true;
	return false;
}

/* Keeps an answer (NULL: there was no memory for it) and wakes those who wait for it. */
static void settle(struct page *page, unsigned status, struct MHD_Response *response)
{
	struct kt_desk_conn *conn;

	if (page->response)
		MHD_destroy_response(page->response);
	page->response = response;
	page->status = status;
	page->fresh_until = now(page->pages) + KT_DESK_PAGE_FRESH_MS;
	page->asking = false;
	while ((conn = page->waiting) != NULL) {
		page->waiting = conn->waiting;
		conn->waiting = NULL;
		conn->resumed = true;
		MHD_resume_connection(conn->mhd);
		kt_desk_http_wake(conn->listener);
	}
}

static void settle_down(struct page *page, const char *why)
{
	char text[1024];

	snprintf(text, sizeof(text), "the keeper does not answer: %s\n", why);
	settle(page, MHD_HTTP_SERVICE_UNAVAILABLE, kt_desk_response_text(text));
}

static void on_reply(const struct kt_err *err, enum kt_msg_type reply_type, void *msg, int *fds, unsigned fd_count,
                     void *arg)
{
	struct page *page = arg;
	const struct kt_msg_page_given *given = msg;
	KT_AUTOFREE char *type = NULL;

	(void)fds;
	(void)fd_count;
	if (err->code) {
		settle_down(page, err->what);
		return;
	}
	if (reply_type != KT_PAGE_GIVEN || given->status < 200 || given->status > 599) {
		settle_down(page, "it said something else");
		return;
	}
	type = kt_strndup(given->content_type.ptr ? given->content_type.ptr : "", given->content_type.len);
	settle(page, given->status, type ? kt_desk_response(type, given->body, 0) : NULL);
}

/* Sends the question; false when that is no use. */
static bool ask(struct page *page, struct kt_err *err)
{
	struct kt_desk *desk = page->pages->desk;
	struct kt_msg_page msg = {.path = kt_view_str(page->path)};

	kt_err_clear(err);
	if (page->pages->finished || !desk->keeper || !kt_wire_attached(desk->keeper)) {
		(void)kt_err_set(err, KT_E_CLOSED, "it is not running or not connected yet");
		return false;
	}
	page->asking = kt_wire_call(desk->keeper, KT_PAGE, &msg, NULL, 0, KT_DESK_PAGE_DEADLINE_MS, on_reply, page,
	                            err) == KT_OK;
	return page->asking;
}

enum MHD_Result kt_desk_pages_answer(struct kt_desk_pages *pages, struct kt_desk_conn *conn, const char *path)
{
	struct page *page = NULL;
	struct kt_err err;

	for (unsigned i = 0; i < PAGES; i++)
		if (strcmp(paths[i], path) == 0)
			page = &pages->all[i];
	if (!page)
		return MHD_NO;
	if (!conn->resumed && (page->asking || !page->response || now(pages) >= page->fresh_until)) {
		if (page->asking || ask(page, &err)) {
			conn->waiting = page->waiting;
			page->waiting = conn;
			MHD_suspend_connection(conn->mhd);
			return MHD_YES;
		}
		settle_down(page, err.what);
	}
	return page->response ? MHD_queue_response(conn->mhd, page->status, page->response) : MHD_NO;
}

enum kt_code kt_desk_pages_create(struct kt_desk *desk, struct kt_desk_pages **ret, struct kt_err *err)
{
	struct kt_desk_pages *pages = kt_calloc(1, sizeof(*pages));

	*ret = pages;
	if (!pages)
		return kt_err_set(err, KT_E_NOMEM, "no memory for the keeper's pages");
	pages->desk = desk;
	for (unsigned i = 0; i < PAGES; i++) {
		pages->all[i].pages = pages;
		pages->all[i].path = paths[i];
	}
	return KT_OK;
}

void kt_desk_pages_finish(struct kt_desk_pages *pages)
{
	if (!pages || pages->finished)
		return;
	pages->finished = true;
	for (unsigned i = 0; i < PAGES; i++) {
		struct page *page = &pages->all[i];

		if (page->asking && pages->desk->keeper)
			kt_wire_forget(pages->desk->keeper, page);
		if (page->waiting)
			settle_down(page, "the agent is ending");
	}
}

void kt_desk_pages_destroy(struct kt_desk_pages *pages)
{
	if (!pages)
		return;
	kt_desk_pages_finish(pages);
	for (unsigned i = 0; i < PAGES; i++)
		if (pages->all[i].response)
			MHD_destroy_response(pages->all[i].response);
	kt_free(pages);
}
