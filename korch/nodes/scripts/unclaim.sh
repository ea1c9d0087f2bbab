# Words: EPOCH. Takes back the claim and what korch wrote for this cluster; the last cluster removes the folder's rest.
korch_enter "$1" 1 ''
korch_lock -x
korch_read_epoch
[ "$korch_have" -le "$1" ] || korch_refuse 75 fenced "$korch_have"
rm -rf "$korch_dir"
rm -f "$korch_root/claims/$korch_cluster" "$korch_root"/new.*
rmdir "$korch_root/claims" 2>/dev/null && rm -f "$korch_root/machine"
korch_unlock
echo '@korch done'
