# src/desk: sources, headers and tests of this folder.
