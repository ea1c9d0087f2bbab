# Words: EPOCH SHARED CLAIM ID... Removes images by id if korch brought them; the engine itself refuses those in use.
korch_epoch=$1
korch_enter "$1" "$2" "$3"
shift 3
korch_gone=
echo '@korch pruned'
for korch_id in "$@"; do
    grep -q -x -e "${korch_id#sha256:}" "$korch_dir/images" 2>/dev/null || continue
    if korch_out=$(exec 9>&-; "$korch_engine" rmi "${korch_id#sha256:}" 2>&1 </dev/null); then
        echo "$korch_id"
    else
        case $korch_out in
        *[Nn]'o such image'* | *'image not known'*) ;;
        *) continue ;;
        esac
    fi
    korch_gone="$korch_gone ${korch_id#sha256:} "
done
if [ -n "$korch_gone" ]; then
    korch_lock -x
    korch_kept=
    while read -r korch_id; do
        case $korch_gone in *" $korch_id "*) ;; *) korch_kept="$korch_kept$korch_id
" ;; esac
    done <"$korch_dir/images"
    printf %s "$korch_kept" >"$korch_dir/images.new" && mv -f "$korch_dir/images.new" "$korch_dir/images"
fi
korch_unlock
echo '@korch end'
