# src/keeper: sources, headers and tests of this folder.
