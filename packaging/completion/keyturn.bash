# bash completion for keyturn(1): commands, options, formats, and the names of credentials that the state knows.

_keyturn_names()
{
	keyturn status -q -o json 2>/dev/null | sed -n 's/^ *{.*"name":"\([^"]*\)","namespace".*/\1/p'
}

_keyturn()
{
	local cur prev word command= i
	local global='-c --config --state-dir --secrets-dir --socket -o --output -v --verbose -q --quiet -h --help'
	local commands='run renew status plan why check rehearse import init token secret account revoke audit trace dns-record reload quit doctor master-key version help'

	cur=${COMP_WORDS[COMP_CWORD]}
	prev=${COMP_WORDS[COMP_CWORD - 1]}
	COMPREPLY=()
	case $prev in
	-c | --config | --state-dir | --secrets-dir | --socket | --manifests | --ca-bundle | --exec | --dir)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-o | --output)
		mapfile -t COMPREPLY < <(compgen -W 'json yaml wide table' -- "$cur")
		return
		;;
	--format)
		mapfile -t COMPREPLY < <(compgen -W 'raw header json curl env envoy flex aws-web-identity aws-credential-process aws-credentials aws-endpoint-token' -- "$cur")
		return
		;;
	--reason)
		mapfile -t COMPREPLY < <(compgen -W 'unspecified keyCompromise cACompromise affiliationChanged superseded cessationOfOperation certificateHold privilegeWithdrawn aACompromise' -- "$cur")
		return
		;;
	--for)
		mapfile -t COMPREPLY < <(compgen -W 'mulesoft-downstream' -- "$cur")
		return
		;;
	--call)
		mapfile -t COMPREPLY < <(compgen -W "$(_keyturn_names)" -- "$cur")
		return
		;;
	--until)
		mapfile -t COMPREPLY < <(compgen -W 'delivered' -- "$cur")
		return
		;;
	--fail-within | --timeout | --sha256 | --probe-address | --since | --days | --number | --namespace | -n | --email)
		return
		;;
	esac
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-c | --config | --state-dir | --secrets-dir | --socket | -o | --output | --manifests | --server | --ca-bundle) ((i++)) ;;
		-*) ;;
		*)
			command=$word
			break
			;;
		esac
	done
	local options=$global words=
	case $command in
	'') words=$commands ;;
	help) words=$commands ;;
	run) options+=' --sidecar --probe-address --until --timeout --no-sandbox' ;;
	renew)
		options+=' -f --force --now --timeout --no-wait'
		[[ $cur == -* ]] || words=$(_keyturn_names)
		;;
	status)
		options+=' --fail-within'
		[[ $cur == -* ]] || words=$(_keyturn_names)
		;;
	why | dns-record) [[ $cur == -* ]] || words=$(_keyturn_names) ;;
	token)
		options+=' --invalidate --sha256 --timeout --format --dpop --nonce'
		[[ $cur == -* ]] || words=$(_keyturn_names)
		;;
	check) options+=' --host --strict --call --expired --request' ;;
	init) options+=' --for --dir -n --namespace --api-audience --issuer-url --spiffe-id' ;;
	rehearse) options+=' --days' ;;
	import)
		words='certbot lego acme.sh dehydrated certmonger'
		options+=' --dry-run --manifests -n --namespace --server --ca-bundle --exec --with-secrets'
		;;
	secret)
		words='set list rm'
		options+=' -n --namespace --raw'
		;;
	account)
		words='show register update rollover deactivate'
		options+=' --email --new-key'
		;;
	revoke)
		options+=' --reason --by-key --no-renew --timeout'
		[[ $cur == -* ]] || words=$(_keyturn_names)
		;;
	audit) options+=' --verify --anchor --since -n --number --resource --trace --follow' ;;
	trace) options+=' --logs' ;;
	reload) options+=' --exec' ;;
	master-key) words='rotate' ;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	elif [[ $command == check || ($command == secret && $cur == *=*) ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "${cur#*=}")
	else
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	fi
}
complete -F _keyturn keyturn
