# src/keeper/plan: what is due, when and why; pure functions.
noinst_LIBRARIES += libkt_plan.a
libkt_plan_a_CPPFLAGS = $(AM_CPPFLAGS)
libkt_plan_a_SOURCES = \
	src/keeper/plan/cron.c \
	src/keeper/plan/explain.c \
	src/keeper/plan/life.c \
	src/keeper/plan/plan.c \
	src/keeper/plan/retry.c \
	src/keeper/plan/task.c \
	src/keeper/plan/zone.c
noinst_HEADERS += src/keeper/plan/plan.h src/keeper/plan/plan_internal.h
