# src/warden: sources, headers and tests of this folder.
