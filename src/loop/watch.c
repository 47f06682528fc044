/* Readiness of file descriptors. */
#include "config.h"

#include "kt/mem.h"
#include "loop/loop_internal.h"

struct kt_watch {
	uv_poll_t poll;
	struct handle_owner owner;
	void (*fn)(int events, void *arg);
	void *arg;
	int events;
	bool dead;
};

static void on_ready(uv_poll_t *poll, int status, int uv_events)
{
	struct handle_owner *owner = poll->data;
	struct kt_watch *watch = owner->object;
	int events = 0;

	if (status < 0) {
		/*
		 * POLLERR: libuv has stopped watching. Everything that was asked for is "ready": the read or write finds
		 * the error. Watching goes on, as it would with epoll itself, until the owner gives up the fd.
		 */
		events = watch->events | KT_LOOP_HANGUP;
		if (kt_watch_set(watch, watch->events, NULL) != KT_OK)
			watch->events = 0;
	} else {
		if (uv_events & UV_READABLE)
			events |= KT_LOOP_READ;
		if (uv_events & UV_WRITABLE)
			events |= KT_LOOP_WRITE;
		if (uv_events & UV_DISCONNECT)
			events |= KT_LOOP_HANGUP;
	}
	if (!watch->dead)
		watch->fn(events, watch->arg);
}

enum kt_code kt_watch_set(struct kt_watch *watch, int events, struct kt_err *err)
{
	int uv_events = 0, status;

	if (events == watch->events && uv_is_active((uv_handle_t *)&watch->poll))
		return KT_OK;
	if (events & KT_LOOP_READ)
		uv_events |= UV_READABLE;
	if (events & KT_LOOP_WRITE)
		uv_events |= UV_WRITABLE;
	if (events & KT_LOOP_HANGUP)
		uv_events |= UV_DISCONNECT;
	if (uv_events == 0)
		status = uv_poll_stop(&watch->poll);
	else
		status = uv_poll_start(&watch->poll, uv_events, on_ready);
	if (status < 0)
		return kt_loop_uv_err(err, status, "watching a descriptor");
	watch->events = events;
	return KT_OK;
}

enum kt_code kt_watch_create(struct kt_loop *loop, int fd, int events, void (*fn)(int events, void *arg), void *arg,
                             struct kt_watch **ret, struct kt_err *err)
{
	struct kt_watch *watch;
	enum kt_code code;
	int status;

	*ret = NULL;
	if (loop->fake)
		return kt_err_set(err, KT_E_UNSUPPORTED, "virtual time has no descriptors");
	watch = kt_calloc(1, sizeof(*watch));
	if (!watch)
		return kt_err_set(err, KT_E_NOMEM, "watching a descriptor: out of memory");
	watch->fn = fn;
	watch->arg = arg;
	watch->owner = (struct handle_owner){.closed = kt_free, .object = watch};
	status = uv_poll_init(&loop->uv, &watch->poll, fd);
	if (status < 0) {
		kt_free(watch);
		return kt_loop_uv_err(err, status, "watching a descriptor");
	}
	watch->poll.data = &watch->owner;
	code = kt_watch_set(watch, events, err);
	if (code != KT_OK) {
		kt_watch_destroy(watch);
		return code;
	}
	*ret = watch;
	return KT_OK;
}

void kt_watch_destroy(struct kt_watch *watch)
{
	if (!watch || watch->dead)
		return;
	watch->dead = true;
	/* Takes the fd out of epoll at once, so that the owner may close it; the memory goes with the next iteration. */
	kt_loop_close_handle((uv_handle_t *)&watch->poll);
}
