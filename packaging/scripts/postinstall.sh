# After the installation or an upgrade. deb: $1 is "configure", $2 the version before. rpm: $1 is
# the number of versions that are installed.
case "$1" in
abort-*) exit 0 ;;
esac

if command -v systemd-sysusers >/dev/null 2>&1; then
	systemd-sysusers "$name.conf"
elif ! getent passwd "$name" >/dev/null; then
	useradd --system --user-group --home-dir "/var/lib/$name" --no-create-home --shell /usr/sbin/nologin "$name"
fi
# systemd-tmpfiles does nothing where /proc is not mounted, as while an image is built.
if ! { command -v systemd-tmpfiles >/dev/null 2>&1 && systemd-tmpfiles --create "$name.conf" 2>/dev/null; }; then
	install -d -m 0700 -o "$name" -g "$name" "/var/lib/$name"
fi

sysctl=/usr/lib/sysctl.d/90-$name.conf
if [ -f "$sysctl" ] && command -v sysctl >/dev/null 2>&1; then
	# A container may not change the host's kernel, and an old kernel lacks the key.
	sysctl -q -p "$sysctl" >/dev/null 2>&1 || true
fi

active=no
if [ -d /run/systemd/system ]; then
	# A node-agent whose Xray outlives it tries the new version before it gives way to it. One from
	# before reads its configuration alone at a reload: its unit, which systemd still has here, tells.
	how=restart
	if [ "$name" = node-agent ] && [ "$(systemctl show --value -p KillMode "$name" || true)" = process ]; then
		how=reload
	fi
	systemctl daemon-reload
	case "$(systemctl is-active "$name" || true)" in
	active | activating | reloading)
		# A unit that does not come up fails no upgrade: the journal says why.
		systemctl "$how" "$name" || systemctl restart "$name" || echo "$name did not start again; see: journalctl -u $name" >&2
		active=yes
		;;
	esac
fi

if [ "$active" = no ]; then
	if [ "$name" = node-agent ] && [ ! -e /var/lib/node-agent/node.db ]; then
		cat <<'EOF'

node-agent is installed, and not registered. 'node-core node add NAME' on the host of Core prints
a join token. Type here:

    node-agent register TOKEN
    systemctl enable --now node-agent

EOF
	elif [ "$name" = node-core ] && [ ! -e /var/lib/node-core/core.db ]; then
		cat <<'EOF'

node-core is installed, and not started. Name the address under which nodes reach it in
/etc/node-core/environment. Then type:

    systemctl enable --now node-core
    node-core node add NAME

EOF
	else
		cat <<EOF

$name is installed, has its state from before, and does not run. Type:

    systemctl enable --now $name

EOF
	fi
fi
