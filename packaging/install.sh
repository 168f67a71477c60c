#!/bin/sh
# Installs node-agent, or node-core, from a folder or URL of a release, and registers the node:
#
#	curl -fsSL URL/install.sh | sh -s -- --token nj1_...
#	sh install.sh --from FOLDER --token-file FILE --host fra1.example
#	sh install.sh --core
#
# Options, and the variables that stand for them where nobody types:
#
#	--token TOKEN       NODE_AGENT_TOKEN        join token that 'node-core node add' prints
#	--token-file FILE   NODE_AGENT_TOKEN_FILE   file with the join token; - is standard input
#	--from FOLDER|URL   NODE_AGENT_RELEASE      the release
#	--key KEY           NODE_AGENT_RELEASE_KEY  minisign's public key of the release (RW...)
#	--unsigned          NODE_AGENT_UNSIGNED=1   take a release without a signature
#	--core                                      install node-core, and register nothing
#	--name, --host, --ip, --region VALUE        for node-agent register
#
# It checks the signature of the checksums with minisign or openssl, and the package with the
# checksums, before it installs anything. Repeat it to upgrade: a node that is registered keeps its
# state.
set -eu

release_url=''
release_key=''

say() { echo "install.sh: $*"; }

die() {
	echo "install.sh: $*" >&2
	exit 1
}

# fetch NAME copies a file of the release to the current folder.
fetch() {
	case "$from" in
	http://* | https://*)
		if command -v curl >/dev/null 2>&1; then
			curl -fsSL --retry 3 -o "$1" "$from/$1" || die "could not get $from/$1"
		elif command -v wget >/dev/null 2>&1; then
			wget -q -O "$1" "$from/$1" || die "could not get $from/$1"
		else
			die "neither curl nor wget is here; install one, or give a folder with --from"
		fi
		;;
	*) cp "$from/$1" "$1" || die "could not read $from/$1" ;;
	esac
}

# verify_openssl checks the signature as minisign does: Ed25519 of the BLAKE2b-512 of the file (ED),
# or of the file itself (Ed), and another one of that signature with the trusted comment.
verify_openssl() {
	printf '%s' "$key" | base64 -d >key 2>/dev/null || die "the public key is not one of minisign's: $key"
	sed -n 2p SHA256SUMS.minisig | base64 -d >signature 2>/dev/null || return 1
	sed -n 4p SHA256SUMS.minisig | base64 -d >whole.sig 2>/dev/null || return 1
	[ "$(wc -c <key)" -eq 42 ] && [ "$(wc -c <signature)" -eq 74 ] || return 1
	# The key's number is in both.
	[ "$(tail -c +3 key | head -c 8 | base64)" = "$(tail -c +3 signature | head -c 8 | base64)" ] || return 1
	# DER of an Ed25519 key (RFC 8410, section 4) is this and the 32 bytes.
	{
		printf '\060\052\060\005\006\003\053\145\160\003\041\000'
		tail -c 32 key
	} >key.der
	tail -c 64 signature >file.sig
	case "$(head -c 2 signature)" in
	ED) openssl dgst -blake2b512 -binary SHA256SUMS >signed ;;
	Ed) cp SHA256SUMS signed ;;
	*) return 1 ;;
	esac
	{
		cat file.sig
		sed -n '3s/^trusted comment: //p' SHA256SUMS.minisig | tr -d '\n'
	} >whole
	openssl pkeyutl -verify -pubin -inkey key.der -keyform DER -rawin -in signed -sigfile file.sig >/dev/null 2>&1 &&
		openssl pkeyutl -verify -pubin -inkey key.der -keyform DER -rawin -in whole -sigfile whole.sig >/dev/null 2>&1
}

verify() {
	if [ "$unsigned" = 1 ]; then
		say "warning: the signature is not checked; whoever can change $from decides what runs here"
		return
	fi
	[ -n "$key" ] || die "the public key of the release is not known; give it with --key, or --unsigned to go without"
	fetch SHA256SUMS.minisig
	if command -v minisign >/dev/null 2>&1; then
		minisign -V -q -m SHA256SUMS -P "$key" >/dev/null || die "the signature of SHA256SUMS is wrong; nothing was installed"
	elif command -v openssl >/dev/null 2>&1; then
		verify_openssl || die "the signature of SHA256SUMS is wrong; nothing was installed"
	else
		die "neither minisign nor openssl is here to check the signature; install one of them"
	fi
}

