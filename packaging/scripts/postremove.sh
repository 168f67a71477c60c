# After the removal. The state stays: another installation goes on with it. deb's purge ($1) removes
# it, with the service's user. rpm has no purge: docs/install.md says what to delete.
case "$1" in
purge)
	rm -rf "/var/lib/$name" "/etc/$name" "/run/$name"
	rm -f "/etc/systemd/system/multi-user.target.wants/$name.service"
	if getent passwd "$name" >/dev/null && command -v userdel >/dev/null 2>&1; then
		userdel "$name" || true
	fi
	;;
esac
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl reset-failed "$name" >/dev/null 2>&1 || true
fi
