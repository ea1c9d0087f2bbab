# All wishes that this machine keeps for the cluster, each line with its file's name before it.
echo '@korch wishes'
grep -e '' /dev/null "$korch_dir"/wishes/* 2>/dev/null
echo '@korch end'
