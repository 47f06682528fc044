#!/bin/sh
# The program as a shell meets it: exit statuses, suggestions, complaints with file and line, nothing written.
set -u
unset KEYTURN_CONFIG KEYTURN_STATE_DIR KEYTURN_SECRETS_DIR KEYTURN_SOCKET KEYTURN_OUTPUT KEYTURN_LOG
dir=$(mktemp -d "${TMPDIR:-/tmp}/keyturn-cli.XXXXXX") || exit 99
trap 'rm -rf "$dir"' EXIT
failed=0
count=0

# expect STATUS PATTERN COMMAND...: the pattern (basic) must be in what it prints; "-" for any.
expect()
{
	status=$1 pattern=$2
	shift 2
	count=$((count + 1))
	"$@" >"$dir/out" 2>&1 </dev/null
	got=$?
	if [ $got -ne "$status" ]; then
		echo "cli_test: '$*' gave $got, not $status:" >&2
		cat "$dir/out" >&2
		failed=1
	elif [ "$pattern" != - ] && ! grep -q -e "$pattern" "$dir/out"; then
		echo "cli_test: '$*' does not say '$pattern':" >&2
		cat "$dir/out" >&2
		failed=1
	fi
}

kt=./keyturn
expect 0 'Commands:' $kt --help
expect 0 'keyturn secret set' $kt secret set --help
expect 0 'keyturn secret set' $kt help secret set
expect 0 '^keyturn [0-9]' $kt version
expect 0 '"version"' $kt version -o json
expect 0 '^keyturn [0-9]' $kt --version
expect 2 'a command is missing' $kt
expect 2 'did you mean status' $kt statsu
expect 2 'takes one of set, list, rm' $kt secret
expect 2 "no 'keyturn secret put'" $kt secret put
expect 2 'did you mean --fail-within' $kt status --fail-withn 1h
expect 2 'takes a duration' $kt status --fail-within soon
expect 2 'takes a duration' $kt renew --timeout 0s
expect 2 'needs a value' $kt renew --timeout
expect 2 'takes no value' $kt renew --force=yes
expect 2 'needs NAME' $kt why
expect 2 'does not take' $kt plan web
expect 2 'did you mean json' $kt status -o jsno
expect 2 'takes a number' $kt rehearse --days 0
expect 2 'takes delivered' $kt run --until dawn
expect 2 'takes raw, header, json' $kt token web --format xml
expect 2 'URL is given with --dpop' $kt token web --dpop GET
expect 2 'not a trace id' $kt trace 123
expect 2 'KEYTURN_LOG' env KEYTURN_LOG=loud $kt version
expect 2 'never stands on the command line' $kt secret set demo =value

# What might be a secret is never repeated, whatever place it stands in.
mute()
{
	expect 2 "$@"
	if grep -q 's3cr3t' "$dir/out"; then
		echo "cli_test: '$*' repeats what may be a secret:" >&2
		cat "$dir/out" >&2
		failed=1
	fi
}
mute 'after = comes a file or -' $kt secret set demo client-secret=s3cr3t
mute 'does not look like a key' $kt secret set demo s3cr3t
mute 'does not look like a key' $kt secret set demo client-secret s3cr3t
mute 'does not look like a key' $kt secret set demo MYSECRET
mute 'that key' $kt secret set demo s3cr3t==
mute 'name of a secret' $kt secret set S3cr3t/s3cr3t k=-
mute 'which takes -n/--namespace NS, --raw' $kt secret set demo --pass=s3cr3t
mute 'which takes -n/--namespace NS, --raw' $kt secret set demo --s3cr3t
mute 'no more than NAME \[KEY\]' $kt secret rm demo key s3cr3t
mute 'takes one of set, list, rm' $kt secret s3cr3t
expect 2 'keyturn secret set --raw' $kt secret --raw set demo
expect 2 'keyturn secret set --raw' $kt --raw secret set demo
expect 2 'behind the second word' $kt secret --foo set demo
expect 2 'no option --raw of keyturn secret list, which takes -n/--namespace NS' $kt secret list --raw
expect 2 'no option --force of keyturn plan, which takes only those of every command' $kt plan --force
expect 2 'keyturn renew --force' $kt --force renew
for key in client-secret tls.crt keystore.p12 clientSecret API_TOKEN AWS_SECRET_ACCESS_KEY kid2026 k acmedns.json x509.crt; do
	expect 2 "the value for $key is empty" $kt secret set demo "$key"
