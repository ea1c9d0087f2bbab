# Words: NAME MARK... Ends what checks left in a container when their time was over: engines end only their own client. The
# mark stands in the environment of a check's program and of all that it started.
# Answers whether any is there still, and whether this user sees all processes. Where not, the container's programs are told
# as Docker sees them.
korch_name=$1
shift
[ -r /proc/1/environ ] && korch_word=all || korch_word=some
for korch_try in 1 2 3 4 5; do
    korch_left=0
    for korch_mark in "$@"; do
        for korch_file in $(grep -l -s -z -x -F "KORCH_PROBE=$korch_mark" /proc/[0-9]*/environ); do
            korch_pid=${korch_file#/proc/}
            kill -9 "${korch_pid%/*}" 2>/dev/null
            korch_left=1
        done
    done
    [ "$korch_left" = 1 ] || break
    sleep 0.1 2>/dev/null || sleep 1
done
echo "@korch left $korch_left $korch_word"
if [ "$korch_word" = some ]; then
    echo '@korch programs'
    "$korch_engine" top "$korch_name" -eo pid,args 2>/dev/null </dev/null
fi
echo '@korch end'
