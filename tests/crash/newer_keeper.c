/*
 * A keeper of a later version: the same program with three more migrations, to which what today's keeper wrote is an older
 * database. The steps are of the kinds that real ones are made of: a column with values, a table filled from others, a table
 * that is built anew.
 */
#define kt_store_migrate todays_migrate
#include "keeper/store/schema.c"
#undef kt_store_migrate

#include "keeper/keeper.h"

static const char *const more[] = {
        "ALTER TABLE credential ADD COLUMN colour TEXT;"
        "UPDATE credential SET colour = kind || ':' || secret_name",
        "CREATE TABLE shade(id INTEGER PRIMARY KEY, colour TEXT NOT NULL, revision INTEGER NOT NULL);"
        "INSERT INTO shade SELECT m.id, c.colour, m.revision FROM material m JOIN credential c ON c.id = m.credential;"
        "CREATE INDEX shade_colour ON shade(colour)",
        "CREATE TABLE shade_2(colour TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(colour, id)) WITHOUT ROWID;"
        "INSERT INTO shade_2 SELECT colour, id FROM shade;"
        "DROP TABLE shade;"
        "ALTER TABLE shade_2 RENAME TO shade",
};

enum kt_code kt_store_migrate(struct kt_store *store, const struct kt_migration *steps, size_t count,
                              struct kt_err *err);
enum kt_code kt_store_migrate(struct kt_store *store, const struct kt_migration *steps, size_t count,
                              struct kt_err *err)
{
	struct kt_migration all[sizeof(kt_migrations) / sizeof(kt_migrations[0]) + sizeof(more) / sizeof(more[0])];
	int last = steps[count - 1].version;

	memcpy(all, steps, count * sizeof(*steps));
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		all[count + i] = (struct kt_migration){.version = last + 1 + (int)i, .sql = more[i]};
	return todays_migrate(store, all, count + sizeof(more) / sizeof(more[0]), err);
}

int main(void)
{
	return kt_room_main(&kt_keeper_ops);
}
