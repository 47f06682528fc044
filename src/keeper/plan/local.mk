# src/keeper/plan: what is due, when and why; pure functions.
noinst_LIBRARIES += libkt_plan.a
libkt_plan_a_CPPFLAGS = $(AM_CPPFLAGS)
libkt_plan_a_SOURCES =
noinst_HEADERS += src/keeper/plan/plan.h
