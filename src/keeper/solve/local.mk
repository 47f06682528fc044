# src/keeper/solve: how challenges are answered, one file a way.
libkt_keeper_a_SOURCES += src/keeper/solve/solve.c src/keeper/solve/choice.c src/keeper/solve/answers.c \
	src/keeper/solve/http.c src/keeper/solve/alpn.c src/keeper/solve/dns.c src/keeper/solve/exec.c \
	src/keeper/solve/persist.c
noinst_HEADERS += src/keeper/solve/solve.h