# install_package gets the package of this machine and installs it.
install_package() {
	case "$(uname -m)" in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) die "there is no package for $(uname -m); build it from source" ;;
	esac
	if command -v dpkg >/dev/null 2>&1; then
		kind=deb
	elif command -v rpm >/dev/null 2>&1; then
		kind=rpm
	else
		die "neither dpkg nor rpm is here; build from source"
	fi
	fetch SHA256SUMS
	verify
	sed -n "s/^[0-9a-f]\{64\}  \(${program}_[0-9A-Za-z.+~]*_$arch\.$kind\)\$/\1/p" SHA256SUMS >names
	[ "$(wc -l <names)" -eq 1 ] || die "$from has $(wc -l <names) packages ${program}_*_$arch.$kind, and not one"
	package=$(cat names)
	fetch "$package"
	grep "  $package\$" SHA256SUMS | sha256sum -c - >/dev/null 2>&1 || die "$package is not the file that SHA256SUMS names; nothing was installed"
	say "installing $package"
	# The package's own advice is for those who install by hand.
	case "$kind" in
	deb) DEBIAN_FRONTEND=noninteractive dpkg -i --force-confdef --force-confold "$package" >log 2>&1 ;;
	rpm) rpm -U --replacepkgs "$package" >log 2>&1 ;;
	esac || {
		cat log >&2
		die "$package could not be installed"
	}
}

# register makes this host a node. The token goes through a pipe: arguments can be read by everybody.
register() {
	if [ -e /var/lib/node-agent/node.db ]; then
		say "this host is registered already, and keeps its state"
		return
	fi
	if [ -n "$token" ]; then
		printf '%s\n' "$token" | node-agent register - "$@"
	elif [ -n "$token_file" ]; then
		node-agent register --token-file "$token_file" "$@"
	else
		say "node-agent is installed, and not registered; 'node-core node add NAME' on the host of Core prints a join token"
		say "type: node-agent register TOKEN && systemctl enable --now node-agent"
		exit 0
	fi >/dev/null || die "node-agent is installed, and the registration failed: see above, and repeat the same command"
}

# serve starts the service and waits until the daemon says that all is well.
serve() {
	if [ ! -d /run/systemd/system ]; then
		say "$program is installed; systemd does not run here, so start it yourself ('$program --help')"
		exit 0
	fi
	systemctl enable "$program" >/dev/null 2>&1 || true
	systemctl start "$program" || die "$program did not start; see: journalctl -u $program"
	[ "$program" = node-agent ] || return 0
	tries=0
	# All is well, and the daemon has applied what Core configures.
	until node-agent status --check >status 2>problems && ! grep -q '^revision .*none running, [0-9]* wanted' status; do
		tries=$((tries + 1))
		if [ "$tries" -ge 30 ]; then
			cat status problems >&2
			die "the node is registered and runs, and something is wrong: see above"
		fi
		sleep 1
	done
	cat status
}

main() {
	from=${NODE_AGENT_RELEASE:-$release_url}
	key=${NODE_AGENT_RELEASE_KEY:-$release_key}
	unsigned=${NODE_AGENT_UNSIGNED:-0}
	token=${NODE_AGENT_TOKEN:-}
	token_file=${NODE_AGENT_TOKEN_FILE:-}
	unset NODE_AGENT_TOKEN NODE_AGENT_TOKEN_FILE
	program=node-agent
	count=$#
	while [ "$count" -gt 0 ]; do
		word=$1
		shift
		count=$((count - 1))
		case "$word" in
		--core) program=node-core ;;
		--unsigned) unsigned=1 ;;
		--token | --token-file | --from | --key | --name | --host | --ip | --region)
			[ "$count" -gt 0 ] || die "$word needs a value"
			value=$1
			shift
			count=$((count - 1))
			case "$word" in
			--token) token=$value token_file= ;;
			--token-file) token_file=$value token= ;;
			--from) from=$value ;;
			--key) key=$value ;;
			*) set -- "$@" "$word" "$value" ;; # what is left in the end goes to register
			esac
			;;
		*) die "$word is unknown; the beginning of this script says what there is" ;;
		esac
	done
	[ "$(id -u)" -eq 0 ] || die "run it as root"
	[ -n "$from" ] || die "give the folder or URL of the release with --from"
	from=${from%/}
	case "$from" in
	http://* | https://* | /*) ;;
	*) from=$PWD/$from ;;
	esac
	case "$token_file" in
	'' | - | /*) ;;
	*) token_file=$PWD/$token_file ;;
	esac
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	install_package
	if [ "$program" = node-agent ]; then
		register "$@"
		serve
		say "this node is registered and serves"
	else
		serve
		say "node-core serves; add a node with: node-core node add NAME"
	fi
}

# The last line calls everything: of a script that was cut short while it was fetched, nothing runs.
main "$@"
