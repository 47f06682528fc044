/* The system calls of delivery, one place each: every failure is named here, and nothing follows a link. */
#ifndef KEEPER_DELIVER_INTERNAL_H
#define KEEPER_DELIVER_INTERNAL_H

#include <sys/stat.h>

#include "keeper/deliver/deliver.h"

#define KT_DATA_LINK "..data"
#define KT_DATA_TMP "..data_tmp"
#define KT_LINK_TMP "..link_tmp" /* a stable link on its way to replace a wrong one */
#define KT_GENERATION_LEN 31     /* strlen("..2026_11_23_07_09_03.123456789") */

/* label: the volume's path, for errors. All names are relative to dirfd. */
enum kt_code kt_fs_mkdir(int dirfd, const char *name, mode_t mode, const char *label, bool *ret_made,
                         struct kt_err *err);
int kt_fs_open_dir(int dirfd, const char *name, const char *label, struct kt_err *err);
enum kt_code kt_fs_write_file(int dirfd, const struct kt_volume_file *file, bool durable, const char *label,
                              struct kt_err *err);
enum kt_code kt_fs_own(int fd, uid_t uid, gid_t gid, mode_t mode, const char *name, const char *label,
                       struct kt_err *err);
enum kt_code kt_fs_sync(int fd, const char *name, const char *label, struct kt_err *err);
/* *ret_exists: something of that name was there already (not an error). */
enum kt_code kt_fs_symlink(int dirfd, const char *target, const char *name, const char *label, bool *ret_exists,
                           struct kt_err *err);
enum kt_code kt_fs_rename(int dirfd, const char *from, const char *to, const char *label, struct kt_err *err);
/* KT_OK when it is gone already. */
enum kt_code kt_fs_unlink(int dirfd, const char *name, const char *label, struct kt_err *err);

enum kt_fs_link { KT_FS_LINK_NONE, KT_FS_LINK_IS, KT_FS_LINK_OTHER };
/* Reads a link into buf (size bytes, NUL-terminated). *ret: nothing there, a link, or something else. */
enum kt_code kt_fs_readlink(int dirfd, const char *name, char *buf, size_t size, const char *label,
                            enum kt_fs_link *ret, struct kt_err *err);

/* lstat; *ret_exists false when there is nothing. */
enum kt_code kt_fs_stat(int dirfd, const char *name, const char *label, struct stat *st, bool *ret_exists,
                        struct kt_err *err);

/* All names in a directory but "." and "..", each followed by its d_type and a NUL: "Ltls.crt\0" ('L' link, 'D' folder,
 * '?' anything else). */
enum kt_code kt_fs_list(int fd, const char *label, struct kt_buf *out, struct kt_err *err);

/* Steps through what kt_fs_list gave: *pos starts at 0. NULL at the end. */
const char *kt_fs_list_next(const struct kt_buf *list, size_t *pos, char *ret_type);

/* A file's path is acceptable (deliver.h); names the reason. */
enum kt_code kt_deliver_path_check(const char *path, struct kt_err *err);
/* Length of a path's first component. */
size_t kt_deliver_top_len(const char *path);
/* True when a file before files[i] has the same first component. */
bool kt_deliver_top_seen(const struct kt_volume_file *files, size_t i);
/* Makes sure that the stable links of files exist and are right. */
enum kt_code kt_deliver_links(struct kt_volume *vol, const struct kt_volume_file *files, size_t count, bool expect,
                              struct kt_err *err);

/* formats_token.c: what a token's files hold; as struct kt_format.render. */
enum kt_code kt_token_raw(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                          struct kt_err *err);
enum kt_code kt_token_header(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                             struct kt_err *err);
enum kt_code kt_token_json(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                           struct kt_err *err);
enum kt_code kt_token_curl(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                           struct kt_err *err);
enum kt_code kt_token_env(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                          struct kt_err *err);
enum kt_code kt_token_envoy(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                            struct kt_err *err);
enum kt_code kt_token_flex(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                           struct kt_err *err);
enum kt_code kt_token_dpop_key(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                               struct kt_err *err);
enum kt_code kt_token_dpop_jwk(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                               struct kt_err *err);
enum kt_code kt_client_id(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned, struct kt_err *err);
enum kt_code kt_client_secret(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                              struct kt_err *err);
enum kt_code kt_client_jwk(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned, struct kt_err *err);
enum kt_code kt_client_json(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                            struct kt_err *err);
enum kt_code kt_token_web_identity(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                   struct kt_err *err);

/* formats_aws.c: the files of an AWS session. */
enum kt_code kt_aws_format_process(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                 struct kt_err *err);
enum kt_code kt_aws_format_credentials(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                 struct kt_err *err);
enum kt_code kt_aws_format_endpoint(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                 struct kt_err *err);
enum kt_code kt_aws_format_container(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                 struct kt_err *err);

#endif
