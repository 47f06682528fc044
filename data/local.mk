# data: sources, headers and tests of this folder.
schemadir = $(datadir)/keyturn
dist_schema_DATA = data/agent.schema.json data/certificate.schema.json data/clusterissuer.schema.json \
	data/consumer.schema.json data/issuer.schema.json data/secret.schema.json data/token.schema.json \
	data/clientcredential.schema.json data/tokenissuer.schema.json data/watch.schema.json
examplesdir = $(docdir)/examples
dist_examples_DATA = data/examples/host-nginx.yaml data/examples/sidecar.yaml data/examples/token.yaml
muledir = $(examplesdir)/mule
dist_mule_DATA = data/examples/mule/Tokens.java
kubernetesdir = $(examplesdir)/kubernetes
dist_kubernetes_DATA = data/examples/kubernetes/pod.yaml
# Formats of access logs that carry the trace id, for `keyturn trace ID --logs`.
logformatsdir = $(datadir)/keyturn
dist_logformats_DATA = data/envoy-access-log.yaml data/istio-access-log.yaml data/api-manager-log.yaml
referencedir = $(docdir)/reference
dist_reference_DATA = docs/reference/agent.md docs/reference/certificate.md docs/reference/clusterissuer.md \
	docs/reference/consumer.md docs/reference/issuer.md docs/reference/secret.md docs/reference/token.md \
	docs/reference/clientcredential.md docs/reference/tokenissuer.md docs/reference/watch.md

# The demo, started by ./dev demo; the web page of the desk.
EXTRA_DIST += data/demo/run data/demo/api.py data/demo/service.py data/demo/verdict.py data/demo/record.py \
	data/demo/agent.yaml.in data/demo/consumers.yaml.in data/demo/credentials.yaml.in data/demo/nginx.conf.in
