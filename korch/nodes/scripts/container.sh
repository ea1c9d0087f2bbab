# Words: TEMPLATE NAME
korch_out=$(timeout -k 2 20 "$korch_engine" inspect --type container --format "$1" -- "$2" 2>&1 </dev/null)
echo "@korch look $?"
printf '%s\n' "$korch_out"
echo '@korch clock'
date +%s.%N
echo '@korch end'
