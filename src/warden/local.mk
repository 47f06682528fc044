# src/warden: sources, headers and tests of this folder.
noinst_HEADERS += src/warden/warden.h
