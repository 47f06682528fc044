#!/bin/sh
# The manual: mandoc finds nothing, and every command and option that the program knows stands in it.
set -u
man=${srcdir:-.}/docs/man
completion=${srcdir:-.}/packaging/completion/keyturn.bash
failed=0
fail() { echo "man_test: $*" >&2; failed=1; }

if command -v mandoc >/dev/null; then
	mandoc -Tlint -W warning "$man"/*.[15] || fail "mandoc complains"
elif [ -n "${CI:-}" ]; then
	fail "mandoc is missing"
fi

./keyturn --help >man_test.commands || fail "no help"
commands=$(sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\( [a-z]\{2,10\}\)\{0,1\}\)  .*/\1/p' man_test.commands | tr ' ' '/')
[ "$(echo "$commands" | wc -w)" -ge 15 ] || fail "too few commands in the help: $commands"
for command in $commands; do
	words=$(echo "$command" | tr / ' ')
	first=${words%% *}
	page=$man/keyturn-$first.1
	[ -f "$page" ] || { fail "no page for $words"; continue; }
	grep -q "Xr keyturn-$first 1" "$man/keyturn.1" || fail "keyturn.1 does not name $first"
	grep -q "$first" "$completion" || fail "the completion does not know $first"
	# shellcheck disable=SC2086
	for option in $(./keyturn $words --help | sed -n '/^Options:/,/^$/s/^.*--\([a-z-]*\).*/\1/p'); do
		grep -q -e "-$option" "$page" || fail "keyturn-$first.1 does not name --$option"
		grep -q -e "--$option" "$completion" || fail "the completion does not know --$option of $first"
	done
done
for option in $(./keyturn --help | sed -n '/^Options of every/,$s/^.*--\([a-z-]*\) .*/\1/p'); do
	[ "$option" = help ] && continue
	grep -q -e "-$option" "$man/keyturn.1" || fail "keyturn.1 does not name --$option"
done
bash -n "$completion" || fail "the completion is no bash"

# The example in the page of the manifests is right.
sed -n '/^\.Bd/,/^\.Ed/p' "$man/keyturn-manifests.5" | grep -v '^\.' >man_test.yaml
./keyturn check -q man_test.yaml || fail "the example in keyturn-manifests.5 is wrong"
rm -f man_test.commands man_test.yaml
exit $failed
