# src/keeper: sources, headers and tests of this folder.
include $(top_srcdir)/src/keeper/deliver/local.mk
include $(top_srcdir)/src/keeper/plan/local.mk
include $(top_srcdir)/src/keeper/store/local.mk
