/* keyturn-desk: the room with the inbound listeners. */
#include "desk/desk.h"

int main(void)
{
	return kt_room_main(&kt_desk_ops);
}
