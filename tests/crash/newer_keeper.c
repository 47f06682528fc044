/*
 * A keeper of a later version: the same program, whose table of migrations has steps after those of today. So what today's
 * keeper wrote is an older database to it. The steps are of the kinds that a real one is made of: a column with values,
 * a table filled from another one, a table that is built anew.
 */
#define kt_migrations todays_migrations
#define kt_migration_count todays_count
#include "keeper/store/schema.c"
#undef kt_migrations
#undef kt_migration_count

#include "keeper/keeper.h"

const struct kt_migration kt_migrations[] = {
        {1, step_1},
        {2, "ALTER TABLE credential ADD COLUMN colour TEXT;"
            "UPDATE credential SET colour = kind || ':' || secret_name"},
        {3, "CREATE TABLE shade(id INTEGER PRIMARY KEY, colour TEXT NOT NULL, revision INTEGER NOT NULL);"
            "INSERT INTO shade SELECT m.id, c.colour, m.revision FROM material m JOIN credential c ON c.id = m.credential;"
            "CREATE INDEX shade_colour ON shade(colour)"},
        {4, "CREATE TABLE link_2(rel TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, owner INTEGER NOT NULL,"
            " PRIMARY KEY(rel, ns, name, owner)) WITHOUT ROWID;"
            "INSERT INTO link_2 SELECT rel, ns, name, owner FROM link;"
            "DROP TABLE link;"
            "ALTER TABLE link_2 RENAME TO link;"
            "CREATE INDEX link_owner ON link(owner)"},
};
const size_t kt_migration_count = sizeof(kt_migrations) / sizeof(kt_migrations[0]);

/* Where today's table has grown, the steps above must follow it. */
_Static_assert(sizeof(todays_migrations) / sizeof(todays_migrations[0]) == 1, "number the steps anew");

int main(void)
{
	return kt_room_main(&kt_keeper_ops);
}
