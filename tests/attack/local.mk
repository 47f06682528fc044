# tests/attack: hostile servers and hostile local peers, against the built programs.
EXTRA_DIST += tests/attack/acme_server.py tests/attack/conftest.py tests/attack/hostile.py tests/attack/rows.py \
	tests/attack/victim.py tests/attack/puppet.py tests/attack/test_rooms.py tests/attack/test_acme.py tests/attack/test_desk.py tests/attack/test_fallback.py tests/attack/test_local.py \
	tests/attack/test_jwks.py tests/attack/test_kinds.py tests/attack/test_names.py tests/attack/test_oauth.py tests/attack/test_tokens.py tests/attack/test_transport.py
