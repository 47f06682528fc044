# docs: sources, headers and tests of this folder.
dist_doc_DATA = docs/dependencies.md docs/status-json.md
EXTRA_DIST += docs/internals/rooms.md
