# src/keeper/solve: how challenges are answered, one file a way.
libkt_keeper_a_SOURCES += src/keeper/solve/answers.c src/keeper/solve/solve.c