done

# check: every kind of wrong manifest is said with file and line, exit status 2.
bad=$dir/bad.yaml
manifest() { printf '%s\n' "$@" >"$bad"; }
start='apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web}
spec:
  secretName: web-tls
  issuerRef: {name: ca}'
issuer='---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca}
spec: {selfSigned: {}}'
manifest "$start" '  dnsNames: [a.example]' "$issuer"
expect 0 '2 resources, 0 errors' $kt check "$bad"
expect 0 '"errorCount": 0' $kt check -o json "$bad"
manifest "$start" '  dnsNmes: [a.example]' "$issuer"
expect 2 'bad.yaml:7: .*dnsNames' $kt check "$bad"
expect 2 '"line": 7' $kt check -o json "$bad"
expect 2 'line: 7' $kt check -o yaml "$bad"
manifest "$start" '  dnsNames: a.example' "$issuer"
expect 2 'bad.yaml:7: ' $kt check "$bad"
manifest "$start" '  dnsNames: [a.example]'
expect 2 'bad.yaml:[0-9]*: .*ca' $kt check "$bad"
manifest "$start" '  dnsNames: [a.example]' '  duration: 24h' '  renewBefore: 720h' "$issuer"
expect 2 'renewBefore (720h) must be shorter' $kt check "$bad"
manifest "$start" "  dnsNames: [$(seq -f 'n%.0f.example,' 10000 | tr -d '\n')]" "$issuer"
expect 2 'bad.yaml:' $kt check "$bad"
manifest 'a: &a [x,x,x,x,x,x,x,x,x]' 'b: &b [*a,*a,*a,*a,*a,*a,*a,*a]' 'c: &c [*b,*b,*b,*b,*b,*b,*b,*b]' 'd: [*c,*c,*c,*c]'
expect 2 'bad.yaml:' $kt check "$bad"
manifest '{"apiVersion": '
expect 2 'bad.yaml:' $kt check "$bad"
expect 2 'nowhere.yaml' $kt check "$dir/nowhere.yaml"

# Commands with wrong manifests: the complaint, exit status 2, and nothing is written.
manifest "$start" '  dnsNmes: [a.example]' "$issuer"
here="-c $bad --state-dir $dir/state --secrets-dir $dir/secrets"
# shellcheck disable=SC2086
{
	expect 2 'bad.yaml:7: ' $kt renew $here
	expect 2 'bad.yaml:7: ' $kt plan $here
	expect 2 'bad.yaml:7: ' $kt run $here
	expect 2 'there is no state yet' $kt status $here
	expect 2 'bad.yaml:7: ' $kt why web $here
	expect 3 'no agent listens' $kt reload $here
	expect 3 'no agent listens' $kt quit $here
}
[ ! -e "$dir/state" ] && [ ! -e "$dir/secrets" ] || { echo "cli_test: something was written" >&2; failed=1; }
manifest "$start" '  dnsNames: [a.example]' "$issuer"
KEYTURN_LIBEXECDIR=$PWD
export KEYTURN_LIBEXECDIR
# shellcheck disable=SC2086
expect 0 'never-issued' $kt plan $here
# shellcheck disable=SC2086
expect 0 '"action":"issue"' $kt plan -o json $here
# shellcheck disable=SC2086
expect 0 '1 credential, 2 issuances in 90 days' $kt rehearse $here
[ ! -e "$dir/state" ] && [ ! -e "$dir/secrets" ] || { echo "cli_test: something was written" >&2; failed=1; }

# What can't be written is no success.
if [ -c /dev/full ]; then
	count=$((count + 1))
	if $kt --help >/dev/full 2>/dev/null; then
		echo "cli_test: a full device goes unnoticed" >&2
		failed=1
	fi
fi
echo "cli_test: $count cases"
exit $failed
