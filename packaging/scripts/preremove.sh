# Before the removal. deb: $1 is "remove" or "upgrade"; rpm: $1 is the number of versions that stay.
# An upgrade stops nothing: the new version restarts what runs.
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl stop "$name" || true
	fi
	;;
esac
# rpm has no purge, which removes this link in Debian.
if [ "$1" = 0 ]; then
	rm -f "/etc/systemd/system/multi-user.target.wants/$name.service"
fi
