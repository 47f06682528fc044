# src/courier: sources, headers and tests of this folder.
