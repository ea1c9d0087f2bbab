# Words: SHARED CLAIM EPOCH("" = leave it). With an epoch the claim tells anew where the master lives.
korch_open_lock
korch_lock -x
korch_claim "$1" "$2"
if [ -n "$3" ]; then
    korch_raise "$3"
    korch_replace "$korch_root/claims/$korch_cluster" "$2"
    chmod 644 "$korch_root/claims/$korch_cluster"
fi
korch_read_epoch
korch_unlock
read -r korch_token <"$korch_root/machine"
echo "@korch claimed $korch_token $korch_have"
echo '@korch end'
