# Words: SHARED CLAIM EPOCH("" = leave it)
korch_open_lock
korch_lock -x
korch_claim "$1" "$2"
[ -z "$3" ] || korch_raise "$3"
korch_read_epoch
korch_unlock
read -r korch_token <"$korch_root/machine"
echo "@korch claimed $korch_token $korch_have"
echo '@korch end'
