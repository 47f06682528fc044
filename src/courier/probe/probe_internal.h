/* What the two probes share: the list of what is under way. */
#ifndef KT_COURIER_PROBE_INTERNAL_H
#define KT_COURIER_PROBE_INTERNAL_H

#include "courier/probe/probe.h"

/* Embedded first in both kinds. */
struct probe_item {
	struct probe_item *next;
	struct kt_courier *courier;
	uint32_t reply_to;
	void (*destroy)(struct probe_item *item); /* everything but the list */
};

struct kt_probe {
	struct kt_courier *courier;
	struct probe_item *items;
	unsigned count;
};

/* KT_E_LATER when too many are under way. */
enum kt_code probe_add(struct kt_courier *courier, struct probe_item *item, uint32_t reply_to, struct kt_err *err);
/* Off the list, then destroyed. */
void probe_end(struct probe_item *item);
void probe_fail(struct probe_item *item, const struct kt_err *err);

#endif
