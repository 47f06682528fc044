/* The list of probes under way, and their common end. */
#include "courier/probe/probe_internal.h"
#include "kt/mem.h"

enum kt_code kt_probe_create(struct kt_courier *courier, struct kt_probe **ret, struct kt_err *err)
{
	*ret = kt_calloc(1, sizeof(**ret));
	if (*ret == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for probes");
	}
	(*ret)->courier = courier;
	return KT_OK;
}

void kt_probe_drop(struct kt_probe *probe)
{
	while (probe->items != NULL) {
		probe_end(probe->items);
	}
}

void kt_probe_destroy(struct kt_probe *probe)
{
	if (probe != NULL) {
		kt_probe_drop(probe);
		kt_free(probe);
	}
}

enum kt_code probe_add(struct kt_courier *courier, struct probe_item *item, uint32_t reply_to, struct kt_err *err)
{
	struct kt_probe *probe = courier->probe;

	if (probe->count >= KT_PROBES_MAX) {
		return kt_err_set(err, KT_E_LATER, "too many probes are under way already");
	}
	item->courier = courier;
	item->reply_to = reply_to;
	item->next = probe->items;
	probe->items = item;
	probe->count++;
	return KT_OK;
}

void probe_end(struct probe_item *item)
{
	struct kt_probe *probe = item->courier->probe;
	struct probe_item **at = &probe->items;

	while (*at != item) {
		at = &(*at)->next;
	}
	*at = item->next;
	probe->count--;
	item->destroy(item);
}

void probe_fail(struct probe_item *item, const struct kt_err *err)
{
	kt_wire_reply_err(item->courier->keeper, item->reply_to, err);
	probe_end(item);
}
