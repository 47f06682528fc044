# src/cli: sources, headers and tests of this folder.
