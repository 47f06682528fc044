# docs: sources, headers and tests of this folder.
