/* Where the agent is at home on this machine: its folders, its socket, the group that its files are given to. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "warden/settings.h"

#define GROUPS_MAX 1024

static char *default_socket(const char *state_dir)
{
	if (strcmp(state_dir, KT_STATEDIR) == 0 && geteuid() == 0) {
		return kt_strdup("/run/keyturn/control.sock");
	}
	return kt_asprintf("%s/control.sock", state_dir);
}

/* A copy; a relative path is one below the working directory of the command (the rooms' is another). */
static char *absolute(const char *path)
{
	char *here;
	char *joined;

	if (path[0] == '/') {
		return kt_strdup(path);
	}
	here = getcwd(NULL, 0);
	if (here == NULL) {
		return NULL;
	}
	joined = kt_asprintf("%s/%s", here, path);
	free(here);
	return joined;
}

/*
 * A mount point that others may write to (an emptyDir of a pod) can't be the state's folder: one of our own in it is. Whether
 * that is allowed is decided where it is opened; commands come to the same path without being told. Takes `path`.
 */
static char *own_folder(char *path)
{
	struct stat st;
	char *inside;

	if (path == NULL || stat(path, &st) < 0 || !S_ISDIR(st.st_mode) || (st.st_mode & 022) == 0 ||
	    !kt_io_is_mount_root(AT_FDCWD, path)) {
		return path;
	}
	inside = kt_asprintf("%s/keyturn", path);
	kt_free(path);
	return inside;
}

/* The first that is given. */
static const char *first_of(const char *option, const char *setting, const char *fallback)
{
	return option != NULL ? option : setting != NULL ? setting : fallback;
}

enum kt_code kt_generation_places(struct kt_generation *generation, const struct kt_warden_options *options,
                                  struct kt_err *err)
{
	const struct kt_agent_spec *agent = &generation->agent->agent;
	const char *socket = first_of(options->socket_path, agent->control.socket, NULL);

	generation->state_dir = own_folder(absolute(first_of(options->state_dir, agent->state_dir, KT_STATEDIR)));
	generation->secrets_dir =
	        absolute(first_of(options->secrets_dir, agent->secrets_dir, "/run/keyturn/secrets"));
	if (generation->state_dir != NULL) {
		generation->socket_path = socket != NULL ? absolute(socket) : default_socket(generation->state_dir);
	}
	return generation->secrets_dir == NULL || generation->socket_path == NULL
	               ? kt_err_set(err, KT_E_NOMEM, "no memory for the settings")
	               : KT_OK;
}

/* As somebody else than root, files can be given to groups that we are in, and to no others. */
static bool is_member(gid_t gid)
{
	gid_t groups[GROUPS_MAX];
	int count = getgroups(GROUPS_MAX, groups);

	for (int i = 0; i < count; i++) {
		if (groups[i] == gid) {
			return true;
		}
	}
	return geteuid() == 0 || gid == getegid();
}

enum kt_code kt_generation_group(struct kt_generation *generation, const struct kt_warden_options *options,
                                 struct kt_err *err)
{
	struct kt_agent_spec *agent = &generation->agent->agent;
	gid_t gid;
	enum kt_code code;

	if (agent->secrets_group == NULL) {
		return KT_OK;
	}
	code = kt_gid_resolve(agent->secrets_group, &gid, err);
	if (code != KT_OK) {
		return kt_err_set(err, KT_E_INVALID, "spec.secretsGroup of kind Agent: there is no group %s on this machine; a number "
		                  "needs no entry", agent->secrets_group);
	}
	if (options->mode != KT_MODE_READONLY && !is_member(gid)) {
		return kt_err_set(err, KT_E_INVALID, "spec.secretsGroup of kind Agent: uid %u is not in group %s: name one that it is "
		                  "in (of a pod: fsGroup or supplementalGroups)", geteuid(), agent->secrets_group);
	}
	(void)snprintf(generation->group, sizeof(generation->group), "%u", gid);
	agent->secrets_group = generation->group;
	return KT_OK;
}
