# tests: sources, headers and tests of this folder.
include $(top_srcdir)/tests/bench/local.mk
EXTRA_DIST += tests/run tests/house.py dev m4/.gitkeep .editorconfig .clang-format LICENSE NEWS README.md SECURITY.md HACKING.md .ci/run
include $(top_srcdir)/tests/fuzz/local.mk
include $(top_srcdir)/tests/crash/local.mk
include $(top_srcdir)/tests/attack/local.mk
# Layers in Python against the built programs, and what they share.
EXTRA_DIST += tests/lib/__init__.py tests/lib/agent.py tests/lib/asking.py tests/lib/certs.py tests/lib/dns.py tests/lib/fixtures.py tests/lib/jose.py \
	tests/lib/manifests.py tests/lib/oauth.py tests/lib/servers.py tests/lib/wait.py tests/cli/conftest.py tests/cli/test_align.py tests/cli/test_metrics.py tests/cli/test_plan.py \
	tests/cli/test_pod.py tests/cli/test_token_socket.py tests/cli/test_trace.py tests/cli/test_watch.py tests/cli/test_wrong_input.py tests/peers/conftest.py tests/peers/oidc.mjs \
	tests/peers/package.json tests/peers/setup tests/peers/test_limits.py tests/peers/test_acme.py tests/peers/test_acme_orders.py \
	tests/peers/test_acme_matrix.py tests/peers/test_step_ca.py tests/peers/test_consumers.py tests/peers/test_dns.py \
	tests/peers/test_listeners.py tests/peers/test_oauth.py tests/peers/test_oauth_matrix.py \
	tests/peers/test_oauth_server.py tests/peers/test_courier_oauth.py \
	tests/peers/test_volumes.py
EXTRA_DIST += tests/peers/test_oauth_keeper.py tests/peers/secrets.mjs
EXTRA_DIST += tests/peers/LoadStore.java tests/peers/test_starttls.py
EXTRA_DIST += tests/peers/anypoint_standin.py tests/peers/test_mulesoft.py
EXTRA_DIST += tests/peers/AppServer.java tests/peers/test_mule.py
EXTRA_DIST += tests/lib/keycloak.py tests/peers/test_keycloak.py
