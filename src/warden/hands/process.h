/* Inside the hands: finding and signalling processes. */
#ifndef KT_PROCESS_H
#define KT_PROCESS_H

#include "warden/hands/hands.h"

/* More processes of one executable than this are an error: the manifest has to be more exact. */
#define KT_PROCESS_FOUND_MAX 1024u

bool kt_process_same(const struct kt_process *a, const struct kt_process *b);
/* In this cgroup (path below /sys/fs/cgroup) or one below it. */
bool kt_process_in_cgroup(pid_t pid, const char *cgroup);
/* All that run exe, without those whose parent does, too. kt_free *ret. */
enum kt_code kt_process_find(const char *exe, const char *cgroup, struct kt_process **ret, unsigned *ret_count,
                             struct kt_err *err);
/* By pidfd, after making sure that it is still the process that was looked at. */
enum kt_code kt_process_signal(const struct kt_process *process, int signum, struct kt_err *err);

#endif
