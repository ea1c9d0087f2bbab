# What lives here, told without the engine: the cgroups of all processes, and the words of their command lines that look
# like a container's id (the shim or the monitor beside each container has it). Who cannot see process 1 sees not all.
[ -r /proc/1/cgroup ] && korch_word=all || korch_word=some
echo "@korch processes $korch_word"
cat /proc/[0-9]*/cgroup 2>/dev/null | sort -u
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -E '^[0-9a-f]{64}$' | sort -u
echo '@korch end'
