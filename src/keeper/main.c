/* keyturn-keeper: the room of store, keys, plan, delivery and audit. */
#include "keeper/keeper.h"

int main(void)
{
	return kt_room_main(&kt_keeper_ops);
}
