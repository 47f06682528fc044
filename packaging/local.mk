# packaging: sources, headers and tests of this folder.
