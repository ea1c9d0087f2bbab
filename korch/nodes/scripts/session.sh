# Words: SECONDS-A-PULSE PULSES-A-SAMPLE SILENCE-S FOLDER("" = by engine), then the words that print the engine's events
# (none = no events). Lives until stdin ends or stays silent for SILENCE-S, and takes everything that it started along.
# On stdout: "." is a pulse, with /proc lines before it a load sample; "events up|down"; "disk" and a line of df.
# On stderr: the engine's events, nothing else.
korch_every=$1 korch_share=$2 korch_silence=$3 korch_data=$4
shift 4
exec 3<&0 </dev/null
korch_pulse= korch_client= korch_disk=
for korch_folder in "$korch_data" /var/lib/docker /var/lib/containers/storage /var/lib; do
    [ -d "$korch_folder" ] && break
done

# True when the process group is this session's alone, as sshd gives one to each command: its leader is this shell, or
# the sudo before it. SIGKILL to the group then leaves nothing, whatever hangs.
korch_alone() {
    read -r korch_stat <"/proc/$$/stat" || return 1
    set -- ${korch_stat##*) }
    [ "$3" = $$ ] && return
    read -r korch_stat 2>/dev/null <"/proc/$3/comm" && [ "$korch_stat" = sudo ]
}

korch_leave() {
    korch_alone && kill -KILL 0
    [ -z "$korch_client" ] || kill -KILL "$korch_client" 2>/dev/null
    [ -z "$korch_pulse" ] || kill -TERM "$korch_pulse" 2>/dev/null
    exit 0
}

# A sample needs no program: read takes the first lines.
korch_sample() {
    set --
    for korch_file in loadavg uptime stat pressure/cpu pressure/memory pressure/io; do
        read -r korch_line 2>/dev/null <"/proc/$korch_file" && set -- "$@" "/proc/$korch_file:$korch_line"
    done
    korch_left=5
    while [ "$korch_left" -gt 0 ] && read -r korch_line; do
        set -- "$@" "/proc/meminfo:$korch_line"
        korch_left=$((korch_left - 1))
    done </proc/meminfo
    printf '%s\n' "$@" .
}

# df may hang with its disk: it runs aside, and never twice.
korch_look_disk() {
    [ -n "$korch_disk" ] && kill -0 "$korch_disk" 2>/dev/null && return
    df -Pk "$korch_folder" 2>/dev/null | while read -r korch_line; do echo "disk $korch_line"; done &
    korch_disk=$!
}

korch_tell() {
    [ "$korch_told" = "$1" ] || echo "events $1"
    korch_told=$1
}

# Keep the engine's client running, with a look at each pulse. The shell has waited for its sleep since the last look, and
# so for a client that ended meanwhile: kill -0 finds no zombie. Pauses between tries double up to 8 pulses.
korch_watch() {
    if [ -n "$korch_client" ]; then
        if kill -0 "$korch_client" 2>/dev/null; then
            korch_lived=$((korch_lived + 1))
            [ "$korch_lived" -lt 8 ] || korch_pause=0
            korch_tell up
            return
        fi
        korch_tell down
        korch_client= korch_wait=$korch_pause
        korch_pause=$((korch_pause * 2 + 1))
        [ "$korch_pause" -le 8 ] || korch_pause=8
    fi
    if [ "$korch_wait" -gt 0 ]; then
        korch_wait=$((korch_wait - 1))
        return
    fi
    # What happens until the engine listens to the client is told afterwards.
    "$@" --since "$(date +%s)" >&2 2>/dev/null &
    korch_client=$! korch_lived=0
}

# $$ is the shell that reads stdin, here too; the pulses end with it.
korch_beat() {
    korch_told= korch_lived=0 korch_wait=0 korch_pause=0 korch_tick=0
    trap korch_leave TERM
    while kill -0 $$ 2>/dev/null; do
        [ $((korch_tick % (korch_share * 10))) != 0 ] || korch_look_disk
        if [ $((korch_tick % korch_share)) = 0 ]; then korch_sample; else echo .; fi || korch_leave
        [ $# = 0 ] || korch_watch "$@"
        sleep "$korch_every"
        korch_tick=$((korch_tick + 1))
    done
    korch_leave
}

trap - EXIT
# sudo hands a signal on to this shell alone.
trap korch_leave TERM INT HUP
echo "@korch session $(grep -c '^cpu[0-9]' /proc/stat)"
korch_beat "$@" 3<&- &
korch_pulse=$!
# This shell never writes, so nothing can hold it up. dd gives what one read brings: nothing at the end.
while korch_word=$(exec timeout "$korch_silence" dd bs=64 count=1 2>/dev/null <&3) && [ -n "$korch_word" ]; do
    kill -0 "$korch_pulse" 2>/dev/null || break
done
korch_leave
